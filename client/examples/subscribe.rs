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
        stream: "greetings".to_owned(),
        filters: Vec::new(),
        start: Start::Earliest,
        mode: SubscriptionMode::Exclusive,
    };
    let resource = resource_of(Kind::Subscription, "greeter", &spec)?;
    client.catalog().put(resource, PutOptions::default()).await?;

    let mut member = client.subscribe("greeter", SubscriptionOptions::default());
    let acker = member.acker();
    loop {
        let SubscriptionItem::Delivery { epoch, batch } = member.next().await? else { continue };
        for (offset, event) in &batch.events {
            println!("{} bytes at {offset}", event.len());
            acker.ack(batch.partition, epoch, *offset..=*offset).await?.await?;
        }
    }
}
