//! Errors that come back to a client: a gRPC status with details, a refusal, the failure of a batch.
//!
//! A client meets brokers of other releases, proxies and impostors; it must neither panic nor take a
//! broken answer for the promise that nothing was written.

#![cfg_attr(fuzzing, no_main)]

use bytes::Bytes;
use prost::Message as _;
use tonic::{Code, Status};
use weft_fuzz::Input;
use weft_proto::{Error, ErrorKind, Reason, v1};

weft_fuzz::target!();

pub const MAX_LEN: usize = 2_048;

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let (form, code) = (input.u8() % 3, Code::from(i32::from(input.u8() % 18)));
    let error = match form {
        0 => {
            let details = Bytes::copy_from_slice(input.rest());
            let error = Error::from(Status::with_details(code, "message", details.clone()));
            assert_eq!(error.message(), "message");
            if details.is_empty() && error.is_retryable() {
                assert!(!error.not_applied(), "nothing was promised");
            }
            error
        }
        1 => {
            let Ok(refusal) = v1::Refusal::decode(input.rest()) else { return false };
            let error = Error::from_refusal(refusal);
            let again = Error::from_refusal(error.to_refusal());
            assert_eq!(again.to_refusal(), error.to_refusal());
            error
        }
        _ => {
            let Ok(failure) = v1::BatchFailure::decode(input.rest()) else { return false };
            let error = Error::from(failure);
            let again = Error::from(v1::BatchFailure::from(&error));
            assert_eq!(again.retry_after(), error.retry_after());
            assert_eq!(again.not_applied(), error.not_applied());
            assert_eq!(again.to_refusal(), error.to_refusal());
            error
        }
    };
    let known =
        (error.kind(), error.reason(), error.not_applied(), error.field().map(str::to_owned));
    let again = Error::from(Status::from(error));
    let read =
        (again.kind(), again.reason(), again.not_applied(), again.field().map(str::to_owned));
    assert_eq!(known, read, "an error survives its status");
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let unmet = v1::UnmetExpectation::default();
    let errors = [
        Error::invalid("x").with_field("a.b"),
        Error::unavailable("x")
            .with_not_applied()
            .with_retry_after(std::time::Duration::from_millis(7)),
        Error::new(Reason::Unavailable, "x").with_leader("host:1"),
        Error::new(Reason::OffsetOutOfRange, "x").with_offset(7),
        Error::new(Reason::WrongOffset, "x").with_unmet(vec![unmet; 3]),
        Error::new(Reason::SchemaViolation, "x").with_schema(v1::SchemaRef {
            id: 3,
            schema: "a/b".to_owned(),
            version: 2,
        }),
    ];
    let mut seeds = vec![vec![1, 0, 0xff], vec![0, 14]];
    for error in errors {
        assert!(ErrorKind::from_wire(error.kind().as_str()).is_some());
        seeds.push([&[1, 0][..], &error.to_refusal().encode_to_vec()].concat());
        seeds.push([&[2, 0][..], &v1::BatchFailure::from(&error).encode_to_vec()].concat());
        let status = Status::from(error);
        let code = u8::try_from(status.code() as i32).unwrap_or(0);
        seeds.push([&[0, code][..], status.details()].concat());
    }
    seeds
}
