//! Between a member's session and a desk, on this node or another.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use weft_proto::{Error, NodeId, Result, internal};

use super::{elsewhere, host};
use crate::ingest::Forwarder;
use crate::subscription::desk::MemberId;
use crate::tasks::Tasks;

pub use internal::lend_answer::Frame;
pub use internal::lend_request::Frame as Request;

/// Frames on their way to another node.
const REQUESTS_LEN: usize = 1_024;
/// How long another node may take to answer that it lends.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the answers of one link go: those of all links of a session go to one place.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Which link it is.
    pub link: usize,
    /// Where to.
    pub to: mpsc::Sender<(usize, Frame)>,
}

impl Answers {
    /// Sends if there is room; says whether there was.
    pub(super) fn send(&self, frame: Frame) -> bool {
        self.to.try_send((self.link, frame)).is_ok()
    }
}

/// The way to a desk. The desk notices when nobody takes its answers any more.
#[derive(Debug)]
pub enum Link {
    /// On this node.
    Here(MemberId, mpsc::Sender<host::Ask>),
    /// On another.
    There(mpsc::Sender<internal::LendRequest>),
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
            Self::There(requests) => {
                let request = internal::LendRequest { frame: Some(request) };
                requests.try_send(request).map_err(|_full_or_closed| elsewhere())
            }
        }
    }
}

/// Attaches to the desk of another node.
pub(super) async fn connect(
    forwarder: &Forwarder,
    tasks: &Tasks,
    to: NodeId,
    open: internal::LendOpen,
    answers: Answers,
) -> Result<Link> {
    let (requests_tx, requests) = mpsc::channel(REQUESTS_LEN);
    // The channel is new and has room.
    _ = requests_tx.try_send(internal::LendRequest { frame: Some(Request::Open(open)) });
    let opening = forwarder.lend(to, ReceiverStream::new(requests));
    let late = |_elapsed| Error::unavailable(format!("node {to} did not answer in time"));
    let mut frames = timeout(CONNECT_TIMEOUT, opening).await.map_err(late)??;
    tasks.spawn_short(async move {
        loop {
            let frame = tokio::select! {
                biased;
                () = answers.to.closed() => return,
                frame = frames.message() => frame,
            };
            let (frame, is_last) = match frame {
                Ok(Some(answer)) => (answer.frame, false),
                Ok(None) => (Some(ended(&elsewhere())), true),
                Err(status) => (Some(ended(&status.into())), true),
            };
            let Some(frame) = frame else { continue };
            let is_last = is_last || matches!(frame, Frame::Ended(_));
            // Flow control of the connection makes the other node wait.
            if answers.to.send((answers.link, frame)).await.is_err() || is_last {
                return;
            }
        }
    });
    Ok(Link::There(requests_tx))
}

/// The last frame.
pub(super) fn ended(error: &Error) -> Frame {
    Frame::Ended(error.into())
}

/// Serves a member of another node: what it asks is read whether or not it takes its answers.
pub(super) fn serve(
    tasks: &Tasks,
    link: Link,
    mut requests: Streaming<internal::LendRequest>,
    answers: mpsc::Sender<(usize, Frame)>,
) {
    tasks.spawn_short(async move {
        loop {
            let request = tokio::select! {
                biased;
                () = answers.closed() => return,
                request = requests.message() => request,
            };
            // Without requests the other node is gone, and so are its answers soon.
            let Ok(Some(request)) = request else { return };
            if let Some(frame) = request.frame
                && link.send(frame).await.is_err()
            {
                // The last answer says why.
                return;
            }
        }
    });
}
