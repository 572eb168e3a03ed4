//! Brokers, and once a client, that are broken on purpose: the harness must catch each of them.
//!
//! The bugs are in `weft_broker::planted`, in debug builds alone.

use std::fs;

use weft_broker::planted::{Bug, VARIABLE};

use crate::check::Class;
use crate::lab::disk::Kind;
use crate::plan::{Fault, Plan, Target};
use crate::round::{Setting, Verdict, play};
use crate::work::Lies;

/// How a broker ends that does not trust its disk.
const SUSPECT: &str = "exit status: 3";
/// Attempts to show a bug that needs luck.
const ATTEMPTS: usize = 3;

/// A bug, what brings it to light, and as what.
struct Plant {
    name: &'static str,
    bug: Option<Bug>,
    plan: Plan,
    /// One of them must be found.
    classes: &'static [Class],
    /// Brokers may see by themselves that their disks forgot, and refuse to start.
    suspicious: bool,
}

impl Plant {
    fn of(bug: Bug, plan: Plan, classes: &'static [Class]) -> Self {
        let suspicious = bug == Bug::AckBeforeSync;
        Self { name: bug.name(), bug: Some(bug), plan, classes, suspicious }
    }
}

/// What is lost, wherever it is missed first.
const LOSS: &[Class] = &[
    Class::LostWrite,
    Class::Unseen,
    Class::ReplicaDivergence,
    Class::InconsistentOffsets,
    Class::Duplicate,
];

fn plants() -> Vec<Plant> {
    let leader = Target::Leader;
    let cut = Fault::CutAll { apart: 0, down: 200 };
    let sync_error = Fault::SyncErrorAll { hold: 3_000, down: 200 };
    let isolated = Fault::Isolate { target: leader, clients: false, hold: 6_000 };
    // A slow disk keeps nobody waiting while the two others make a majority.
    let paused = Fault::Pause { target: leader, hold: 6_000 };
    let killed = Fault::KillAll { apart: 0, down: 200 };
    let kill = Fault::Kill { target: leader, down: 200 };
    let plan = Plan::scripted;
    vec![
        Plant::of(Bug::AckBeforeSync, plan(Kind::Image, Some(cut), 4, 5_000), LOSS),
        Plant::of(Bug::SyncErrorIgnored, plan(Kind::Plain, Some(sync_error), 2, 5_000), LOSS),
        Plant::of(Bug::OffsetAtReceive, plan(Kind::Plain, Some(isolated), 4, 3_000), LOSS),
        Plant::of(
            Bug::EpochIgnored,
            plan(Kind::Plain, None, 0, 30_000),
            &[Class::InconsistentOffsets, Class::Duplicate, Class::LostWrite, Class::KeyOrder],
        ),
        Plant::of(
            Bug::ProducersNotInCheckpoint,
            plan(Kind::Plain, Some(killed), 6, 15_000),
            &[Class::IdempotenceViolation, Class::Duplicate, Class::G1a],
        ),
        Plant::of(Bug::SeamOffByOne, plan(Kind::Plain, None, 0, 45_000), &[Class::PollSkip]),
        Plant::of(
            Bug::StaleLeaderReads,
            plan(Kind::Plain, Some(isolated), 3, 3_000),
            &[Class::StaleRead],
        ),
        Plant::of(
            Bug::OldCopyTrusted,
            plan(Kind::Plain, Some(Fault::OldCopy { hold: 4_000 }), 1, 3_000),
            LOSS,
        ),
        Plant::of(
            Bug::GivenBackForgotten,
            plan(Kind::Plain, Some(kill), 8, 8_000),
            &[Class::Unseen],
        ),
        Plant::of(
            Bug::SettledBeforeCommit,
            plan(Kind::Plain, Some(isolated), 4, 3_000),
            &[Class::DupBeyondBound],
        ),
        Plant::of(Bug::KeysNotHeld, plan(Kind::Plain, None, 0, 10_000), &[Class::KeyOrder]),
        Plant::of(
            Bug::CursorBehind,
            plan(Kind::Plain, Some(kill), 8, 8_000),
            &[Class::CursorRegress],
        ),
        Plant::of(Bug::LateAckTaken, plan(Kind::Plain, None, 0, 15_000), &[Class::StaleOwnerAck]),
        Plant::of(
            Bug::LiveEdgeSkipped,
            plan(Kind::Plain, None, 0, 15_000),
            &[Class::ReplayLiveSeam],
        ),
        Plant::of(Bug::HandedOnLate, plan(Kind::Plain, None, 0, 40_000), &[Class::KeyOrder]),
        Plant::of(Bug::EverybodyServed, plan(Kind::Plain, None, 0, 20_000), &[Class::TwoOwners]),
        Plant::of(Bug::ReplaySkips, plan(Kind::Plain, None, 0, 30_000), &[Class::Unseen]),
        Plant {
            name: "timeout-as-refusal",
            bug: None,
            plan: plan(Kind::Plain, Some(paused), 6, 3_000),
            classes: &[Class::G1a],
            suspicious: false,
        },
    ]
}

