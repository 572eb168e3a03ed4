//! Generated wire types; the only place with relaxed lints.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    missing_debug_implementations,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::clone_on_ref_ptr,
    clippy::use_self,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code follows its generator's style"
)]

/// `io.cloudevents.v1`: the CNCF protobuf format, unchanged.
pub mod cloudevents {
    tonic::include_proto!("io.cloudevents.v1");
}

/// `weft.v1`: the public API, with events as raw bytes.
pub mod v1 {
    tonic::include_proto!("weft.v1");
}

/// `weft.internal.v1`: traffic between nodes.
pub mod internal {
    tonic::include_proto!("weft.internal.v1");
}
