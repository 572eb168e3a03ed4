//! Events as the headers and body of a request, in each mode; and what a receiver says of a batch.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use weft_proto::event::{EventView, to_json};
use weft_proto::resource::WebhookMode;

/// The JavaScript SDK compares this word for word.
const STRUCTURED: HeaderValue =
    HeaderValue::from_static("application/cloudevents+json; charset=utf-8");
const BATCH: HeaderValue =
    HeaderValue::from_static("application/cloudevents-batch+json; charset=utf-8");

/// Encodes events. In the modes that carry one, the first counts.
///
/// # Errors
///
/// Why they can never be sent.
pub(crate) fn encode(mode: WebhookMode, events: &[Bytes]) -> Result<(HeaderMap, Bytes), String> {
    match (mode, events) {
        (WebhookMode::Binary, [event, ..]) => super::binary(event),
        (WebhookMode::Structured, [event, ..]) => {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, STRUCTURED)]);
            Ok((headers, to_json(&parse(event)?).into()))
        }
        (WebhookMode::Batch(_), events) => {
            let mut body = String::from("[");
            for (place, event) in events.iter().enumerate() {
                if place > 0 {
                    body.push(',');
                }
                body.push_str(&to_json(&parse(event)?));
            }
            body.push(']');
            // No `ce-` header in these modes: some receivers take any of them for binary mode.
            Ok((HeaderMap::from_iter([(CONTENT_TYPE, BATCH)]), body.into()))
        }
        (_, []) => Err("there is no event".to_owned()),
    }
}

fn parse(event: &Bytes) -> Result<EventView<'_>, String> {
    EventView::parse(event).ok_or_else(|| "the stored bytes are no CloudEvent".to_owned())
}

/// An event of a batch that the receiver did not take.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Untaken {
    pub(crate) id: String,
    pub(crate) source: String,
    /// In seconds.
    #[serde(default)]
    retry_after: Option<u64>,
}

impl Untaken {
    /// When it may come again, if the receiver says so.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.retry_after.map(Duration::from_secs)
    }

    /// Whether it is this event.
    pub(crate) fn is(&self, event: &Bytes) -> bool {
        let view = EventView::parse(event);
        view.is_some_and(|view| (view.id, view.source) == (self.id.as_str(), self.source.as_str()))
    }
}

/// Reads which events of a batch were not taken: `{"failed":[{"id","source","retry_after"}]}`.
/// Anything else says that all were.
pub(crate) fn untaken(body: &[u8]) -> Vec<Untaken> {
    #[derive(Deserialize)]
    struct Body {
        failed: Vec<Untaken>,
    }
    serde_json::from_slice::<Body>(body).map(|body| body.failed).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use weft_proto::event::from_json;

    use super::*;

    fn event(id: &str) -> Bytes {
        let text = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t","traceparent":"00-a-b-01","datacontenttype":"application/json","data":{{"n": 1}}}}"#
        );
        from_json(text.as_bytes()).unwrap().encode_to_vec().into()
    }

    #[test]
    fn each_mode_has_its_form_and_only_binary_has_attributes_as_headers() {
        let events = [event("1"), event("2")];
        let attributes = |headers: &HeaderMap| {
            headers.keys().filter(|name| name.as_str().starts_with("ce-")).count()
        };

        let (headers, body) = encode(WebhookMode::Binary, &events).unwrap();
        assert_eq!(
            (&headers["ce-id"], &headers[CONTENT_TYPE]),
            (&"1".parse().unwrap(), &"application/json".parse().unwrap())
        );
        assert_eq!(body.as_ref(), br#"{"n": 1}"#);

        let (headers, body) = encode(WebhookMode::Structured, &events).unwrap();
        assert_eq!((attributes(&headers), &headers[CONTENT_TYPE]), (0, &STRUCTURED));
        assert_eq!(from_json(&body).unwrap().id, "1");

        let (headers, body) = encode(WebhookMode::Batch(9), &events).unwrap();
        assert_eq!((attributes(&headers), &headers[CONTENT_TYPE]), (0, &BATCH));
        let array: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
        assert_eq!((array.len(), &array[1]["id"]), (2, &"2".into()));

        for mode in [WebhookMode::Binary, WebhookMode::Structured, WebhookMode::Batch(2)] {
            assert!(encode(mode, &[Bytes::from_static(&[0xff; 7])]).is_err());
        }
    }

    #[test]
    fn what_was_not_taken_is_read_and_anything_else_is_success() {
        let found = untaken(
            br#"{"failed":[{"id":"1","source":"/s","retry_after":7,"why":"x"},{"id":"2","source":"/s"}]}"#,
        );
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(found[1].retry_after(), None);
        assert!(found[0].is(&event("1")) && !found[0].is(&event("2")));
        for body in ["", "ok", "[]", "{}", r#"{"failed":1}"#, r#"{"failed":[{"id":1}]}"#, "null"] {
            assert!(untaken(body.as_bytes()).is_empty(), "{body}");
        }
    }
}
