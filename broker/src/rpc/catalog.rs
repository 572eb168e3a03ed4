//! `weft.v1.Catalog`: resources.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use weft_proto::internal::catalog_command::Change as Wanted;
use weft_proto::resource::{
    self, FunctionSpec, Kind, ReplayJobSpec, ReplayTarget, Retention, SchemaSpec, StreamSpec,
    SubscriptionSpec, Verb, WebhookSpec,
};
use weft_proto::v1::catalog_server::Catalog;
use weft_proto::{Error, QualifiedName, Reason, Result, internal, v1};

use super::find::Finder;
use super::{caller_of, replay, until_stop};
use crate::access::{Caller, authorize};
use crate::catalog::{self, Change, Changed, Reply};
use crate::ingest::{Ingest, compile};
use crate::read::History;
use crate::resources::Resources;

/// The service.
#[derive(Clone, Debug)]
pub struct Service {
    resources: Resources,
    ingest: Ingest,
    history: History,
    stop: CancellationToken,
}

impl Service {
    /// The service over this node's catalog.
    pub fn new(ingest: Ingest, history: History, stop: CancellationToken) -> Self {
        Self { resources: ingest.resources().clone(), ingest, history, stop }
    }

    async fn change(&self, caller: &Caller, change: Wanted, dry_run: bool) -> Result<Reply> {
        if !dry_run {
            return self.resources.change(caller.principal(), change).await;
        }
        let mut copy = self.resources.snapshot();
        let command = internal::CatalogCommand { change: Some(change), principal: String::new() };
        let (time, generation) = (crate::clock::now(), copy.generation());
        let tried = copy.apply(&catalog::encode(&command, time), time);
        // Nobody will ever see the generation that it would have made.
        tried
            .map(|(reply, _)| Reply { generation, ..reply })
            .map_err(|error| Error::internal(error.to_string()))
    }

    async fn put_one(&self, caller: &Caller, request: v1::PutRequest) -> Result<v1::PutResponse> {
        self.resources.wait_for(request.min_generation).await?;
        let mut wanted = request.resource.unwrap_or_default();
        // What needs no other resource is refused here, before anything is proposed.
        resource::check(&wanted)?;
        let (kind, name) = resource::identify(&wanted)?;
        authorize_change(caller, kind, &name)?;
        self.authorize_uses(caller, kind, &name, &wanted)?;
        if kind == Kind::Schema {
            let spec: SchemaSpec = resource::parse(kind, &wanted.spec)?;
            compile(spec.document()?.get())?;
        }
        if kind == Kind::ReplayJob {
            self.resolve_range(caller, &name, &mut wanted).await?;
        }
        if kind == Kind::Function {
            self.revise(caller, &name, &mut wanted)?;
        }
        let put = internal::CatalogPut {
            resource: Some(wanted),
            expected_generation: request.expected_generation,
        };
        if !request.dry_run {
            caller.act("put", format!("{kind} {name}")).await?;
        }
        let reply = self.change(caller, Wanted::Put(put), request.dry_run).await?;
        let stored = reply.outcome.map_err(Error::from_refusal)?;
        Ok(v1::PutResponse {
            resource: stored.map(Arc::unwrap_or_clone),
            change: reply.change.into(),
            catalog_generation: reply.generation,
            warnings: reply.warnings,
        })
    }

