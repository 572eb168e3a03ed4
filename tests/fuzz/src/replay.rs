//! Replays the corpora: whatever a fuzzer once found stays found, under the stable compiler and
//! without a fuzzer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Name, `run`, `seeds`, `MAX_LEN`.
type Target = (&'static str, fn(&[u8]) -> bool, fn() -> Vec<Vec<u8>>, usize);

include!(concat!(env!("OUT_DIR"), "/targets.rs"));

/// Inputs by name: the seeds, then the lines of the corpus.
fn inputs(name: &str, seeds: fn() -> Vec<Vec<u8>>) -> Vec<(String, Vec<u8>)> {
    let seed = |(number, seed)| (format!("{name}: seed {number}"), seed);
    let mut inputs: Vec<_> = seeds().into_iter().enumerate().map(seed).collect();
    let kept = weft_fuzz::corpus::read(name).unwrap().into_iter().enumerate();
    inputs.extend(kept.map(|(line, kept)| {
        let reason = if kept.reason.is_empty() { "" } else { ", " };
        (format!("{name}: line {}{reason}{}", line + 1, kept.reason), kept.input)
    }));
    inputs
}

#[test]
fn no_input_ever_found_breaks_a_decoder_again() {
    let mut broken = Vec::new();
    for &(name, run, seeds, len_max) in TARGETS {
        let (mut accepted, mut refused) = (0, 0);
        for (shown, input) in inputs(name, seeds) {
            assert!(input.len() <= len_max, "{shown} is longer than the fuzzer would go");
            match catch_unwind(AssertUnwindSafe(|| run(&input))) {
                Ok(true) => accepted += 1,
                Ok(false) => refused += 1,
                Err(_panic) => broken.push(shown),
            }
        }
        println!("{name}: {accepted} accepted, {refused} refused");
        // A decoder that answers always the same is not reached by what it is fed.
        assert!(accepted > 0, "{name} accepts nothing");
        assert!(refused > 0, "{name} refuses nothing");
    }
    assert!(broken.is_empty(), "these inputs break their targets:\n{}", broken.join("\n"));
}

#[test]
fn every_corpus_has_a_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for corpus in std::fs::read_dir(folder).unwrap() {
        let file = corpus.unwrap().path();
        assert!(TARGETS.iter().any(|target| file == weft_fuzz::corpus::file(target.0)), "{file:?}");
    }
}
