//! Reads all that is stored in a stream, then ends.
//!
//! `cargo run -p weft-client --example replay`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use weft_client::proto::event::{EventView, to_json};
use weft_client::{Client, Options, ReadItem, ReadOptions};

#[tokio::main]
async fn main() -> weft_client::Result<()> {
    let client = Client::connect(&Options::new(["http://127.0.0.1:7400"]))?;

    let mut reader = client.read(ReadOptions::all("greetings")).await?;
    while let Some(item) = reader.next().await? {
        let ReadItem::Batch(batch) = item else { continue };
        for record in batch.into_records() {
            let event = EventView::parse(&record.event).map(|view| to_json(&view));
            println!("{} {}", record.offset, event.unwrap_or_default());
        }
    }
    println!("{:?}", reader.summary());
    Ok(())
}
