//! Tokens of an issuer in this process.

mod accepted;
mod door;
mod keys;
mod oidc;
mod property;
mod provider;
mod refused;
mod remote;
mod rotation;
mod signer;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_proto::Timestamp;

use self::provider::Provider;
use self::signer::Signer;
use super::{Algorithm, IssuerConfig, Issuers, JwtError, Limits, Verified};

/// The present of these tests, in seconds; signatures know no time, and so no test waits for any.
const NOW_S: u64 = 2_000_000_000;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn now() -> Timestamp {
    at(NOW_S)
}

/// Claims that are right for the issuer.
fn good_claims(issuer: &str) -> Value {
    json!({
        "iss": issuer, "aud": "weft", "sub": "alice", "exp": NOW_S + 600, "iat": NOW_S, "jti": "1",
    })
}

/// An issuer that may use every algorithm.
fn config(url: &str) -> IssuerConfig {
    IssuerConfig {
        algorithms: Algorithm::ALL.to_vec(),
        groups_claim: Some("groups".to_owned()),
        ..IssuerConfig::new("staff", url, "weft")
    }
}

/// Issuers that are kept fresh as long as this lives.
struct Running {
    issuers: Issuers,
    _tasks: JoinSet<()>,
}

impl Running {
    fn start(configs: &[IssuerConfig], limits: Limits) -> Self {
        let issuers = Issuers::new(configs, limits).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(issuers.clone().run(CancellationToken::new()));
        Self { issuers, _tasks: tasks }
    }

    async fn verify(&self, token: &str) -> Result<Verified, JwtError> {
        self.issuers.verify(token, now()).await.map(|verified| Verified::clone(&verified))
    }

    fn has_cached(&self, token: &str) -> bool {
        self.issuers.cached(token, now()).is_some()
    }

    async fn asked_again(&self) {
        self.issuers.shared.issuers[0].asked_again().await;
    }

    fn attempts(&self) -> u64 {
        self.issuers.shared.issuers[0].attempts()
    }
}
