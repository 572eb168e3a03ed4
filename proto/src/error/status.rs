//! Errors to gRPC status with google.rpc details, and back.

use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::transport::never_began;
use super::{Error, ErrorKind, Reason};
use crate::v1;

/// The domain of our reasons in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "weft.v1";

const KIND: &str = "kind";
const NOT_APPLIED: &str = "not_applied";
const LEADER: &str = "leader";
const OFFSET: &str = "offset";
const FIELD: &str = "field";
const SCHEMA: &str = "schema";
const SCHEMA_ID: &str = "schema_id";
const SCHEMA_VERSION: &str = "schema_version";

/// Type of the detail that has the expectations which did not hold.
const UNMET_URL: &str = "type.googleapis.com/weft.v1.UnmetExpectations";
/// Bytes of that detail: a status travels in headers, of which some clients take no more than 8 KiB.
const UNMET_BYTES_MAX: usize = 4 << 10;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let schema = error.schema();
        // An empty value stands for "absent": the reader drops it.
        let metadata = [
            (KIND, error.kind().as_str().to_owned()),
            (NOT_APPLIED, text(error.not_applied().then_some("true"))),
            (LEADER, text(error.leader())),
            (OFFSET, error.offset().map(|offset| offset.to_string()).unwrap_or_default()),
            (FIELD, text(error.field())),
            (SCHEMA, text(schema.map(|schema| schema.schema.as_str()))),
            (SCHEMA_ID, schema.map(|schema| schema.id.to_string()).unwrap_or_default()),
            (SCHEMA_VERSION, schema.map(|schema| schema.version.to_string()).unwrap_or_default()),
        ]
        .map(|(key, value)| (key.to_owned(), value));
        let mut details = ErrorDetails::with_error_info(error.reason().as_str(), DOMAIN, metadata);
        if let Some(field) = error.field()
            && error.kind() == ErrorKind::Invalid
        {
            details.add_bad_request_violation(field, error.message());
        }
        if let Some(after) = error.retry_after() {
            details.set_retry_info(Some(after));
        }
        let code = error.reason().grpc_code();
        let status = Self::with_error_details(code, error.message(), details);
        if error.unmet().is_empty() {
            return status;
        }
        let Ok(mut full) = tonic_types::pb::Status::decode(status.details()) else { return status };
        let value = fitting(&error).encode_to_vec();
        full.details.push(prost_types::Any { type_url: UNMET_URL.to_owned(), value });
        Self::with_details(code, error.message(), full.encode_to_vec().into())
    }
}

/// As many of the failed expectations as there is room for.
fn fitting(error: &Error) -> v1::UnmetExpectations {
    let mut bytes = 0;
    let fits = error.unmet().iter().take_while(|unmet| {
        // Tag and length of each.
        bytes += unmet.encoded_len() + 3;
        bytes <= UNMET_BYTES_MAX
    });
    let unmet: Vec<_> = fits.cloned().collect();
    let left = u32::try_from(error.unmet().len() - unmet.len()).unwrap_or(u32::MAX);
    v1::UnmetExpectations { unmet, omitted: left.saturating_add(error.unmet_omitted()) }
}

fn unmet_of(status: &Status) -> Option<v1::UnmetExpectations> {
    let full = tonic_types::pb::Status::decode(status.details()).ok()?;
    let detail = full.details.into_iter().find(|detail| detail.type_url == UNMET_URL)?;
    v1::UnmetExpectations::decode(detail.value.as_slice()).ok()
}

impl From<Status> for Error {
    /// A status without our details was made by a library or a proxy: its kind follows from the
    /// code, and it promises nothing about the fate of a write, unless the transport of this side
    /// knows that the other one never began.
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let reason = info
            .and_then(|info| Reason::from_wire(&info.reason))
            .unwrap_or_else(|| reason_of(status.code()));
        let mut error = Self::new(reason, status.message());
        error.0.not_applied = never_began(&status);
        if let Some(info) = info {
            let get = |key| info.metadata.get(key).filter(|value| !value.is_empty()).cloned();
            if let Some(kind) = get(KIND).and_then(|kind| ErrorKind::from_wire(&kind)) {
                error.0.kind = kind;
            }
            error.0.not_applied |= get(NOT_APPLIED).is_some();
            error.0.leader = get(LEADER);
            error.0.offset = get(OFFSET).and_then(|offset| offset.parse().ok());
            error.0.field = get(FIELD);
            error.0.schema = get(SCHEMA_ID).and_then(|id| id.parse().ok()).map(|id| {
                let version = get(SCHEMA_VERSION).and_then(|text| text.parse().ok());
                v1::SchemaRef {
                    id,
                    schema: get(SCHEMA).unwrap_or_default(),
                    version: version.unwrap_or_default(),
                }
            });
        }
        if reason == Reason::WrongOffset {
            let found = unmet_of(&status).unwrap_or_default();
            (error.0.unmet, error.0.unmet_omitted) = (found.unmet, found.omitted);
        }
        error.0.retry_after = details
            .retry_info()
            .and_then(|info| info.retry_delay)
            .filter(|delay: &Duration| !delay.is_zero());
        error
    }
}

