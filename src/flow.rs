//! `weft flow test`: what a flow does with sample events, without a cluster and without a network.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Subcommand;
use prost::Message as _;
use serde_json::{Value, json};
use weft_dispatcher::flow::{
    Action, Admission, Answer, Delivered, Engine, HttpRequest, Limits, Plan, Stored, Token,
};
use weft_proto::event::{self, EVENT_BYTES_MAX, EventView, to_json};
use weft_proto::resource::{self, FunctionSpec, Kind, identify};
use weft_proto::{QualifiedName, Timestamp};

use crate::apply;
use crate::filter::read_events;
use crate::output::{Format, Out, printable};

/// Room for sample events.
const BYTES_MAX: usize = 256 << 20;
/// Longest body of a request that is shown.
const BODY_LEN: usize = 2_000;

/// Arguments of `weft flow`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Take sample events through a flow: nothing is sent, nothing is published
    #[command(after_help = "\
Requests are shown, and answered by what --answer says, else by 200 and {}. Once all events are in, time
passes at once until nothing waits any more.

Exit codes: 0 every event was done, or given back for later; 1 one failed, or the command did.

Examples:
  weft flow test -f parcels.yaml --event order.json
  weft flow test -f parcels.yaml --event - --answer 'customer=200:{\"name\":\"Ada\"}' < orders.jsonl
  weft flow test -f parcels.yaml --event order.json --answer reserve=503 --last -o json")]
    Test(Test),
}

#[derive(clap::Args, Debug)]
struct Test {
    /// The file with the function; - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: String,

    /// Which function, if there are several: NAME or NAMESPACE/NAME
    #[arg(long)]
    function: Option<QualifiedName>,

    /// Structured JSON events, one after the other or in a list; - for standard input
    #[arg(long, value_name = "FILE")]
    event: String,

    /// How requests of a step are answered: a status, and JSON if it has a body
    #[arg(long, value_name = "STEP=STATUS[:JSON]", value_parser = answer)]
    answer: Vec<(String, Given)>,

    /// As if each event had no attempt left: what fails is undone
    #[arg(long)]
    last: bool,
}

/// An answer on the command line.
#[derive(Clone, Debug)]
struct Given {
    status: u16,
    body: String,
}

fn answer(text: &str) -> Result<(String, Given), String> {
    let (step, answer) = text.split_once('=').ok_or("write STEP=STATUS or STEP=STATUS:JSON")?;
    let (status, body) = answer.split_once(':').unwrap_or((answer, "{}"));
    let status = status.parse().ok().filter(|status| (100..1_000).contains(status));
    let status = status.ok_or_else(|| format!("{answer:?} does not begin with a status"))?;
    serde_json::from_str::<Value>(body).map_err(|error| format!("the body is no JSON: {error}"))?;
    Ok((step.to_owned(), Given { status, body: body.to_owned() }))
}

