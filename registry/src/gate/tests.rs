//! One test per rule of the gate.

use super::{Decision, Event, Gate, GateProblem, Governed, Refusal, RefusalKind, Schemas};
use crate::{Binding, Bindings, Limits, Mode, Pin, Schema, SchemaId, VersionNumber};

const ORDER: Event<'_> = Event {
    event_type: "order.placed",
    datacontenttype: None,
    data: Some(br#"{"total": 3}"#),
    has_dataref: false,
};

fn version(name: &str, id: u32, number: u32, text: &str) -> Governed {
    Governed {
        schema: name.into(),
        id: SchemaId(id),
        version: VersionNumber(number),
        compiled: Schema::compile(text.as_bytes(), &Limits::default()).unwrap(),
    }
}

fn schemas() -> Schemas {
    [
        version("order", 11, 1, r#"{"required": ["total"]}"#),
        version("order", 12, 2, r#"{"properties": {"total": {"minimum": 10}}}"#),
        version("any", 13, 1, "true"),
    ]
    .into_iter()
    .collect()
}

fn bind(event_type: &str, schema: &str, pin: Pin, mode: Mode) -> Binding {
    Binding { event_type: event_type.to_owned(), schema: schema.to_owned(), pin, mode }
}

fn gate(bindings: Vec<Binding>) -> Result<Gate, GateProblem> {
    Gate::new(Bindings::new(bindings).unwrap(), &schemas())
}

fn pinned(number: u32) -> Gate {
    gate(vec![bind("order.*", "order", Pin::Version(VersionNumber(number)), Mode::Enforce)])
        .unwrap()
}

fn refusal(decision: Decision) -> Refusal {
    let Decision::Refused(refusal) = decision else { panic!("{decision:?}") };
    *refusal
}

#[test]
fn unbound_and_off_are_unchecked() {
    let off = gate(vec![
        bind("*", "order", Pin::Latest, Mode::Enforce),
        bind("order.*", "no such schema", Pin::Latest, Mode::Off),
    ]);

    assert_eq!(gate(vec![]).unwrap().check(&ORDER), Decision::Unchecked);
    assert!(gate(vec![]).unwrap().is_open());
    assert_eq!(off.unwrap().check(&ORDER), Decision::Unchecked);
    let other = Event { event_type: "shipment", ..ORDER };
    assert_eq!(pinned(1).check(&other), Decision::Unchecked);
}

#[test]
fn accepted_event_carries_the_version_it_fits() {
    let decision = pinned(1).check(&ORDER);

    let accepted = Decision::Accepted { schema_id: SchemaId(11), version: VersionNumber(1) };
    assert_eq!(decision, accepted);
}

#[test]
fn latest_is_the_highest_number() {
    let gate = gate(vec![bind("*", "order", Pin::Latest, Mode::Enforce)]).unwrap();

    let refusal = refusal(gate.check(&ORDER));

    assert_eq!((refusal.schema_id, refusal.version), (SchemaId(12), VersionNumber(2)));
    assert_eq!(refusal.kind.code(), "schema_violation");
    assert_eq!(refusal.violation.pointer, "/total");
    assert_eq!(refusal.violation.schema_pointer, "/properties/total/minimum");
    assert_eq!(
        refusal.to_string(),
        "at \"/total\": is less than the minimum 10 (schema order version 2)"
    );
}

#[test]
fn other_content_types_are_refused_though_the_schema_takes_all() {
    let gate = gate(vec![bind("*", "any", Pin::Latest, Mode::Enforce)]).unwrap();
    let xml = Event { datacontenttype: Some("application/xml"), ..ORDER };
    let vendor = Event { datacontenttype: Some("application/vnd.a+json; v=1"), ..ORDER };

    assert_eq!(refusal(gate.check(&xml)).kind, RefusalKind::ContentType);
    assert!(matches!(gate.check(&vendor), Decision::Accepted { .. }));
}

#[test]
fn missing_data_is_refused_unless_it_is_elsewhere() {
    let missing = Event { data: None, ..ORDER };
    let elsewhere = Event { data: None, has_dataref: true, ..ORDER };
    let empty = Event { data: Some(b""), ..ORDER };
    // Inline data counts, whatever else the event refers to.
    let both = Event { data: Some(b"{}"), has_dataref: true, ..ORDER };

    assert_eq!(refusal(pinned(1).check(&missing)).kind, RefusalKind::NoData);
    assert_eq!(pinned(1).check(&elsewhere), Decision::Unchecked);
    assert_eq!(refusal(pinned(1).check(&empty)).kind, RefusalKind::NotJson);
    assert_eq!(refusal(pinned(1).check(&both)).kind, RefusalKind::Mismatch);
}

#[test]
fn payload_that_is_not_json_is_refused_with_its_place() {
    let broken = Event { data: Some(b"{\n \"total\": 1,}"), ..ORDER };

    let refusal = refusal(pinned(1).check(&broken));

    assert_eq!(refusal.kind, RefusalKind::NotJson);
    assert_eq!(
        refusal.violation.message,
        "payload is not JSON: expected a name in quotes at line 2 column 13"
    );
}

#[test]
fn binding_to_nothing_is_no_gate() {
    let schema = gate(vec![bind("a", "nope", Pin::Latest, Mode::Enforce)]).unwrap_err();
    let pin = Pin::Version(VersionNumber(9));
    let version = gate(vec![bind("a", "order", pin, Mode::Enforce)]).unwrap_err();

    assert_eq!(schema.to_string(), "binding of \"a\" names the schema \"nope\", which is unknown");
    assert!(matches!(version, GateProblem::UnknownVersion { version: VersionNumber(9), .. }));
}
