//! One stream between two nodes for all members of the one at desks of the other.
//!
//! A stream for each member would cost memory and be limited in number. Nobody on a trunk waits for
//! another one: what a session has not taken is bounded by its credit, so there is always room for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Streaming;
use weft_proto::{Error, NodeId, Result, internal};

use super::link::{Answers, Frame, Link, Request, bytes_of, ended};
use super::{Lender, elsewhere};
use crate::data::lock;
use crate::ingest::Forwarder;
use crate::tasks::Tasks;

/// Requests on their way to another node.
const REQUESTS_LEN: usize = 16_384;
/// Answers on their way to another node; events stop long before.
const ANSWERS_LEN: usize = 65_536;
/// How long another node may take to answer that it lends.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests of one member that wait until its desk has opened.
const EARLY_MAX: usize = 64;

/// The trunks to other nodes.
#[derive(Debug, Default)]
pub(super) struct Trunks(Mutex<BTreeMap<NodeId, Trunk>>);

/// One of them; clones share it.
#[derive(Clone, Debug)]
struct Trunk {
    requests: mpsc::Sender<internal::LendRequest>,
    routes: Arc<Mutex<Routes>>,
    tasks: Tasks,
}

/// Where the answers of each attachment go.
#[derive(Debug, Default)]
struct Routes {
    last: u64,
    open: BTreeMap<u64, Answers>,
    /// The stream is over.
    is_closed: bool,
}

/// One member at a desk of another node. Dropping it takes leave.
#[derive(Debug)]
pub struct Attachment {
    number: u64,
    trunk: Trunk,
}

impl Attachment {
    /// # Errors
    ///
    /// `Unavailable` when the other node is far behind, or gone.
    pub(super) fn send(&self, frame: Request) -> Result<()> {
        self.trunk.send(self.number, frame)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        lock(&self.trunk.routes).open.remove(&self.number);
        // Also when its last answer came: the other node keeps it until it is told.
        let leave = internal::LendRequest {
            attachment: self.number,
            frame: Some(Request::Leave(internal::Leave {})),
        };
        if let Err(mpsc::error::TrySendError::Full(leave)) = self.trunk.requests.try_send(leave) {
            let requests = self.trunk.requests.clone();
            self.trunk.tasks.spawn_short(async move {
                // When the trunk has ended, so has the attachment.
                _ = requests.send(leave).await;
            });
        }
    }
}

impl Trunk {
    fn send(&self, attachment: u64, frame: Request) -> Result<()> {
        let request = internal::LendRequest { attachment, frame: Some(frame) };
        self.requests.try_send(request).map_err(|_full_or_closed| elsewhere())
    }

    /// A number for an attachment; nothing when the trunk has ended.
    fn register(&self, answers: &Answers) -> Option<u64> {
        let mut routes = lock(&self.routes);
        if routes.is_closed {
            return None;
        }
        routes.last += 1;
        let number = routes.last;
        routes.open.insert(number, answers.clone());
        Some(number)
    }

    fn route(&self, answer: internal::LendAnswer) {
        let Some(frame) = answer.frame else { return };
        let is_last = matches!(frame, Frame::Ended(_));
        let mut routes = lock(&self.routes);
        let Some(answers) = routes.open.get(&answer.attachment) else { return };
        let is_taken = answers.send(frame);
        if is_taken && !is_last {
            return;
        }
        let Some(answers) = routes.open.remove(&answer.attachment) else { return };
        if !is_taken {
            // It takes nothing, although it has room for all that it gave credit for.
            self.tasks.spawn_short(async move { answers.end(&elsewhere()).await });
        }
    }

    /// The stream is over: all desks behind it are gone.
    fn close(&self, error: &Error) {
        let mut routes = lock(&self.routes);
        routes.is_closed = true;
        for answers in std::mem::take(&mut routes.open).into_values() {
            if !answers.send(ended(error)) {
                let error = elsewhere();
                self.tasks.spawn_short(async move { answers.end(&error).await });
            }
        }
    }
}

