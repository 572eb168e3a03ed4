//! Numbers, absent data, positions of errors, and what an expression may cost.

use prost::Message as _;

use super::*;
use crate::cloudevents::CloudEvent;
use crate::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use crate::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use crate::event::EventView;

fn event(data: Option<Data>, content_type: Option<&str>) -> Vec<u8> {
    let attribute = |attr| CloudEventAttributeValue { attr: Some(attr) };
    let mut attributes =
        std::collections::BTreeMap::from([("n".to_owned(), attribute(Attr::CeInteger(5)))]);
    if let Some(ty) = content_type {
        attributes.insert("datacontenttype".to_owned(), attribute(Attr::CeString(ty.to_owned())));
    }
    let event = CloudEvent {
        id: "1".to_owned(),
        source: "/s".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "t".to_owned(),
        attributes: attributes.into_iter().collect(),
        data,
    };
    event.encode_to_vec()
}

fn test(source: &str, json: &str) -> Result<bool, String> {
    let bytes = event(Some(Data::TextData(json.to_owned())), Some("application/json"));
    let payload = Payload::of(&EventView::parse(&bytes).unwrap())?;
    Predicate::compile(source).unwrap().test(&payload)
}

#[test]
fn predicates_see_data_and_attributes() {
    let json = r#"{"total":100,"big":18446744073709551615,"price":99.5,"whole":100.0,"name":"Ada",
        "lines":[{"sku":"a","n":2},{"sku":"b","n":7}],"tags":["x","y"],"none":null,"when":null}"#;
    for (source, wanted) in [
        ("data.total > 99", true),
        ("data.total == 100.0", true),
        ("data.whole == 100", true),
        ("data.whole > 99 && data.whole < 100.5", true),
        ("data.price > 99", true),
        ("data.price < 99", false),
        ("data.total + 1 == 101", true),
        ("data.total in [1, 100]", true),
        ("data.big > 1", true),
        ("data.big == 18446744073709551615u", true),
        ("data.name == 'Ada' && data.name.startsWith('A') && data.name.contains('d')", true),
        ("data.none == null", true),
        ("has(data.none) && !has(data.nothing)", true),
        ("has(data.nothing) && data.nothing > 3", false),
        ("data.lines.exists(l, l.n > 5)", true),
        ("data.lines.all(l, l.n > 5)", false),
        ("data.lines.filter(l, l.n > 1).size() == 2", true),
        ("data.lines.map(l, l.n)[1] == 7", true),
        ("data['lines'][0].sku == 'a'", true),
        ("'x' in data.tags", true),
        ("size(data.tags) == 2", true),
        ("ce.type == 't' && ce['source'] == '/s'", true),
        ("ce.n == '5' && int(ce.n) > 4", true),
        ("data.nothing == 1 || data.total == 100", true),
        ("type(data.total) == int", true),
        ("data.total > 10 ? data.name == 'Ada' : false", true),
    ] {
        assert_eq!(test(source, json), Ok(wanted), "{source}");
    }
    for (source, part) in [
        ("data.nothing > 1", "No such key"),
        ("data.name > 1", ""),
        ("data.total + 0.5 > 1", ""),
        ("data.total", "no bool"),
        ("data.total / 0 == 1", "ivision by zero"),
    ] {
        let error = test(source, json).unwrap_err();
        assert!(error.contains(part), "{source}: {error}");
    }
}

