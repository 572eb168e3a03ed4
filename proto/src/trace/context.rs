//! Trace context as messages and events carry it.

use bytes::Bytes;
use prost::Message as _;

use super::parent::TraceParent;
use super::state;
use crate::cloudevents::CloudEvent;
use crate::cloudevents::cloud_event::CloudEventAttributeValue;
use crate::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use crate::event::EventView;

/// The header, and the attribute of events.
pub const TRACEPARENT: &str = "traceparent";
/// The header, and the attribute of events.
pub const TRACESTATE: &str = "tracestate";

/// `traceparent` with its `tracestate`: neither goes without the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    parent: TraceParent,
    text: String,
    state: Option<String>,
}

impl TraceContext {
    /// Of texts that may be anything; `None` without a good `traceparent`. A bad `tracestate` is
    /// left out.
    pub fn read(parent: &str, state: Option<&str>) -> Option<Self> {
        let (text, state) = (parent.to_owned(), state.and_then(state::tidy));
        Some(Self { parent: parent.parse().ok()?, text, state })
    }

    /// Of the headers of a message, whose names are in lower case. More than one `traceparent` is as
    /// none; several `tracestate` are one list.
    pub fn of_headers<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Option<Self> {
        let (mut parents, mut states) = (Vec::new(), Vec::new());
        for (name, value) in headers {
            match name {
                TRACEPARENT => parents.push(value),
                TRACESTATE => states.push(value),
                _ => {}
            }
        }
        let [parent] = parents.as_slice() else { return None };
        let state = states.join(&b',');
        Self::read(str::from_utf8(parent).ok()?, str::from_utf8(&state).ok())
    }

    /// Of an event: the trace that it began in.
    pub fn of_event(event: &EventView<'_>) -> Option<Self> {
        let parent = event.attribute(TRACEPARENT)?;
        Self::read(&parent, event.attribute(TRACESTATE).as_deref())
    }

    /// That of a span that was begun here, with what others know of its trace.
    pub fn new(parent: TraceParent, state: Option<String>) -> Self {
        Self { parent, text: parent.to_string(), state }
    }

    /// The span that comes before.
    pub const fn parent(&self) -> TraceParent {
        self.parent
    }

    /// `traceparent` as it was read: a later version than ours passes on unharmed.
    pub fn traceparent(&self) -> &str {
        &self.text
    }