pub(crate) fn run(args: Args, format: Format) -> anyhow::Result<ExitCode> {
    let Verb::Test(test) = args.verb;
    let (name, spec) = function(&test)?;
    let flow = spec.flow.with_context(|| format!("the function {name} is no flow"))?;
    let answers: BTreeMap<String, Given> = test.answer.into_iter().collect();
    let steps = flow.steps();
    if let Some(step) = answers.keys().find(|step| !steps.iter().any(|one| one.label() == *step)) {
        anyhow::bail!("the flow has no step {step:?}");
    }
    let reply = spec.reply.map(|reply| reply.stream.parse()).transpose()?;
    let plan = Arc::new(Plan::new(&flow, name, reply)?);
    let limits = Limits { bytes_max: BYTES_MAX, timeout: spec.timeout.0 };
    let micros = u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or(0);
    let mut sample = Sample {
        engine: Engine::new(plan, limits).with_notes(),
        now: Timestamp::from_micros(micros),
        answers,
        out: Out::new(),
        format,
        has_failed: false,
    };
    for (number, json) in (1_u64..).zip(read_events(&test.event)?) {
        let wrong = || format!("event {number} is none");
        let event = event::from_json(json.get().as_bytes()).with_context(wrong)?;
        let event = Bytes::from(event.encode_to_vec());
        event::check(&event, EVENT_BYTES_MAX).with_context(wrong)?;
        sample.give(Token(number), event, test.last)?;
    }
    while let Some(due) = sample.engine.poll_timeout() {
        sample.now = due.max(sample.now);
        let now = sample.now.to_string();
        sample
            .tell(&format!("time passes until {now}"), &json!({"action": "wait", "until": now}))?;
        sample.drive()?;
    }
    sample.out.flush()?;
    Ok(if sample.has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The function that is meant.
fn function(test: &Test) -> anyhow::Result<(QualifiedName, FunctionSpec)> {
    let mut found = Vec::new();
    for manifest in apply::read(&test.file)? {
        let resource = manifest.to_resource()?;
        let (kind, name) = identify(&resource)?;
        if kind == Kind::Function && test.function.as_ref().is_none_or(|wanted| *wanted == name) {
            found.push((name, resource::parse(kind, &resource.spec)?));
        }
    }
    let count = found.len();
    match (found.pop(), count) {
        (Some(one), 1) => Ok(one),
        (None, _) => anyhow::bail!("there is no such function in {}", test.file),
        _ => {
            anyhow::bail!("there are {count} functions in {}: say which, by --function", test.file)
        }
    }
}

/// A flow with nothing around it.
struct Sample {
    engine: Engine,
    now: Timestamp,
    answers: BTreeMap<String, Given>,
    out: Out,
    format: Format,
    has_failed: bool,
}

impl Sample {
    fn give(&mut self, token: Token, event: Bytes, is_last: bool) -> anyhow::Result<()> {
        if let Some(view) = EventView::parse(&event) {
            let text = format!("event {}  {} {} {}", token.0, view.ty, view.source, view.id);
            let json = json!({"action": "event", "event": token.0, "id": view.id});
            self.tell(&text, &json)?;
        }
        let delivered = Delivered { token, event, stored: self.now, is_last };
        if self.engine.handle_event(delivered, self.now) == Admission::Full {
            anyhow::bail!("the sample events take more than {BYTES_MAX} bytes");
        }
        self.drive()
    }

    /// Does what the engine asks for, on paper.
    fn drive(&mut self) -> anyhow::Result<()> {
        loop {
            let action = self.engine.poll_action(self.now);
            self.notes()?;
            match action {
                None => return Ok(()),
                Some(Action::Request { step, call, request, .. }) => {
                    let answer = self.request(&step, &request)?;
                    self.engine.handle_answer(call, answer, self.now);
                }
                Some(Action::Publish { publication, stream, events }) => {
                    for event in &events {
                        let json = EventView::parse(event).map(|view| to_json(&view));
                        let json = json.unwrap_or_default();
                        let value: Value = serde_json::from_str(&json)?;
                        let shown = json!({"action": "publish", "stream": stream.to_string(), "event": value});
                        self.tell(&format!("  to {stream}: {json}"), &shown)?;
                    }
                    let stored = events.iter().map(|_| Stored::Yes).collect();
                    self.engine.handle_stored(publication, stored, self.now);
                }
                Some(Action::Settle { tokens }) => {
                    let shown = json!({"action": "done", "events": numbers(&tokens)});
                    self.tell(&format!("done: {}", list(&tokens)), &shown)?;
                }
                Some(Action::Fail { tokens, failure }) => {
                    self.has_failed = true;
                    let fate =
                        if failure.is_permanent() { "for good" } else { "and is tried again" };
                    let shown = json!({
                        "action": "fail", "events": numbers(&tokens), "step": failure.step,
                        "reason": failure.reason, "message": failure.message,
                        "permanent": failure.is_permanent(),
                    });
                    self.tell(&format!("failed {fate}: {}: {failure}", list(&tokens)), &shown)?;
                }
                Some(Action::Delay { token, until }) => {
                    let until = until.to_string();
                    let shown = json!({"action": "delay", "events": [token.0], "until": until});
                    self.tell(&format!("given back until {until}: event {}", token.0), &shown)?;
                }
            }
        }
    }

    /// Shows a request, and what it is taken to be answered by.
    fn request(&mut self, step: &str, request: &HttpRequest) -> anyhow::Result<Answer> {
        let given = self.answers.get(step).cloned();
        let given = given.unwrap_or_else(|| Given { status: 200, body: "{}".to_owned() });
        let body: String = String::from_utf8_lossy(&request.body).chars().take(BODY_LEN).collect();
        let headers: BTreeMap<&str, String> = request
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into()))
            .collect();
        let (method, url) = (request.method.as_str(), request.url.to_string());
        let shown = json!({
            "action": "request", "step": step, "method": method, "url": url, "headers": headers,
            "body": body, "answer": given.status,
        });
        let mut lines = vec![format!("  not sent: {method} {url}")];
        lines.extend(headers.iter().map(|(name, value)| format!("    {name}: {value}")));
        let secret = request.authorization.iter();
        lines.extend(secret.map(|one| format!("    authorization: (the file {})", one.file)));
        lines.extend(Some(format!("    {body}")).filter(|_| !body.is_empty()));
        lines.push(format!("  taken to be answered {} {}", given.status, given.body));
        self.tell(&lines.join("\n"), &shown)?;
        let body = if request.reads_answer { Bytes::from(given.body) } else { Bytes::new() };
        Ok(Answer::Answered { status: given.status, retry_after: None, body: Some(body) })
    }

    fn notes(&mut self) -> anyhow::Result<()> {
        for note in self.engine.take_notes() {
            let shown =
                json!({"action": "step", "step": note.step, "id": note.event, "what": note.what});
            self.tell(&format!("  {}  {}  {}", note.step, note.event, note.what), &shown)?;
        }
        Ok(())
    }

    fn tell(&mut self, text: &str, json: &Value) -> anyhow::Result<()> {
        if self.format != Format::Table {
            return self.out.json(json);
        }
        for line in text.lines() {
            self.out.line(&printable(line))?;
        }
        Ok(())
    }
}

fn numbers(tokens: &[Token]) -> Vec<u64> {
    tokens.iter().map(|token| token.0).collect()
}

fn list(tokens: &[Token]) -> String {
    let numbers = tokens.iter().map(|token| format!("event {}", token.0));
    numbers.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_documentation_is_a_good_flow() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples");
        let test = Test {
            file: format!("{folder}/parcels.yaml"),
            function: None,
            event: format!("{folder}/order.json"),
            answer: Vec::new(),
            last: false,
        };
        let (name, spec) = function(&test).unwrap();
        Plan::new(&spec.flow.unwrap(), name, None).unwrap();
        assert_eq!(read_events(&test.event).unwrap().len(), 1);
    }

    #[test]
    fn answers_are_a_status_and_json() {
        let (step, given) = answer(r#"ask=404:{"a":"b=c:d"}"#).unwrap();
        assert_eq!((&*step, given.status, &*given.body), ("ask", 404, r#"{"a":"b=c:d"}"#));
        assert_eq!(answer("ask=503").unwrap().1.body, "{}");
        for wrong in ["ask", "ask=", "ask=20", "ask=200:", "ask=200:x", "ask=x:{}"] {
            assert!(answer(wrong).is_err(), "{wrong}");
        }
    }
}
