//! CloudEvents: a view of the encoded form, its rules, JSON, HTTP messages, and the `cloudevents-sdk`
//! type.

mod header;
mod identity;
mod json;
pub mod message;
mod route;
mod rules;
mod sdk;
mod value;
mod view;

pub use header::{from_header, percent_decoded};
pub use identity::is_same;
pub use json::{from_json, to_json};
pub use route::{attribute_hash, ordering_hash, ordering_key, partition_of, partition_of_key};
pub use rules::{EVENT_BYTES_MAX, check, is_attribute_name};
pub use sdk::{from_sdk, to_sdk};
pub use value::Value;
pub use view::{Attribute, Data, EventView};
