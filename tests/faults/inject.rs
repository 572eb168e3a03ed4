//! Does to a cluster what the plan says, and looks whether it took hold.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rand::seq::IndexedRandom as _;
use tokio::time::sleep;

use crate::check::history::Injected;
use crate::lab::cluster::Cluster;
use crate::lab::net::Net;
use crate::lab::node::Node;
use crate::plan::{Fault, Target};
use crate::work::STREAMS;
use crate::work::recorder::Recorder;

/// The guard of the disk looks twice a second.
const NOTICED: Duration = Duration::from_secs(2);

/// One fault from beginning to end. Fails only where the harness itself does.
pub(crate) async fn inject(
    cluster: &mut Cluster,
    fault: Fault,
    recorder: &Recorder,
) -> anyhow::Result<()> {
    let name = fault.name();
    if !cluster.lab.has(fault.tool()) {
        recorder.fault(name, Injected::Skipped, "the tool is missing");
        return Ok(());
    }
    cluster.nodes.iter_mut().for_each(Node::look);
    // Whoever ended by itself is a complaint already; the faults go on with a whole cluster.
    cluster.start()?;
    let detail = format!("{fault:?}");
    recorder.fault(name, Injected::Begun, &detail);
    match apply(cluster, fault, recorder).await {
        Ok(()) => recorder.fault(name, Injected::Healed, &detail),
        Err(error) => {
            recorder.fault(name, Injected::Indeterminate, &format!("{detail}: {error:#}"));
            heal(cluster)?;
        }
    }
    Ok(())
}

/// Ends whatever may still go on.
pub(crate) fn heal(cluster: &mut Cluster) -> anyhow::Result<()> {
    if let Some(net) = &cluster.lab.net {
        net.switch.heal();
    }
    for node in &mut cluster.nodes {
        node.look();
        node.control.heal()?;
        node.disk.empty()?;
        if node.is_running() {
            node.thaw()?;
        }
    }
    cluster.start()
}

async fn apply(cluster: &mut Cluster, fault: Fault, recorder: &Recorder) -> anyhow::Result<()> {
    let tell = |detail: &str| recorder.fault(fault.name(), Injected::Installed, detail);
    match fault {
        Fault::Kill { target, down } => {
            let node = choose(cluster, target).await?;
            kill(cluster, &[node], 0, down, tell).await
        }
        Fault::KillMajority { down } => {
            let first = choose(cluster, Target::Leader).await?;
            let others = [first, (first + 1) % cluster.nodes.len()];
            kill(cluster, &others, 0, down, tell).await
        }
        Fault::KillAll { apart, down } => {
            let all: Vec<_> = (0..cluster.nodes.len()).collect();
            kill(cluster, &all, apart, down, tell).await
        }
        Fault::Pause { target, hold } => {
            let node = choose(cluster, target).await?;
            cluster.nodes[node].freeze().await?;
            tell(&format!("node {node} is stopped"));
            millis(hold).await;
            cluster.nodes[node].thaw()
        }
        Fault::PauseKill { hold, down } => pause_kill(cluster, hold, down, tell).await,
        Fault::Restart { apart } => {
            for node in 0..cluster.nodes.len() {
                cluster.nodes[node].terminate().await?;
                tell(&format!("node {node} has ended"));
                cluster.start_one(node)?;
                cluster.nodes[node].ready().await?;
                millis(apart).await;
            }
            Ok(())
        }
        Fault::Isolate { .. }
        | Fault::OneWay { .. }
        | Fault::Bridge { .. }
        | Fault::Delay { .. } => on_links(cluster, fault, tell).await,
        Fault::SlowDisk { target, each, hold } => {
            slow_disk(cluster, target, each, hold, tell).await
        }
        Fault::SyncError { target, down } => {
            let node = choose(cluster, target).await?;
            cluster.nodes[node].control.fail(false)?;
            let status = cluster.nodes[node].exit().await.context("after a failed sync")?;
            ensure!(cluster.nodes[node].control.hits()? > 0, "no sync failed");
            tell(&format!("node {node} ended: {status}"));
            millis(down).await;
            cluster.start_one(node)
        }
        Fault::SyncErrorAll { hold, down } => sync_error_all(cluster, hold, down, tell).await,
        Fault::OldCopy { hold } => old_copy(cluster, hold, tell).await,
        Fault::FullDisk { target, hold } => {
            let node = choose(cluster, target).await?;
            let bytes = cluster.nodes[node].disk.fill()?;
            sleep(NOTICED).await;
            tell(&format!("{bytes} bytes of node {node} are taken"));
            millis(hold).await;
            cluster.nodes[node].disk.empty()
        }
        Fault::Cut { target, down } => {
            let node = choose(cluster, target).await?;
            cut(cluster, &[node], 0, down, tell).await
        }
        Fault::CutAll { apart, down } => {
            let all: Vec<_> = (0..cluster.nodes.len()).collect();
            cut(cluster, &all, apart, down, tell).await
        }
    }
}

