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

/// How long the slow program takes for an answer, and the late one for its start.
pub(crate) const SLOW: Duration = Duration::from_millis(300);
/// Where a program tries to write that may not.
const SCRIBBLE: &str = "/weft-scribble";
const MEBI: usize = 1 << 20;

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
    let answer = Some(answering(Duration::ZERO));
    let (line, handler, obeys_stop, ready_after) = match word {
        "answer" | "env" | "self" | "write" | "hungry" => ("ready", answer, true, Duration::ZERO),
        "slow" => ("ready", Some(answering(SLOW)), true, Duration::ZERO),
        "late" => ("ready", answer, true, SLOW),
        "never" => ("waiting", answer, true, Duration::from_hours(1)),
        "crash" => ("going down", None, true, Duration::ZERO),
        "stubborn" => ("ready", answer, false, Duration::ZERO),
        _ => return None,
    };
    let lines = vec![line.to_owned()];
    Some(Program { lines, handler, obeys_stop, ready_after, ..Program::default() })
}

/// Runs a program as a process, on the socket that was handed down or on a port.
pub(crate) fn run(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let word = args.next().unwrap_or_default();
    tell_more(&word.to_string_lossy());
    let Some(program) = word.to_str().and_then(program) else { return ExitCode::from(2) };
    for line in &program.lines {
        println!("{line}");
    }
    let Some(handler) = program.handler else { return ExitCode::from(3) };
    std::thread::sleep(program.ready_after);
    let listener = listenfd::ListenFd::from_env().take_tcp_listener(0).unwrap();
    let listener = listener.unwrap_or_else(|| {
        let port: u16 = std::env::var("PORT").unwrap().parse().unwrap();
        std::net::TcpListener::bind(("0.0.0.0", port)).unwrap()
    });
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if word == "hungry" {
        std::thread::spawn(eat);
    }
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

/// What a program finds around itself.
fn tell_more(word: &str) {
    match word {
        "env" => {
            for (name, value) in std::env::vars() {
                println!("{name}={value}");
            }
            println!("pid={}", std::process::id());
        }
        "self" => println!("{}", std::fs::read_to_string("/proc/self/status").unwrap()),
        "write" => {
            let writes = |path: &std::path::Path| std::fs::write(path, "x").is_ok();
            let scribbled = writes(SCRIBBLE.as_ref());
            if scribbled {
                std::fs::remove_file(SCRIBBLE).unwrap();
            }
            println!("root={scribbled}");
            println!("scratch={}", writes(&std::env::temp_dir().join("note")));
            println!("null={}", writes("/dev/null".as_ref()));
        }
        _ => {}
    }
}

/// Takes more and more memory, slowly enough that the start is over first.
fn eat() {
    let mut eaten = Vec::new();
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let mut bite = vec![0_u8; 8 * MEBI];
        bite.iter_mut().step_by(4_096).for_each(|byte| *byte = 1);
        eaten.push(bite);
    }
}
