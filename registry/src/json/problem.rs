//! Why bytes are not acceptable JSON, and where.

use std::fmt;

/// Why a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// Not UTF-8.
    Encoding,
    /// Not the grammar of JSON.
    Syntax,
    /// The same name twice in one object; readers disagree about which one counts.
    DuplicateKey,
    /// Nested deeper than [`DEPTH_MAX`](crate::DEPTH_MAX).
    TooDeep,
    /// A number beyond what a double can hold.
    NumberRange,
    /// Two gibibytes or more.
    TooLong,
}

/// A refused text: why, and at which byte, line and column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub kind: ProblemKind,
    /// Byte offset, from 0.
    pub offset: usize,
    /// Line, from 1.
    pub line: usize,
    /// Column in bytes, from 1.
    pub column: usize,
    expected: &'static str,
}

impl Problem {
    #[cold]
    pub(super) fn new(
        kind: ProblemKind,
        bytes: &[u8],
        offset: usize,
        expected: &'static str,
    ) -> Self {
        let before = &bytes[..offset.min(bytes.len())];
        let line = before.split(|byte| *byte == b'\n').count();
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Self { kind, offset, line, column: 1 + before.len() - line_start, expected }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at line {} column {}", self.expected, self.line, self.column)
    }
}

impl std::error::Error for Problem {}
