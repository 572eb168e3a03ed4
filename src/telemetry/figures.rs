//! Metrics as the collector wants them, from the text that Prometheus reads. Pure.
//!
//! The text is that of our own recorder: counters, gauges, and summaries for what is measured. What is
//! exported is so what `/metrics` shows, and recording costs the same whether anybody exports or not.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, Sum, Summary, SummaryDataPoint,
    number_data_point,
};

/// The label of a summary that says which part lies below the value.
const QUANTILE: &str = "quantile";

/// When the recorder began, and when the text was made; nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) began: u64,
    pub(super) now: u64,
}

/// One line of the text.
#[derive(Debug, PartialEq)]
struct Sample<'a> {
    name: &'a str,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// The metrics of a text; what is no line of the format is passed over.
pub(super) fn read(text: &str, span: Span) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    let mut helps: BTreeMap<&str, &str> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) =
            line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '))
        {
            helps.insert(name, help);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            metrics.extend(empty(name, kind, helps.get(name).copied().unwrap_or_default()));
        } else if let Some(sample) = sample(line)
            && let Some(metric) = metrics.last_mut()
        {
            add(metric, sample, span);
        }
    }
    metrics
}

fn empty(name: &str, kind: &str, description: &str) -> Option<Metric> {
    let data = match kind {
        "counter" => Data::Sum(Sum {
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
            data_points: Vec::new(),
        }),
        "gauge" => Data::Gauge(Gauge::default()),
        "summary" => Data::Summary(Summary::default()),
        _ => return None,
    };
    let (name, description) = (name.to_owned(), description.to_owned());
    Some(Metric { name, description, data: Some(data), ..Metric::default() })
}

/// Takes a sample into the metric whose lines come at present, if it is one of its.
fn add(metric: &mut Metric, mut sample: Sample<'_>, span: Span) {
    let Some(rest) = sample.name.strip_prefix(metric.name.as_str()) else { return };
    match &mut metric.data {
        Some(Data::Sum(sum)) if rest.is_empty() => sum.data_points.push(number(sample, span)),
        Some(Data::Gauge(gauge)) if rest.is_empty() => gauge.data_points.push(number(sample, span)),
        Some(Data::Summary(summary)) => {
            let quantile = sample.labels.remove(QUANTILE).and_then(|text| text.parse().ok());
            let value = sample.value;
            let point = point(summary, sample.labels, span);
            match (rest, quantile) {
                ("", Some(quantile)) => {
                    point.quantile_values.push(ValueAtQuantile { quantile, value });
                }
                ("_sum", None) => point.sum = value,
                ("_count", None) => point.count = whole(value),
                _ => {}
            }
        }
        _ => {}
    }
}

fn number(sample: Sample<'_>, span: Span) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(sample.labels),
        start_time_unix_nano: span.began,
        time_unix_nano: span.now,
        value: Some(number_data_point::Value::AsDouble(sample.value)),
        ..NumberDataPoint::default()
    }
}

/// The point of a summary with these labels; its lines follow each other.
fn point(
    summary: &mut Summary,
    labels: BTreeMap<String, String>,
    span: Span,
) -> &mut SummaryDataPoint {
    let attributes = attributes(labels);
    let known = summary.data_points.iter().position(|point| point.attributes == attributes);
    let at = known.unwrap_or_else(|| {
        summary.data_points.push(SummaryDataPoint {
            attributes,
            start_time_unix_nano: span.began,
            time_unix_nano: span.now,
            ..SummaryDataPoint::default()
        });
        summary.data_points.len() - 1
    });
    &mut summary.data_points[at]
}

fn attributes(labels: BTreeMap<String, String>) -> Vec<KeyValue> {
    labels.into_iter().map(|(key, value)| attribute(key, value)).collect()
}

/// An attribute that is a text.
pub(super) fn attribute(key: String, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value)) });
    KeyValue { key, value, ..KeyValue::default() }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count; the cast saturates"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

