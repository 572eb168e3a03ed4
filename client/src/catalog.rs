//! Streams, schemas, subscriptions and functions: put, get, list, delete, watch.

use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Streaming;
use weft_proto::resource::{self, Kind};
use weft_proto::v1::catalog_client::CatalogClient;
use weft_proto::v1::watch_response::Frame;
use weft_proto::{Error, ErrorKind, Reason, Result, v1};

use crate::channels::{Transport, error_of};
use crate::client::{Client, MESSAGE_BYTES_MAX, Repeat};

/// The resources of a cluster.
///
/// What was written through a [`Client`] is seen by all its later calls, whichever node answers.
#[derive(Clone, Debug)]
pub struct Catalog {
    client: Client,
}

/// How to put a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// Fails unless the resource has this generation; 0 = it must not exist.
    pub expected_generation: Option<u64>,
    /// Check everything, change nothing.
    pub dry_run: bool,
}

/// What a put did.
#[derive(Clone, Debug)]
pub struct Put {
    /// The resource as the cluster has it now.
    pub resource: v1::Resource,
    /// What changed.
    pub change: v1::Change,
    /// Things that are allowed but probably not meant.
    pub warnings: Vec<String>,
}

/// What a watch yields.
#[derive(Clone, Debug)]
pub enum Change {
    /// A resource that exists, or that changed.
    Put(v1::Resource),
    /// A resource that is gone.
    Deleted(v1::Deleted),
    /// All resources that existed when the watch began have been told.
    Synced,
}

impl Client {
    /// The resources of the cluster.
    pub fn catalog(&self) -> Catalog {
        Catalog { client: self.clone() }
    }
}

/// Reads the spec of a resource.
///
/// # Errors
///
/// `Invalid` when the spec is not that of this kind.
pub fn spec_of<T: DeserializeOwned>(resource: &v1::Resource) -> Result<T> {
    resource::parse(resource.kind.parse()?, &resource.spec)
}

/// Reads the status of a resource; without one, the default.
///
/// # Errors
///
/// `Internal` when the status is not that of this kind.
pub fn status_of<T: DeserializeOwned + Default>(resource: &v1::Resource) -> Result<T> {
    if resource.status.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&resource.status).map_err(|error| {
        let (kind, name) = (&resource.kind, &resource.name);
        Error::internal(format!("the status of {kind} {name} is unreadable")).with_source(error)
    })
}

/// A resource in its wire form. `name` is `name` or `namespace/name`.
///
/// # Errors
///
/// `Invalid` when the name is none or the spec breaks a rule.
pub fn resource_of(kind: Kind, name: &str, spec: &impl Serialize) -> Result<v1::Resource> {
    let name: weft_proto::QualifiedName =
        name.parse().map_err(|error: weft_proto::NameError| {
            Error::invalid(error.to_string()).with_field("metadata.name")
        })?;
    let spec = serde_json::to_vec(spec).map_err(|error| {
        Error::invalid("the spec cannot be written as JSON").with_source(error).with_field("spec")
    })?;
    let resource = v1::Resource {
        kind: kind.as_str().to_owned(),
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        spec: spec.into(),
        ..v1::Resource::default()
    };
    resource::check(&resource)?;
    Ok(resource)
}

impl Catalog {
    /// Creates or replaces a resource. Putting what is there already changes nothing.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field; `Conflict` when the generation is not the expected one or
    /// another resource stands against it; `Denied`; `Unavailable`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take the write back.
    pub async fn put(&self, resource: v1::Resource, options: PutOptions) -> Result<Put> {
        let request = v1::PutRequest {
            resource: Some(resource),
            expected_generation: options.expected_generation,
            dry_run: options.dry_run,
            min_generation: self.client.generation(),
        };
        // With an expectation, a second attempt could fail on the first one's success.
        let repeat = match options.expected_generation {
            Some(_) if !options.dry_run => Repeat::IfNotApplied,
            _ => Repeat::Always,
        };
        let put = |transport| {
            let request = request.clone();
            async move { service(transport).put(request).await }
        };
        let response = self.client.call(repeat, put).await?;
        self.client.saw_generation(response.catalog_generation);
        let change = response.change();
        let missing = || Error::internal("the answer to a put has no resource");
        let resource = response.resource.ok_or_else(missing)?;
        Ok(Put { resource, change, warnings: response.warnings })
    }

    /// One resource. `name` is `name` or `namespace/name`.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Denied`; `Unavailable`.
    pub async fn get(&self, kind: Kind, name: &str) -> Result<v1::Resource> {
        let request = v1::GetRequest {
            kind: kind.as_str().to_owned(),
            name: name.to_owned(),
            min_generation: self.client.generation(),
        };
        let get = |transport| {
            let request = request.clone();
            async move { service(transport).get(request).await }
        };
        let response = self.client.call(Repeat::Always, get).await?;
        self.client.saw_generation(response.catalog_generation);
        response.resource.ok_or_else(|| Error::internal("the answer to a get has no resource"))
    }