const fn reason_of(code: Code) -> Reason {
    match code {
        Code::InvalidArgument => Reason::InvalidArgument,
        Code::NotFound => Reason::UnknownResource,
        Code::AlreadyExists => Reason::AlreadyExists,
        Code::PermissionDenied => Reason::PermissionDenied,
        Code::Unauthenticated => Reason::Unauthenticated,
        Code::FailedPrecondition => Reason::FailedPrecondition,
        // Ours always comes with details; the gRPC library says it of a message above its limit.
        Code::OutOfRange => Reason::TooLarge,
        Code::Unimplemented => Reason::Unimplemented,
        Code::DeadlineExceeded | Code::Cancelled => Reason::DeadlineExceeded,
        Code::DataLoss => Reason::DataLoss,
        // A broken transport arrives as Unknown or Internal, a peer that has enough of a connection
        // as ResourceExhausted: the fate is open, a retry is safe.
        Code::Unavailable
        | Code::Unknown
        | Code::Internal
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Ok => Reason::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        for &reason in Reason::ALL {
            let error = Error::new(reason, "sentence")
                .with_field("/a/0")
                .with_retry_after(Duration::from_millis(250))
                .with_leader("127.0.0.1:1")
                .with_offset(77)
                .with_schema(v1::SchemaRef { id: 7, schema: "default/s".to_owned(), version: 2 });

            let back = Error::from(Status::from(error));

            assert_eq!(back.reason(), reason);
            assert_eq!(back.kind(), reason.kind());
            assert_eq!(back.field(), Some("/a/0"));
            assert_eq!(back.retry_after(), Some(Duration::from_millis(250)));
            assert_eq!(back.offset(), Some(77));
            assert_eq!(back.leader(), Some("127.0.0.1:1"));
            assert_eq!(back.schema().map(|schema| schema.version), Some(2));
        }
    }

    fn unmet(number: u32, subject: Option<String>) -> v1::UnmetExpectation {
        v1::UnmetExpectation { partition: number, subject, expected: Some(7), actual: None }
    }

    #[test]
    fn failed_expectations_survive_the_wire() {
        let all = vec![unmet(0, None), unmet(3, Some("cart/1".to_owned()))];
        let error = Error::new(Reason::WrongOffset, "two failed").with_unmet(all.clone());
        let refusal = error.to_refusal();

        let back = Error::from(Status::from(error));

        assert_eq!((back.unmet(), back.unmet_omitted()), (all.as_slice(), 0));
        assert_eq!((back.reason(), back.message()), (Reason::WrongOffset, "two failed"));
        assert_eq!(Error::from_refusal(refusal).unmet(), all);
    }

    #[test]
    fn a_status_has_no_more_failed_expectations_than_fit_into_its_headers() {
        let long = |number| unmet(number, Some("s".repeat(1_024)));
        let all: Vec<_> = (0..1_000).map(long).collect();

        let status = Status::from(Error::new(Reason::WrongOffset, "many").with_unmet(all.clone()));
        assert!(status.details().len() < 5_000, "{} bytes", status.details().len());
        let back = Error::from(status);

        let told = back.unmet().len();
        assert!(told > 0 && back.unmet() == &all[..told]);
        assert_eq!(told + usize::try_from(back.unmet_omitted()).unwrap(), 1_000);
    }

    #[test]
    fn a_status_made_by_the_transport_leaves_the_fate_open() {
        let open = [
            Code::Unknown,
            Code::Internal,
            Code::Unavailable,
            Code::Cancelled,
            Code::ResourceExhausted,
            Code::Aborted,
        ];
        for code in open {
            let error = Error::from(Status::new(code, "broken pipe"));

            assert!(error.is_retryable(), "{code:?}");
            assert!(!error.not_applied(), "{code:?}");
        }
    }

    #[test]
    fn a_message_that_the_transport_refuses_is_too_large() {
        let error = Error::from(Status::new(Code::OutOfRange, "decoded message length too large"));

        assert_eq!(error.reason(), Reason::TooLarge);
        assert!(!error.is_retryable() && error.not_applied());
    }

    #[test]
    fn unavailable_says_not_applied_only_when_marked() {
        let open = Error::from(Status::from(Error::unavailable("no leader")));
        let certain = Error::from(Status::from(Error::unavailable("x").with_not_applied()));

        assert!(!open.not_applied());
        assert!(certain.not_applied());
    }
}
