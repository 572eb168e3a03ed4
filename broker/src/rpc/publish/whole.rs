//! Requests whose events are stored together or not at all, as far as that is known before any is
//! appended: those of the HTTP port.

use bytes::Bytes;
use weft_proto::resource::Verb;
use weft_proto::trace::TraceContext;
use weft_proto::{AckLevel, Error, QualifiedName, Result, v1};

use super::spans::Publishing;
use super::{Parcels, Service, outcome_of, sort};
use crate::access::{Caller, Decision, authorize};
use crate::ingest::{Batch, Payload, check_size};
use crate::resources::StreamView;

/// What became of the events of a request.
#[derive(Debug)]
pub enum Whole {
    /// All are stored; in the order of the request.
    Stored(Vec<v1::Receipt>),
    /// None is stored: these are refused, by their place in the request.
    Refused(Vec<(usize, Error)>),
    /// Some may be stored. Whoever sends the request again doubles nothing where the stream looks
    /// for repeats.
    Parted(Vec<Result<v1::Receipt>>),
}

impl Service {
    /// A stream that the caller may publish to, before anything of the request is read.
    ///
    /// # Errors
    ///
    /// `PermissionDenied`, `UnknownStream`.
    pub fn open(&self, caller: &Caller, stream: &QualifiedName) -> Result<(StreamView, Decision)> {
        let allowed = authorize(caller, Verb::Publish, stream)?;
        Ok((self.ingest.resources().stream_named(&stream.to_string())?, allowed))
    }

    /// Appends encoded events; `trace` is that of the request.
    ///
    /// # Errors
    ///
    /// What concerns all of the events.
    pub async fn whole(
        &self,
        caller: &Caller,
        stream: &(StreamView, Decision),
        mut events: Vec<Bytes>,
        trace: Option<TraceContext>,
    ) -> Result<Whole> {
        let name = || stream.0.name.to_string();
        let publishing = Publishing::of_message(&self.tracer, name, trace, &events);
        publishing.put(&stream.0, &mut events);
        let result = self.stored(caller, stream, events, &publishing).await;
        publishing.end(result.as_ref().err());
        result
    }

    async fn stored(
        &self,
        caller: &Caller,
        (stream, allowed): &(StreamView, Decision),
        events: Vec<Bytes>,
        publishing: &Publishing,
    ) -> Result<Whole> {
        let count = events.len();
        if count == 0 {
            return Ok(Whole::Stored(Vec::new()));
        }
        check_size(&events)?;
        let _room = self.room.take(events.iter().map(Bytes::len).sum(), count).await?;
        // Alone, an event is told what is wrong with itself.
        let mut atomic = count > 1;
        if atomic {
            let (refused, has_delayed) = self.ingest.foresee(stream, &events, allowed)?;
            if !refused.is_empty() {
                return Ok(Whole::Refused(refused.into_iter().map(indexed).collect()));
            }
            // What is delivered later is stored elsewhere: no one entry can have both.
            atomic = !has_delayed;
        }
        let Parcels { by_partition, refused } = sort(stream, events, None, false)?;
        if !refused.is_empty() {
            return Ok(Whole::Refused(refused));
        }
        let mut submitted = Vec::with_capacity(by_partition.len());
        for (partition, parcel) in by_partition {
            let batch = Batch {
                events: Payload::Plain(parcel.events),
                identity: None,
                atomic,
                expected_offset: None,
                ack: AckLevel::default(),
                expected_subjects: Vec::new(),
            };
            let appending = publishing.append(partition);
            let waiting = self.ingest.submit(caller, stream, partition, batch).await;
            submitted.push((partition, parcel.indexes, waiting, appending));
        }
        let is_alone = submitted.len() == 1;
        let mut results: Vec<Option<v1::PublishResult>> = vec![None; count];
        let mut failures: Vec<(usize, Error)> = Vec::new();
        for (partition, indexes, waiting, appending) in submitted {
            match outcome_of(waiting, appending).await {
                Ok(outcome) => self.receipts(partition, &indexes, &outcome, &mut results),
                Err(error) if is_alone => return Err(error),
                Err(error) => failures.extend(indexes.iter().map(|&at| (at, again(&error)))),
            }
        }
        Ok(sum_up(results, failures))
    }
}

fn indexed(refusal: v1::IndexedRefusal) -> (usize, Error) {
    let index = usize::try_from(refusal.index).unwrap_or(usize::MAX);
    (index, Error::from_refusal(refusal.refusal.unwrap_or_default()))
}

/// The same error for another event.
fn again(error: &Error) -> Error {
    v1::BatchFailure::from(error).into()
}

fn sum_up(results: Vec<Option<v1::PublishResult>>, failures: Vec<(usize, Error)>) -> Whole {
    use v1::publish_result::Outcome;
    let mut failures = failures.into_iter().collect::<std::collections::BTreeMap<_, _>>();
    let result = |(index, result): (usize, Option<v1::PublishResult>)| match result {
        Some(v1::PublishResult { outcome: Some(Outcome::Receipt(receipt)) }) => Ok(receipt),
        Some(v1::PublishResult { outcome: Some(Outcome::Refusal(refusal)) }) => {
            Err(Error::from_refusal(refusal))
        }
        Some(v1::PublishResult { outcome: None }) | None => {
            let unknown = || Error::unavailable("the fate of the event is unknown");
            Err(failures.remove(&index).unwrap_or_else(unknown))
        }
    };
    let results: Vec<Result<v1::Receipt>> = results.into_iter().enumerate().map(result).collect();
    if results.iter().all(Result::is_err)
        && results.iter().filter_map(|one| one.as_ref().err()).all(Error::not_applied)
    {
        let refused = results.into_iter().enumerate();
        return Whole::Refused(
            refused.filter_map(|(index, result)| Some((index, result.err()?))).collect(),
        );
    }
    if results.iter().all(Result::is_ok) {
        return Whole::Stored(results.into_iter().flatten().collect());
    }
    Whole::Parted(results)
}
