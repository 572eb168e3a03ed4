//! Which flows are taken, and which field is named of those that are not.

use super::*;

fn flow(steps: &str) -> FlowSpec {
    serde_saphyr::from_str(&format!("steps:\n{steps}")).unwrap()
}

/// The field that is wrong, and the message.
fn wrong(steps: &str) -> (String, String) {
    match flow(steps).check("spec.flow") {
        Ok(()) => (String::new(), String::new()),
        Err(error) => (error.field().unwrap_or("").to_owned(), error.message().to_owned()),
    }
}

const WHOLE: &str = r#"
  - name: paid
    filter: {when: [{sql: "type = 'order.paid'"}], else: {stream: other-orders}}
  - dedup: {window: 10m, key: "{/order/id}"}
  - enrich:
      url: "https://crm.example.com/customers/{/customer}?of={subject}"
      into: /customer
      authorization: {file: crm.key}
      cache: {ttl: 5m}
    timeout: 2s
    on_error: continue
  - name: reserve
    bridge: {url: "https://stock.example.com/reserve", body: data, into: /reservation}
    compensate: {stream: release-stock, type: stock.release}
  - name: ask
    fan_out:
      branches:
        - name: price
          steps: [{name: price, bridge: {url: "https://a.example.com/", method: PUT, body: {template: {id: "{/id}"}}}}]
        - name: risk
          steps: [{name: risk, enrich: {url: "https://b.example.com/", into: ""}}]
      join: {count: 1}
      into: /answers
    timeout: 10s
    on_error: {to: by-region}
  - name: by-region
    router:
      mode: all
      routes:
        - {when: [{exact: {region: eu}}], to: eu}
        - {when: [{exact: {region: us}}], stream: parcels-us}
      default: {to: end}
  - name: eu
    transform:
      patch: [{op: add, path: /eu, value: true}]
      merge: {vat: "{/vat}", draft: null}
      set: {type: parcel.eu, subject: "{/customer/id}"}
      remove: [debug]
  - split: {at: /lines, type: line}
  - aggregate: {whole: true, after: 1m}
  - publish: {stream: parcels}
    compensate: {stream: recall}
    next: end
"#;

#[test]
fn a_whole_flow_is_taken_and_written_as_it_was() {
    let flow = flow(WHOLE);
    flow.check("spec.flow").unwrap();
    assert!(flow.holds_events() && flow.steps().len() == 12);

    assert!(flow.calls_out());
    let streams = flow.streams("spec.flow");
    let names: Vec<&str> = streams.iter().map(|(_, stream)| *stream).collect();
    assert_eq!(names, ["other-orders", "release-stock", "parcels-us", "parcels", "recall"]);
    assert_eq!(streams[2].0, "spec.flow.steps[5].router.routes[1].stream");

    let again: FlowSpec = serde_json::from_str(&serde_json::to_string(&flow).unwrap()).unwrap();
    assert_eq!(again, flow);
}

#[test]
fn a_delay_comes_before_anything_is_done() {
    assert_eq!(wrong("  - delay: {for: 10m}\n  - publish: {stream: a}"), Default::default());
    assert_eq!(wrong("  - delay: {until: due}\n  - publish: {stream: a}"), Default::default());
    let after = "  - publish: {stream: a}\n  - delay: {for: 10m}";
    assert_eq!(wrong(after).0, "spec.flow.steps[1].delay");
    assert!(wrong(after).1.contains("deliverat"));
}

#[test]
fn paths_lead_to_later_steps_and_reach_all() {
    let two = |first: &str| {
        format!(
            "  - name: a\n    publish: {{stream: s}}\n    {first}\n  - name: b\n    publish: {{stream: s}}"
        )
    };
    for (steps, field, part) in [
        (two("next: a"), "spec.flow.steps[0].next", "no loops"),
        (two("next: c"), "spec.flow.steps[0].next", "no step \"c\""),
        (two("next: end"), "spec.flow.steps[1]", "no step leads to \"b\""),
        (two("on_error: {to: a}"), "spec.flow.steps[0].on_error.to", "no loops"),
        (two("on_error: {stream: A}"), "spec.flow.steps[0].on_error.stream", "allowed are"),
        (two("on_error: continue"), "spec.flow.steps[0].on_error", "lost"),
    ] {
        let (found, message) = wrong(&steps);
        assert_eq!((found.as_str(), message.contains(part)), (field, true), "{steps}: {message}");
    }
    assert_eq!(wrong(&two("next: b")), Default::default());
}