/// Without a known leader any node may be it.
async fn choose(cluster: &Cluster, target: Target) -> anyhow::Result<usize> {
    let stream = STREAMS.choose(&mut rand::rng()).context("there is no stream")?;
    let leader = cluster.leader(stream).await;
    let nodes = 0..cluster.nodes.len();
    let fit: Vec<usize> = match (target, leader) {
        (Target::Leader, Some(leader)) => vec![leader],
        (Target::Follower, Some(leader)) => nodes.filter(|node| *node != leader).collect(),
        (_, None) => nodes.collect(),
    };
    fit.choose(&mut rand::rng()).copied().context("there is no node")
}

async fn kill(
    cluster: &mut Cluster,
    nodes: &[usize],
    apart: u64,
    down: u64,
    tell: impl Fn(&str),
) -> anyhow::Result<()> {
    for &node in nodes {
        cluster.nodes[node].kill();
        tell(&format!("node {node} is dead"));
        millis(apart).await;
    }
    millis(down).await;
    for &node in nodes {
        cluster.start_one(node)?;
    }
    for &node in nodes {
        cluster.nodes[node].ready().await?;
    }
    Ok(())
}

async fn pause_kill(
    cluster: &mut Cluster,
    hold: u64,
    down: u64,
    tell: impl Fn(&str),
) -> anyhow::Result<()> {
    let leader = choose(cluster, Target::Leader).await?;
    let paused = (leader + 1) % cluster.nodes.len();
    cluster.nodes[paused].freeze().await?;
    millis(hold).await;
    cluster.nodes[leader].kill();
    tell(&format!("node {paused} is stopped, node {leader} is dead"));
    cluster.nodes[paused].thaw()?;
    millis(down).await;
    cluster.start_one(leader)?;
    cluster.nodes[leader].ready().await
}

async fn slow_disk(
    cluster: &mut Cluster,
    target: Target,
    each: u64,
    hold: u64,
    tell: impl Fn(&str),
) -> anyhow::Result<()> {
    let node = choose(cluster, target).await?;
    let control = &cluster.nodes[node].control;
    let before = control.hits()?;
    control.stall(Duration::from_millis(each))?;
    millis(hold.max(1_000)).await;
    let hits = control.hits()? - before;
    control.heal()?;
    ensure!(hits > 0, "no sync was slow");
    tell(&format!("{hits} syncs of node {node} took {each} ms longer"));
    Ok(())
}

/// PAR calls it the loss of a tail before a vote: who forgot what it acknowledged makes a majority
/// with who never had it.
async fn old_copy(cluster: &mut Cluster, hold: u64, tell: impl Fn(&str)) -> anyhow::Result<()> {
    let leader = choose(cluster, Target::Leader).await?;
    let nodes = cluster.nodes.len();
    let (victim, other) = ((leader + 1) % nodes, (leader + 2) % nodes);
    cluster.nodes[victim].terminate().await?;
    cluster.nodes[victim].disk.save()?;
    cluster.start_one(victim)?;
    cluster.nodes[victim].ready().await?;
    cluster.nodes[other].freeze().await?;
    millis(hold).await;
    cluster.nodes[victim].kill();
    cluster.nodes[leader].kill();
    cluster.nodes[victim].disk.restore()?;
    tell(&format!("node {victim} has an older copy, node {other} lags, node {leader} is dead"));
    cluster.nodes[other].thaw()?;
    cluster.start_one(victim)?;
    millis(hold).await;
    cluster.start_one(leader)?;
    cluster.ready().await
}

