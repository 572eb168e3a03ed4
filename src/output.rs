//! What goes to standard output: tables for people, JSON for programs, one record a line.

use std::fmt::Write as _;
use std::io::{self, BufWriter, StdoutLock, Write as _};

use clap::ValueEnum;
use comfy_table::Table;
use serde::Serialize;
use weft_client::{Reason, Record};
use weft_proto::event::{self, EventView};
use weft_proto::resource::Kind;

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For people who edit; `weft apply` takes it back.
    Yaml,
}

/// Standard output. A closed pipe is an error like any other here; `main` ends quietly on it.
pub(crate) struct Out {
    to: BufWriter<StdoutLock<'static>>,
}

impl Out {
    pub(crate) fn new() -> Self {
        Self { to: BufWriter::with_capacity(64 << 10, io::stdout().lock()) }
    }

    /// Writes one line.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.to.write_all(text.as_bytes())?;
        self.to.write_all(b"\n")
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// Writes a value as JSON on one line.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(&serde_json::to_string(value)?)?;
        Ok(self.flush()?)
    }

    /// Tells what became of a resource.
    pub(crate) fn result(
        &mut self,
        (kind, name): (Kind, &str),
        word: &str,
        format: Format,
    ) -> anyhow::Result<()> {
        if format == Format::Json {
            let kind = kind.as_str();
            return self.json(&serde_json::json!({ "kind": kind, "name": name, "result": word }));
        }
        self.line(&format!("{} {name}: {word}", kind.as_str().to_lowercase()))?;
        Ok(self.flush()?)
    }

    /// Writes columns under a head line.
    pub(crate) fn table(&mut self, head: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(head.to_vec());
        table.add_rows(rows);
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(self.flush()?)
    }

    /// Writes an event as it is read.
    pub(crate) fn record(&mut self, record: &Record, format: Format) -> anyhow::Result<()> {
        Ok(self.line(&match format {
            Format::Table => short(record),
            Format::Json | Format::Yaml => record_json(record),
        })?)
    }
}

/// `{partition, offset, time, event}`; the payload is the one that was published.
fn record_json(record: &Record) -> String {
    let Record { partition, offset, append_time, event, .. } = record;
    let event = match EventView::parse(event) {
        Some(view) => event::to_json(&view),
        // Brokers take nothing else; a newer one might.
        None => "null".to_owned(),
    };
    format!(
        r#"{{"partition":{partition},"offset":{offset},"time":"{append_time}","event":{event}}}"#
    )
}

fn short(record: &Record) -> String {
    let Record { partition, offset, append_time, event, .. } = record;
    let place = format!("{partition}/{offset}  {append_time}");
    let Some(view) = EventView::parse(event) else {
        return format!("{place}  ({} bytes of another format)", event.len());
    };
    let subject = view.attribute("subject").unwrap_or_default();
    let data = view.data_bytes().unwrap_or_default();
    let data = match std::str::from_utf8(data) {
        Ok(text) => printable(text),
        Err(_) => format!("({} bytes)", data.len()),
    };
    let [ty, source, subject] = [view.ty, view.source, &subject].map(printable);
    format!("{place}  {ty}  {source}  {subject}  {data}").trim_end().to_owned()
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// On one line and without control characters: an event must not steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What went wrong, in which place, for which reason, and what to do.
pub(crate) fn explain(error: &anyhow::Error, stream: Option<&str>, endpoints: &[String]) -> String {
    let text = format!("error: {}\n", sentence(error));
    let found = error.chain().find_map(|cause| cause.downcast_ref::<weft_client::Error>());
    let Some(found) = found else { return text };
    let field = found.field().map(|field| format!("  at: {field}\n")).unwrap_or_default();
    let advice = advice(found, stream, endpoints);
    let advice = advice.map(|advice| format!("  {advice}\n")).unwrap_or_default();
    format!("{text}  reason: {}\n{field}{advice}", found.reason())
}

/// The error and its causes; some errors repeat their cause in their own sentence.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |mut text, cause| {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
        text
    })
}

