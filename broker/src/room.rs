//! Bytes that may wait in one place: whoever finds none free waits a little, then is told to come
//! back later.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use weft_proto::{Error, Reason, Result};

use crate::metrics as names;

/// How long a caller waits for room; longer waits are the caller's to do, out of this memory.
const PATIENCE: Duration = Duration::from_millis(500);
/// When to come back.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// A limited number of bytes; clones share it.
#[derive(Clone)]
pub struct Room {
    bytes: Arc<Semaphore>,
    bytes_max: usize,
    place: &'static str,
    shown: Arc<Shown>,
}

struct Shown {
    bytes: Gauge,
    events: Gauge,
    waits: Counter,
    refusals: Counter,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Room that was taken; given back when it is dropped.
#[derive(Debug)]
pub struct Taken {
    room: Room,
    bytes: OwnedSemaphorePermit,
    events: usize,
}

impl Room {
    /// Room for so many bytes; the metrics show it under the name of the place.
    pub fn new(place: &'static str, bytes_max: usize) -> Self {
        let shown = Shown {
            bytes: metrics::gauge!(names::ROOM_BYTES, "place" => place),
            events: metrics::gauge!(names::ROOM_EVENTS, "place" => place),
            waits: metrics::counter!(names::ROOM_WAITS, "place" => place),
            refusals: metrics::counter!(names::ROOM_REFUSALS, "place" => place),
        };
        let bytes = Arc::new(Semaphore::new(bytes_max));
        Self { bytes, bytes_max, place, shown: Arc::new(shown) }
    }

    /// Takes room for some events; what is larger than all of it takes all of it.
    ///
    /// # Errors
    ///
    /// `Overloaded` when there is none within half a second; nothing was applied.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes nothing.
    pub async fn take(&self, bytes: usize, events: usize) -> Result<Taken> {
        let permits = u32::try_from(bytes.clamp(1, self.bytes_max)).unwrap_or(u32::MAX);
        let bytes = match Arc::clone(&self.bytes).try_acquire_many_owned(permits) {
            Ok(bytes) => bytes,
            Err(_full) => {
                self.shown.waits.increment(1);
                let free = Arc::clone(&self.bytes).acquire_many_owned(permits);
                match timeout(PATIENCE, free).await {
                    Ok(Ok(bytes)) => bytes,
                    Ok(Err(_)) | Err(_) => return Err(self.full()),
                }
            }
        };
        let taken = Taken { room: self.clone(), bytes, events };
        let (bytes, events) = taken.amounts();
        self.shown.bytes.increment(bytes);
        self.shown.events.increment(events);
        Ok(taken)
    }

    /// Bytes that are taken.
    pub fn used(&self) -> usize {
        self.bytes_max.saturating_sub(self.bytes.available_permits())
    }

    /// Bytes that there are.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    fn full(&self) -> Error {
        self.shown.refusals.increment(1);
        let message = format!(
            "more is published than can be stored: {} bytes wait already ({})",
            self.used(),
            self.place
        );
        Error::new(Reason::Overloaded, message).with_not_applied().with_retry_after(RETRY_AFTER)
    }
}

impl Taken {
    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.bytes.num_permits()
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges")]
    fn amounts(&self) -> (f64, f64) {
        (self.bytes() as f64, self.events as f64)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let (bytes, events) = self.amounts();
        self.room.shown.bytes.decrement(bytes);
        self.room.shown.events.decrement(events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_is_told_to_come_back_and_nothing_was_applied() {
        let room = Room::new("test", 100);
        let first = room.take(80, 3).await.unwrap();

        let refused = room.take(40, 1).await.unwrap_err();

        assert_eq!(refused.reason(), Reason::Overloaded);
        assert!(refused.not_applied());
        assert_eq!(refused.retry_after(), Some(RETRY_AFTER));
        assert_eq!(room.used(), 80);
        drop(first);
        assert_eq!(room.used(), 0);
        assert!(room.take(40, 1).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn room_that_gets_free_in_time_is_taken_in_order() {
        let room = Room::new("test", 100);
        let first = room.take(100, 1).await.unwrap();
        let (waiting, freed) = tokio::join!(room.take(60, 1), async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(first);
        });

        assert!(waiting.is_ok());
        assert_eq!((room.used(), freed), (60, ()));
    }

    #[tokio::test]
    async fn what_is_larger_than_all_takes_all() {
        let room = Room::new("test", 100);

        let taken = room.take(1_000, 1).await.unwrap();

        assert_eq!((taken.bytes(), room.used()), (100, 100));
    }
}
