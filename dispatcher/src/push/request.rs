//! One event as an HTTP request in binary mode, and what accompanies events in any mode.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;
use prost::Message as _;
use weft_proto::event::{Data, EventView, Value};
use weft_proto::resource::WebhookMode;
use weft_proto::trace::{TRACEPARENT, TRACESTATE, TraceContext};

use super::header::encode;
use super::payload::encode as encode_all;

/// What accompanies an event on its way to a function.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Delivery {
    /// Names the delivery; the same for every attempt.
    pub id: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Partition of the stream.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: u64,
    /// How long the function may take.
    pub timeout: Duration,
    /// Whether events travel as a batch, though it were one of a single event.
    pub is_batch: bool,
    /// Whether a reply event would be published.
    pub takes_reply: bool,
    /// The span that comes before that of the function.
    pub trace: Option<TraceContext>,
}

/// Builds the request. The payload is borrowed from `bytes`, not copied.
///
/// `Err` says why the stored bytes are no event; such an event can never be delivered.
pub(super) fn build(events: &[Bytes], delivery: &Delivery) -> Result<Request<Full<Bytes>>, String> {
    let mode = if delivery.is_batch { WebhookMode::Batch(0) } else { WebhookMode::Binary };
    let (mut headers, body) = encode_all(mode, events)?;
    headers.insert(HOST, HeaderValue::from_static("localhost"));
    accompany(&mut headers, delivery)?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.headers_mut() = headers;
    Ok(request)
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), String> {
    let pair = name.parse::<HeaderName>().ok().zip(HeaderValue::from_str(value).ok());
    let (name, value) =
        pair.ok_or_else(|| format!("the attribute {name:?} cannot be sent as a header"))?;
    headers.insert(name, value);
    Ok(())
}

/// The attributes of an event as headers, and its payload.
pub(crate) fn binary(bytes: &Bytes) -> Result<(HeaderMap, Bytes), String> {
    let undecodable = || "the stored bytes are no CloudEvent".to_owned();
    let event = EventView::parse(bytes).ok_or_else(undecodable)?;
    let body = payload(bytes, &event).ok_or_else(undecodable)?;
    let mut headers = HeaderMap::new();
    let mut put = |name: &str, value: &str| insert(&mut headers, name, value);
    put("ce-specversion", event.spec_version)?;
    put("ce-id", &encode(event.id))?;
    put("ce-source", &encode(event.source))?;
    put("ce-type", &encode(event.ty))?;
    for attribute in event.attributes() {
        let text = attribute.value.to_text();
        match (attribute.name, attribute.value) {
            (_, Value::Unset) => {}
            ("datacontenttype", _) => put(CONTENT_TYPE.as_str(), &text)?,
            (name, _) => {
                put(&format!("ce-{name}"), &encode(&text))?;
            }
        }
    }
    Ok((headers, body))
}

/// What is told about a delivery, in any mode.
pub(crate) fn accompany(headers: &mut HeaderMap, delivery: &Delivery) -> Result<(), String> {
    let mut put = |name: &str, value: &str| insert(headers, name, value);
    // The attributes say where the trace began, the headers which span comes before.
    if let Some(trace) = &delivery.trace {
        put(TRACEPARENT, trace.traceparent())?;
        if let Some(state) = trace.tracestate() {
            put(TRACESTATE, state)?;
        }
    }
    put("weft-delivery", &encode(&delivery.id))?;
    put("weft-attempt", &delivery.attempt.to_string())?;
    put("weft-partition", &delivery.partition.to_string())?;
    put("weft-offset", &delivery.offset.to_string())?;
    put("weft-deadline-ms", &delivery.timeout.as_millis().to_string())?;
    if delivery.takes_reply {
        put("prefer", "reply")?;
    }
    Ok(())
}

fn payload(bytes: &Bytes, event: &EventView<'_>) -> Option<Bytes> {
    match event.data {
        Data::None => Some(Bytes::new()),
        Data::Binary(data) => Some(bytes.slice_ref(data)),
        Data::Text(text) => Some(bytes.slice_ref(text.as_bytes())),
        // The binding wants the payload itself; its type stands in `dataschema`.
        Data::Proto(any) => Some(prost_types::Any::decode(any).ok()?.value.into()),
    }
}

