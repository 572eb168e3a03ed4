//! Stores what a flow made, and says of each event what became of it.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};
use weft_proto::{Error, ErrorKind, QualifiedName, Reason};

use crate::delivery::{Random, backoff_max};
use crate::flow::Stored;
use crate::port::Mesh;

/// Longest wait until all are stored; the event is then tried again later.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest pause after the first failure; doubles with each further one.
const PAUSE_BASE: Duration = Duration::from_millis(50);
const PAUSE_CAP: Duration = Duration::from_secs(1);

/// Publishes events in their order. What cannot be stored at present is tried again for a while: to go
/// through the flow once more because a leader changes would repeat its requests.
pub(super) async fn publish(
    mesh: &dyn Mesh,
    stream: &QualifiedName,
    events: Vec<Bytes>,
) -> Vec<Stored> {
    let until = Instant::now() + PUBLISH_TIMEOUT;
    let mut random = Random::new(events.len() as u64);
    let mut results: Vec<Option<Stored>> = vec![None; events.len()];
    let mut failures = 0;
    loop {
        let open: Vec<usize> = open(&results);
        let batch: Vec<Bytes> =
            open.iter().filter_map(|place| events.get(*place).cloned()).collect();
        let published = match timeout_at(until, mesh.publish(stream, batch)).await {
            Ok(Ok(each)) => each,
            Ok(Err(error)) => open.iter().map(|_| Err(copy(&error))).collect(),
            Err(_) => open.iter().map(|_| Err(late())).collect(),
        };
        let mut last = late();
        for (place, result) in open.into_iter().zip(published) {
            let Some(slot) = results.get_mut(place) else { continue };
            match result {
                Err(error) if error.is_retryable() => last = error,
                result => *slot = Some(read(result, stream)),
            }
        }
        if results.iter().all(Option::is_some) {
            return results.into_iter().flatten().collect();
        }
        failures += 1;
        let high = backoff_max(PAUSE_BASE, PAUSE_CAP, failures);
        let pause = random.between(high / 2, high).max(last.retry_after().unwrap_or_default());
        if Instant::now() + pause >= until {
            let unavailable = || Stored::Unavailable(format!("{stream}: {}", last.message()));
            return results.into_iter().map(|one| one.unwrap_or_else(unavailable)).collect();
        }
        sleep(pause).await;
    }
}

fn open(results: &[Option<Stored>]) -> Vec<usize> {
    let places = results.iter().enumerate();
    places.filter(|(_, result)| result.is_none()).map(|(place, _)| place).collect()
}

fn read(result: Result<(), Error>, stream: &QualifiedName) -> Stored {
    let Err(error) = result else { return Stored::Yes };
    match (error.reason(), error.kind()) {
        (Reason::AlreadyExists | Reason::IdentityReused, _) => Stored::Differently,
        (_, ErrorKind::Invalid) => Stored::Refused(format!("{stream}: {}", error.message())),
        // A stream that is missing or closed is our operator's trouble, not the event's.
        _ => Stored::Unavailable(format!("{stream}: {}", error.message())),
    }
}

fn copy(error: &Error) -> Error {
    let copied = Error::new(error.reason(), error.message());
    match error.retry_after() {
        Some(after) => copied.with_retry_after(after),
        None => copied,
    }
}

fn late() -> Error {
    Error::new(Reason::DeadlineExceeded, "no answer in time")
}