/// Runs those whose name contains this; whether each was caught. With controls, each plan is played
/// without its bug as well, and must be valid then.
pub(crate) async fn run(setting: &Setting, wanted: &str, controls: bool) -> anyhow::Result<bool> {
    let mut missed = Vec::new();
    let mut played: Vec<Plan> = Vec::new();
    println!("| planted bug | caught as | events acknowledged |\n|---|---|---|");
    for plant in plants().into_iter().filter(|plant| plant.name.contains(wanted)) {
        if !catch(setting, &plant).await? {
            missed.push(plant.name);
        }
        if controls && !played.contains(&plant.plan) {
            if !control(setting, &plant).await? {
                missed.push(plant.name);
            }
            played.push(plant.plan);
        }
    }
    if !missed.is_empty() {
        println!("not as it should be: {}", missed.join(", "));
    }
    Ok(missed.is_empty())
}

/// The same round without a bug; whether nothing was found.
async fn control(setting: &Setting, plant: &Plant) -> anyhow::Result<bool> {
    let outcome = play(setting, &plant.plan, &format!("{}-control", plant.name)).await?;
    if outcome.verdict == Verdict::Valid {
        println!("| none, as for {} | nothing | {} |", plant.name, outcome.counts.acked);
        return Ok(true);
    }
    println!(
        "| none, as for {} | **something** | |\n{}",
        plant.name,
        crate::campaign::line(&outcome)
    );
    Ok(false)
}

async fn catch(setting: &Setting, plant: &Plant) -> anyhow::Result<bool> {
    let mut setting = setting.clone();
    let variable = plant.bug.map(|bug| (VARIABLE.to_owned(), bug.name().to_owned()));
    setting.program.env.extend(variable);
    setting.lies = Lies { timeout_is_refusal: plant.bug.is_none() };
    let mut last = String::new();
    for attempt in 1..=ATTEMPTS {
        let name = format!("{}-{attempt}", plant.name);
        let outcome = play(&setting, &plant.plan, &name).await?;
        let hit = plant.classes.iter().any(|class| outcome.anomalies.contains_key(class));
        let found: Vec<_> =
            outcome.anomalies.iter().map(|(class, count)| format!("{count} {class}")).collect();
        if hit && outcome.verdict == Verdict::Invalid {
            println!("| {} | {} | {} |", plant.name, found.join(", "), outcome.counts.acked);
            fs::remove_dir_all(setting.dir.join(&name))?;
            return Ok(true);
        }
        let refused = outcome.doubts.iter().any(|doubt| doubt.contains(SUSPECT));
        if plant.suspicious && refused {
            let what = "by the brokers themselves: suspect, they do not start";
            println!("| {} | {what} | {} |", plant.name, outcome.counts.acked);
            fs::remove_dir_all(setting.dir.join(&name))?;
            return Ok(true);
        }
        last = crate::campaign::line(&outcome);
    }
    println!("| {} | **not caught** | |\n{last}", plant.name);
    Ok(false)
}
