//! Joins a durable subscription: events that were acknowledged do not come again.
//!
//! `cargo run -p weft-client --example subscribe`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use weft_client::proto::resource::{Kind, Start, SubscriptionMode, SubscriptionSpec};
use weft_client::{
    Client, Options, PutOptions, SubscriptionItem, SubscriptionOptions, resource_of,
};

#[tokio::main]
async fn main() -> weft_client::Result<()> {
    let client = Client::connect(&Options::new(["http://127.0.0.1:7400"]))?;
    let spec = SubscriptionSpec {
        start: Start::Earliest,
        mode: SubscriptionMode::KeyShared,
        ..SubscriptionSpec::new("greetings")
    };
    let resource = resource_of(Kind::Subscription, "greeter", &spec)?;
    client.catalog().put(resource, PutOptions::default()).await?;

    let mut member = client.subscribe("greeter", SubscriptionOptions::default());
    let acker = member.acker();
    loop {
        let SubscriptionItem::Delivery(delivery) = member.next().await? else { continue };
        for (place, (offset, event)) in delivery.batch.events.iter().enumerate() {
            println!("{} bytes at {offset}", event.len());
            acker.ack(delivery.one(place)).await?.await?;
        }
    }
}