    /// `tracestate`, if there is a good one.
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The encoded event, with this context as attributes if it has none of its own; what is no event
    /// stays what it is.
    pub fn put(&self, event: Bytes) -> Bytes {
        let has_own = |view: EventView<'_>| {
            [TRACEPARENT, TRACESTATE].iter().any(|name| view.attribute(name).is_some())
        };
        if EventView::parse(&event).is_none_or(has_own) {
            return event;
        }
        // Protobuf reads a map that comes in pieces as one.
        let added = self.attributes();
        let mut bytes = Vec::with_capacity(event.len() + added.encoded_len());
        bytes.extend_from_slice(&event);
        bytes.extend_from_slice(&added.encode_to_vec());
        bytes.into()
    }

    /// The same with the events of a request, as long as each and all together stay within these
    /// bytes: where an event came from must not be why it is refused.
    pub fn put_all(&self, events: &mut [Bytes], event_bytes_max: usize, bytes_max: usize) {
        let added = self.attributes().encoded_len();
        let mut bytes: usize = events.iter().map(Bytes::len).sum();
        for event in events {
            if event.len() + added > event_bytes_max || bytes + added > bytes_max {
                continue;
            }
            let before = event.len();
            *event = self.put(std::mem::take(event));
            bytes += event.len() - before;
        }
    }

    fn attributes(&self) -> CloudEvent {
        let value =
            |text: &str| CloudEventAttributeValue { attr: Some(Attr::CeString(text.into())) };
        let parent = (TRACEPARENT.to_owned(), value(&self.text));
        let state = self.state.as_deref().map(|state| (TRACESTATE.to_owned(), value(state)));
        let attributes = std::iter::once(parent).chain(state).collect();
        CloudEvent { attributes, ..CloudEvent::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{check, is_same};

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const LATER: &str = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x";

    fn event(attributes: &[(&str, &str)]) -> Bytes {
        let value =
            |text: &str| CloudEventAttributeValue { attr: Some(Attr::CeString(text.into())) };
        let attributes = attributes.iter().map(|(name, text)| ((*name).to_owned(), value(text)));
        let event = CloudEvent {
            id: "1".to_owned(),
            source: "/s".to_owned(),
            spec_version: "1.0".to_owned(),
            r#type: "t".to_owned(),
            attributes: attributes.collect(),
            ..CloudEvent::default()
        };
        event.encode_to_vec().into()
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> Option<TraceContext> {
        TraceContext::of_headers(lines.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    #[test]
    fn headers_give_a_context_only_if_there_is_one_good_parent() {
        let context =
            headers(&[("tracestate", "a=1"), (TRACEPARENT, PARENT), ("tracestate", "b=2")]);
        let context = context.unwrap();
        assert_eq!((context.traceparent(), context.tracestate()), (PARENT, Some("a=1,b=2")));

        let context = headers(&[(TRACEPARENT, LATER), (TRACESTATE, "A=1")]).unwrap();
        assert_eq!((context.traceparent(), context.tracestate()), (LATER, None));

        assert_eq!(headers(&[]), None);
        assert_eq!(headers(&[(TRACESTATE, "a=1")]), None);
        assert_eq!(headers(&[(TRACEPARENT, PARENT), (TRACEPARENT, PARENT)]), None);
        assert_eq!(headers(&[(TRACEPARENT, "junk"), (TRACESTATE, "a=1")]), None);
        assert_eq!(TraceContext::of_headers([(TRACEPARENT, b"\xff".as_slice())].into_iter()), None);
    }

    #[test]
    fn an_event_gets_what_it_has_none_of() {
        let context = TraceContext::read(PARENT, Some("a=1")).unwrap();
        let plain = event(&[("subject", "x")]);

        let traced = context.put(plain.clone());

        let view = check(&traced, 1_000).unwrap();
        assert_eq!(TraceContext::of_event(&view), Some(context.clone()));
        assert_eq!(view.attribute("subject").unwrap(), "x");
        assert!(is_same(&view, &EventView::parse(&plain).unwrap()));
        assert_eq!(context.put(traced.clone()), traced);
    }

    #[test]
    fn no_event_is_refused_because_of_what_is_added() {
        let context = TraceContext::read(PARENT, None).unwrap();
        let (small, large) = (event(&[]), event(&[("subject", &"x".repeat(200))]));
        let all = || vec![small.clone(), large.clone(), small.clone()];
        let more = context.put(small.clone()).len() - small.len();
        let total: usize = all().iter().map(Bytes::len).sum();
        let put = |event_max, max| {
            let mut events = all();
            context.put_all(&mut events, event_max, max);
            let has =
                |event: &Bytes| EventView::parse(event).unwrap().attribute(TRACEPARENT).is_some();
            events.iter().map(has).collect::<Vec<_>>()
        };

        assert_eq!(put(1_000, 10_000), [true, true, true]);
        assert_eq!(put(large.len(), 10_000), [true, false, true]);
        assert_eq!(put(1_000, total + more), [true, false, false]);
        assert_eq!(put(1_000, total + 2 * more - 1), [true, false, false]);
        assert_eq!(put(1_000, total - 1), [false, false, false]);
    }

    #[test]
    fn what_an_event_has_is_never_touched() {
        let context = TraceContext::read(PARENT, None).unwrap();
        for own in [event(&[(TRACEPARENT, "own")]), event(&[(TRACESTATE, "a=1")])] {
            assert_eq!(context.put(own.clone()), own);
        }
        assert_eq!(context.put(Bytes::from_static(b"\xff")), Bytes::from_static(b"\xff"));
    }
}
