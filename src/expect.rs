//! What `weft publish` expects of a stream before anything is published to it.

use std::fmt::Write as _;

use anyhow::Context as _;
use bytes::Bytes;
use weft_client::{AckLevel, Client, Error};
use weft_proto::v1::publish_result::Outcome;
use weft_proto::v1::{self, ExpectedOffset, ExpectedSubject, PublishRequest};

/// Expectations of `weft publish`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Expect {
    /// Publish only if this partition ends at this offset: one past its last event. The whole input is
    /// then one request
    #[arg(long = "expect", value_name = "PARTITION=OFFSET", value_parser = end)]
    ends: Vec<ExpectedOffset>,

    /// Publish only if the last event with this subject, in its partition, is at this offset, or if
    /// there is none. Needs a stream with an index of subjects
    #[arg(long = "expect-subject", value_name = "SUBJECT=OFFSET|none", value_parser = subject)]
    subjects: Vec<ExpectedSubject>,
}

fn end(text: &str) -> Result<ExpectedOffset, String> {
    let (partition, offset) = text.split_once('=').ok_or("write PARTITION=OFFSET, such as 0=17")?;
    let partition = partition.parse().map_err(|_wrong| {
        format!("{partition:?} is no partition; for a subject, write --expect-subject")
    })?;
    let offset = offset
        .parse()
        .map_err(|_wrong| format!("{offset:?} is no offset; an empty partition ends at 0"))?;
    Ok(ExpectedOffset { partition, offset })
}

fn subject(text: &str) -> Result<ExpectedSubject, String> {
    // A subject may have the sign itself.
    let (subject, offset) =
        text.rsplit_once('=').ok_or("write SUBJECT=OFFSET, such as cart/1=17, or SUBJECT=none")?;
    if subject.is_empty() {
        return Err("the subject is empty".to_owned());
    }
    let offset = match offset {
        "none" => None,
        offset => Some(offset.parse().map_err(|_wrong| {
            format!("{offset:?} is neither an offset nor none, for a subject without events")
        })?),
    };
    Ok(ExpectedSubject { subject: subject.to_owned(), offset, partition: None })
}

impl Expect {
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.subjects.is_empty()
    }

    /// Publishes all events in one request; one result for each, in order.
    pub(crate) async fn publish(
        self,
        client: &Client,
        stream: &str,
        events: Vec<Bytes>,
        ack: AckLevel,
    ) -> anyhow::Result<Vec<Result<v1::Receipt, Error>>> {
        let request = PublishRequest {
            stream: stream.to_owned(),
            events,
            expected: self.ends,
            expected_subjects: self.subjects,
            ack: ack.to_wire().into(),
            ..PublishRequest::default()
        };
        match client.publish_once(request).await {
            Ok(results) => results.into_iter().map(result).collect(),
            Err(error) if !error.unmet().is_empty() => Err(anyhow::anyhow!(told(&error))),
            Err(error) if !error.not_applied() => Err(error).context(
                "nobody knows whether the events are stored; run the same again: if they are, it \
                 says so, or that the expectation fails",
            ),
            Err(error) => Err(error.into()),
        }
    }
}

fn result(result: v1::PublishResult) -> anyhow::Result<Result<v1::Receipt, Error>> {
    match result.outcome {
        Some(Outcome::Receipt(receipt)) => Ok(Ok(receipt)),
        Some(Outcome::Refusal(refusal)) => Ok(Err(Error::from_refusal(refusal))),
        None => anyhow::bail!("the answer lacks the result of an event"),
    }
}

/// Every expectation that failed, a line each.
fn told(error: &Error) -> String {
    let mut text = format!("nothing was published ({}):", error.reason());
    let place = |offset: Option<u64>| offset.map_or_else(|| "none".to_owned(), |at| at.to_string());
    for unmet in error.unmet() {
        let partition = unmet.partition;
        let (expected, actual) = (place(unmet.expected), place(unmet.actual));
        let line = match &unmet.subject {
            Some(subject) => format!(
                "partition {partition}: last event with subject {subject:?}: {actual}, expected {expected}"
            ),
            None => format!("partition {partition}: ends at {actual}, expected {expected}"),
        };
        // Writing to a text cannot fail.
        _ = write!(text, "\n  {line}");
    }
    if error.unmet_omitted() > 0 {
        _ = write!(text, "\n  and {} more", error.unmet_omitted());
    }
    text
}

#[cfg(test)]
mod tests {
    use weft_client::Reason;

    use super::*;

    #[test]
    fn expectations_are_read_and_wrong_ones_say_what_is_right() {
        assert_eq!(end("3=17").unwrap(), ExpectedOffset { partition: 3, offset: 17 });
        let one = subject("a=b=7").unwrap();
        assert_eq!((one.subject.as_str(), one.offset), ("a=b", Some(7)));
        assert_eq!(subject("cart/1=none").unwrap().offset, None);

        for (text, hint) in [("17", "0=17"), ("cart=1", "--expect-subject"), ("0=none", "at 0")] {
            let refused = end(text).unwrap_err();
            assert!(refused.contains(hint), "{text}: {refused}");
        }
        for (text, hint) in [("cart", "SUBJECT=none"), ("=3", "empty"), ("a=-1", "nor none")] {
            let refused = subject(text).unwrap_err();
            assert!(refused.contains(hint), "{text}: {refused}");
        }
    }

    #[test]
    fn every_failed_expectation_has_its_line() {
        let unmet = |subject: Option<&str>, expected, actual| v1::UnmetExpectation {
            partition: 2,
            subject: subject.map(str::to_owned),
            expected,
            actual,
        };
        let error = Error::new(Reason::WrongOffset, "").with_unmet(vec![
            unmet(None, Some(8), Some(9)),
            unmet(Some("cart/1"), None, Some(4)),
            unmet(Some("cart/2"), Some(4), None),
        ]);

        let lines = [
            "nothing was published (WRONG_OFFSET):",
            "  partition 2: ends at 9, expected 8",
            "  partition 2: last event with subject \"cart/1\": 4, expected none",
            "  partition 2: last event with subject \"cart/2\": none, expected 4",
        ];
        assert_eq!(told(&error), lines.join("\n"));
    }
}
