//! `weft publish`: publishes events from a file or from standard input.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use bytes::Bytes;
use clap::ValueEnum;
use prost::Message as _;
use weft_client::{AckLevel, Client, Codec, Error, PendingBatch, Publisher, PublisherOptions};
use weft_proto::cloudevents::CloudEvent;
use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use weft_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use weft_proto::event;

use crate::expect::Expect;
use crate::output::{Format, Out};
use crate::progress::Progress;

/// Events and bytes that are handed over at once.
const CHUNK_EVENTS: usize = 1_000;
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks on their way; the publisher bounds their bytes.
const PENDING_LEN: usize = 64;
/// Longest line: an event has at most 1,000,000 bytes, its JSON may escape each of them.
const LINE_BYTES_MAX: u64 = 8 << 20;
/// Largest input that is one request: its events have at most 1 MiB, their JSON may be longer.
const REQUEST_INPUT_MAX: u64 = 16 << 20;

/// Arguments of `weft publish`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
jsonl: one CloudEvent in JSON a line. JSON payloads are stored byte for byte. Refused lines are
reported with line number, reason and place; the rest is published; the exit code is then 1.

raw: the whole input is the payload of one event; --type and --source describe it.

Events with the same --key, or else the same subject, keep their order.

With --expect or --expect-subject the input is one request: 4,096 events and 1 MiB at most. If an
expectation fails, nothing is published to its partition, and all that failed are shown.

Examples:
  weft publish orders --file orders.jsonl
  echo '{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/shop\",\"type\":\"order.placed\",\"data\":{\"total\":5}}' | weft publish orders
  echo '{\"total\":5}' | weft publish orders --format raw --type order.placed --source /shop
  weft publish carts --file cart-7.jsonl --expect-subject cart/7=none")]
pub(crate) struct Args {
    /// The stream: NAME or NAMESPACE/NAME
    pub(crate) stream: String,

    /// The input; - is standard input
    #[arg(short, long, default_value = "-", value_name = "FILE")]
    file: String,

    /// What the input is
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Input,

    /// raw: the event's type
    #[arg(long = "type", value_name = "TYPE", required_if_eq("format", "raw"))]
    ty: Option<String>,

    /// raw: the event's source, a URI reference such as /shop
    #[arg(long, value_name = "URI", required_if_eq("format", "raw"))]
    source: Option<String>,

    /// raw: the event's id; random without it
    #[arg(long, value_name = "ID")]
    id: Option<String>,

    /// raw: the event's subject
    #[arg(long)]
    subject: Option<String>,

    /// raw: the event's partitionkey
    #[arg(long)]
    key: Option<String>,

    /// raw: media type of the payload; without it, application/json or application/octet-stream
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,

    /// Compress batches: they travel, are replicated, stored and read so
    #[arg(long, value_enum, value_name = "CODEC")]
    compression: Option<Compression>,

    /// When an event counts as published
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "durable")]
    ack: Ack,

    #[command(flatten)]
    expect: Expect,
}

/// When an event counts as published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ack {
    /// Once a majority of the nodes has it on disk
    Durable,
    /// Once a majority has it in memory: sooner, and lost if two faults meet within moments
    Replicated,
}

impl From<Ack> for AckLevel {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::Durable => Self::Durable,
            Ack::Replicated => Self::Replicated,
        }
    }
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// Costs little, saves about half of JSON
    Lz4,
    /// Costs more, saves more
    Zstd,
}

