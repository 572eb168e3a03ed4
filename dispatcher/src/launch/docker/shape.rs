//! What a container is made of: pure, a function and settings in, a request out.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use weft_client::Secret;
use weft_proto::resource::{BytesText, ResourcesSpec};

use super::Config;
use crate::Connect;
use crate::launch::Launch;

const NANOS_PER_MILLI: i64 = 1_000_000;

/// What is known only when an instance starts.
pub(super) struct Given<'a> {
    pub(super) image: String,
    pub(super) args: &'a [String],
    pub(super) env: Vec<(String, Secret)>,
    pub(super) port: u16,
    pub(super) labels: HashMap<String, String>,
}

/// The request that creates it.
pub(super) fn body(config: &Config, launch: &Launch, given: Given<'_>) -> ContainerCreateBody {
    let own = [
        ("PORT", given.port.to_string()),
        ("WEFT_FUNCTION", launch.function.to_string()),
        ("WEFT_INSTANCE", launch.id.to_string()),
    ];
    let env = given.env.iter().map(|(name, value)| format!("{name}={}", value.expose()));
    // Of two of the same name the later counts.
    let env = env.chain(own.iter().map(|(name, value)| format!("{name}={value}"))).collect();
    ContainerCreateBody {
        image: Some(given.image),
        cmd: (!given.args.is_empty()).then(|| given.args.to_vec()),
        env: Some(env),
        user: Some(launch.security.run_as_user.to_string()),
        labels: Some(given.labels),
        attach_stdout: Some(false),
        attach_stderr: Some(false),
        stop_signal: Some("SIGTERM".to_owned()),
        host_config: Some(host(config, launch)),
        ..ContainerCreateBody::default()
    }
}

fn host(config: &Config, launch: &Launch) -> HostConfig {
    let ResourcesSpec { cpu, memory, ephemeral, pids } = launch.resources;
    let network = if config.connect == Connect::Host { "host" } else { &config.network };
    let bytes = |bytes: BytesText| i64::try_from(bytes.0).unwrap_or(i64::MAX);
    let log = HashMap::from([
        ("max-size".to_owned(), "1m".to_owned()),
        ("max-file".to_owned(), "1".to_owned()),
    ]);
    HostConfig {
        memory: Some(bytes(memory)),
        // As much as memory: none of it on a disk.
        memory_swap: Some(bytes(memory)),
        nano_cpus: Some(i64::from(cpu.0) * NANOS_PER_MILLI),
        pids_limit: Some(i64::from(pids)),
        network_mode: Some(network.to_owned()),
        readonly_rootfs: Some(launch.security.read_only_root),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        privileged: Some(false),
        // Reaps what a program leaves behind, and passes signals on to it.
        init: Some(true),
        auto_remove: Some(false),
        tmpfs: Some(tmpfs(&launch.security.tmpfs, ephemeral)),
        runtime: Some(launch.security.runtime_class.clone()).filter(|name| !name.is_empty()),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(log),
        }),
        ..HostConfig::default()
    }
}

/// Together they hold as many bytes as the function may have.
fn tmpfs(folders: &[String], ephemeral: BytesText) -> HashMap<String, String> {
    let count = u64::try_from(folders.len()).unwrap_or(u64::MAX).max(1);
    // A size of nothing would mean that there is no limit.
    let share = (ephemeral.0 / count).max(4_096);
    let options = format!("rw,noexec,nosuid,nodev,size={share},mode=1777");
    folders.iter().map(|folder| (folder.clone(), options.clone())).collect()
}
