//! The Rust client of Weft: publish, subscribe, replay, and manage resources.
//!
//! A [`Client`] is a handle to a cluster. A [`Publisher`] publishes to one stream, a [`Reader`]
//! reads a stored range or follows a stream, a [`Subscription`] reads with the cluster keeping
//! what is done, a [`Catalog`] keeps streams, schemas, subscriptions and functions, and
//! [`Access`] says who may do what.
//!
//! # Refusals
//!
//! A call that is refused (`UNAUTHENTICATED`, `PERMISSION_DENIED`) gives the error to its caller at
//! once, and so does a read or subscription that ends so; only when the file of the credential
//! ([`Options::token_file`]) has changed since, it is tried once more with the new one. A limit that
//! is reached (`LIMIT_REACHED`) is waited for as long as the node says, within the timeout of the
//! call. Whatever ends because its rights have changed is `UNAVAILABLE`, and is resumed as after a
//! broken connection.

#![deny(missing_docs)]

mod access;
mod batch;
mod catalog;
mod channels;
mod client;
mod credential;
mod delayed;
mod event;
mod options;
mod position;
mod publisher;
mod reader;
mod retry;
mod spawn;
mod subscription;

pub use access::{Access, NewKey};
pub use batch::{Batch, Record};
pub use catalog::{Catalog, Change, Put, PutOptions, Watch, resource_of, spec_of, status_of};
pub use client::Client;
pub use credential::Credential;
pub use event::IntoEvent;
pub use options::{Options, Secret, Timeouts, Tls};
pub use position::{EventPlace, Position};
pub use publisher::{BatchOutcome, Pending, PendingBatch, Publisher, PublisherOptions, Receipt};
pub use reader::{PartitionSummary, ReadItem, ReadOptions, ReadSummary, Reader};
pub use subscription::{
    Acker, Delivery, Done, Held, Nack, Redrive, Settling, Subscription, SubscriptionItem,
    SubscriptionOptions,
};
pub use weft_proto as proto;
pub use weft_proto::packed::Codec;
pub use weft_proto::{AckLevel, Error, ErrorKind, Reason, Result};
