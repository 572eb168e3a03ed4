//! Round after round, each with a seed of its own, until the time is up; and what came of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::check::Class;
use crate::plan::Plan;
use crate::round::{Hits, Outcome, Setting, Verdict, play};

const RESULTS: &str = "results.jsonl";

/// All rounds of a folder together.
#[derive(Debug, Default)]
struct Totals {
    rounds: u64,
    quiet: u64,
    valid: u64,
    invalid: u64,
    unknown: u64,
    seconds: u64,
    acked: u64,
    refused: u64,
    open: u64,
    recovered: u64,
    duplicates: u64,
    polled: u64,
    final_reads: u64,
    gaps: Vec<u64>,
    faults: BTreeMap<String, Hits>,
    waits: BTreeMap<String, Vec<u64>>,
    anomalies: BTreeMap<Class, usize>,
    bad: Vec<String>,
}

/// Plays rounds until so much time of rounds is on record. Whether all were valid.
pub(crate) async fn run(
    setting: &Setting,
    seed: u64,
    time: Duration,
    round: Duration,
    resume: bool,
) -> anyhow::Result<bool> {
    let file = setting.dir.join(RESULTS);
    let mut done = results(&file)?;
    if !done.is_empty() && !resume {
        anyhow::bail!("{} has results: add --resume, or choose another folder", file.display());
    }
    let mut results = File::options().create(true).append(true).open(&file)?;
    let mut spent = done.iter().map(|outcome| outcome.seconds).sum::<u64>();
    while spent < time.as_secs() {
        let seed = seed.wrapping_add(done.len() as u64);
        let plan = Plan::random(seed, round);
        let outcome = play(setting, &plan, &format!("round-{seed}")).await?;
        println!("{}", line(&outcome));
        spent += outcome.seconds.max(1);
        serde_json::to_writer(&mut results, &outcome)?;
        results.write_all(b"\n")?;
        done.push(outcome);
    }
    Ok(report(&done, setting))
}

/// Prints what is on record. Whether all rounds were valid.
pub(crate) fn summary(dir: &Path) -> anyhow::Result<bool> {
    let done = results(&dir.join(RESULTS))?;
    if done.is_empty() {
        anyhow::bail!("{} has no results", dir.display());
    }
    Ok(totals(&done).print())
}

fn results(file: &Path) -> anyhow::Result<Vec<Outcome>> {
    let mut found = Vec::new();
    let reader = match File::open(file) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error.into()),
    };
    for (number, line) in (1..).zip(reader.lines()) {
        let line = line?;
        let parsed = serde_json::from_str(&line);
        found.push(parsed.with_context(|| format!("{}:{number}", file.display()))?);
    }
    Ok(found)
}

/// A round in one line.
pub(crate) fn line(outcome: &Outcome) -> String {
    let counts = &outcome.counts;
    let faults: u64 = outcome.faults.values().map(|hits| hits.installed).sum();
    let mut text = format!(
        "round {}: {:?} in {} s; {} acked, {} refused, {} unknown ({} of them stored), \
         {} polled, {} final, {} lent, {} settled and {} not, {} dead; {} replayed by {} jobs; {} faults; \
         longest gap {} ms",
        outcome.plan.seed,
        outcome.verdict,
        outcome.seconds,
        counts.acked,
        counts.refused,
        counts.unknown,
        counts.recovered,
        counts.polled,
        counts.final_reads,
        counts.lent,
        counts.settled,
        counts.unsettled,
        counts.letters,
        counts.replayed,
        counts.jobs,
        faults,
        counts.gap_ms,
    );
    for (class, number) in &outcome.anomalies {
        _ = write!(text, "\n  {number} x {class}");
    }
    let why = outcome.examples.iter().take(5).chain(&outcome.complaints).chain(&outcome.doubts);
    for reason in why {
        _ = write!(text, "\n  {reason}");
    }
    if let Some(kept) = &outcome.kept {
        _ = write!(text, "\n  kept: {}", kept.display());
    }
    text
}

fn report(done: &[Outcome], setting: &Setting) -> bool {
    for (tool, why) in &setting.lab.missing {
        println!("not possible here: {tool:?}: {why}");
    }
    totals(done).print()
}

