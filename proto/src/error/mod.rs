//! The one error a caller sees: what to do (`ErrorKind`), which case (`Reason`), and a sentence.

mod failure;
mod reason;
mod status;
mod transport;

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

pub use reason::Reason;

use crate::v1;

/// What the caller should do about an error. A new kind needs a decision record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// The request can never succeed; correct it.
    Invalid,
    /// The caller may not do this, or is not known.
    Denied,
    /// What the request names does not exist, or no longer.
    NotFound,
    /// The state is not what the request assumed; look again, then decide.
    Conflict,
    /// A limit is reached; slow down, then retry.
    Overloaded,
    /// No answer could be had in time. A retry is safe; on a write the fate is unknown unless
    /// [`Error::not_applied`] says otherwise.
    Unavailable,
    /// Something is broken; an operator should look.
    Internal,
}

impl ErrorKind {
    /// Whether the same request may succeed later without being changed.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Overloaded | Self::Unavailable)
    }

    /// The name on the wire and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// Reads the name on the wire.
    pub fn from_wire(text: &str) -> Option<Self> {
        Some(match text {
            "invalid" => Self::Invalid,
            "denied" => Self::Denied,
            "not_found" => Self::NotFound,
            "conflict" => Self::Conflict,
            "overloaded" => Self::Overloaded,
            "unavailable" => Self::Unavailable,
            "internal" => Self::Internal,
            _ => return None,
        })
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as a caller sees it: kind and reason for programs, message for people, source for
/// operators.
///
/// `Display` is the message alone; loggers walk the sources.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    reason: Reason,
    message: String,
    field: Option<String>,
    schema: Option<v1::SchemaRef>,
    retry_after: Option<Duration>,
    not_applied: bool,
    leader: Option<String>,
    offset: Option<u64>,
    unmet: Vec<v1::UnmetExpectation>,
    unmet_omitted: u32,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of the kind that belongs to the reason.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind: reason.kind(),
            reason,
            message: message.into(),
            field: None,
            schema: None,
            retry_after: None,
            not_applied: false,
            leader: None,
            offset: None,
            unmet: Vec::new(),
            unmet_omitted: 0,
            source: None,
        }))
    }

    /// A request that can never succeed.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Reason::InvalidArgument, message)
    }

    /// Something is broken.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Reason::Internal, message)
    }

    /// No answer could be had.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Reason::Unavailable, message)
    }

    /// Names the part of the request that is wrong: a field path, an attribute or a JSON pointer.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Says more about where it happened, in front of the message.
    #[must_use]
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        self.0.message.insert_str(0, prefix);
        self
    }

    /// Names the schema that was violated.
    #[must_use]
    pub fn with_schema(mut self, schema: v1::SchemaRef) -> Self {
        self.0.schema = Some(schema);
        self
    }

    /// Tells when a retry makes sense.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// States that it is certain that nothing was written.
    #[must_use]
    pub fn with_not_applied(mut self) -> Self {
        self.0.not_applied = true;
        self
    }

    /// Tells which client address leads.
    #[must_use]
    pub fn with_leader(mut self, address: impl Into<String>) -> Self {
        self.0.leader = Some(address.into());
        self
    }

    /// Tells the offset that the error is about: where the other event is, or where the partition
    /// ends or begins.
    #[must_use]
    pub fn with_offset(mut self, offset: u64) -> Self {
        self.0.offset = Some(offset);
        self
    }

    /// Names the expectations of a publish request that did not hold.
    #[must_use]
    pub fn with_unmet(mut self, unmet: Vec<v1::UnmetExpectation>) -> Self {
        self.0.unmet = unmet;
        self
    }

    /// Keeps the cause, for operators.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Which case of that kind.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// The sentence for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The wrong part of the request.
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// The violated schema.
    pub fn schema(&self) -> Option<&v1::SchemaRef> {
        self.0.schema.as_ref()
    }

    /// When a retry makes sense.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether it is certain that nothing was written. Codes that leave the fate of a write open
    /// say so only when marked.
    pub fn not_applied(&self) -> bool {
        self.0.not_applied || !matches!(self.0.kind, ErrorKind::Unavailable | ErrorKind::Internal)
    }

    /// Client address of the leader, where known.
    pub fn leader(&self) -> Option<&str> {
        self.0.leader.as_deref()
    }

    /// The offset that the error is about, where there is one.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// The expectations of a publish request that did not hold: all of them, but for those that
    /// [`Error::unmet_omitted`] counts.
    pub fn unmet(&self) -> &[v1::UnmetExpectation] {
        &self.0.unmet
    }

    /// How many more expectations did not hold than the answer had room for.
    pub fn unmet_omitted(&self) -> u32 {
        self.0.unmet_omitted
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// As the refusal of one event in a batch.
    pub fn to_refusal(&self) -> v1::Refusal {
        v1::Refusal {
            kind: self.0.kind.as_str().to_owned(),
            reason: self.0.reason.as_str().to_owned(),
            message: self.0.message.clone(),
            field: self.0.field.clone().unwrap_or_default(),
            schema: self.0.schema.clone(),
            offset: self.0.offset,
            unmet: self.0.unmet.clone(),
        }
    }

    /// From the refusal of one event. An unknown reason of a newer server keeps its kind.
    pub fn from_refusal(refusal: v1::Refusal) -> Self {
        let reason = Reason::from_wire(&refusal.reason).unwrap_or(Reason::Internal);
        let mut error = Self::new(reason, refusal.message);
        if let Some(kind) = ErrorKind::from_wire(&refusal.kind) {
            error.0.kind = kind;
        }
        error.0.field = Some(refusal.field).filter(|field| !field.is_empty());
        error.0.schema = refusal.schema;
        error.0.offset = refusal.offset;
        error.0.unmet = refusal.unmet;
        error
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
