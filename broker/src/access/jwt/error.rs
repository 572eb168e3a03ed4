//! Why a token is refused: precise for the log, silent about what the token says.

/// Why a token is refused.
///
/// Its text never holds the token or anything out of it. What the caller is told is decided where
/// the call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum JwtError {
    /// Refused before anything is decoded.
    #[error("longer than a token may be")]
    TooLong,
    /// Not three parts with two dots between them.
    #[error("not three parts")]
    NotThreeParts,
    /// Five parts, or a header that speaks of encryption.
    #[error("encrypted tokens are not accepted")]
    Encrypted,
    /// Padding, whitespace, the standard alphabet, left-over bits, or an empty part.
    #[error("header is not base64url")]
    HeaderEncoding,
    /// The same of the claims.
    #[error("claims are not base64url")]
    ClaimsEncoding,
    /// The same of the signature.
    #[error("signature is not base64url")]
    SignatureEncoding,
    /// Not a JSON object, or nested too deeply.
    #[error("header is not a JSON object")]
    HeaderJson,
    /// The same of the claims.
    #[error("claims are not a JSON object")]
    ClaimsJson,
    /// One name twice: two readers could understand two things.
    #[error("header names something twice")]
    HeaderRepeats,
    /// The same of the claims, at any depth.
    #[error("claims name something twice")]
    ClaimsRepeat,
    /// A token within a token.
    #[error("nested tokens are not accepted")]
    Nested,
    /// `crit` or `b64`: an extension that must be understood.
    #[error("header demands an extension")]
    Extension,
    /// `jku`, `jwk`, `x5u` or `x5c`: a token does not say by which key it is checked.
    #[error("header brings a key of its own")]
    OwnKey,
    /// `typ` is neither `JWT` nor `at+jwt`.
    #[error("wrong type of token")]
    WrongType,
    /// No `alg`, or it is no text.
    #[error("no algorithm")]
    AlgorithmMissing,
    /// Not in the list of the issuer; `none` and HMAC never are.
    #[error("algorithm is not allowed")]
    AlgorithmRefused,
    /// `kid` is no text, empty, too long, or holds more than visible ASCII.
    #[error("malformed key id")]
    KeyIdInvalid,
    /// No `kid`, and several keys would fit.
    #[error("no key id, and several keys fit")]
    KeyIdMissing,
    /// The issuer has no such key.
    #[error("unknown key")]
    KeyUnknown,
    /// The issuer has several keys of that id and algorithm.
    #[error("several keys have this id")]
    KeyAmbiguous,
    /// The issuer has the key, but not for signatures by this algorithm, or it is too weak.
    #[error("key is not for this algorithm")]
    KeyUnfit,
    /// The keys of the issuer could not be had, or are too old.
    #[error("no keys of the issuer")]
    KeysUnavailable,
    /// Too many calls wait for keys of this issuer.
    #[error("too many wait for the keys of the issuer")]
    Busy,
    /// Nothing after the last dot.
    #[error("no signature")]
    SignatureMissing,
    /// The signature is not that of the key over this token.
    #[error("wrong signature")]
    SignatureWrong,
    /// No `iss`, or it is no text.
    #[error("no issuer")]
    IssuerMissing,
    /// No issuer of exactly this name is configured.
    #[error("unknown issuer")]
    IssuerUnknown,
    /// No `aud`.
    #[error("no audience")]
    AudienceMissing,
    /// `aud` is neither a text nor a list of texts.
    #[error("malformed audience")]
    AudienceInvalid,
    /// The token is for somebody else.
    #[error("wrong audience")]
    AudienceWrong,
    /// No `exp`.
    #[error("no expiry")]
    ExpiryMissing,
    /// `exp` is no whole number of seconds up to the year 9999.
    #[error("malformed expiry")]
    ExpiryInvalid,
    /// `exp` is past.
    #[error("expired")]
    Expired,
    /// `nbf` is no such number.
    #[error("malformed not-before")]
    NotBeforeInvalid,
    /// `nbf` is to come.
    #[error("not yet valid")]
    NotYetValid,
    /// `iat` is no such number.
    #[error("malformed issue time")]
    IssuedInvalid,
    /// `iat` is to come.
    #[error("issued in the future")]
    IssuedLater,
    /// No `sub`.
    #[error("no subject")]
    SubjectMissing,
    /// `sub` is no text, empty, too long, or holds more than visible ASCII.
    #[error("malformed subject")]
    SubjectInvalid,
    /// The claim with the groups is not a list of names that may be printed, or is too long.
    #[error("malformed groups")]
    GroupsInvalid,
    /// `cnf` is anything but the thumbprint of a certificate: no other proof can be checked.
    #[error("bound to a proof that is not understood")]
    ConfirmationInvalid,
}
