//! Vocabulary of Weft: ids, events, errors, filters, resources and the wire. No I/O.
