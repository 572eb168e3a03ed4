//! Where an event comes from and goes to, as traces tell it: W3C trace context in headers and in
//! events, and the port through which spans are recorded.
//!
//! Source: W3C Trace Context, level 1; CloudEvents 1.0.2, extension "Distributed Tracing".

mod context;
mod parent;
mod settings;
mod span;
mod state;

pub use context::{TRACEPARENT, TRACESTATE, TraceContext};
pub use parent::{NoTraceParent, TraceParent};
pub use settings::{Otlp, Protocol, Telemetry};
pub use span::{Live, Recorder, Role, Span, Tracer};