    /// What a resource does for its owner, its owner must be allowed: else whoever may make a
    /// function would read and publish everything by it. And of what it names, its owner must be
    /// allowed to see whether it is there.
    fn authorize_uses(
        &self,
        caller: &Caller,
        kind: Kind,
        name: &QualifiedName,
        wanted: &v1::Resource,
    ) -> Result<()> {
        match kind {
            Kind::Subscription => {
                let spec: SubscriptionSpec = resource::parse(kind, &wanted.spec)?;
                // Its members must be allowed to read the stream themselves; the answer would tell
                // whether there is one.
                authorize(caller, Verb::View, &named(&spec.stream)?)?;
            }
            Kind::Function => {
                let spec: FunctionSpec = resource::parse(kind, &wanted.spec)?;
                for trigger in &spec.triggers {
                    authorize(caller, Verb::Read, &named(&trigger.stream)?)?;
                }
                if let Some(reply) = &spec.reply {
                    authorize(caller, Verb::Publish, &named(&reply.stream)?)?;
                }
                if let Some(flow) = &spec.flow {
                    for (_, stream) in flow.streams("spec.flow") {
                        authorize(caller, Verb::Publish, &named(stream)?)?;
                    }
                    // Like a webhook, it carries events out of the cluster.
                    if flow.calls_out() {
                        authorize(caller, Verb::Govern, name)?;
                    }
                }
            }
            // It is a kind of seek: whoever may not move the cursor may not send its members the past.
            Kind::ReplayJob => {
                let spec: ReplayJobSpec = resource::parse(kind, &wanted.spec)?;
                let target = spec.target.subscription()?;
                match spec.target {
                    ReplayTarget::Subscription(_) => authorize(caller, Verb::Edit, &target)?,
                    // Nobody but the function gets them: who may change it may send it the past.
                    ReplayTarget::Function(_) => {
                        authorize(caller, Verb::Edit, &spec.target.name()?)?
                    }
                    // It carries events out of the cluster.
                    ReplayTarget::Webhook(_) => {
                        authorize(caller, Verb::Govern, &spec.target.name()?)?
                    }
                };
                if let Some(target) = self.resources.snapshot().subscription(&target) {
                    authorize(caller, Verb::Read, &target.stream)?;
                }
            }
            Kind::Webhook => {
                let spec: WebhookSpec = resource::parse(kind, &wanted.spec)?;
                // The dispatcher reads for it, and it reads all.
                if authorize(caller, Verb::Read, &named(&spec.stream)?)?.is_by_event() {
                    let message = "a webhook needs leave to read all events of its stream";
                    return Err(Error::new(Reason::PermissionDenied, message));
                }
            }
            Kind::Stream if name.name.is_reserved() => {
                let new: StreamSpec = resource::parse(kind, &wanted.spec)?;
                let state = self.resources.snapshot();
                let old = state.get(kind, name).map(|old| catalog::view::stream_spec(old));
                let retention = Retention::clone(&new.retention);
                if old.map(|old| StreamSpec { retention, ..old }) != Some(new) {
                    return Err(reserved(name));
                }
            }
            // Whoever names a schema sees by the answers what it demands.
            Kind::Stream => {
                let spec: StreamSpec = resource::parse(kind, &wanted.spec)?;
                for binding in &spec.schemas {
                    authorize(caller, Verb::View, &named(&binding.schema)?)?;
                }
            }
            Kind::Schema | Kind::Grant | Kind::Limit | Kind::ContainerPolicy => {}
        }
        Ok(())
    }

    /// What a new replay job replays is fixed now; an old one keeps what it has.
    async fn resolve_range(
        &self,
        caller: &Caller,
        name: &QualifiedName,
        wanted: &mut v1::Resource,
    ) -> Result<()> {
        let mut spec: ReplayJobSpec = resource::parse(Kind::ReplayJob, &wanted.spec)?;
        let state = self.resources.snapshot();
        if let Some(old) = state.get(Kind::ReplayJob, name) {
            let old: ReplayJobSpec = resource::parse(Kind::ReplayJob, &old.spec)?;
            spec.resolved = old.resolved;
        } else {
            // Whether there is one is for the catalog to say.
            let target = spec.target.subscription()?.to_string();
            spec.resolved = match self.resources.subscription_named(&target) {
                Ok(view) => {
                    let finder = Finder { ingest: &self.ingest, history: &self.history };
                    let visible = authorize(caller, Verb::Read, &view.stream.name)?;
                    Some(replay::range(finder, &view, &visible, &spec).await?)
                }
                Err(error) if error.reason() == Reason::UnknownResource => None,
                Err(error) => return Err(error),
            };
        }
        wanted.spec = serde_json::to_vec(&spec)
            .map_err(|error| Error::internal("a spec cannot be written").with_source(error))?
            .into();
        Ok(())
    }