/// What to do about an error, where that can be told.
fn advice(
    error: &weft_client::Error,
    stream: Option<&str>,
    endpoints: &[String],
) -> Option<String> {
    Some(match error.reason() {
        Reason::UnknownStream => {
            format!("create it: weft stream create {}", stream.unwrap_or("NAME"))
        }
        Reason::UnknownResource => "see what there is: weft get all".to_owned(),
        Reason::Unauthenticated => format!(
            "log in: weft login --endpoint {}; or give a key: --token-file FILE, or $WEFT_TOKEN",
            endpoints.join(",")
        ),
        Reason::InvalidArgument if error.field().is_some_and(|field| field.starts_with("tls")) => {
            "give the authority of the cluster: --ca-file FILE, or $WEFT_CA_FILE".to_owned()
        }
        Reason::Unavailable if error.message().contains("peer certificate") => {
            "is it the cluster's authority that --ca-file names, and the right address?".to_owned()
        }
        Reason::PermissionDenied if error.message().contains("weft access explain") => {
            "whoever governs it can grant it; who you are: weft whoami".to_owned()
        }
        Reason::PermissionDenied => {
            "see why: weft access explain PRINCIPAL VERB RESOURCE; who you are: weft whoami"
                .to_owned()
        }
        Reason::Unavailable | Reason::DeadlineExceeded => format!(
            "is a cluster running at {}? Start one here: weft dev; or name another: --endpoint URL",
            endpoints.join(", ")
        ),
        Reason::DiskFull => "free space on the nodes, or shorten the retention".to_owned(),
        Reason::OffsetOutOfRange => {
            format!("see what is stored: weft stream describe {}", stream.unwrap_or("NAME"))
        }
        _ => return None,
    })
}

/// Whether the reader of our output went away, as `head` does.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().map(io::Error::kind)
    };
    error.chain().any(|cause| io(cause) == Some(io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use weft_proto::{Offset, PartitionId, Timestamp};

    use super::*;

    #[test]
    fn no_cause_is_told_twice() {
        let error = anyhow::anyhow!("key: no").context("wrong: key: no").context("cannot start");

        let text = explain(&error, None, &[]);

        assert_eq!(text, "error: cannot start: wrong: key: no\n");
    }

    #[test]
    fn a_record_shows_the_payload_byte_for_byte() {
        let json = br#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"a": 1.50}}"#;
        let event = prost::Message::encode_to_vec(&event::from_json(json).unwrap());
        let record = Record {
            partition: PartitionId(2),
            offset: Offset(7),
            append_time: Timestamp::from_micros(1),
            schema: None,
            event: event.into(),
        };

        let text = record_json(&record);

        let start = r#"{"partition":2,"offset":7,"time":"1970-01-01T00:00:00.000001Z","event":{"#;
        assert!(text.starts_with(start), "{text}");
        assert!(text.contains(r#""data":{"a": 1.50}"#), "{text}");
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn an_unknown_stream_is_answered_with_the_command_that_creates_it() {
        let error = weft_client::Error::new(Reason::UnknownStream, "no stream default/orders");

        let text = explain(&error.into(), Some("orders"), &[]);

        assert!(text.contains("weft stream create orders\n"), "{text}");
    }

    #[test]
    fn an_unreachable_cluster_is_named() {
        let error = weft_client::Error::unavailable("cannot connect: refused");
        let error = anyhow::Error::from(error).context("stopped at line 3");

        let text = explain(&error, None, &["http://a:1".to_owned(), "http://b:1".to_owned()]);

        assert!(text.contains("http://a:1, http://b:1") && text.contains("weft dev"), "{text}");
    }

    #[test]
    fn a_refusal_is_answered_with_how_to_log_in_or_to_find_out_why() {
        let told = |reason, message: &str| {
            let error = weft_client::Error::new(reason, message);
            explain(&error.into(), None, &["https://a:1".to_owned(), "https://b:1".to_owned()])
        };
        let text = told(Reason::Unauthenticated, "a credential is needed");
        assert!(text.contains("weft login --endpoint https://a:1,https://b:1"), "{text}");
        let asked = "key:a/b may not read a/c; `weft access explain key:a/b read a/c` says why";
        let text = told(Reason::PermissionDenied, asked);
        assert_eq!(text.matches("weft access explain").count(), 1, "{text}");
        let text = told(Reason::PermissionDenied, "no");
        assert!(text.contains("weft access explain"), "{text}");
    }

    #[test]
    fn an_event_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n{\"c\":1}\n"), "a [2Jb {\"c\":1}");
    }
}
