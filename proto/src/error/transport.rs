//! What a broken transport says about the fate of a request.
//!
//! Owns: telling a request that no node began from one whose fate is open.
//! Never: retries; words for users.

use std::error::Error as StdError;

use tonic::Status;

/// What hyper says of a request that never left its queue: the connection ended before, and the
/// request is handed back (hyper `client/dispatch.rs`, the end of an `Envelope`). It has no type of
/// its own.
const NEVER_SENT: &str = "connection closed";

/// Whether the other side certainly did not begin with the request that failed with this status.
///
/// So it is when the connection was never made, when the request was never sent, and when the other
/// side said that it will not look at it: by a GOAWAY without an error, which ends only streams
/// above the last one that it names ([RFC 9113, 6.8]), or by `REFUSED_STREAM` (8.7). A server that
/// stops in an orderly way does the former to requests that cross its GOAWAY.
///
/// [RFC 9113, 6.8]: https://www.rfc-editor.org/rfc/rfc9113#section-6.8
pub(super) fn never_began(status: &Status) -> bool {
    let mut next = StdError::source(status);
    while let Some(error) = next {
        let says_so = error.is::<tonic::ConnectError>()
            || error.downcast_ref::<h2::Error>().is_some_and(is_unprocessed);
        next = error.source();
        if says_so || (next.is_none() && error.to_string() == NEVER_SENT) {
            return true;
        }
    }
    false
}

fn is_unprocessed(error: &h2::Error) -> bool {
    let said = if error.is_go_away() { h2::Reason::NO_ERROR } else { h2::Reason::REFUSED_STREAM };
    error.is_remote() && error.reason() == Some(said)
}