    /// Carries the revisions of a function on, with another one if its template changed.
    fn revise(
        &self,
        caller: &Caller,
        name: &QualifiedName,
        wanted: &mut v1::Resource,
    ) -> Result<()> {
        let mut spec: FunctionSpec = resource::parse(Kind::Function, &wanted.spec)?;
        let state = self.resources.snapshot();
        let old = state.get(Kind::Function, name);
        let old = old.map(|old| resource::parse::<FunctionSpec>(Kind::Function, &old.spec));
        let by = caller.principal().to_string();
        spec.revise(&name.name, old.transpose()?.as_ref(), &by, crate::clock::now())?;
        wanted.spec = serde_json::to_vec(&spec)
            .map_err(|error| Error::internal("a spec cannot be written").with_source(error))?
            .into();
        Ok(())
    }

    async fn delete_one(
        &self,
        caller: &Caller,
        request: v1::DeleteRequest,
    ) -> Result<v1::DeleteResponse> {
        let kind: Kind = request.kind.parse()?;
        let name = named(&request.name)?;
        authorize_change(caller, kind, &name)?;
        if name.name.is_reserved() {
            return Err(reserved(&name));
        }
        caller.act("delete", format!("{kind} {name}")).await?;
        let delete = internal::CatalogDelete {
            kind: kind.as_str().to_owned(),
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            expected_generation: request.expected_generation,
        };
        let reply = self.change(caller, Wanted::Delete(delete), false).await?;
        reply.outcome.map_err(Error::from_refusal)?;
        Ok(v1::DeleteResponse { catalog_generation: reply.generation })
    }

    async fn set(
        &self,
        caller: &Caller,
        request: v1::SetStatusRequest,
    ) -> Result<v1::SetStatusResponse> {
        let kind: Kind = request.kind.parse()?;
        let name = named(&request.name)?;
        authorize(caller, Verb::Report, &name)?;
        let status = internal::CatalogSetStatus {
            kind: kind.as_str().to_owned(),
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            uid: request.uid,
            status: request.status,
        };
        let reply = self.change(caller, Wanted::SetStatus(status), false).await?;
        reply.outcome.map_err(Error::from_refusal)?;
        Ok(v1::SetStatusResponse { catalog_generation: reply.generation })
    }
}

/// Grants and limits say who may do what: they are for those who decide that.
const fn view_of(kind: Kind) -> Verb {
    match kind {
        Kind::Grant | Kind::Limit => Verb::Govern,
        Kind::Stream
        | Kind::Schema
        | Kind::Subscription
        | Kind::Function
        | Kind::ReplayJob
        | Kind::Webhook
        | Kind::ContainerPolicy => Verb::View,
    }
}

/// Whoever makes or runs functions anywhere needs to know the policies of the whole cluster.
fn is_for_all(kind: Kind, name: &QualifiedName) -> bool {
    kind == Kind::ContainerPolicy && name.namespace.is_system()
}

fn authorize_change(caller: &Caller, kind: Kind, name: &QualifiedName) -> Result<()> {
    let verb = match kind {
        // A webhook makes the cluster call out, and carries events out of it. A policy binds those
        // who may make functions.
        Kind::Grant | Kind::Limit | Kind::Webhook | Kind::ContainerPolicy => Verb::Govern,
        Kind::Stream | Kind::Schema | Kind::Subscription | Kind::Function | Kind::ReplayJob => {
            Verb::Edit
        }
    };
    authorize(caller, verb, name).map(drop)
}

fn reserved(name: &QualifiedName) -> Error {
    let message = format!("{name} is the cluster's own: only its retention can change");
    Error::new(Reason::FailedPrecondition, message).with_field("name")
}

fn named(text: &str) -> Result<QualifiedName> {
    text.parse().map_err(|error: weft_proto::NameError| {
        Error::invalid(error.to_string()).with_field("name")
    })
}

type Frames = super::Frames<v1::WatchResponse>;

