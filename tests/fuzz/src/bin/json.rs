//! Strict JSON: `weft_registry::Document`, the parser of every payload that has a schema.
//!
//! It may refuse more than `serde_json`, never less, and both must see the same values.

#![cfg_attr(fuzzing, no_main)]

use serde_json::Value;
use weft_registry::{DEPTH_MAX, Document};

weft_fuzz::target!();

pub const MAX_LEN: usize = 4_096;

pub fn run(data: &[u8]) -> bool {
    let document = match Document::parse(data) {
        Ok(document) => document,
        Err(problem) => {
            assert!(problem.offset <= data.len());
            assert!(!problem.to_string().is_empty());
            return false;
        }
    };
    let ours = document.to_value();
    let theirs: Value = serde_json::from_slice(data).expect("what we accept is JSON");
    let (mut depth, mut values) = (0, 0);
    same(&ours, &theirs, 1, &mut depth, &mut values);
    assert_eq!(values, document.values());
    assert!(depth <= DEPTH_MAX + 1, "{depth}");
    true
}

fn same(ours: &Value, theirs: &Value, at: usize, depth: &mut usize, values: &mut usize) {
    *values += 1;
    *depth = at.max(*depth);
    match (ours, theirs) {
        (Value::Array(ours), Value::Array(theirs)) => {
            assert_eq!(ours.len(), theirs.len());
            for (ours, theirs) in ours.iter().zip(theirs) {
                same(ours, theirs, at + 1, depth, values);
            }
        }
        (Value::Object(ours), Value::Object(theirs)) => {
            assert_eq!(ours.len(), theirs.len());
            for (name, ours) in ours {
                same(ours, &theirs[name], at + 1, depth, values);
            }
        }
        (Value::Number(ours), Value::Number(theirs)) if ours.is_f64() => {
            // `serde_json` rounds the last digit of a long number faster than right.
            let (ours, theirs) = (ours.as_f64().unwrap(), theirs.as_f64().unwrap());
            let near = (ours - theirs).abs() <= ours.abs() * 4.0 * f64::EPSILON;
            assert!(near || (ours - theirs).abs() < f64::MIN_POSITIVE, "{ours} {theirs}");
        }
        (ours, theirs) => assert_eq!(ours, theirs),
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        r#" { "a" : [ 1 , -0 , 1.5e-3 , 18446744073709551615 ] , "\u0061b\n" : { } } "#,
        r#"[true,false,null,"\ud83d\ude00 é \" \\ \/ \b\f\r\t"]"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"{"b":0,"c":0,"d":0,"e":0,"f":0,"g":0,"h":0,"i":0,"j":0,"k":0,"l":0,"m":0,"n":0,"o":0,"p":0,"q":0,"r":0,"a":1}"#,
        "[[[[[[[[1e400]]]]]]]]",
        "-9223372036854775808",
        "tru",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
