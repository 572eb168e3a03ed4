//! Tokens of a provider that somebody else wrote: npm `oidc-provider`, on loopback.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::*;
use crate::clock;

/// For all of it: the packages come from a registry.
const DEADLINE: Duration = Duration::from_mins(3);

const FILES: [(&str, &str); 3] = [
    ("package.json", include_str!("../../../../../tests/oidc/package.json")),
    ("package-lock.json", include_str!("../../../../../tests/oidc/package-lock.json")),
    ("provider.js", include_str!("../../../../../tests/oidc/provider.js")),
];

/// The provider: a command a line, an answer a line. It ends when its input does.
struct Node {
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Node {
    fn start(folder: &Path) -> Self {
        let mut process = Command::new("node")
            .arg("provider.js")
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let commands = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { commands, answers, _process: process }
    }

    async fn answer(&mut self) -> String {
        self.answers.next_line().await.unwrap().unwrap()
    }

    async fn ask(&mut self, command: &str) -> String {
        self.commands.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        self.answer().await
    }
}

/// Installs the provider as its lock file says, or says why not.
async fn install(folder: &Path) -> Result<(), String> {
    for tool in ["node", "npm"] {
        let found = Command::new(tool).arg("--version").output().await;
        if !found.is_ok_and(|output| output.status.success()) {
            return Err(format!("{tool} is not installed"));
        }
    }
    for (name, text) in FILES {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let install = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    if install.status.success() {
        return Ok(());
    }
    let problem = format!("npm ci failed: {}", String::from_utf8_lossy(&install.stderr));
    // There, what cannot be tested must not look as if it had been.
    assert!(std::env::var_os("CI").is_none(), "{problem}");
    Err(problem)
}

async fn rotate_keys_of_a_real_provider() {
    let folder = tempfile::tempdir().unwrap();
    if let Err(problem) = install(folder.path()).await {
        eprintln!("SKIPPED: no test against a real OpenID provider: {problem}");
        return;
    }
    let mut node = Node::start(folder.path());
    let url = node.answer().await;
    let config = IssuerConfig {
        audience: "urn:weft".to_owned(),
        algorithms: vec![Algorithm::RS256, Algorithm::ES256],
        ..config(&url)
    };
    let limits = Limits {
        retry_min: Duration::from_millis(1),
        refresh: Duration::from_millis(200),
        ..Limits::default()
    };
    let running = Running::start(&[config], limits);
    let verify = async |token: &str| {
        let verified = running.issuers.verify(token, clock::now()).await;
        verified.map(|verified| verified.subject.to_string())
    };

    let mut old = Vec::new();
    for client in ["RS256", "ES256"] {
        let token = node.ask(&format!("token {client} urn:weft")).await;
        assert_eq!(verify(&token).await, Ok(client.to_owned()));
        assert!(running.issuers.cached(&token, clock::now()).is_some());
        old.push(token);
        let foreign = node.ask(&format!("token {client} urn:other")).await;
        assert_eq!(verify(&foreign).await, Err(JwtError::AudienceWrong));
    }

    assert_eq!(node.ask("rotate").await, "done");
    for (client, old) in ["RS256", "ES256"].into_iter().zip(&old) {
        let token = node.ask(&format!("token {client} urn:weft")).await;
        let id = |token: &str| token.split('.').next().map(str::to_owned);
        assert_ne!(id(&token), id(old), "the same header, so the same key");
        assert_eq!(verify(&token).await, Ok(client.to_owned()));
        assert_eq!(verify(old).await, Ok(client.to_owned()));
    }

    assert_eq!(node.ask("forget").await, "done");
    running.asked_again().await;
    for (client, old) in ["RS256", "ES256"].into_iter().zip(&old) {
        assert!(running.issuers.cached(old, clock::now()).is_none());
        assert_eq!(verify(old).await, Err(JwtError::KeyUnknown));
        let token = node.ask(&format!("token {client} urn:weft")).await;
        assert_eq!(verify(&token).await, Ok(client.to_owned()));
    }
}

#[tokio::test]
async fn tokens_of_a_real_provider_are_verified_while_it_changes_its_keys() {
    tokio::time::timeout(DEADLINE, rotate_keys_of_a_real_provider()).await.unwrap();
}