impl From<Compression> for Codec {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Lz4 => Self::Lz4,
            Compression::Zstd => Self::Zstd,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Input {
    /// One CloudEvent in JSON a line
    Jsonl,
    /// The whole input is the payload of one event
    Raw,
}

pub(crate) async fn run(args: Args, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let described = args.ty.is_some() || args.source.is_some() || args.id.is_some();
    let described = described || args.subject.is_some() || args.key.is_some();
    if args.format == Input::Jsonl && (described || args.content_type.is_some()) {
        anyhow::bail!(
            "--type, --source, --id, --subject, --key and --content-type describe raw input: add --format raw"
        );
    }
    let mut input: Box<dyn Read + Send> = match args.file.as_str() {
        "-" => Box::new(std::io::stdin()),
        file => {
            let opened = std::fs::File::open(file);
            Box::new(opened.with_context(|| format!("cannot read {file}"))?)
        }
    };
    if !args.expect.is_empty() {
        return run_expecting(args, input, client, format).await;
    }
    let options = PublisherOptions {
        compression: args.compression.map(Codec::from),
        ack: args.ack.into(),
        ..PublisherOptions::default()
    };
    let publisher = client.publisher(&args.stream, options).await?;
    let mut run = Run::new(publisher);
    match args.format {
        Input::Jsonl => run.lines(BufReader::with_capacity(CHUNK_BYTES, input)).await?,
        Input::Raw => {
            let mut data = Vec::new();
            input.read_to_end(&mut data).context("cannot read the input")?;
            run.add(1, raw_event(args, data).encode_to_vec().into()).await?;
        }
    }
    run.finish().await?.report(format)
}

/// Publishes the whole input at once, if what is expected holds.
async fn run_expecting(
    mut args: Args,
    input: impl Read,
    client: &Client,
    format: Format,
) -> anyhow::Result<ExitCode> {
    if args.compression.is_some() {
        anyhow::bail!("--compression does not go with --expect and --expect-subject");
    }
    let (expect, stream) = (std::mem::take(&mut args.expect), args.stream.clone());
    let ack = args.ack.into();
    let mut data = Vec::new();
    let read = input.take(REQUEST_INPUT_MAX + 1).read_to_end(&mut data);
    if read.context("cannot read the input")? as u64 > REQUEST_INPUT_MAX {
        anyhow::bail!("the input is larger than one request, which has 1 MiB of events at most");
    }
    let (mut lines, mut events) = (Vec::new(), Vec::new());
    match args.format {
        Input::Jsonl => {
            for (number, line) in (1_u64..).zip(data.split(|byte| *byte == b'\n')) {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let event = event::from_json(line)
                    .with_context(|| format!("line {number}; nothing was published"))?;
                lines.push(number);
                events.push(event.encode_to_vec().into());
            }
        }
        Input::Raw => {
            lines.push(1);
            events.push(raw_event(args, data).encode_to_vec().into());
        }
    }
    let mut outcome = Outcome::default();
    for (line, result) in lines.into_iter().zip(expect.publish(client, &stream, events, ack).await?)
    {
        match result {
            Ok(receipt) => {
                outcome.published += 1;
                outcome.duplicates += u64::from(receipt.duplicate);
                outcome.delayed += u64::from(receipt.delayed);
            }
            Err(error) => outcome.refuse(line, &error)?,
        }
    }
    outcome.report(format)
}

struct Run {
    publisher: Publisher,
    lines: Vec<u64>,
    events: Vec<Bytes>,
    bytes: usize,
    pending: VecDeque<(Vec<u64>, PendingBatch)>,
    progress: Progress,
    outcome: Outcome,
}

#[derive(Default)]
struct Outcome {
    published: u64,
    duplicates: u64,
    delayed: u64,
    refused: u64,
}

impl Run {
    fn new(publisher: Publisher) -> Self {
        Self {
            publisher,
            lines: Vec::new(),
            events: Vec::new(),
            bytes: 0,
            pending: VecDeque::new(),
            progress: Progress::new("publishing"),
            outcome: Outcome::default(),
        }
    }

    async fn lines(&mut self, mut input: BufReader<impl Read>) -> anyhow::Result<()> {
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            let read = read.with_context(|| format!("cannot read line {number}"))?;
            if read == 0 {
                break;
            }
            if read as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") {
                anyhow::bail!("line {number} is longer than {LINE_BYTES_MAX} bytes");
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            match event::from_json(&line) {
                Ok(event) => self.add(number, event.encode_to_vec().into()).await?,
                Err(error) => self.outcome.refuse(number, &error)?,
            }
            // Whoever writes the lines may pause now; what came so far shall not wait for it.
            if input.buffer().is_empty() && !self.events.is_empty() {
                self.hand_over().await?;
            }
        }
        Ok(())
    }

