//! The closed list of error cases, and the one table that maps them to codes.

use std::fmt;

use tonic::Code;

use super::ErrorKind;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $kind:ident, $code:ident, $http:literal;)*) => {
        /// Which case an error is; travels in `google.rpc.ErrorInfo`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason, for the error page of the documentation and for tests.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Reads the name on the wire.
            pub fn from_wire(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }

            /// What the caller should do.
            pub const fn kind(self) -> ErrorKind {
                match self { $(Self::$name => ErrorKind::$kind,)* }
            }

            /// The gRPC status code.
            pub const fn grpc_code(self) -> Code {
                match self { $(Self::$name => Code::$code,)* }
            }

            /// The HTTP status code.
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$name => $http,)* }
            }
        }
    };
}

reasons! {
    /// A field of the request has a value that is never right.
    InvalidArgument = "INVALID_ARGUMENT", Invalid, InvalidArgument, 400;
    /// The event breaks a rule of CloudEvents.
    MalformedEvent = "MALFORMED_EVENT", Invalid, InvalidArgument, 400;
    /// The event, or the request, is larger than the limit.
    TooLarge = "TOO_LARGE", Invalid, InvalidArgument, 413;
    /// The data does not fit the schema that governs this type of event.
    SchemaViolation = "SCHEMA_VIOLATION", Invalid, InvalidArgument, 400;
    /// The schema document itself is not usable.
    InvalidSchema = "INVALID_SCHEMA", Invalid, InvalidArgument, 400;
    /// An atomic batch must stay in one partition and below its limits.
    AtomicScope = "ATOMIC_SCOPE", Invalid, InvalidArgument, 400;
    /// No or no valid credential was given.
    Unauthenticated = "UNAUTHENTICATED", Denied, Unauthenticated, 401;
    /// The caller may not do this.
    PermissionDenied = "PERMISSION_DENIED", Denied, PermissionDenied, 403;
    /// The stream does not exist.
    UnknownStream = "UNKNOWN_STREAM", NotFound, NotFound, 404;
    /// The resource does not exist.
    UnknownResource = "UNKNOWN_RESOURCE", NotFound, NotFound, 404;
    /// The offset lies before the earliest or after the latest event.
    OffsetOutOfRange = "OFFSET_OUT_OF_RANGE", NotFound, OutOfRange, 416;
    /// The resource changed since it was looked at, or another resource stands against it.
    FailedPrecondition = "FAILED_PRECONDITION", Conflict, FailedPrecondition, 412;
    /// The resource exists already.
    AlreadyExists = "ALREADY_EXISTS", Conflict, AlreadyExists, 409;
    /// Another event of the partition has the same source and id, but says something else. Not 409,
    /// after which some senders of CloudEvents try again.
    IdentityReused = "IDENTITY_REUSED", Conflict, AlreadyExists, 422;
    /// The partition does not end where the caller expects it.
    WrongOffset = "WRONG_OFFSET", Conflict, FailedPrecondition, 412;
    /// A newer epoch of the same producer, or a newer member of the subscription, took over.
    Fenced = "FENCED", Conflict, Aborted, 409;
    /// A batch before this one is missing; send it first.
    OutOfOrder = "OUT_OF_ORDER", Conflict, Aborted, 409;
    /// The retry comes too late to be recognised; whether the batch was stored must be looked up.
    UnknownProducer = "UNKNOWN_PRODUCER", Conflict, FailedPrecondition, 412;
    /// A queue is full.
    Overloaded = "OVERLOADED", Overloaded, ResourceExhausted, 429;
    /// A limit of the caller, or of its namespace, is reached; it is named in the message.
    LimitReached = "LIMIT_REACHED", Overloaded, ResourceExhausted, 429;
    /// The namespace may not hold more; others must go first, or the limit be raised.
    QuotaExceeded = "QUOTA_EXCEEDED", Conflict, FailedPrecondition, 412;
    /// The disk is nearly full; reading goes on.
    DiskFull = "DISK_FULL", Overloaded, ResourceExhausted, 429;
    /// No leader, no quorum, a node that stops, a connection that broke.
    Unavailable = "UNAVAILABLE", Unavailable, Unavailable, 503;
    /// The answer did not come in time.
    DeadlineExceeded = "DEADLINE_EXCEEDED", Unavailable, DeadlineExceeded, 504;
    /// A broken invariant or a failed component.
    Internal = "INTERNAL", Internal, Internal, 500;
    /// Stored bytes do not match their checksum.
    DataLoss = "DATA_LOSS", Internal, DataLoss, 500;
    /// The server is older than the client and lacks this call.
    Unimplemented = "UNIMPLEMENTED", Invalid, Unimplemented, 501;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