/// Reads `name{label="value",...} number`.
fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(label.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.trim().split(' ').next()?.parse().ok()?;
    (!name.is_empty() && !name.starts_with('#')).then_some(Sample { name, labels, value })
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = r#"# HELP weft_ingest_appended_events_total Events appended.
# TYPE weft_ingest_appended_events_total counter
weft_ingest_appended_events_total 7

# TYPE weft_raft_leads gauge
weft_raft_leads{group="1",node="2"} 1
weft_raft_leads{group="2",node="say \"x\\y\", {ok}\n"} 0.5

# TYPE weft_ingest_commit_seconds summary
weft_ingest_commit_seconds{group="1",quantile="0.5"} 0.002
weft_ingest_commit_seconds{group="1",quantile="1"} 0.01
weft_ingest_commit_seconds_sum{group="1"} 0.03
weft_ingest_commit_seconds_count{group="1"} 12

# TYPE other histogram
other_bucket{le="+Inf"} 3
"#;

    fn texts(attributes: &[KeyValue]) -> Vec<(&str, &str)> {
        let text = |pair: &KeyValue| match pair.value.as_ref().unwrap().value.as_ref().unwrap() {
            any_value::Value::StringValue(text) => text.clone().leak() as &str,
            other => panic!("{other:?}"),
        };
        attributes.iter().map(|pair| (pair.key.as_str(), text(pair))).collect()
    }

    #[test]
    fn counters_gauges_and_summaries_keep_their_kind_labels_and_values() {
        let metrics = read(TEXT, Span { began: 1, now: 2 });

        let [counter, gauge, summary] = metrics.as_slice() else { panic!("{metrics:?}") };
        assert_eq!(counter.name, "weft_ingest_appended_events_total");
        assert_eq!(counter.description, "Events appended.");
        let Some(Data::Sum(sum)) = &counter.data else { panic!("{counter:?}") };
        assert!(sum.is_monotonic);
        assert_eq!(
            (sum.data_points[0].start_time_unix_nano, sum.data_points[0].time_unix_nano),
            (1, 2)
        );
        assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsDouble(7.0)));

        let Some(Data::Gauge(leads)) = &gauge.data else { panic!("{gauge:?}") };
        assert_eq!(texts(&leads.data_points[0].attributes), [("group", "1"), ("node", "2")]);
        let odd = texts(&leads.data_points[1].attributes);
        assert_eq!(odd, [("group", "2"), ("node", "say \"x\\y\", {ok}\n")]);

        let Some(Data::Summary(commits)) = &summary.data else { panic!("{summary:?}") };
        let [point] = commits.data_points.as_slice() else { panic!("{commits:?}") };
        assert_eq!(texts(&point.attributes), [("group", "1")]);
        assert_eq!((point.count, point.sum, point.quantile_values.len()), (12, 0.03, 2));
    }

    #[test]
    fn what_the_recorder_writes_is_read_without_a_rest() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("a_total", "x" => "1").increment(3);
            metrics::gauge!("b").set(-1.5);
            metrics::histogram!("c_seconds", "y" => "q\"").record(0.25);
        });
        let text = recorder.handle().render();

        let metrics = read(&text, Span { began: 1, now: 2 });

        let names: Vec<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names.len(), 3, "{text}");
        for name in ["a_total", "b", "c_seconds"] {
            assert!(names.contains(&name), "{text}");
        }
        let summary = metrics.iter().find_map(|metric| match &metric.data {
            Some(Data::Summary(summary)) => Some(&summary.data_points),
            _ => None,
        });
        let [point] = summary.unwrap().as_slice() else { panic!("{text}") };
        assert_eq!((point.count, texts(&point.attributes)), (1, vec![("y", "q\"")]));
    }

    proptest! {
        #[test]
        fn no_text_ends_the_process(text in "(# TYPE a (gauge|summary)\n)?[a_{}=\", \\\\0-9#\n]{0,60}") {
            _ = read(&text, Span { began: 0, now: 0 });
        }
    }
}
