//! The port through which spans are recorded. Nobody records them unless the process was told to.
//!
//! *Never* knows who records, nor how: the program that starts the parts brings a [`Recorder`].

use std::fmt;
use std::sync::Arc;

use super::{TraceContext, TraceParent};

/// What a span is to the others of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Answers a call.
    Server,
    /// Makes a call.
    Client,
    /// Neither.
    Internal,
}

/// Records spans.
pub trait Recorder: fmt::Debug + Send + Sync {
    /// Begins a span now, below `parent` if there is one. `None`: this one is not recorded, and costs
    /// nothing more.
    fn begin(
        &self,
        name: &'static str,
        role: Role,
        parent: Option<&TraceContext>,
    ) -> Option<Box<dyn Live>>;
}

/// A span that goes on; it ends when it is dropped.
pub trait Live: fmt::Debug + Send + Sync {
    /// What those below it name as their parent.
    fn context(&self) -> TraceParent;
    /// Says something about it.
    fn text(&mut self, name: &'static str, value: String);
    /// Says a number about it.
    fn number(&mut self, name: &'static str, value: i64);
    /// It failed.
    fn fail(&mut self, why: String);
}

/// Begins spans where somebody records them; clones share the recorder. Without one it does nothing.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<dyn Recorder>>);

impl Tracer {
    /// Spans go to this recorder.
    pub fn new(recorder: Arc<dyn Recorder>) -> Self {
        Self(Some(recorder))
    }

    /// Whether there is somebody who records.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a span now. `parent` is asked for only if somebody records.
    pub fn begin(
        &self,
        name: &'static str,
        role: Role,
        parent: impl FnOnce() -> Option<TraceContext>,
    ) -> Span {
        Span(self.0.as_ref().and_then(|recorder| recorder.begin(name, role, parent().as_ref())))
    }
}

/// A span, or nothing where it is not recorded. It ends when it is dropped.
#[derive(Debug, Default)]
pub struct Span(Option<Box<dyn Live>>);

impl Span {
    /// What those below it name as their parent; nothing where it is not recorded.
    pub fn context(&self) -> Option<TraceParent> {
        self.0.as_ref().map(|live| live.context())
    }

    /// Says something about it.
    pub fn text(&mut self, name: &'static str, value: impl FnOnce() -> String) {
        if let Some(live) = &mut self.0 {
            live.text(name, value());
        }
    }

    /// Says a number about it.
    pub fn number(&mut self, name: &'static str, value: u64) {
        if let Some(live) = &mut self.0 {
            live.number(name, i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// It failed.
    pub fn fail(&mut self, why: impl FnOnce() -> String) {
        if let Some(live) = &mut self.0 {
            live.fail(why());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_records_nothing_is_asked_for() {
        let tracer = Tracer::default();
        let mut span = tracer.begin("x", Role::Internal, || unreachable!("nobody records"));
        span.text("a", || unreachable!("nobody records"));
        span.fail(|| unreachable!("nobody records"));
        assert_eq!((span.context(), tracer.is_on()), (None, false));
    }
}
