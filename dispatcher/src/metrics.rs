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

/// Tells the recorder what the names mean. Repeating is harmless.
pub(crate) fn describe() {
    metrics::describe_counter!(PUSHES, "Pushes of events to functions, by outcome");
    metrics::describe_histogram!(PUSH_SECONDS, Unit::Seconds, "From sending to outcome");
    metrics::describe_counter!(REPLIES, "Reply events stored");
    metrics::describe_counter!(STARTS, "Instances started");
    metrics::describe_counter!(CRASHES, "Instances that ended without being asked");
    metrics::describe_gauge!(LEASED, "Events of the function held in memory");
    metrics::describe_counter!(LINES_LEFT_OUT, "Lines of output left out, they came too fast");
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