impl Trunks {
    /// Attaches to the desk of another node. That it is open, or why not, comes as an answer.
    ///
    /// # Errors
    ///
    /// `Unavailable` when more is on its way to that node than it takes.
    pub(super) fn attach(
        &self,
        forwarder: &Forwarder,
        tasks: &Tasks,
        to: NodeId,
        open: internal::LendOpen,
        answers: &Answers,
    ) -> Result<Link> {
        let mut trunks = lock(&self.0);
        let known =
            trunks.get(&to).and_then(|trunk| Some((trunk.clone(), trunk.register(answers)?)));
        let (trunk, number) = if let Some(known) = known {
            known
        } else {
            let trunk = Trunk::open(forwarder, tasks, to);
            trunks.insert(to, trunk.clone());
            // It is new.
            let number = trunk.register(answers).ok_or_else(elsewhere)?;
            (trunk, number)
        };
        drop(trunks);
        let attachment = Attachment { number, trunk };
        attachment.send(Request::Open(open))?;
        Ok(Link::There(attachment))
    }
}

impl Trunk {
    fn open(forwarder: &Forwarder, tasks: &Tasks, to: NodeId) -> Self {
        let (requests_tx, requests) = mpsc::channel(REQUESTS_LEN);
        let trunk = Self { requests: requests_tx, routes: Arc::default(), tasks: tasks.clone() };
        let (own, forwarder) = (trunk.clone(), forwarder.clone());
        tasks.spawn_short(async move {
            let error = own.run(&forwarder, to, requests).await;
            own.close(&error);
        });
        trunk
    }

    /// Takes answers until there are no more; says why.
    async fn run(
        &self,
        forwarder: &Forwarder,
        to: NodeId,
        requests: mpsc::Receiver<internal::LendRequest>,
    ) -> Error {
        let opening = forwarder.lend(to, ReceiverStream::new(requests));
        let mut answers = match timeout(CONNECT_TIMEOUT, opening).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => return error,
            Err(_elapsed) => {
                return Error::unavailable(format!("node {to} did not answer in time"));
            }
        };
        loop {
            match answers.message().await {
                Ok(Some(answer)) => self.route(answer),
                Ok(None) => return elsewhere(),
                Err(status) => return status.into(),
            }
        }
    }
}

/// A member of another node at a desk of this one.
struct Served {
    /// Absent until its desk is open.
    link: Option<Link>,
    /// What it said meanwhile.
    early: Vec<Request>,
    /// The desk learns from it that the member is gone.
    _gone: DropGuard,
}

/// What another node asks, one frame after the other.
pub(super) struct Service {
    lender: Lender,
    to: mpsc::Sender<(usize, Frame)>,
    waiting: Arc<AtomicUsize>,
    members: BTreeMap<u64, Served>,
    joining: FuturesUnordered<BoxFuture<'static, (u64, Result<Link>)>>,
}

impl Service {
    /// Serves the members of another node; what they are told comes out of the stream.
    pub(super) fn start(
        lender: Lender,
        tasks: &Tasks,
        requests: Streaming<internal::LendRequest>,
    ) -> impl Stream<Item = internal::LendAnswer> + Send + use<> {
        let (to, answers) = mpsc::channel(ANSWERS_LEN);
        let waiting = Arc::new(AtomicUsize::new(0));
        let service = Self {
            lender,
            to,
            waiting: Arc::clone(&waiting),
            members: BTreeMap::new(),
            joining: FuturesUnordered::new(),
        };
        tasks.spawn_short(service.run(requests));
        ReceiverStream::new(answers).map(move |(attachment, frame)| {
            let bytes = bytes_of(&frame);
            if bytes > 0 {
                waiting.fetch_sub(bytes, Ordering::Relaxed);
            }
            internal::LendAnswer { attachment: attachment as u64, frame: Some(frame) }
        })
    }

    async fn run(mut self, mut requests: Streaming<internal::LendRequest>) {
        let to = self.to.clone();
        loop {
            tokio::select! {
                biased;
                () = to.closed() => return,
                Some((number, joined)) = self.joining.next(), if !self.joining.is_empty() => {
                    self.joined(number, joined).await;
                }
                request = requests.message() => {
                    // Without requests the other node is gone, and so are its answers soon.
                    let Ok(Some(request)) = request else { return };
                    if let Some(frame) = request.frame {
                        self.take(request.attachment, frame).await;
                    }
                }
            }
        }
    }

