//! The Rust client library of Weft.