#[test]
fn what_is_no_json_is_an_error() {
    let error = |data, ty| Payload::of(&EventView::parse(&event(data, ty)).unwrap()).unwrap_err();
    let text = |text: &str| Some(Data::TextData(text.to_owned()));
    assert!(error(None, None).contains("no data"));
    assert!(error(text("1"), Some("text/plain")).contains("text/plain, no JSON"));
    assert!(error(text("{"), None).contains("no JSON"));
    assert!(error(text("1 2"), None).contains("no JSON"));
    assert!(error(text(r#"{"a":1,"a":2}"#), None).contains("twice"));
    let deep = "[".repeat(200) + &"]".repeat(200);
    assert!(error(text(&deep), None).contains("recursion limit"));
    let binary = Some(Data::BinaryData(b"{}".to_vec().into()));
    assert!(
        Payload::of(&EventView::parse(&event(binary, Some("application/X+JSON;a=b"))).unwrap())
            .is_ok()
    );
}

#[test]
fn errors_say_where() {
    for (source, offset, part) in [
        ("data.total >", 12, ""),
        ("true &&\n dat.total > 1", 9, "there is no \"dat\" here, only data and ce"),
        ("data.name.matches('x')", 17, "there is no function \"matches\""),
        ("data.a.exists(x, data.b.exists(y, x == y))", 30, "a loop within a loop"),
        ("data.a.filter(x, x > 1).exists(x, x > 2)", 30, "a loop goes through a part of data"),
        ("data.a.map(x, data).size() > 1", 10, "map keeps only what is made of \"x\""),
        ("timestamp(ce.time) > timestamp('x')", 9, "there is no function \"timestamp\""),
        ("Message{a: 1}.a == 1", 7, "messages cannot be made"),
    ] {
        let error = Predicate::compile(source).unwrap_err();
        assert!(error.message.contains(part), "{source}: {error}");
        assert_eq!(error.place.offset, offset, "{source}: {error}");
    }
}

#[test]
fn size_and_nesting_are_bounded() {
    let fits = |source: String| Predicate::compile(&source).is_ok();
    assert!(!fits(format!("'{}' == ''", "x".repeat(SOURCE_BYTES_MAX))));
    let nested = |n: usize| format!("{}true{}", "(".repeat(n), ")".repeat(n));
    assert!(fits(nested(10)));
    assert!(!fits(nested(usize::from(DEPTH_MAX) + 1)));
    assert!(!fits(nested(2_000)));
    let choices = |n: usize| format!("{}true", "true ? true : ".repeat(n));
    assert!(fits(choices(5)));
    assert!(!fits(choices(200)));
    assert!(!fits("!".repeat(4_000)));
    assert!(!fits("-".repeat(4_000)));
    let long = |n: usize| vec!["data.a == 1"; n].join(" || ");
    assert!(fits(long(60)));
    assert!(!fits(long(300)));
    let loops = "data.a.exists(a, a.b.exists(b, b.c.exists(c, c > 1)))";
    assert!(fits(loops.to_owned()));
    assert!(!fits(loops.replace("c > 1", "c.d.exists(d, d > 1)")));
}

/// Compiling takes a stack that the threads of a runtime have, also unoptimised.
#[test]
fn compiling_needs_little_stack() {
    let compile = || {
        let n = usize::from(DEPTH_MAX);
        for open in ["(", "[", "{1:", "!(", "-(", "size(", "true?("] {
            let close = match open {
                "[" => "]",
                "{1:" => "}",
                _ => ")",
            };
            let source = format!("{}1{}", open.repeat(n), close.repeat(n));
            drop(Predicate::compile(&source));
        }
        drop(Predicate::compile(&vec!["1"; 1_000].join("+")));
        drop(Predicate::compile(&format!("data{}", ".a".repeat(1_000))));
        drop(Predicate::compile(&format!("data{}", "[0]".repeat(1_000))));
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(compile).unwrap();
    thread.join().unwrap();
}

#[test]
fn work_is_bounded_by_the_size_of_the_payload() {
    let list = |n: usize| format!("{{\"a\":[{}],\"w\":1}}", vec!["1"; n].join(","));
    // Each element looks at the whole list again: square.
    let square = "data.a.exists(x, x + 1 in data.a)";
    assert_eq!(test(square, &list(100)), Ok(false));
    let error = test(square, &list(20_000)).unwrap_err();
    assert!(error.contains("too often"), "{error}");
    let error = test("data.a.all(x, x == 1 && x < 2 && x > 0)", &list(400_000)).unwrap_err();
    assert!(error.contains("too large"), "{error}");
    assert_eq!(test("data.w == 1", &list(400_000)), Ok(true));
    let text = format!("{{\"s\":\"{}\"}}", "x".repeat(900_000));
    let adds = vec!["data.s"; 40].join(" + ") + " == ''";
    assert!(test(&adds, &text).unwrap_err().contains("too large"));
    assert_eq!(test("data.s + data.s == ''", &text), Ok(false));
}
