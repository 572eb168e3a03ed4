//! An identity provider on loopback, which can misbehave.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::signer::Signer;

const DISCOVERY: &str = "/.well-known/openid-configuration";

/// What it answers.
#[derive(Clone)]
pub(super) enum Answer {
    Json(Value),
    /// Status, type, and a body of any kind.
    Other(u16, &'static str, String),
    Redirect(String),
    /// Nothing, ever.
    Silence,
}

/// The provider; it goes away when this is dropped.
pub(super) struct Provider {
    pub(super) url: String,
    answers: Arc<Answers>,
    _serving: JoinSet<()>,
}

struct Answers {
    description: Mutex<Answer>,
    keys: Mutex<Answer>,
    /// Documents that were asked for.
    asked: AtomicU64,
}

impl Provider {
    pub(super) async fn start(signers: &[&Signer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self::serve(listener, url, signers)
    }

    pub(super) fn serve<L>(listener: L, url: String, signers: &[&Signer]) -> Self
    where
        L: Listener,
        L::Addr: std::fmt::Debug,
    {
        let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
        let description = json!({"issuer": url, "jwks_uri": format!("{url}/keys"), "x": [1]});
        let answers = Arc::new(Answers {
            description: Mutex::new(Answer::Json(description)),
            keys: Mutex::new(Answer::Json(json!({"keys": keys}))),
            asked: AtomicU64::new(0),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&answers));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, answers, _serving: serving }
    }

    pub(super) fn set_keys(&self, signers: &[&Signer]) {
        let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
        self.answer_keys(Answer::Json(json!({"keys": keys})));
    }

    pub(super) fn answer_keys(&self, answer: Answer) {
        *self.answers.keys.lock().unwrap() = answer;
    }

    pub(super) fn answer_description(&self, answer: Answer) {
        *self.answers.description.lock().unwrap() = answer;
    }

    pub(super) fn asked(&self) -> u64 {
        self.answers.asked.load(Ordering::Relaxed)
    }
}

async fn answer(State(answers): State<Arc<Answers>>, uri: Uri) -> Response {
    answers.asked.fetch_add(1, Ordering::Relaxed);
    let answer = match uri.path() {
        DISCOVERY => answers.description.lock().unwrap().clone(),
        "/keys" => answers.keys.lock().unwrap().clone(),
        _ => Answer::Other(404, "application/json", "{}".to_owned()),
    };
    match answer {
        Answer::Json(body) => axum::Json(body).into_response(),
        Answer::Other(status, kind, body) => {
            let status = StatusCode::from_u16(status).unwrap();
            (status, [(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Answer::Redirect(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Answer::Silence => std::future::pending().await,
    }
}
