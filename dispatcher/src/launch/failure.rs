//! Why an instance does not run.

use std::fmt;
use std::time::Duration;

/// What kind of trouble it is: the reason in the status of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The operator does not allow it.
    PolicyDenied,
    /// The image cannot be fetched.
    ImagePull,
    /// What is called an image is none, or cannot run here.
    BadImage,
    /// There is no room for it anywhere.
    Unschedulable,
    /// It would be more than its owner may have.
    Quota,
    /// It ends by itself.
    CrashLoop,
    /// It wanted more memory than it may have.
    Oom,
    /// It was not ready in time.
    StartTimeout,
    /// The machine it ran on is gone.
    NodeLost,
    /// It was sent away from its machine.
    Evicted,
    /// Its definition cannot work.
    Config,
    /// Whatever runs instances does not work.
    Engine,
}

impl FailureKind {
    /// The name, as a status shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PolicyDenied => "PolicyDenied",
            Self::ImagePull => "ImagePull",
            Self::BadImage => "BadImage",
            Self::Unschedulable => "Unschedulable",
            Self::Quota => "Quota",
            Self::CrashLoop => "CrashLoop",
            Self::Oom => "Oom",
            Self::StartTimeout => "StartTimeout",
            Self::NodeLost => "NodeLost",
            Self::Evicted => "Evicted",
            Self::Config => "Config",
            Self::Engine => "Engine",
        }
    }

    /// Whether it may end without anybody changing the function or a policy.
    pub const fn is_retryable(self) -> bool {
        !matches!(self, Self::PolicyDenied | Self::BadImage | Self::Config)
    }
}

/// Why an instance does not run, or runs no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// What kind of trouble it is.
    pub kind: FailureKind,
    /// What was said, word for word where somebody else said it.
    pub message: String,
    /// Whether the same might work later.
    pub is_retryable: bool,
    /// What the program ended with.
    pub exit_code: Option<i32>,
    /// Its last lines, where nobody else gets them.
    pub log_tail: Vec<String>,
    /// Before this nothing will have changed.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure of a kind, as retryable as those of its kind usually are.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            is_retryable: kind.is_retryable(),
            exit_code: None,
            log_tail: Vec::new(),
            retry_after: None,
        }
    }

    /// The definition of the function cannot work.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Config, message)
    }

    /// Whatever runs instances does not work.
    pub fn engine(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Engine, message)
    }

    /// The operator does not allow it.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(FailureKind::PolicyDenied, message)
    }

    /// The same with the code that the program ended with.
    #[must_use]
    pub fn with_exit_code(mut self, code: Option<i32>) -> Self {
        self.exit_code = code;
        self
    }

    /// The same with the last lines of the program.
    #[must_use]
    pub fn with_log_tail(mut self, lines: Vec<String>) -> Self {
        self.log_tail = lines;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.log_tail.last() {
            Some(line) => write!(f, "; its last line: {line}"),
            None => Ok(()),
        }
    }
}