/// Each process must end by itself; one that does not is killed, and what it said was a lie.
async fn sync_error_all(
    cluster: &mut Cluster,
    hold: u64,
    down: u64,
    tell: impl Fn(&str),
) -> anyhow::Result<()> {
    for node in &cluster.nodes {
        node.control.fail(false)?;
    }
    millis(hold).await;
    let mut went_on = 0;
    for node in &mut cluster.nodes {
        if node.ended().is_none() {
            went_on += 1;
            node.kill();
        }
        node.control.heal()?;
    }
    tell(&format!("{went_on} nodes did not end by themselves"));
    millis(down).await;
    cluster.start()?;
    cluster.ready().await
}

/// What the power of a machine does to the processes on it, in an order that loses nothing falsely:
/// a sync that is under way while the disk goes away may report success.
async fn cut(
    cluster: &mut Cluster,
    nodes: &[usize],
    apart: u64,
    down: u64,
    tell: impl Fn(&str),
) -> anyhow::Result<()> {
    if apart == 0 {
        // All at the same moment: nobody may learn of the end of another.
        for &node in nodes {
            cluster.nodes[node].freeze().await?;
        }
    }
    for &node in nodes {
        let node = &mut cluster.nodes[node];
        if apart > 0 {
            node.freeze().await?;
        }
        node.disk.cut()?;
        node.kill();
        node.disk.power_on()?;
        tell(&format!("the power of node {} failed", node.number));
        millis(apart).await;
    }
    millis(down).await;
    for &node in nodes {
        cluster.start_one(node)?;
    }
    for &node in nodes {
        cluster.nodes[node].ready().await?;
    }
    Ok(())
}

async fn on_links(cluster: &Cluster, fault: Fault, tell: impl Fn(&str)) -> anyhow::Result<()> {
    let net = cluster.lab.net.as_ref().context("there is no switch")?;
    let before = net.switch.hits();
    let nodes = cluster.nodes.len();
    let target = match fault {
        Fault::Isolate { target, .. } | Fault::OneWay { target, .. } => target,
        _ => Target::Leader,
    };
    let node = choose(cluster, target).await?;
    let others = (0..nodes).filter(|other| *other != node);
    let hold = match fault {
        Fault::Isolate { clients, hold, .. } => {
            others.for_each(|other| net.cut_both(node, other, true));
            if clients {
                net.cut_both(node, net.clients(), true);
            }
            hold
        }
        Fault::OneWay { deaf, hold, .. } => {
            for other in others {
                let (from, to) = if deaf { (other, node) } else { (node, other) };
                net.switch.cut(from, to, true);
            }
            hold
        }
        Fault::Bridge { hold } => {
            net.cut_both(node, (node + 1) % nodes, true);
            hold
        }
        Fault::Delay { each, hold } => {
            delay_all(net, nodes, Duration::from_millis(each));
            hold
        }
        _ => bail!("{fault:?} is no fault of the network"),
    };
    millis(hold).await;
    let hits = net.switch.hits() - before;
    net.switch.heal();
    ensure!(hits > 0, "no packet was touched");
    tell(&format!("node {node}, {hits} packets"));
    Ok(())
}

fn delay_all(net: &Net, nodes: usize, delay: Duration) {
    for from in 0..nodes {
        for to in (0..nodes).filter(|to| *to != from) {
            net.switch.delay(from, to, delay);
        }
    }
}

async fn millis(time: u64) {
    sleep(Duration::from_millis(time)).await;
}
