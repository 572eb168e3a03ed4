//! Writes this node's records to `_weft.audit`, behind those of the other nodes.
//!
//! *Owns* the queue's other end. The chain needs no lock between nodes: an event goes exactly where
//! its writer saw the end, or nowhere, and then the writer looks again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use weft_proto::event::EventView;
use weft_proto::{AckLevel, Error, Offset, PartitionId, Principal, QualifiedName, Reason, Result};

use super::chain::{self, FIRST, Link, Writer};
use super::{Entry, Inbox, Outcome, Record};
use crate::access::Caller;
use crate::ingest::{Batch, Ingest, Payload};
use crate::read::{History, Tape};
use crate::resources::StreamView;

/// Records of one batch.
const BATCH_LEN: usize = 256;
/// How long refusals may wait for others like them: a flood of them becomes a few records.
const GATHER: Duration = Duration::from_millis(200);
/// Between two attempts while the stream cannot be written.
const RETRY: Duration = Duration::from_millis(200);
/// The stream has one, so that it has one order.
const PARTITION: PartitionId = PartitionId(0);
/// Read at once while the end is looked for.
const READ_BYTES: usize = 256 << 10;

/// The writer of one node.
#[derive(Debug)]
pub struct Loop {
    inbox: Inbox,
    ingest: Ingest,
    history: History,
    system: Caller,
    writer: Writer,
    /// The end of the stream and the hash of its last event, as far as this node knows.
    end: Option<(Offset, Link)>,
}

/// A record and who waits for it.
struct Pending {
    id: String,
    entry: Entry,
}

impl Loop {
    /// A writer over this node's groups.
    pub fn new(
        inbox: Inbox,
        (ingest, history): (Ingest, History),
        system: Caller,
        writer: Writer,
    ) -> Self {
        Self { inbox, ingest, history, system, writer, end: None }
    }

    /// Writes until `stop`.
    ///
    /// # Errors
    ///
    /// None: what cannot be written now is tried again.
    pub async fn run(mut self, stop: CancellationToken) -> Result<()> {
        loop {
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                first = self.inbox.entries.recv() => first,
            };
            let Some(first) = first else { return Ok(()) };
            let batch = self.gather(first).await;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.store(batch) => {}
            }
        }
    }

    /// What is in the queue, refusals of the same kind counted together.
    async fn gather(&mut self, first: Entry) -> Vec<Pending> {
        if first.done.is_none() {
            // Nobody waits for it; others like it may come.
            sleep(GATHER).await;
        }
        let mut batch: Vec<Pending> = Vec::new();
        let mut next = Some(first);
        // No more than were there: others may come as fast as these are taken.
        let mut left = self.inbox.entries.len();
        while let Some(entry) = next.take() {
            let like = batch.iter_mut().find(|other| {
                let waits = other.entry.done.is_some() || entry.done.is_some();
                !waits && other.entry.record.is_like(&entry.record)
            });
            match like {
                Some(other) => other.entry.record.count += entry.record.count,
                None => batch.push(Pending { id: self.writer.id(), entry }),
            }
            if batch.len() < BATCH_LEN && left > 0 {
                left -= 1;
                next = self.inbox.entries.try_recv().ok();
            }
        }
        let missed = self.inbox.missed.swap(0, Ordering::Relaxed);
        if missed > 0 {
            let mut record = Record::new("missed", &Principal::system(), Outcome::Denied)
                .because("refusals that came faster than they could be recorded");
            record.count = missed;
            let entry = Entry { record, done: None };
            batch.push(Pending { id: self.writer.id(), entry });
        }
        batch
    }

    /// Stores a batch, however long it takes. Whoever waits for it stops waiting by itself.
    async fn store(&mut self, batch: Vec<Pending>) {
        // Where an attempt of unknown fate would have gone.
        let mut open = None;
        let mut warned = false;
        while let Err(error) = self.attempt(&batch, &mut open).await {
            self.end = None;
            // Another node was first; where the end is now is asked of a majority.
            if error.reason() == Reason::WrongOffset {
                continue;
            }
            if !std::mem::replace(&mut warned, true) {
                warn!(%error, "audit records wait to be written");
            }
            sleep(RETRY).await;
        }
        for done in batch.into_iter().filter_map(|pending| pending.entry.done) {
            // Whoever left it may have gone.
            _ = done.send(Ok(()));
        }
    }

    async fn attempt(&mut self, batch: &[Pending], open: &mut Option<Offset>) -> Result<()> {
        let stream = self.ingest.resources().stream_named(&QualifiedName::audit().to_string())?;
        let (end, mut last) = match self.end {
            Some(known) => known,
            None => match self.find_end(&stream, batch, *open).await? {
                Some(found) => found,
                None => return Ok(()),
            },
        };
        let mut events = Vec::with_capacity(batch.len());
        for pending in batch {
            let event = chain::event(&self.writer.source, &pending.id, &pending.entry.record, last);
            last = Link::of(&event);
            events.push(Bytes::from(event));
        }
        let count = events.len() as u64;
        let wanted = Batch {
            events: Payload::Plain(events),
            identity: None,
            atomic: true,
            expected_offset: Some(end),
            expected_subjects: Vec::new(),
            ack: AckLevel::Durable,
        };
        let stored =
            async { self.ingest.submit(&self.system, &stream, PARTITION, wanted).await?.await };
        let outcome = stored.await.inspect_err(|error| {
            if !error.not_applied() && open.is_none() {
                *open = Some(end);
            }
        })?;
        if let Some(refused) = outcome.refusals.into_iter().next() {
            return Err(Error::from_refusal(refused.refusal.unwrap_or_default()));
        }
        self.end = Some((Offset(end.get().saturating_add(count)), last));
        Ok(())
    }

    /// Looks where the stream ends now; nothing when the batch is there already, by an attempt of
    /// unknown fate that would have gone to `open`.
    async fn find_end(
        &self,
        stream: &StreamView,
        batch: &[Pending],
        open: Option<Offset>,
    ) -> Result<Option<(Offset, Link)>> {
        let placement = stream.placement(PARTITION)?;
        self.ingest.confirm(placement.group).await?;
        let group = self.ingest.group(placement.group)?.clone();
        let bounds = group.bounds(placement.uid);
        let newest = Offset(bounds.end.get().saturating_sub(1));
        let from = open.unwrap_or(newest).min(newest).max(bounds.floor);
        let mut tape = Tape::new(group, placement.uid, self.history.clone(), from);
        let mut last = FIRST;
        let ours = batch.first().map(|pending| pending.id.as_str());
        while tape.next() < bounds.end {
            let runs = tape.read(bounds.end, READ_BYTES).await?;
            if runs.is_empty() {
                return Err(Error::unavailable("the end of _weft.audit is not here yet"));
            }
            for event in runs.iter().flat_map(|run| &run.events) {
                let id = EventView::parse(event).map(|view| view.id.to_owned());
                // A batch is stored as a whole.
                if open.is_some() && id.as_deref() == ours {
                    return Ok(None);
                }
                last = Link::of(event);
            }
        }
        Ok(Some((bounds.end, last)))
    }
}
