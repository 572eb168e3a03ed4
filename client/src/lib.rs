//! The Rust client of Weft: publish, subscribe, replay, and manage resources.
//!
//! A [`Client`] is a handle to a cluster. A [`Publisher`] publishes to one stream, a [`Reader`]
//! reads a stored range or follows a stream, a [`Subscription`] reads with the cluster keeping
//! what is done, and a [`Catalog`] keeps streams, schemas, subscriptions and functions.

#![deny(missing_docs)]

mod batch;
mod catalog;
mod channels;
mod client;
mod event;
mod options;
mod position;
mod publisher;
mod reader;
mod retry;
mod spawn;
mod subscription;

pub use batch::{Batch, Record};
pub use catalog::{Catalog, Change, Put, PutOptions, Watch, resource_of, spec_of, status_of};
pub use client::Client;
pub use event::IntoEvent;
pub use options::{Options, Secret, Timeouts, Tls};
pub use position::Position;
pub use publisher::{BatchOutcome, Pending, PendingBatch, Publisher, PublisherOptions, Receipt};
pub use reader::{PartitionSummary, ReadItem, ReadOptions, ReadSummary, Reader};
pub use subscription::{Acker, Settling, Subscription, SubscriptionItem, SubscriptionOptions};
pub use weft_proto as proto;
pub use weft_proto::packed::Codec;
pub use weft_proto::{AckLevel, Error, ErrorKind, Reason, Result};