/// A step that is the only one, and its field that is wrong.
const WRONG: &[(&str, &str)] = &[
    ("{}", ""),
    ("{publish: {stream: a}, delay: {for: 1s}}", ""),
    ("{name: end, publish: {stream: a}}", ".name"),
    ("{name: A, publish: {stream: a}}", ".name"),
    ("{publish: {stream: A}}", ".publish.stream"),
    ("{publish: {stream: a}, timeout: 1s}", ".timeout"),
    ("{filter: {when: [{sql: 'a ='}]}}", ".filter.when[0].sql"),
    ("{filter: {when: [], else: {}}}", ".filter.else"),
    ("{filter: {when: []}, on_error: fail}", ".on_error"),
    ("{filter: {when: []}, compensate: {stream: a}}", ".compensate"),
    ("{router: {routes: []}}", ".router.routes"),
    ("{router: {routes: [{when: []}]}}", ".router.routes[0]"),
    ("{router: {routes: [{when: [{cel: x}], to: end}]}}", ".router.routes[0].when[0].cel"),
    ("{router: {routes: [{when: [], to: end, stream: s}]}}", ".router.routes[0]"),
    ("{router: {routes: [{when: [], to: end}]}, next: end}", ".next"),
    ("{transform: {}}", ".transform"),
    ("{transform: {patch: [{op: add, path: /a}]}}", ".transform.patch[0]"),
    ("{transform: {patch: [{op: copy, from: a, path: /a}]}}", ".transform.patch[0]"),
    ("{transform: {merge: {a: [{b: '{x'}]}}}", ".transform.merge.a[0].b"),
    ("{transform: {set: {id: x}}}", ".transform.set.id"),
    ("{transform: {set: {weftx: x}}}", ".transform.set.weftx"),
    ("{transform: {set: {A: x}}}", ".transform.set.A"),
    ("{transform: {set: {a: '{/a~2}'}}}", ".transform.set.a"),
    ("{transform: {remove: [type]}}", ".transform.remove[0]"),
    ("{split: {at: lines}}", ".split.at"),
    ("{split: {at: /a, max: 0}}", ".split.max"),
    ("{split: {type: ''}}", ".split.type"),
    ("{aggregate: {after: 1s}}", ".aggregate.key"),
    ("{aggregate: {key: a, whole: true, after: 1s}}", ".aggregate.key"),
    ("{aggregate: {whole: true, count: 2, after: 1s}}", ".aggregate.count"),
    ("{aggregate: {key: '{a}', count: 1, after: 1s}}", ".aggregate.count"),
    ("{aggregate: {key: '{a}', after: 2d}}", ".aggregate.after"),
    ("{aggregate: {key: '{a}', after: 1s, max_bytes: 2000000}}", ".aggregate.max_bytes"),
    (
        "{aggregate: {key: '{a}', after: 1s, until: [{sql: x}, {sql: '('}]}}",
        ".aggregate.until[1].sql",
    ),
    ("{enrich: {url: 'http://example.com/', into: ''}}", ".enrich.url"),
    ("{enrich: {url: 'https://{host}/', into: ''}}", ".enrich.url"),
    ("{enrich: {url: 'https://a.example{/x}', into: ''}}", ".enrich.url"),
    ("{enrich: {url: '{/url}', into: ''}}", ".enrich.url"),
    ("{enrich: {url: 'https://a.example/', into: a}}", ".enrich.into"),
    ("{enrich: {url: 'https://a.example/', into: '', cache: {ttl: 0s}}}", ".enrich.cache.ttl"),
    (
        "{bridge: {url: 'https://a.example/', headers: {authorization: x}}}",
        ".bridge.headers.authorization",
    ),
    ("{bridge: {url: 'https://a.example/', headers: {X: x}}}", ".bridge.headers.X"),
    (
        "{bridge: {url: 'https://a.example/', authorization: {file: ../x}}}",
        ".bridge.authorization.file",
    ),
    ("{bridge: {url: 'https://a.example/', body: {template: ['{']}}}", ".bridge.body.template[0]"),
    ("{delay: {}}", ".delay"),
    ("{delay: {for: 10d}}", ".delay.for"),
    ("{delay: {until: A}}", ".delay.until"),
    ("{dedup: {window: 0s}}", ".dedup.window"),
    ("{dedup: {window: 1s, key: '}'}}", ".dedup.key"),
    ("{fan_out: {branches: []}}", ".fan_out.branches"),
    ("{fan_out: {branches: [{name: a, steps: []}]}}", ".fan_out.branches[0].steps"),
    (
        "{fan_out: {branches: [{name: a, steps: [{publish: {stream: a}}]}], join: {count: 2}}}",
        ".fan_out.join.count",
    ),
    (
        "{fan_out: {branches: [{name: a, steps: [{aggregate: {whole: true, after: 1s}}]}]}}",
        ".fan_out.branches[0].steps[0].aggregate",
    ),
    (
        "{fan_out: {branches: [{name: a, steps: [{publish: {stream: a}}]}, {name: b, steps: [{publish: {stream: a}}]}]}}",
        ".fan_out.branches[1].steps[0].name",
    ),
];