    async fn take(&mut self, number: u64, frame: Request) {
        match frame {
            Request::Open(open) => self.open(number, open),
            Request::Leave(_) => {
                self.members.remove(&number);
            }
            frame => {
                // It may have left.
                let Some(member) = self.members.get_mut(&number) else { return };
                let Some(link) = &member.link else {
                    // More than this nobody says before it was told that its desk is open.
                    if member.early.len() < EARLY_MAX {
                        member.early.push(frame);
                    }
                    return;
                };
                if link.send(frame).await.is_err() {
                    // The last answer says why.
                    self.members.remove(&number);
                }
            }
        }
    }

    fn open(&mut self, number: u64, open: internal::LendOpen) {
        let Ok(link) = usize::try_from(number) else { return };
        let gone = CancellationToken::new();
        let served = Served { link: None, early: Vec::new(), _gone: gone.clone().drop_guard() };
        self.members.insert(number, served);
        let answers = Answers::of_trunk(link, self.to.clone(), gone, Arc::clone(&self.waiting));
        let answers = if open.without_events { answers.without_events() } else { answers };
        let lender = self.lender.clone();
        self.joining
            .push(Box::pin(async move { (number, lender.attach_for(open, answers).await) }));
    }

    async fn joined(&mut self, number: u64, joined: Result<Link>) {
        // It may have left before.
        let Some(member) = self.members.get_mut(&number) else { return };
        match joined {
            Ok(link) => {
                for frame in std::mem::take(&mut member.early) {
                    // If the desk is gone already, the last answer says so.
                    _ = link.send(frame).await;
                }
                member.link = Some(link);
            }
            Err(error) => {
                self.members.remove(&number);
                let Ok(link) = usize::try_from(number) else { return };
                // When nobody takes answers any more, this service ends.
                _ = self.to.send((link, ended(&error))).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trunk() -> (Trunk, mpsc::Receiver<internal::LendRequest>) {
        let (requests, taken) = mpsc::channel(8);
        (Trunk { requests, routes: Arc::default(), tasks: Tasks::new() }, taken)
    }

    fn attach(trunk: &Trunk) -> (Attachment, mpsc::Receiver<(usize, Frame)>) {
        let (to, answers) = mpsc::channel(1);
        let number = trunk.register(&Answers::new(7, to)).unwrap();
        (Attachment { number, trunk: trunk.clone() }, answers)
    }

    fn told(trunk: &Trunk, attachment: u64, frame: Frame) {
        trunk.route(internal::LendAnswer { attachment, frame: Some(frame) });
    }

    #[tokio::test]
    async fn leave_is_taken_however_an_attachment_ended() {
        let (trunk, mut taken) = trunk();
        let offer = || Frame::Offer(internal::Offer {});
        let (mut left, mut ended_first, mut full) =
            (attach(&trunk), attach(&trunk), attach(&trunk));
        told(&trunk, left.0.number, offer());
        assert_eq!(left.1.try_recv().unwrap().0, 7);
        told(&trunk, ended_first.0.number, ended(&elsewhere()));
        assert!(matches!(ended_first.1.try_recv(), Ok((7, Frame::Ended(_)))));
        // It takes nothing: its link ends as soon as it does.
        told(&trunk, full.0.number, offer());
        told(&trunk, full.0.number, offer());
        assert!(matches!(full.1.recv().await, Some((7, Frame::Offer(_)))));
        assert!(matches!(full.1.recv().await, Some((7, Frame::Ended(_)))));

        for attachment in [left.0, ended_first.0, full.0] {
            let number = attachment.number;
            drop(attachment);
            let request = taken.try_recv().unwrap();
            assert_eq!(request.attachment, number);
            assert!(matches!(request.frame, Some(Request::Leave(_))));
        }
        assert!(lock(&trunk.routes).open.is_empty());
    }

    #[tokio::test]
    async fn the_end_of_a_trunk_is_that_of_all_its_attachments() {
        let (trunk, _taken) = trunk();
        let (mut one, mut other) = (attach(&trunk), attach(&trunk));

        trunk.close(&Error::unavailable("the node died"));

        for answers in [&mut one.1, &mut other.1] {
            assert!(matches!(answers.try_recv(), Ok((7, Frame::Ended(_)))));
        }
        let (to, _answers) = mpsc::channel(1);
        assert!(trunk.register(&Answers::new(0, to)).is_none(), "the next one needs a new trunk");
    }
}
