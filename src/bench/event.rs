//! The events that are published.

use bytes::Bytes;
use prost::Message as _;
use rand::Rng as _;
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::Data;

/// Size of the events and their number.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(skip)]
pub(super) struct Load {
    /// Bytes of payload in each event.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=900_000))]
    pub(super) size: u32,
    /// Number of events.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) events: u32,
}

/// A payload of so many bytes: random, so that neither disk nor wire can compress it.
pub(super) fn payload(size: u32) -> Bytes {
    let mut payload = vec![0; size as usize];
    rand::rng().fill_bytes(&mut payload);
    payload.into()
}

/// An encoded event.
pub(super) fn event(number: u32, payload: &Bytes) -> Bytes {
    let event = CloudEvent {
        id: number.to_string(),
        source: "/weft/bench".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "dev.weft.bench".to_owned(),
        data: Some(Data::BinaryData(payload.clone())),
        ..CloudEvent::default()
    };
    event.encode_to_vec().into()
}
