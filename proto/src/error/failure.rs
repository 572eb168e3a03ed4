//! Errors inside of streams, where there is no status to carry them.

use std::time::Duration;

use tonic::Code;

use super::{Error, Reason};
use crate::v1;

impl From<&Error> for v1::BatchFailure {
    fn from(error: &Error) -> Self {
        let after = error.retry_after().map_or(0, |after| after.as_millis());
        Self {
            code: error.reason().grpc_code() as i32,
            refusal: Some(error.to_refusal()),
            retry_after_ms: u64::try_from(after).unwrap_or(u64::MAX),
            not_applied: error.not_applied(),
        }
    }
}

impl From<v1::BatchFailure> for Error {
    fn from(failure: v1::BatchFailure) -> Self {
        let mut error = if let Some(refusal) = failure.refusal {
            Self::from_refusal(refusal)
        } else {
            let code = Code::from(failure.code);
            Self::new(Reason::Unavailable, format!("the batch failed: {code}"))
        };
        if failure.retry_after_ms > 0 {
            error = error.with_retry_after(Duration::from_millis(failure.retry_after_ms));
        }
        if failure.not_applied { error.with_not_applied() } else { error }
    }
}