#[test]
fn each_wrong_field_is_named() {
    for (step, field) in WRONG {
        let (found, message) = wrong(&format!("  - {step}"));
        assert_eq!(found, format!("spec.flow.steps[0]{field}"), "{step}: {message}");
        assert!(!message.is_empty());
    }
}

#[test]
fn size_and_nesting_are_bounded() {
    let many = (0..=STEPS_MAX).map(|n| format!("  - {{name: s{n}, publish: {{stream: a}}}}"));
    let many = many.collect::<Vec<_>>().join("\n");
    assert_eq!(wrong(&many).0, "spec.flow.steps");

    let mut nested = "{name: p, publish: {stream: a}}".to_owned();
    for n in 0..=FAN_OUTS_DEPTH_MAX {
        nested = format!("{{name: f{n}, fan_out: {{branches: [{{name: b, steps: [{nested}]}}]}}}}");
    }
    assert!(wrong(&format!("  - {nested}")).1.contains("within each other"));
}

#[test]
fn unknown_words_are_errors() {
    for step in [
        "{filtre: {}}",
        "{publish: {stream: a, topic: b}}",
        "{publish: {stream: a}, on_error: skip}",
    ] {
        let text = format!("steps:\n  - {step}");
        assert!(serde_saphyr::from_str::<FlowSpec>(&text).is_err(), "{step}");
    }
}

#[test]
fn templates_are_read() {
    let parts = |text: &str| Template::parse(text).unwrap().parts().to_vec();
    let text = |text: &str| Part::Text(text.to_owned());
    assert_eq!(parts("a{{b}}c"), [text("a{b}c")]);
    assert_eq!(
        parts("/{subject}/{/a~1b/0}."),
        [
            text("/"),
            Part::Attribute("subject".to_owned()),
            text("/"),
            Part::Data(Pointer::parse("/a~1b/0").unwrap()),
            text("."),
        ]
    );
    assert!(parts("").is_empty());
    for wrong in ["{", "}", "{}", "{a b}", "{/a~}", "{a", "a}", "{A}"] {
        assert!(Template::parse(wrong).is_err(), "{wrong}");
    }
    assert!(Template::parse(&"{a}".repeat(33)).is_err());
    let steps: Vec<_> = Pointer::parse("/a~1b/~01/").unwrap().steps().collect();
    assert_eq!(steps, ["a/b", "~1", ""]);
}
