//! The signature algorithms that an issuer may use.

use ring::signature::{
    self, EcdsaVerificationAlgorithm, EdDSAParameters, RsaParameters, VerificationAlgorithm,
};
use serde::{Deserialize, Serialize};

/// A signature algorithm of JOSE. There is neither `none` nor HMAC: who can check such a token could
/// also make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// RSA PKCS#1 v1.5 with SHA-256.
    RS256,
    /// RSA PKCS#1 v1.5 with SHA-384.
    RS384,
    /// RSA PKCS#1 v1.5 with SHA-512.
    RS512,
    /// RSA PSS with SHA-256.
    PS256,
    /// RSA PSS with SHA-384.
    PS384,
    /// RSA PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

/// What kind of key an algorithm needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// How `ring` checks a signature.
pub(super) enum Check {
    Rsa(&'static RsaParameters),
    Other(&'static dyn VerificationAlgorithm),
}

impl Algorithm {
    pub(super) const ALL: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// By the name in a header or a key: exactly, case included.
    pub(super) fn of(name: &str) -> Option<Self> {
        // RFC 9864 says which curve.
        if name == "Ed25519" {
            return Some(Self::EdDSA);
        }
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    pub(super) fn family(self) -> Family {
        match self {
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512 => {
                Family::Rsa
            }
            Self::ES256 => Family::P256,
            Self::ES384 => Family::P384,
            Self::EdDSA => Family::Ed25519,
        }
    }

    pub(super) fn check(self) -> Check {
        const ES256: &EcdsaVerificationAlgorithm = &signature::ECDSA_P256_SHA256_FIXED;
        const ES384: &EcdsaVerificationAlgorithm = &signature::ECDSA_P384_SHA384_FIXED;
        const EDDSA: &EdDSAParameters = &signature::ED25519;
        match self {
            Self::RS256 => Check::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::RS384 => Check::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::RS512 => Check::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::PS256 => Check::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Self::PS384 => Check::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Self::PS512 => Check::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            Self::ES256 => Check::Other(ES256),
            Self::ES384 => Check::Other(ES384),
            Self::EdDSA => Check::Other(EDDSA),
        }
    }
}
