//! Vocabulary of Weft: ids, events, errors, filters, resources and the wire. No I/O.

mod generated;

pub use generated::{cloudevents, internal, v1};
