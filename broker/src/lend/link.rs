//! Between a member's session and a desk, on this node or another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weft_proto::{Error, Result, internal};

use super::trunk::Attachment;
use super::{elsewhere, host};
use crate::subscription::desk::MemberId;

pub use internal::lend_answer::Frame;
pub use internal::lend_request::Frame as Request;

/// Frames that may wait where answers go before events are lent there no more. Others go on: there
/// are few of them.
const WAITING_FRAMES: usize = 1_024;
/// The same for bytes of events, on the way to another node.
const WAITING_BYTES: usize = 8 << 20;

/// Where the answers of one link go: those of all links of a session go to one place.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Which link it is.
    link: usize,
    to: mpsc::Sender<(usize, Frame)>,
    /// Only this link is over.
    gone: CancellationToken,
    /// Bytes of events that wait, of all links; a session's own are bounded by credit.
    waiting: Option<Arc<AtomicUsize>>,
    /// Leases of another node come without their events.
    is_bare: bool,
}

impl Answers {
    /// Room for everything that a link may have to say before its session takes it: events within the
    /// largest credit, each in a frame of its own, and some.
    pub const LEN: usize = 4_096 + 256;

    /// Answers go to `to`, with this number.
    pub fn new(link: usize, to: mpsc::Sender<(usize, Frame)>) -> Self {
        Self { link, to, gone: CancellationToken::new(), waiting: None, is_bare: false }
    }

    /// The session finds events by their offsets itself, when another node lends them.
    #[must_use]
    pub fn without_events(self) -> Self {
        Self { is_bare: true, ..self }
    }

    /// Whether leases of another node come without their events.
    pub(super) fn is_bare(&self) -> bool {
        self.is_bare
    }

    /// The same way for a link that may end before the others; whoever takes events from it takes
    /// their bytes off `waiting`.
    pub(super) fn of_trunk(
        link: usize,
        to: mpsc::Sender<(usize, Frame)>,
        gone: CancellationToken,
        waiting: Arc<AtomicUsize>,
    ) -> Self {
        Self { link, to, gone, waiting: Some(waiting), is_bare: false }
    }

    /// Sends if there is room; says whether there was.
    pub(super) fn send(&self, frame: Frame) -> bool {
        let Some(waiting) = &self.waiting else {
            return self.to.try_send((self.link, frame)).is_ok();
        };
        let bytes = bytes_of(&frame);
        // Before it is there to be taken, or more might be taken off than there is.
        waiting.fetch_add(bytes, Ordering::Relaxed);
        let is_sent = self.to.try_send((self.link, frame)).is_ok();
        if !is_sent {
            waiting.fetch_sub(bytes, Ordering::Relaxed);
        }
        is_sent
    }

    /// Sends the last frame as soon as there is room.
    pub(super) async fn end(&self, error: &Error) {
        // Who is gone does not care.
        _ = self.to.send((self.link, ended(error))).await;
    }

    /// Whether events may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.to.max_capacity().saturating_sub(self.to.capacity()) < WAITING_FRAMES
            && self
                .waiting
                .as_ref()
                .is_none_or(|bytes| bytes.load(Ordering::Relaxed) < WAITING_BYTES)
    }

    /// Whether this node, which lends, leaves events out.
    pub(super) fn leaves_events_out(&self) -> bool {
        self.is_bare && self.waiting.is_some()
    }

    /// Waits until nobody takes answers any more.
    pub(super) async fn gone(&self) {
        tokio::select! {
            biased;
            () = self.to.closed() => {}
            () = self.gone.cancelled() => {}
        }
    }
}

/// Bytes of the events in a frame.
pub(super) fn bytes_of(frame: &Frame) -> usize {
    let Frame::Delivery(delivery) = frame else { return 0 };
    delivery.batch.iter().flat_map(|batch| &batch.events).map(bytes::Bytes::len).sum()
}

/// The way to a desk. The desk notices when it is dropped.
#[derive(Debug)]
pub enum Link {
    /// On this node.
    Here(MemberId, mpsc::Sender<host::Ask>),
    /// On another.
    There(Attachment),
}

impl Link {
    pub(super) fn here(member: MemberId, desk: mpsc::Sender<host::Ask>) -> Self {
        Self::Here(member, desk)
    }

    /// Sends to the desk.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the desk is gone; `ended` has come, or comes. Also when another node is far
    /// behind with what was sent to it: whoever waited for it here could not take its answers
    /// meanwhile, for which it may wait itself.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future sends nothing.
    pub async fn send(&self, request: Request) -> Result<()> {
        match self {
            Self::Here(member, desk) => {
                // A desk never waits for a member.
                let ask = host::Ask::Frame(*member, request);
                desk.send(ask).await.map_err(|_closed| elsewhere())
            }
            Self::There(attachment) => attachment.send(request),
        }
    }
}

/// The last frame.
pub(super) fn ended(error: &Error) -> Frame {
    Frame::Ended(error.into())
}
