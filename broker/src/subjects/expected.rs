//! What a publisher expects of a partition, and what of it does not hold.

use std::fmt::{self, Display};

use weft_proto::{Error, Offset, PartitionId, Reason, v1};

use super::SubjectHash;

/// So many failed expectations are told in a sentence; programs get them all.
const TOLD_MAX: usize = 3;
/// So much of a subject is shown in a sentence.
const SHOWN_CHARS: usize = 80;

/// What must hold of a partition before a batch is appended to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectations {
    /// The number of the partition within its stream, for the answer.
    pub partition: PartitionId,
    /// Where it ends.
    pub end: Option<Offset>,
    /// Where the last events of subjects are.
    pub subjects: Vec<ExpectedSubject>,
}

/// Where the last event of a subject is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedSubject {
    /// The subject.
    pub subject: String,
    /// Its hash.
    pub hash: SubjectHash,
    /// Offset of its last event; none: there is no such event.
    pub offset: Option<Offset>,
}

impl Expectations {
    /// Whether nothing is expected.
    pub fn is_empty(&self) -> bool {
        self.end.is_none() && self.subjects.is_empty()
    }

    /// Bytes that it takes while it waits.
    pub fn bytes(&self) -> usize {
        let of_one = |one: &ExpectedSubject| one.subject.len() + size_of::<ExpectedSubject>();
        self.subjects.iter().map(of_one).sum()
    }

    /// Compares with what is: the end of the partition, and where the last event of each subject is,
    /// in the order of `subjects`.
    ///
    /// # Errors
    ///
    /// `WrongOffset` with everything that does not hold.
    pub fn check(&self, end: Offset, last: &[Option<Offset>]) -> Result<(), Error> {
        let partition = self.partition.get();
        let at_end = self.end.filter(|expected| *expected != end).map(|expected| {
            let (expected, actual) = (Some(expected.get()), Some(end.get()));
            v1::UnmetExpectation { partition, subject: None, expected, actual }
        });
        let wrong = self.subjects.iter().zip(last).filter(|(one, last)| one.offset != **last);
        let of_subjects = wrong.map(|(one, last)| v1::UnmetExpectation {
            partition,
            subject: Some(one.subject.clone()),
            expected: one.offset.map(Offset::get),
            actual: last.map(Offset::get),
        });
        let unmet: Vec<_> = at_end.into_iter().chain(of_subjects).collect();
        let Some(first) = unmet.first() else { return Ok(()) };
        let field = if first.subject.is_some() { "expected_subjects" } else { "expected_offset" };
        let error = Error::new(Reason::WrongOffset, sentence(&unmet)).with_field(field);
        Err(error.with_offset(end.get()).with_unmet(unmet))
    }
}

/// What does not hold, for people.
fn sentence(unmet: &[v1::UnmetExpectation]) -> String {
    let told: Vec<String> = unmet.iter().take(TOLD_MAX).map(|one| Told(one).to_string()).collect();
    let more = match unmet.len().saturating_sub(TOLD_MAX) {
        0 => String::new(),
        more => format!("; and {more} more expectations failed"),
    };
    told.join("; ") + &more
}

struct Told<'a>(&'a v1::UnmetExpectation);

impl Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v1::UnmetExpectation { partition, subject, expected, actual } = self.0;
        let Some(subject) = subject else {
            let [actual, expected] = [actual, expected].map(|offset| offset.unwrap_or_default());
            return write!(f, "the partition ends at offset {actual}, not at {expected}");
        };
        let shown: String = subject.chars().take(SHOWN_CHARS).collect();
        let cut = if shown.len() < subject.len() { "..." } else { "" };
        write!(f, "partition {partition} has ")?;
        match actual {
            Some(offset) => {
                write!(f, "the last event with subject {shown:?}{cut} at offset {offset}, ")?;
            }
            None => write!(f, "no event with subject {shown:?}{cut}, ")?,
        }
        match (expected, actual) {
            (Some(expected), Some(_)) => write!(f, "not at {expected}"),
            (Some(expected), None) => write!(f, "where the last one was expected at {expected}"),
            (None, _) => f.write_str("where none was expected"),
        }
    }
}