    /// One resource, or `None` if there is none of this name.
    ///
    /// # Errors
    ///
    /// `Denied`; `Unavailable`.
    pub async fn find(&self, kind: Kind, name: &str) -> Result<Option<v1::Resource>> {
        match self.get(kind, name).await {
            Ok(resource) => Ok(Some(resource)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All resources of a kind, by name. An empty namespace means all of them.
    ///
    /// # Errors
    ///
    /// `Denied`; `Unavailable`.
    pub async fn list(&self, kind: Kind, namespace: &str) -> Result<Vec<v1::Resource>> {
        let request = v1::ListRequest {
            kind: kind.as_str().to_owned(),
            namespace: namespace.to_owned(),
            min_generation: self.client.generation(),
        };
        let list = |transport| {
            let request = request.clone();
            async move { service(transport).list(request).await }
        };
        let response = self.client.call(Repeat::Always, list).await?;
        self.client.saw_generation(response.catalog_generation);
        let mut resources = response.resources;
        resources.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(resources)
    }

    /// Deletes a resource.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Conflict` when another resource needs it or the generation is not the expected
    /// one; `Denied`; `Unavailable`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take the deletion back.
    pub async fn delete(
        &self,
        kind: Kind,
        name: &str,
        expected_generation: Option<u64>,
    ) -> Result<()> {
        let request = v1::DeleteRequest {
            kind: kind.as_str().to_owned(),
            name: name.to_owned(),
            expected_generation,
        };
        let delete = |transport| {
            let request = request.clone();
            async move { service(transport).delete(request).await }
        };
        // After an attempt of unknown fate, a second one might report its own success as NotFound.
        let response = self.client.call(Repeat::IfNotApplied, delete).await?;
        self.client.saw_generation(response.catalog_generation);
        Ok(())
    }

    /// Replaces the status of a resource. Refused when `uid` is not that of the resource: it was
    /// deleted and created again.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Conflict`; `Denied`; `Unavailable`.
    pub async fn set_status(
        &self,
        kind: Kind,
        name: &str,
        uid: u64,
        status: &(impl Serialize + Sync),
    ) -> Result<()> {
        let status = serde_json::to_vec(status).map_err(|error| {
            Error::invalid("the status cannot be written as JSON").with_source(error)
        })?;
        let request = v1::SetStatusRequest {
            kind: kind.as_str().to_owned(),
            name: name.to_owned(),
            uid,
            status: status.into(),
        };
        let set = |transport| {
            let request = request.clone();
            async move { service(transport).set_status(request).await }
        };
        let response = self.client.call(Repeat::Always, set).await?;
        self.client.saw_generation(response.catalog_generation);
        Ok(())
    }

    /// Watches resources: first those that exist, then [`Change::Synced`], then every change.
    ///
    /// # Errors
    ///
    /// `Denied`; `Unavailable`.
    pub async fn watch(&self, kinds: &[Kind], namespace: &str) -> Result<Watch> {
        let request = v1::WatchRequest {
            kinds: kinds.iter().map(|kind| kind.as_str().to_owned()).collect(),
            namespace: namespace.to_owned(),
        };
        let watch = |transport: Transport| -> BoxFuture<'_, _> {
            let request = request.clone();
            Box::pin(async move { service(transport).watch(request).await })
        };
        let frames = self.client.call(Repeat::Always, watch).await?;
        Ok(Watch { client: self.client.clone(), frames })
    }
}

/// A watch that is under way. It ends with an error when its connection breaks: watch again, and
/// take what is told up to [`Change::Synced`] for all that exists.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    frames: Streaming<v1::WatchResponse>,
}

impl Watch {
    /// The next change.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the connection broke.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Change> {
        loop {
            let Some(response) = self.frames.message().await.map_err(error_of)? else {
                return Err(Error::new(Reason::Unavailable, "the node ended the watch"));
            };
            self.client.saw_generation(response.catalog_generation);
            match response.frame {
                Some(Frame::Put(resource)) => return Ok(Change::Put(resource)),
                Some(Frame::Deleted(deleted)) => return Ok(Change::Deleted(deleted)),
                Some(Frame::Synced(_)) => return Ok(Change::Synced),
                // A frame of a newer server.
                None => {}
            }
        }
    }
}

fn service(transport: Transport) -> CatalogClient<Transport> {
    CatalogClient::new(transport)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}
