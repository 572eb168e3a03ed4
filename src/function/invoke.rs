//! Sends one event to a function and tells what came of it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use prost::Message as _;
use tokio::time::{Instant, sleep};
use weft_client::proto::v1::{self, EventState};
use weft_client::{Client, PublisherOptions, spec_of};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use weft_proto::event::from_json;
use weft_proto::resource::{FunctionSpec, Kind};

use crate::apply;
use crate::output::{Format, Out};

/// Between two questions what came of it.
const ASK_EVERY: Duration = Duration::from_millis(100);

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// NAME or NAMESPACE/NAME
    pub(super) name: String,
    /// The trigger, to whose stream the event goes
    #[arg(long, default_value = "default")]
    trigger: String,
    /// A whole event in JSON; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "event_type"])]
    event: Option<String>,
    /// The payload of the event, in JSON
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// The `type` of the event
    #[arg(long = "type", value_name = "TYPE", default_value = "invoke")]
    event_type: String,
    /// How long to wait for what comes of it
    #[arg(long, default_value = "30", value_name = "SECONDS")]
    wait: u64,
}

pub(super) async fn run(args: Args, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let function = client.catalog().get(Kind::Function, &args.name).await?;
    let spec: FunctionSpec = spec_of(&function)?;
    let names: Vec<&str> = spec.triggers.iter().map(|one| one.name.as_str()).collect();
    let trigger = spec.triggers.iter().find(|one| one.name == args.trigger);
    let trigger = trigger.with_context(|| {
        format!("{} has no trigger {}; there are {}", args.name, args.trigger, names.join(", "))
    })?;
    let subscription = FunctionSpec::subscription_name(&function.name.parse()?, &trigger.name)?;
    let subscription = format!("{}/{subscription}", function.namespace);
    let event = event(&args)?;
    let (id, source) = (event.id.clone(), event.source.clone());
    let publisher = client.publisher(&trigger.stream, PublisherOptions::default()).await?;
    publisher.publish(bytes::Bytes::from(event.encode_to_vec())).await?;
    publisher.close().await;
    let until = Instant::now() + Duration::from_secs(args.wait);
    loop {
        let request = v1::TraceEventRequest {
            stream: trigger.stream.clone(),
            id: id.clone(),
            source: source.clone(),
            ..v1::TraceEventRequest::default()
        };
        let story = client.trace_event(request).await?;
        let traced = story.events.first();
        let own = traced.and_then(|event| {
            event.subscriptions.iter().find(|one| one.subscription == subscription)
        });
        let state = own.map(v1::SubscriptionTrace::state);
        let is_over = matches!(
            state,
            Some(EventState::Settled | EventState::DeadLetter | EventState::FilteredOut)
        );
        if is_over || Instant::now() >= until {
            return tell(&id, traced, own, is_over, format);
        }
        sleep(ASK_EVERY).await;
    }
}

fn event(args: &Args) -> anyhow::Result<CloudEvent> {
    if let Some(file) = &args.event {
        let bytes = apply::read_bytes(file)?;
        return from_json(&bytes).with_context(|| format!("{file} holds no CloudEvent in JSON"));
    }
    let mut event = CloudEvent {
        id: format!("invoke-{:016x}", rand::random::<u64>()),
        source: "/weft/invoke".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: args.event_type.clone(),
        ..CloudEvent::default()
    };
    if let Some(data) = &args.data {
        let _: serde_json::Value = serde_json::from_str(data)
            .context("--data is no JSON; use --event for other events")?;
        let attr = Some(Attr::CeString("application/json".to_owned()));
        event.attributes.insert("datacontenttype".to_owned(), CloudEventAttributeValue { attr });
        event.data = Some(Data::TextData(data.clone()));
    }
    Ok(event)
}

/// Tells what came of it; what did not end well is no success.
fn tell(
    id: &str,
    event: Option<&v1::EventTrace>,
    own: Option<&v1::SubscriptionTrace>,
    is_over: bool,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let state = own.map_or(EventState::Unspecified, v1::SubscriptionTrace::state);
    let word = match state {
        EventState::Settled => "done",
        EventState::DeadLetter => "given up: it is a dead letter",
        EventState::FilteredOut => "not for the function: its filters do not pass it",
        _ if !is_over => "not done in time; it is tried on",
        _ => "nobody knows",
    };
    let replies: Vec<&v1::RelatedEvent> =
        event.map(|one| one.related.iter().collect()).unwrap_or_default();
    let (failed, error) =
        own.map_or((0, ""), |one| (one.failed_attempts, one.last_failure.as_str()));
    let mut out = Out::new();
    if format == Format::Table {
        out.line(&format!("event {id}: {word}"))?;
        if failed > 0 {
            out.line(&format!("{failed} attempts failed; the last one said: {error}"))?;
        }
        for reply in replies {
            let place = format!("{}/{}/{}", reply.stream, reply.partition, reply.offset);
            out.line(&format!("came of it: {}  {}  {place}", reply.r#type, reply.id))?;
        }
        out.flush()?;
    } else {
        let reply = |reply: &&v1::RelatedEvent| {
            serde_json::json!({
                "stream": reply.stream, "partition": reply.partition, "offset": reply.offset,
                "id": reply.id, "source": reply.source, "type": reply.r#type,
            })
        };
        let replies: Vec<serde_json::Value> = replies.iter().map(reply).collect();
        out.json(&serde_json::json!({
            "id": id, "outcome": word, "failed": failed, "last_error": error, "replies": replies,
        }))?;
    }
    Ok(if state == EventState::Settled { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