fn totals(done: &[Outcome]) -> Totals {
    let mut totals = Totals::default();
    for outcome in done {
        totals.add(outcome);
    }
    totals.gaps.sort_unstable();
    totals.waits.values_mut().for_each(|waits| waits.sort_unstable());
    totals
}

impl Totals {
    fn add(&mut self, outcome: &Outcome) {
        self.rounds += 1;
        self.quiet += u64::from(outcome.plan.steps.is_empty());
        match outcome.verdict {
            Verdict::Valid => self.valid += 1,
            Verdict::Invalid => self.invalid += 1,
            Verdict::Unknown => self.unknown += 1,
        }
        self.seconds += outcome.seconds;
        let counts = &outcome.counts;
        self.acked += counts.acked;
        self.refused += counts.refused;
        self.open += counts.unknown;
        self.recovered += counts.recovered;
        self.duplicates += counts.duplicates;
        self.polled += counts.polled;
        self.final_reads += counts.final_reads;
        self.gaps.push(counts.gap_ms);
        for (name, hits) in &outcome.faults {
            let sum = self.faults.entry(name.clone()).or_default();
            sum.installed += hits.installed;
            sum.skipped += hits.skipped;
            sum.indeterminate += hits.indeterminate;
        }
        for (name, waits) in &outcome.waits {
            self.waits.entry(name.clone()).or_default().extend(waits);
        }
        for (class, number) in &outcome.anomalies {
            *self.anomalies.entry(*class).or_default() += number;
        }
        if outcome.verdict != Verdict::Valid {
            self.bad.push(line(outcome));
        }
    }

    fn print(&self) -> bool {
        println!("| | |\n|---|---|");
        println!("| rounds | {} ({} without faults) |", self.rounds, self.quiet);
        println!(
            "| verdict | {} valid, {} invalid, {} unknown |",
            self.valid, self.invalid, self.unknown
        );
        println!("| time | {} min |", self.seconds / 60);
        println!("| events acknowledged and checked | {} |", self.acked);
        println!(
            "| refused, unknown (stored all the same) | {}, {} ({}) |",
            self.refused, self.open, self.recovered
        );
        println!("| answers to retries from memory | {} |", self.duplicates);
        println!(
            "| events read during faults, in the end | {}, {} |",
            self.polled, self.final_reads
        );
        let (middle, most) = (self.gaps.get(self.gaps.len() / 2), self.gaps.last());
        println!(
            "| longest time of a round without acknowledgement | median {} ms, most {} ms |",
            middle.unwrap_or(&0),
            most.unwrap_or(&0)
        );
        for (class, number) in &self.anomalies {
            println!("| **{class}** | {number} |");
        }
        self.print_faults();
        for bad in &self.bad {
            println!("\n{bad}");
        }
        self.rounds > 0 && self.valid == self.rounds
    }

    fn print_faults(&self) {
        println!(
            "\n| fault | took hold | longest wait for an acknowledgement: median, p95, most (ms) |"
        );
        println!("|---|---|---|");
        for (name, hits) in &self.faults {
            let mut text = hits.installed.to_string();
            if hits.skipped > 0 {
                _ = write!(text, ", {} skipped", hits.skipped);
            }
            if hits.indeterminate > 0 {
                _ = write!(text, ", {} indeterminate", hits.indeterminate);
            }
            let waits = self.waits.get(name).map_or(&[][..], Vec::as_slice);
            let at = |percent: usize| {
                let place = waits.len().saturating_sub(1) * percent / 100;
                waits.get(place).map_or_else(|| "-".to_owned(), u64::to_string)
            };
            println!("| {name} | {text} | {}, {}, {} |", at(50), at(95), at(100));
        }
    }
}

/// A folder that is on a disk, not in memory, unless the caller says otherwise.
pub(crate) fn folder(dir: Option<PathBuf>, name: &str) -> anyhow::Result<PathBuf> {
    let dir = dir.unwrap_or_else(|| {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()))
    });
    fs::create_dir_all(&dir)?;
    Ok(dir)
}