#[tonic::async_trait]
impl Catalog for Service {
    async fn put(
        &self,
        request: Request<v1::PutRequest>,
    ) -> Result<Response<v1::PutResponse>, Status> {
        let caller = caller_of(&request)?;
        Ok(Response::new(self.put_one(&caller, request.into_inner()).await?))
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        self.resources.wait_for(request.min_generation).await?;
        let kind: Kind = request.kind.parse()?;
        let name = named(&request.name)?;
        if !is_for_all(kind, &name) {
            authorize(&caller, view_of(kind), &name)?;
        }
        let state = self.resources.snapshot();
        let Some(stored) = state.get(kind, &name) else {
            let reason =
                if kind == Kind::Stream { Reason::UnknownStream } else { Reason::UnknownResource };
            let error = Error::new(reason, format!("there is no {kind} {name}"));
            return Err(self.resources.missing(error).into());
        };
        let resource = Some(v1::Resource::clone(stored));
        Ok(Response::new(v1::GetResponse { resource, catalog_generation: state.generation() }))
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        self.resources.wait_for(request.min_generation).await?;
        let kind: Kind = request.kind.parse()?;
        let state = self.resources.snapshot();
        let visible = state.of_kind(kind).filter(|(name, _)| {
            let wanted =
                request.namespace.is_empty() || name.namespace.as_str() == request.namespace;
            wanted && (is_for_all(kind, name) || caller.may(view_of(kind), name))
        });
        let resources = visible.map(|(_, stored)| v1::Resource::clone(stored)).collect();
        Ok(Response::new(v1::ListResponse { resources, catalog_generation: state.generation() }))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let caller = caller_of(&request)?;
        Ok(Response::new(self.delete_one(&caller, request.into_inner()).await?))
    }

    async fn set_status(
        &self,
        request: Request<v1::SetStatusRequest>,
    ) -> Result<Response<v1::SetStatusResponse>, Status> {
        let caller = caller_of(&request)?;
        Ok(Response::new(self.set(&caller, request.into_inner()).await?))
    }

    type WatchStream = Frames;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Frames>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let kinds = request.kinds.iter().map(|kind| kind.parse()).collect::<Result<Vec<Kind>>>()?;
        caller.stand_on_all();
        let wanted = Wants { caller, kinds, namespace: request.namespace };
        let (state, changes) = self.resources.watch();
        let generation = state.generation();
        let present: Vec<_> = state
            .resources()
            .values()
            .filter(|stored| wanted.has(stored))
            .map(|stored| put_frame(stored, generation))
            .chain([frame(v1::watch_response::Frame::Synced(v1::Synced {}), generation)])
            .map(Ok)
            .collect();
        let rest = stream::unfold(Some((changes, wanted)), next_change);
        Ok(Response::new(until_stop(stream::iter(present).chain(rest), self.stop.clone())))
    }
}

/// What a watcher wants to see, and may.
struct Wants {
    caller: Caller,
    kinds: Vec<Kind>,
    namespace: String,
}

impl Wants {
    fn has(&self, stored: &v1::Resource) -> bool {
        let Ok((kind, name)) = resource::identify(stored) else { return false };
        (self.kinds.is_empty() || self.kinds.contains(&kind))
            && (self.namespace.is_empty() || name.namespace.as_str() == self.namespace)
            && (is_for_all(kind, &name) || self.caller.may(view_of(kind), &name))
    }
}

type Watching = Option<(broadcast::Receiver<Change>, Wants)>;

async fn next_change(watching: Watching) -> Option<(Result<v1::WatchResponse, Status>, Watching)> {
    let (mut changes, wants) = watching?;
    loop {
        match changes.recv().await {
            Ok(Change { generation, what: Changed::Put(stored) }) if wants.has(&stored) => {
                return Some((Ok(put_frame(&stored, generation)), Some((changes, wants))));
            }
            Ok(Change { generation, what: Changed::Deleted(stored) }) if wants.has(&stored) => {
                let deleted = v1::Deleted {
                    kind: stored.kind.clone(),
                    namespace: stored.namespace.clone(),
                    name: stored.name.clone(),
                    uid: stored.uid,
                };
                let frame = frame(v1::watch_response::Frame::Deleted(deleted), generation);
                return Some((Ok(frame), Some((changes, wants))));
            }
            Ok(_) => {}
            // A gap would be worse than an end: the watcher begins anew.
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let error = Error::unavailable("the watcher fell too far behind; watch again");
                return Some((Err(error.into()), None));
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}

fn put_frame(stored: &Arc<v1::Resource>, generation: u64) -> v1::WatchResponse {
    frame(v1::watch_response::Frame::Put(v1::Resource::clone(stored)), generation)
}

fn frame(frame: v1::watch_response::Frame, catalog_generation: u64) -> v1::WatchResponse {
    v1::WatchResponse { frame: Some(frame), catalog_generation }
}
