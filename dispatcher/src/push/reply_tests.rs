//! Replies in every form, and what is added to them.

use proptest::prelude::*;

use super::*;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn cause() -> Vec<u8> {
    let mut cause = CloudEvent {
        id: "c1".to_owned(),
        source: "/shop".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "t".to_owned(),
        ..CloudEvent::default()
    };
    set(&mut cause, "correlationid", Attr::CeString("flow-7".to_owned()));
    cause.encode_to_vec()
}

fn completed(reply: CloudEvent) -> Result<CloudEvent, String> {
    let cause = cause();
    let cause = EventView::parse(&cause).unwrap();
    let function = "default/confirm".parse().unwrap();
    let bytes = complete(vec![reply], &function, &cause, None)?;
    Ok(CloudEvent::decode(bytes[0].as_ref()).unwrap())
}

fn text(event: &CloudEvent, name: &str) -> Option<String> {
    match event.attributes.get(name)?.attr.as_ref()? {
        Attr::CeString(text) => Some(text.clone()),
        _ => None,
    }
}

#[test]
fn binary_replies_are_read_with_the_rules_of_the_binding() {
    let headers = headers(&[
        ("ce-specversion", "1.0"),
        ("ce-type", "com.example.order.confirmed"),
        ("ce-source", "/a%20b"),
        ("ce-id", "7"),
        ("ce-flag", "True"),
        ("ce-datacontenttype", "text/plain"),
        ("content-type", "application/json"),
        ("x-other", "1"),
    ]);

    let events = read(&headers, &Bytes::from_static(b"{}")).unwrap();

    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(event.source, "/a b");
    assert_eq!(text(event, "flag").as_deref(), Some("True"));
    assert_eq!(text(event, "datacontenttype").as_deref(), Some("application/json"));
    assert_eq!(event.attributes.len(), 2);
    assert_eq!(event.data, Some(Data::BinaryData(Bytes::from_static(b"{}"))));
}

#[test]
fn structured_and_batch_replies_are_read_whatever_the_case_and_parameters() {
    let one = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"b":1}}"#;
    let cases = [
        ("Application/CloudEvents+JSON; charset=utf-8", one.to_owned(), 1),
        ("application/cloudevents-batch+json", format!("[{one},{one}]"), 2),
        ("application/cloudevents-batch+json", "[]".to_owned(), 0),
    ];
    for (content_type, body, count) in cases {
        let events = read(&headers(&[("content-type", content_type)]), &body.into()).unwrap();
        assert_eq!(events.len(), count);
    }
}

#[test]
fn plain_answers_are_no_events_and_broken_ones_are_errors() {
    let plain = headers(&[("content-type", "application/json")]);
    assert_eq!(read(&plain, &Bytes::from_static(b"{\"ok\":true}")), Ok(Vec::new()));
    for content_type in [
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
        "application/cloudevents+avro",
    ] {
        let broken = headers(&[("content-type", content_type)]);
        assert!(read(&broken, &Bytes::from_static(b"nonsense")).is_err(), "{content_type}");
    }
    let not_utf8 = headers(&[("ce-specversion", "1.0"), ("ce-id", "%C0%A0")]);
    assert!(read(&not_utf8, &Bytes::new()).is_err());
}

#[test]
fn what_is_left_out_follows_from_the_cause() {
    let bare = CloudEvent { r#type: "done".to_owned(), ..CloudEvent::default() };

    let reply = completed(bare.clone()).unwrap();

    assert_eq!(reply.id.len(), 32);
    assert_eq!(reply.source, "/functions/default/confirm");
    assert_eq!(text(&reply, "causationid").as_deref(), Some("c1"));
    assert_eq!(text(&reply, "correlationid").as_deref(), Some("flow-7"));
    assert_eq!(completed(bare).unwrap(), reply);
}

#[test]
fn a_reply_belongs_to_the_trace_in_which_its_cause_began() {
    let began = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let pushed = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
    let own = "00-11111111111111111111111111111111-2222222222222222-00";
    let bare = CloudEvent {
        id: "c1".to_owned(),
        source: "/s".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "t".to_owned(),
        ..CloudEvent::default()
    };
    let with = |mut event: CloudEvent, parent: &str| {
        set(&mut event, "traceparent", Attr::CeString(parent.to_owned()));
        event
    };
    let function: QualifiedName = "default/confirm".parse().unwrap();
    let trace = TraceContext::read(pushed, Some("a=1"));
    let trace_of = |cause: &CloudEvent, reply: CloudEvent| {
        let cause = cause.encode_to_vec();
        let cause = EventView::parse(&cause).unwrap();
        let replies = complete(vec![reply], &function, &cause, trace.as_ref()).unwrap();
        let reply = CloudEvent::decode(replies[0].clone()).unwrap();
        (text(&reply, "traceparent"), text(&reply, "tracestate"))
    };

    let traced = with(bare.clone(), began);
    assert_eq!(trace_of(&traced, bare.clone()), (Some(began.to_owned()), None));
    assert_eq!(trace_of(&traced, with(bare.clone(), own)), (Some(own.to_owned()), None));
    let state = Some("a=1".to_owned());
    assert_eq!(trace_of(&bare, bare.clone()), (Some(pushed.to_owned()), state));
}

#[test]
fn what_the_function_says_stays_except_what_the_broker_sets() {
    let mut reply =
        CloudEvent { id: "mine".to_owned(), r#type: "done".to_owned(), ..CloudEvent::default() };
    set(&mut reply, "causationid", Attr::CeString("other".to_owned()));
    set(&mut reply, "weftoffset", Attr::CeString("3".to_owned()));

    let reply = completed(reply).unwrap();

    assert_eq!(reply.id, "mine");
    assert_eq!(text(&reply, "causationid").as_deref(), Some("other"));
    assert!(!reply.attributes.contains_key("weftoffset"));
}

#[test]
fn an_invalid_reply_is_named() {
    let error = completed(CloudEvent::default()).unwrap_err();

    assert!(error.contains("type"), "{error}");
}

#[test]
fn derived_ids_differ_by_function_cause_and_index() {
    let (one, two) = (cause(), CloudEvent::default().encode_to_vec());
    let (one, two) = (EventView::parse(&one).unwrap(), EventView::parse(&two).unwrap());
    let (f, g) = ("default/f".parse().unwrap(), "default/g".parse().unwrap());

    let ids = [
        derive_id(&f, &one, 0),
        derive_id(&f, &one, 1),
        derive_id(&g, &one, 0),
        derive_id(&f, &two, 0),
    ];

    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn hostile_answers_never_panic(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        form in 0_usize..5,
    ) {
        let forms = [
            "application/cloudevents+json", "application/cloudevents-batch+json",
            "application/cloudevents+protobuf", "application/cloudevents-batch+protobuf", "text/plain",
        ];
        let headers = headers(&[("content-type", forms[form]), ("ce-type", "t")]);
        if let Ok(events) = read(&headers, &body.into()) {
            for event in events {
                completed(event).ok();
            }
        }
    }
}
