//! `weft.v1.Subscribe`: one member of a durable subscription.
//!
//! The session reads from this node's own replica; leases and settlements go to the leader of each
//! partition's group. What may be sent is decided in [`crate::subscription::Window`]; the session
//! carries it out.

mod deliver;
pub(crate) mod lent;
mod manage;
mod progress;
mod session;
mod settle;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weft_proto::resource::{SubscriptionMode, Verb};
use weft_proto::v1::subscribe_server::Subscribe;
use weft_proto::{Error, QualifiedName, Reason, Result, v1};

use super::caller_of;
use crate::access::{Caller, Decision, authorize};
use crate::entry::Member;
use crate::ingest::Ingest;
use crate::lend::Lender;
use crate::read::History;
use crate::resources::SubscriptionView;
use crate::tasks::Tasks;

/// Frames that wait for a slow member.
const ANSWERS_LEN: usize = 16;

/// The service.
#[derive(Clone, Debug)]
pub struct Service {
    ingest: Ingest,
    history: History,
    lender: Lender,
    tasks: Tasks,
}

type Answers = mpsc::Sender<Result<v1::SubscribeResponse, Status>>;

impl Service {
    /// The service over this node's groups.
    pub fn new(ingest: Ingest, history: History, lender: Lender, tasks: Tasks) -> Self {
        Self { ingest, history, lender, tasks }
    }
}

/// A subscription whose member the caller may be, and which events it may see.
///
/// # Errors
///
/// `PermissionDenied`, `UnknownResource`.
pub(crate) fn allowed(
    ingest: &Ingest,
    caller: &Caller,
    name: &QualifiedName,
) -> Result<(SubscriptionView, Decision)> {
    let visible = authorize(caller, Verb::Subscribe, name)?;
    let subscription = ingest.resources().subscription_named(&name.to_string())?;
    let visible = visible.and(authorize(caller, Verb::Read, &subscription.stream.name)?);
    Ok((subscription, visible))
}

/// Whether who sees this may be one of several members.
///
/// # Errors
///
/// `PermissionDenied`: an event that one member may not see would be another's to settle.
pub(crate) fn may_share(visible: &Decision) -> Result<()> {
    if visible.is_by_event() {
        let message =
            "a subscription that several share needs leave to read all events of its stream";
        return Err(Error::new(Reason::PermissionDenied, message));
    }
    Ok(())
}

#[tonic::async_trait]
impl Subscribe for Service {
    type SubscribeStream = ReceiverStream<Result<v1::SubscribeResponse, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<v1::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let caller = caller_of(&request)?;
        let mut frames = request.into_inner();
        let first = frames.message().await?.and_then(|first| first.frame);
        let Some(v1::subscribe_request::Frame::Open(open)) = first else {
            return Err(Error::invalid("the first frame must be open").into());
        };
        let resources = self.ingest.resources();
        resources.wait_for(open.min_generation).await?;
        let name: QualifiedName =
            open.subscription.parse().map_err(|error: weft_proto::NameError| {
                Error::invalid(error.to_string()).with_field("subscription")
            })?;
        let (subscription, visible) = allowed(&self.ingest, &caller, &name)?;
        let leases = open.leases;
        let Some(member) = Member::new(open.member) else {
            let error = Error::invalid("the member's name is longer than 256 bytes");
            return Err(error.with_field("member").into());
        };
        let (answers, receiver) = mpsc::channel(ANSWERS_LEN);
        let parts = session::Parts {
            ingest: self.ingest.clone(),
            history: self.history.clone(),
            caller,
            subscription,
            visible,
            member,
        };
        match parts.subscription.mode {
            SubscriptionMode::Exclusive if !leases => {
                self.tasks.spawn_short(session::Session::new(parts, answers).run(frames));
            }
            _ => {
                may_share(&parts.visible)?;
                let session = lent::Session::new(parts, self.lender.clone(), answers);
                self.tasks.spawn_short(session.run(frames));
            }
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn seek(
        &self,
        request: Request<v1::SeekRequest>,
    ) -> Result<Response<v1::SeekResponse>, Status> {
        let caller = caller_of(&request)?;
        Ok(Response::new(self.seek_to(&caller, request.into_inner()).await?))
    }

    async fn list_dead_letters(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        let caller = caller_of(&request)?;
        Ok(Response::new(self.dead_letters(&caller, request.into_inner()).await?))
    }

    async fn redrive(
        &self,
        request: Request<v1::RedriveRequest>,
    ) -> Result<Response<v1::RedriveResponse>, Status> {
        let caller = caller_of(&request)?;
        Ok(Response::new(self.redrive_some(&caller, request.into_inner()).await?))
    }

    async fn get_progress(
        &self,
        request: Request<v1::GetProgressRequest>,
    ) -> Result<Response<v1::GetProgressResponse>, Status> {
        let caller = caller_of(&request)?;
        Ok(Response::new(self.progress(&caller, request.into_inner()).await?))
    }
}
