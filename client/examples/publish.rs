//! Publishes ten events and waits until they are on disk at a majority.
//!
//! `cargo run -p weft-client --example publish`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use weft_client::proto::cloudevents::{CloudEvent, cloud_event::Data};
use weft_client::proto::resource::{Kind, StreamSpec};
use weft_client::{Client, Options, PublisherOptions, PutOptions, resource_of};

#[tokio::main]
async fn main() -> weft_client::Result<()> {
    let client = Client::connect(&Options::new(["http://127.0.0.1:7400"]))?;
    let stream = resource_of(Kind::Stream, "greetings", &StreamSpec::default())?;
    client.catalog().put(stream, PutOptions::default()).await?;

    let publisher = client.publisher("greetings", PublisherOptions::default()).await?;
    let mut pending = Vec::new();
    for number in 0..10 {
        let event = CloudEvent {
            id: number.to_string(),
            source: "/examples".to_owned(),
            spec_version: "1.0".to_owned(),
            r#type: "greeting".to_owned(),
            data: Some(Data::TextData(format!("hello {number}"))),
            ..CloudEvent::default()
        };
        pending.push(publisher.send(event).await?);
    }
    for receipt in pending {
        println!("{:?}", receipt.await?);
    }
    Ok(())
}
