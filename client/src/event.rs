//! What can be published: an encoded event, or a type that becomes one.

use bytes::Bytes;
use weft_proto::Result;
use weft_proto::cloudevents::CloudEvent;

use prost::Message as _;

/// Becomes an encoded `io.cloudevents.v1.CloudEvent`.
pub trait IntoEvent {
    /// The encoded event.
    ///
    /// # Errors
    ///
    /// `Invalid` when it cannot be encoded.
    fn into_event(self) -> Result<Bytes>;
}

/// Bytes are sent as they are.
impl IntoEvent for Bytes {
    fn into_event(self) -> Result<Bytes> {
        Ok(self)
    }
}

impl IntoEvent for CloudEvent {
    fn into_event(self) -> Result<Bytes> {
        Ok(self.encode_to_vec().into())
    }
}

/// The event type of the CloudEvents SDK.
impl IntoEvent for cloudevents::Event {
    fn into_event(self) -> Result<Bytes> {
        weft_proto::event::from_sdk(&self)?.into_event()
    }
}