#[cfg(test)]
mod tests {
    use weft_proto::cloudevents::CloudEvent;
    use weft_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
    use weft_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data as Payload};

    use super::*;

    fn delivery() -> Delivery {
        Delivery {
            id: "default/fn-a-b/3/17".to_owned(),
            attempt: 2,
            partition: 3,
            offset: 17,
            timeout: Duration::from_secs(30),
            is_batch: false,
            takes_reply: true,
            trace: None,
        }
    }

    fn event(attributes: &[(&str, Attr)], data: Option<Payload>) -> Bytes {
        let attributes = attributes.iter().map(|(name, attr)| {
            ((*name).to_owned(), CloudEventAttributeValue { attr: Some(attr.clone()) })
        });
        let event = CloudEvent {
            id: "id 1".to_owned(),
            source: "/s/ä".to_owned(),
            spec_version: "1.0".to_owned(),
            r#type: "com.example.order.placed".to_owned(),
            attributes: attributes.collect(),
            data,
        };
        event.encode_to_vec().into()
    }

    fn header<'a>(request: &'a Request<Full<Bytes>>, name: &str) -> Option<&'a str> {
        request.headers().get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn attributes_become_headers_and_the_payload_the_body() {
        let time = prost_types::Timestamp { seconds: 1, nanos: 0 };
        let bytes = event(
            &[
                ("datacontenttype", Attr::CeString("application/json".to_owned())),
                ("subject", Attr::CeString("50 % \"off\"".to_owned())),
                ("time", Attr::CeTimestamp(time)),
                ("flag", Attr::CeBoolean(true)),
                ("count", Attr::CeInteger(-5)),
            ],
            Some(Payload::TextData("{\"a\": 1}".to_owned())),
        );

        let request = build(std::slice::from_ref(&bytes), &delivery()).unwrap();

        assert_eq!(header(&request, "ce-id"), Some("id%201"));
        assert_eq!(header(&request, "ce-source"), Some("/s/%C3%A4"));
        assert_eq!(header(&request, "ce-subject"), Some("50%20%25%20%22off%22"));
        assert_eq!(header(&request, "ce-time"), Some("1970-01-01T00:00:01Z"));
        assert_eq!(header(&request, "ce-flag"), Some("true"));
        assert_eq!(header(&request, "ce-count"), Some("-5"));
        assert_eq!(header(&request, "content-type"), Some("application/json"));
        assert_eq!(header(&request, "ce-datacontenttype"), None);
        assert_eq!(header(&request, "weft-delivery"), Some("default/fn-a-b/3/17"));
        assert_eq!(header(&request, "weft-attempt"), Some("2"));
        assert_eq!(header(&request, "weft-offset"), Some("17"));
        assert_eq!(header(&request, "weft-deadline-ms"), Some("30000"));
        assert_eq!(header(&request, "prefer"), Some("reply"));
    }

    #[test]
    fn the_trace_goes_into_headers_and_its_beginning_stays_in_attributes() {
        let began = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let before = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
        let bytes = event(&[("traceparent", Attr::CeString(began.to_owned()))], None);

        let request = build(std::slice::from_ref(&bytes), &delivery()).unwrap();
        assert_eq!(header(&request, "ce-traceparent"), Some(began));
        assert_eq!((header(&request, "traceparent"), header(&request, "tracestate")), (None, None));

        let trace = TraceContext::read(before, Some("a=1,b=2"));
        let request =
            build(std::slice::from_ref(&bytes), &Delivery { trace, ..delivery() }).unwrap();
        assert_eq!(header(&request, "ce-traceparent"), Some(began));
        assert_eq!(header(&request, "traceparent"), Some(before));
        assert_eq!(header(&request, "tracestate"), Some("a=1,b=2"));
    }

    #[test]
    fn without_a_content_type_none_is_invented() {
        let bytes = event(&[], Some(Payload::BinaryData(vec![0, 255].into())));

        let request =
            build(std::slice::from_ref(&bytes), &Delivery { takes_reply: false, ..delivery() })
                .unwrap();

        assert_eq!(header(&request, "content-type"), None);
        assert_eq!(header(&request, "prefer"), None);
    }

    #[test]
    fn what_is_no_event_is_an_error_not_a_panic() {
        assert!(build(&[Bytes::from_static(&[0xff; 7])], &delivery()).is_err());
        let bytes = event(&[("bad name", Attr::CeString("x".to_owned()))], None);
        assert!(build(std::slice::from_ref(&bytes), &delivery()).is_err());
    }
}
