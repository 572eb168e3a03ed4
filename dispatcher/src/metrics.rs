//! Names of all metrics of the dispatcher, once, with help.

use metrics::{Counter, Gauge, Histogram, Unit};

/// Pushes by outcome.
const PUSHES: &str = "weft_dispatcher_pushes_total";
/// Time from sending an event to its outcome.
const PUSH_SECONDS: &str = "weft_dispatcher_push_seconds";
/// Reply events stored.
const REPLIES: &str = "weft_dispatcher_replies_total";
/// Instances started.
const STARTS: &str = "weft_dispatcher_instance_starts_total";
/// Instances that ended without being asked.
const CRASHES: &str = "weft_dispatcher_instance_crashes_total";
/// Events held in memory, and the most there may be.
const LEASED: &str = "weft_dispatcher_leased_events";
/// Lines of output left out because they came too fast.
const LINES_LEFT_OUT: &str = "weft_dispatcher_log_lines_left_out_total";

/// Requests to webhooks by outcome.
const WEBHOOK_REQUESTS: &str = "weft_dispatcher_webhook_requests_total";
/// Time from sending a request to a webhook to its outcome.
const WEBHOOK_SECONDS: &str = "weft_dispatcher_webhook_seconds";
/// Whether a webhook's receiver is left alone.
const WEBHOOK_CIRCUIT: &str = "weft_dispatcher_webhook_circuit";
/// Events of webhooks by what became of them.
const WEBHOOK_EVENTS: &str = "weft_dispatcher_webhook_events_total";

/// Tells the recorder what the names mean. Repeating is harmless.
pub(crate) fn describe() {
    metrics::describe_counter!(PUSHES, "Pushes of events to functions, by outcome");
    metrics::describe_histogram!(PUSH_SECONDS, Unit::Seconds, "From sending to outcome");
    metrics::describe_counter!(REPLIES, "Reply events stored");
    metrics::describe_counter!(STARTS, "Instances started");
    metrics::describe_counter!(CRASHES, "Instances that ended without being asked");
    metrics::describe_gauge!(LEASED, "Events of the function held in memory");
    metrics::describe_counter!(LINES_LEFT_OUT, "Lines of output left out, they came too fast");
    metrics::describe_counter!(WEBHOOK_REQUESTS, "Requests to webhooks, by outcome");
    metrics::describe_histogram!(WEBHOOK_SECONDS, Unit::Seconds, "From request to outcome");
    metrics::describe_gauge!(WEBHOOK_CIRCUIT, "0 closed, 1 half-open, 2 open: left alone");
    metrics::describe_counter!(WEBHOOK_EVENTS, "Events of webhooks that were settled, by how");
}

/// Cached handles of one function.
#[derive(Clone)]
pub(crate) struct FunctionMetrics {
    pub(crate) done: Counter,
    pub(crate) not_done: Counter,
    pub(crate) push_seconds: Histogram,
    pub(crate) replies: Counter,
    pub(crate) starts: Counter,
    pub(crate) crashes: Counter,
    pub(crate) leased: Gauge,
    pub(crate) lines_left_out: Counter,
}

impl FunctionMetrics {
    /// Functions are named by operators, not by traffic: their names are a closed set.
    pub(crate) fn of(function: &str) -> Self {
        let label = || ("function", function.to_owned());
        Self {
            done: metrics::counter!(PUSHES, "outcome" => "done", label().0 => label().1),
            not_done: metrics::counter!(PUSHES, "outcome" => "not_done", label().0 => label().1),
            push_seconds: metrics::histogram!(PUSH_SECONDS, label().0 => label().1),
            replies: metrics::counter!(REPLIES, label().0 => label().1),
            starts: metrics::counter!(STARTS, label().0 => label().1),
            crashes: metrics::counter!(CRASHES, label().0 => label().1),
            leased: metrics::gauge!(LEASED, label().0 => label().1),
            lines_left_out: metrics::counter!(LINES_LEFT_OUT, label().0 => label().1),
        }
    }
}

/// Cached handles of one webhook.
#[derive(Clone)]
pub(crate) struct WebhookMetrics {
    pub(crate) done: Counter,
    pub(crate) not_done: Counter,
    pub(crate) seconds: Histogram,
    pub(crate) circuit: Gauge,
    pub(crate) delivered: Counter,
    pub(crate) rejected: Counter,
}

impl WebhookMetrics {
    /// Webhooks are named by operators, not by traffic: their names are a closed set.
    pub(crate) fn of(webhook: &str) -> Self {
        let requests = |outcome| {
            let name = webhook.to_owned();
            metrics::counter!(WEBHOOK_REQUESTS, "outcome" => outcome, "webhook" => name)
        };
        let events = |fate| {
            let name = webhook.to_owned();
            metrics::counter!(WEBHOOK_EVENTS, "fate" => fate, "webhook" => name)
        };
        Self {
            done: requests("done"),
            not_done: requests("not_done"),
            seconds: metrics::histogram!(WEBHOOK_SECONDS, "webhook" => webhook.to_owned()),
            circuit: metrics::gauge!(WEBHOOK_CIRCUIT, "webhook" => webhook.to_owned()),
            delivered: events("delivered"),
            rejected: events("rejected"),
        }
    }
}
