//! The functions under test: the same words for every launcher.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use weft_dispatcher::launch::fake::{Handler, Program, serve};

/// How long the slow program takes.
pub(crate) const SLOW: Duration = Duration::from_millis(300);

/// What a word stands for.
pub(crate) fn program(word: &str) -> Option<Program> {
    let answering = |delay: Duration| -> Handler {
        Arc::new(move |_| {
            Box::pin(async move {
                tokio::time::sleep(delay).await;
                Ok(Response::builder().status(204).body(Full::<Bytes>::default()).unwrap())
            })
        })
    };
    let (line, handler, obeys_stop) = match word {
        "answer" => ("ready", Some(answering(Duration::ZERO)), true),
        "slow" => ("ready", Some(answering(SLOW)), true),
        "crash" => ("going down", None, true),
        "stubborn" => ("ready", Some(answering(Duration::ZERO)), false),
        _ => return None,
    };
    let lines = vec![line.to_owned()];
    Some(Program { lines, handler, obeys_stop, ..Program::default() })
}

/// Runs a program as a process, on the socket that was handed down.
pub(crate) fn run(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let word = args.next().unwrap_or_default();
    if word == "env" {
        for (name, value) in std::env::vars() {
            println!("{name}={value}");
        }
        println!("pid={}", std::process::id());
    }
    let Some(program) = word.to_str().and_then(program) else { return ExitCode::from(2) };
    for line in &program.lines {
        println!("{line}");
    }
    let Some(handler) = program.handler else { return ExitCode::from(3) };
    let listener = listenfd::ListenFd::from_env().take_tcp_listener(0).unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let drain = CancellationToken::new();
        let mut sigterm = signal(SignalKind::terminate()).unwrap();
        let serving = serve(TcpListener::from_std(listener).unwrap(), handler, drain.clone());
        let asked = async {
            while sigterm.recv().await.is_some() {
                if program.obeys_stop {
                    drain.cancel();
                }
            }
        };
        tokio::select! {
            _ = serving => {}
            () = asked => {}
        }
    });
    ExitCode::SUCCESS
}
