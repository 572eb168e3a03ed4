//! Schedules that random faults rarely build, by name.

use crate::lab::disk::Kind;
use crate::plan::{Fault, Plan, Target};
use crate::round::{Setting, Verdict, play};

/// A name and what it stands for.
struct Script {
    name: &'static str,
    /// Also part of the short piece.
    short: bool,
    plan: Plan,
}

fn scripts() -> Vec<Script> {
    let (leader, follower) = (Target::Leader, Target::Follower);
    let pause = |target, hold| Fault::Pause { target, hold };
    // A leader that stalls for about a lease goes on in the same term: it must not refuse one
    // batch and take the next one of the same producer.
    let gap: Vec<_> = (4..12).map(|n| (pause(leader, n * 100), 400)).collect();
    let deaf = |hold| Fault::OneWay { target: leader, deaf: true, hold };
    let deaf_gap: Vec<_> = (4..12).map(|n| (deaf(n * 100), 400)).collect();
    // Replicas that lag behind a floor that rises: a purge overtakes what they have queued.
    let lagging: Vec<_> = (0..6)
        .flat_map(|n| [(pause(follower, 3_000), 200), (pause(leader, 200 * n), 200)])
        .collect();
    let slow = Fault::SlowDisk { target: follower, each: 300, hold: 8_000 };
    // NATS lost acknowledged events so: stop a minority, go on, lose the power of another, swap.
    let swap = vec![
        (Fault::PauseKill { hold: 8_000, down: 300 }, 500),
        (Fault::PauseKill { hold: 8_000, down: 300 }, 500),
        (Fault::Cut { target: leader, down: 300 }, 500),
        (Fault::PauseKill { hold: 8_000, down: 300 }, 500),
    ];
    let kill = Fault::Kill { target: leader, down: 100 };
    vec![
        Script { name: "lease_gap", short: true, plan: Plan::of(Kind::Plain, gap) },
        Script { name: "lease_gap_deaf", short: false, plan: Plan::of(Kind::Plain, deaf_gap) },
        Script {
            name: "openraft_2116_purge_overtakes_apply",
            short: true,
            plan: Plan::of(Kind::Plain, [lagging, vec![(slow, 1_000)]].concat()),
        },
        Script { name: "pause_kill_swap", short: false, plan: Plan::of(Kind::Image, swap) },
        // Leaders that die between commit and apply.
        Script {
            name: "leader_after_leader",
            short: false,
            plan: Plan::of(Kind::Plain, vec![(kill, 50); 25]),
        },
    ]
}

/// Names of those that `cargo test` runs.
pub(crate) fn short_names() -> Vec<&'static str> {
    scripts().iter().filter(|script| script.short).map(|script| script.name).collect()
}

/// Plays those whose name contains this; whether all were valid.
pub(crate) async fn run(setting: &Setting, wanted: &dyn Fn(&str) -> bool) -> anyhow::Result<bool> {
    let mut good = true;
    for script in scripts().into_iter().filter(|script| wanted(script.name)) {
        let outcome = play(setting, &script.plan, script.name).await?;
        println!("{}: {}", script.name, crate::campaign::line(&outcome));
        good &= outcome.verdict == Verdict::Valid;
    }
    Ok(good)
}
