//! One spelling per JSON content: names sorted, no white space, minimal escapes.

use super::{Document, Kind};
use std::fmt::Write as _;

/// The canonical text of a document. Numbers keep their spelling: `1` and `1.0` differ.
pub(crate) fn canonical(document: &Document<'_>) -> String {
    let mut out = String::with_capacity(document.text.len());
    write_value(document, 0, &mut out);
    out
}

fn write_value(document: &Document<'_>, at: u32, out: &mut String) {
    let slot = document.slot(at);
    match slot.kind {
        Kind::Object => {
            let mut members: Vec<u32> = document.children(at).collect();
            members.sort_unstable_by(|a, b| document.key(*a).cmp(document.key(*b)));
            out.push('{');
            for (place, member) in members.into_iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                write_string(document.key(member), out);
                out.push(':');
                write_value(document, member, out);
            }
            out.push('}');
        }
        Kind::Array => {
            out.push('[');
            for (place, child) in document.children(at).enumerate() {
                if place > 0 {
                    out.push(',');
                }
                write_value(document, child, out);
            }
            out.push(']');
        }
        Kind::String => write_string(document.str(slot.text), out),
        _ => out.push_str(document.str(slot.text)),
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\0'..='\u{1f}' => {
                // Writing to a string cannot fail.
                let _ok = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}
