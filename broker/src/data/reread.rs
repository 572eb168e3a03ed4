//! After a start, reads the identities of the events appended lately from the log again.

use std::ops::ControlFlow;
use std::time::Duration;

use weft_proto::{Error, Reason, Result, Timestamp};

use super::{DataGroup, lock};
use crate::dedup::{IDS_MAX, WINDOW_TIME, Window};
use crate::entry::{Content, Entry};
use crate::raft::log::LogReader;
use crate::read::History;
use crate::store::StoreError;

/// Entries read in the first step back; each further step is twice as long.
const STEP: u64 = 64;
/// How often it is looked whether the commit is known again.
const PAUSE: Duration = Duration::from_millis(20);

/// Completes the window of a group; until then it may not propose.
///
/// # Errors
///
/// `DataLoss` for entries that cannot be read: the group must not lead then.
///
/// # Cancel safety
///
/// Dropping the future leaves the window as it was.
pub async fn reread_window(group: DataGroup, history: History) -> Result<()> {
    let upto = {
        let machine = lock(&group.machine);
        // Applied under this lock: without a first entry, the last one is that of the checkpoint.
        match machine.window_first() {
            Some(first) => first.saturating_sub(1),
            None => group.applied().borrow().index,
        }
    };
    // Right after the start the log may not know yet what was committed.
    while group.log.committed().unwrap_or(0) < upto {
        tokio::time::sleep(PAUSE).await;
    }
    let mut older = Window::new();
    let mut newest = None;
    let (mut end, mut step) = (upto.saturating_add(1), STEP);
    loop {
        let from = end.saturating_sub(step).max(group.log.first_index());
        if from >= end {
            break;
        }
        let log = group.log.clone();
        let piece = match history.run(move || read_piece(&log, from, end - 1)).await? {
            Ok(piece) => piece,
            // Trimmed meanwhile: begin behind it.
            Err(StoreError::Purged { .. }) => continue,
            Err(error) => return Err(damaged(error)),
        };
        let newest = *newest.get_or_insert(piece.last);
        older.prepend(piece.window);
        if newest.since(piece.first) > WINDOW_TIME || older.len() >= IDS_MAX {
            break;
        }
        (end, step) = (from, step.saturating_mul(2));
    }
    lock(&group.machine).complete_window(older);
    Ok(())
}

/// Some consecutive entries.
struct Piece {
    window: Window,
    /// Log time of the first and the last of them.
    first: Timestamp,
    last: Timestamp,
}

fn read_piece(log: &LogReader, from: u64, to: u64) -> Result<Piece, StoreError> {
    let mut window = Window::new();
    let mut times = None;
    log.scan(from, to, usize::MAX, &mut |stored| {
        let time = Timestamp::from_micros(stored.time);
        times = Some((times.map_or(time, |(first, _last)| first), time));
        let entry = stored.payload.as_ref().and_then(|payload| Entry::decode(payload).ok());
        if let Some(Entry { content: Content::Batches(batches), .. }) = entry {
            for batch in batches {
                // Void ones, too: where they would be is another event or none, and a look there
                // tells.
                let header = &batch.header;
                window.record(header.partition, header.expected, header.id_hashes(), time);
            }
        }
        ControlFlow::Continue(())
    })?;
    let (first, last) = times.unwrap_or_default();
    Ok(Piece { window, first, last })
}

fn damaged(error: StoreError) -> Error {
    let message = "the identities of stored events cannot be read";
    Error::new(Reason::DataLoss, message).with_source(error)
}