    async fn add(&mut self, line: u64, event: Bytes) -> anyhow::Result<()> {
        self.bytes += event.len();
        self.lines.push(line);
        self.events.push(event);
        if self.events.len() >= CHUNK_EVENTS || self.bytes >= CHUNK_BYTES {
            self.hand_over().await?;
        }
        Ok(())
    }

    async fn hand_over(&mut self) -> anyhow::Result<()> {
        let (lines, events) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.events));
        self.bytes = 0;
        self.pending.push_back((lines, self.publisher.publish_batch(events).await?));
        if self.pending.len() >= PENDING_LEN {
            self.settle_first().await?;
        }
        Ok(())
    }

    async fn settle_first(&mut self) -> anyhow::Result<()> {
        let Some((lines, pending)) = self.pending.pop_front() else { return Ok(()) };
        let receipts = pending.outcome().await.receipts();
        self.progress.add(receipts.len());
        for (line, receipt) in lines.into_iter().zip(receipts) {
            match receipt {
                Ok(receipt) => {
                    self.outcome.published += 1;
                    self.outcome.duplicates += u64::from(receipt.duplicate);
                    self.outcome.delayed += u64::from(receipt.delayed);
                }
                // With the cluster away, no line will do better.
                Err(error) if error.is_retryable() => {
                    return Err(anyhow::Error::from(error).context(format!(
                        "stopped at line {line}, after {} published events",
                        self.outcome.published
                    )));
                }
                Err(error) if error.reason() == weft_client::Reason::UnknownStream => {
                    return Err(error.into());
                }
                Err(error) => self.outcome.refuse(line, &error)?,
            }
        }
        Ok(())
    }

    async fn finish(mut self) -> anyhow::Result<Outcome> {
        if !self.events.is_empty() {
            self.hand_over().await?;
        }
        while !self.pending.is_empty() {
            self.settle_first().await?;
        }
        self.publisher.close().await;
        Ok(self.outcome)
    }
}

impl Outcome {
    fn refuse(&mut self, line: u64, error: &Error) -> std::io::Result<()> {
        self.refused += 1;
        let place = error.field().filter(|field| !field.is_empty());
        let place = place.map(|field| format!(" at {field}")).unwrap_or_default();
        let reason = error.reason();
        let text = format!("line {line}: {reason}{place}: {error}\n");
        std::io::stderr().write_all(text.as_bytes())
    }

    fn report(&self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { published, duplicates, delayed, refused } = self;
        let mut out = Out::new();
        if format == Format::Json {
            out.json(&serde_json::json!({
                "published": published, "duplicates": duplicates, "delayed": delayed, "refused": refused,
            }))?;
        } else {
            let mut parts = vec![format!("{published} published")];
            if *duplicates > 0 {
                parts.push(format!("{duplicates} of them were there already"));
            }
            if *delayed > 0 {
                parts.push(format!("{delayed} of them wait for their time"));
            }
            if *refused > 0 {
                parts.push(format!("{refused} refused"));
            }
            out.line(&parts.join(", "))?;
            out.flush()?;
        }
        Ok(if *refused > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn raw_event(args: Args, data: Vec<u8>) -> CloudEvent {
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&data).is_ok();
    let guess = if is_json { "application/json" } else { "application/octet-stream" };
    let attributes = [
        ("datacontenttype", Some(args.content_type.unwrap_or_else(|| guess.to_owned()))),
        ("subject", args.subject),
        ("partitionkey", args.key),
    ];
    let attribute = |(name, text): (&str, Option<String>)| {
        let attr = Some(Attr::CeString(text?));
        Some((name.to_owned(), CloudEventAttributeValue { attr }))
    };
    CloudEvent {
        id: args.id.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>())),
        source: args.source.unwrap_or_default(),
        spec_version: "1.0".to_owned(),
        r#type: args.ty.unwrap_or_default(),
        attributes: attributes.into_iter().filter_map(attribute).collect(),
        data: Some(Data::BinaryData(data.into())),
    }
}
