//! One suite for all launchers. Has its own `main`, because the process launcher starts this very
//! program again: as the shim, and as the functions under test.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test"
)]
#![expect(clippy::disallowed_methods, reason = "plays the part of a program, which has these")]

#[cfg(feature = "docker")]
mod docker;
#[cfg(not(feature = "docker"))]
#[path = "no_docker.rs"]
mod docker;
mod measure;
mod process;
mod programs;
mod suite;
mod whole;
mod wire;

use std::process::ExitCode;

use std::sync::atomic::{AtomicU32, Ordering};

type Case = (&'static str, fn());

/// Cases that could not be run here.
static SKIPPED: AtomicU32 = AtomicU32::new(0);

/// Says so loudly, and counts it.
pub(crate) fn skip(why: &str) {
    println!("  SKIPPED: {why}");
    SKIPPED.fetch_add(1, Ordering::Relaxed);
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_ref().and_then(|arg| arg.to_str()) {
        Some("launch-shim") => {
            eprintln!("{}", weft_dispatcher::launch::shim(args));
            return ExitCode::from(127);
        }
        Some("as-program") => return programs::run(args),
        Some("as-dispatcher") => return process::start_one_and_hang(),
        Some("as-docker-dispatcher") => return docker::start_one_and_hang(),
        Some("measure") => return measure::run(),
        _ => {}
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let wanted = args.iter().find(|arg| !arg.starts_with('-'));
    let is_exact = args.iter().any(|arg| arg == "--exact");
    let cases = suite::cases().into_iter().chain(process::cases()).chain(docker::cases());
    let cases: Vec<Case> = cases.chain(whole::cases()).collect();
    let cases = cases.into_iter().filter(|(name, _)| {
        wanted.is_none_or(|wanted| if is_exact { name == wanted } else { name.contains(wanted) })
    });
    if args.iter().any(|arg| arg == "--list") {
        cases.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in cases {
        let before = SKIPPED.load(Ordering::Relaxed);
        let is_good = std::panic::catch_unwind(case).is_ok();
        let is_skipped = SKIPPED.load(Ordering::Relaxed) > before;
        let word = match (is_good, is_skipped) {
            (false, _) => "FAILED",
            (true, true) => "SKIPPED",
            (true, false) => "ok",
        };
        println!("test {name} ... {word}");
        failed += u32::from(!is_good);
        passed += u32::from(is_good && !is_skipped);
    }
    let skipped = SKIPPED.load(Ordering::Relaxed);
    println!("\ntest result: {passed} passed; {failed} failed; {skipped} SKIPPED");
    ExitCode::from(u8::from(failed > 0))
}
