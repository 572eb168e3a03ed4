//! What an instance of a function is made of: limits, probe, user and files.

use serde::{Deserialize, Serialize};

use super::{BytesText, CpuText, DurationText, FunctionSpec, problem};
use crate::{Name, Result};

const ENV_LEN_MAX: usize = 256;
const ARGS_LEN_MAX: usize = 256;
const TMPFS_LEN_MAX: usize = 16;
/// Longest path, and longest reference to an image.
const TEXT_BYTES_MAX: usize = 512;
/// Longest name of a key within a secret.
const KEY_LEN_MAX: usize = 128;
const CPU_MAX: CpuText = CpuText(256_000);
const MEMORY_MIN: BytesText = BytesText::mebi(6);
const MEMORY_MAX: BytesText = BytesText::mebi(1 << 20);
const PIDS_MAX: u32 = 32_768;
const BUDGET_MAX: DurationText = DurationText::from_secs(3_600);
/// The user that owns nothing.
const USER: u32 = 65_532;

/// One variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where its value is; instead of `value`.
    #[serde(rename = "secretRef", default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
}

/// A secret of the function's namespace, by name: what it holds is known where instances run, and
/// nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretKeyRef {
    /// Name of the secret.
    pub name: String,
    /// Which of its values.
    pub key: String,
}

/// What an instance may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResourcesSpec {
    /// Processor time.
    pub cpu: CpuText,
    /// Memory; an instance that needs more is ended.
    pub memory: BytesText,
    /// What it may write into its scratch folders.
    pub ephemeral: BytesText,
    /// Processes and threads.
    pub pids: u32,
}

impl Default for ResourcesSpec {
    fn default() -> Self {
        Self {
            cpu: CpuText(250),
            memory: BytesText::mebi(128),
            ephemeral: BytesText::mebi(64),
            pids: 64,
        }
    }
}

/// When an instance counts as ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProbeSpec {
    /// Answers 2xx when it is ready; without it, ready is who accepts connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How long that may take.
    pub initial_budget: DurationText,
}

impl Default for ProbeSpec {
    fn default() -> Self {
        Self { path: None, initial_budget: DurationText::from_secs(60) }
    }
}

/// What an instance runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecuritySpec {
    /// Number of the user, in a container.
    pub run_as_user: u32,
    /// Whether all files but the scratch folders are read-only.
    pub read_only_root: bool,
    /// Scratch folders of a container, in memory.
    pub tmpfs: Vec<String>,
    /// How the host runs containers, if not as usual.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub runtime_class: String,
}

impl Default for SecuritySpec {
    fn default() -> Self {
        Self {
            run_as_user: USER,
            read_only_root: true,
            tmpfs: vec!["/tmp".to_owned()],
            runtime_class: String::new(),
        }
    }
}

/// What an instance speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without encryption.
    H2c,
    /// gRPC.
    Grpc,
}

/// What runs an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// A process of the dispatcher's host.
    Process,
    /// A container.
    Container,
}

pub(super) fn port_default() -> u16 {
    8_080
}

pub(super) fn policy_default() -> String {
    super::policy::RESTRICTED.to_owned()
}

impl FunctionSpec {
    /// What runs its instances.
    pub const fn runtime(&self) -> Runtime {
        if self.image.is_some() { Runtime::Container } else { Runtime::Process }
    }

    pub(super) fn check_template(&self) -> Result<()> {
        self.check_env()?;
        self.check_image()?;
        let ResourcesSpec { cpu, memory, ephemeral: _, pids } = self.resources;
        if cpu < CpuText(1) || cpu > CPU_MAX {
            return Err(problem("spec.resources.cpu", format!("{cpu} is not in 1m..={CPU_MAX}")));
        }
        if !(MEMORY_MIN..=MEMORY_MAX).contains(&memory) {
            let message = format!("{memory} is not in {MEMORY_MIN}..={MEMORY_MAX}");
            return Err(problem("spec.resources.memory", message));
        }
        if !(1..=PIDS_MAX).contains(&pids) {
            let message = format!("{pids} is not in 1..={PIDS_MAX}");
            return Err(problem("spec.resources.pids", message));
        }
        self.check_probe()?;
        self.check_security()?;
        self.policy.parse::<Name>().map_err(|error| problem("spec.policy", error.to_string()))?;
        Ok(())
    }

    fn check_image(&self) -> Result<()> {
        if self.port == 0 {
            return Err(problem("spec.port", "a port is a number from 1 to 65535"));
        }
        let Some(image) = &self.image else {
            if self.args.is_empty() {
                return Ok(());
            }
            let message = "args are for an image; write them behind the program of the command";
            return Err(problem("spec.args", message));
        };
        if image.len() > TEXT_BYTES_MAX || !image.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(problem("spec.image", format!("{image:?} is no reference to an image")));
        }
        if self.args.len() > ARGS_LEN_MAX || self.args.iter().any(|arg| arg.contains('\0')) {
            let message = format!("at most {ARGS_LEN_MAX} arguments without NUL");
            return Err(problem("spec.args", message));
        }
        Ok(())
    }

    fn check_probe(&self) -> Result<()> {
        let Some(ProbeSpec { path, initial_budget }) = &self.probe else { return Ok(()) };
        let is_path = |path: &String| {
            path.starts_with('/')
                && path.len() <= TEXT_BYTES_MAX
                && path.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if path.as_ref().is_some_and(|path| !is_path(path)) {
            let message = "the path of a probe begins with / and has no blanks";
            return Err(problem("spec.probe.path", message));
        }
        if initial_budget.0.is_zero() || *initial_budget > BUDGET_MAX {
            let message = format!("{initial_budget} is not in 1ms..={BUDGET_MAX}");
            return Err(problem("spec.probe.initial_budget", message));
        }
        Ok(())
    }

    fn check_security(&self) -> Result<()> {
        let SecuritySpec { tmpfs, runtime_class, .. } = &self.security;
        if tmpfs.len() > TMPFS_LEN_MAX {
            let message = format!("{} folders, more than {TMPFS_LEN_MAX}", tmpfs.len());
            return Err(problem("spec.security.tmpfs", message));
        }
        let is_folder = |folder: &&String| {
            let mut parts = folder.split('/');
            let (root, rest) = (parts.next(), parts.collect::<Vec<_>>());
            root == Some("")
                && folder.len() <= TEXT_BYTES_MAX
                && rest.iter().all(|part| !matches!(*part, "" | "." | ".."))
                && !folder.contains([':', ',', '\0'])
        };
        for (place, folder) in tmpfs.iter().enumerate() {
            if !is_folder(&folder) || tmpfs[..place].contains(folder) {
                let message = format!("{folder:?} is no absolute path of a folder, or there twice");
                return Err(problem(format!("spec.security.tmpfs[{place}]"), message));
            }
        }
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if runtime_class.len() > KEY_LEN_MAX || !runtime_class.chars().all(good) {
            let message = format!("{runtime_class:?} is no name");
            return Err(problem("spec.security.runtime_class", message));
        }
        Ok(())
    }

    fn check_env(&self) -> Result<()> {
        if self.env.len() > ENV_LEN_MAX {
            let message = format!("{} variables, more than {ENV_LEN_MAX}", self.env.len());
            return Err(problem("spec.env", message));
        }
        for (place, variable) in self.env.iter().enumerate() {
            let field = |name: &str| format!("spec.env[{place}].{name}");
            if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
                let message = format!("{:?} is no name of a variable", variable.name);
                return Err(problem(field("name"), message));
            }
            if self.env[..place].iter().any(|other| other.name == variable.name) {
                let message = format!("the variable {:?} is there twice", variable.name);
                return Err(problem(field("name"), message));
            }
            match (&variable.value, &variable.secret_ref) {
                (Some(value), None) if value.contains('\0') => {
                    return Err(problem(field("value"), "a variable cannot hold NUL"));
                }
                (Some(_), None) => {}
                (None, Some(secret)) => secret.check(&field("secretRef"))?,
                (None, None) => {
                    return Err(problem(field("value"), "a value is missing, or a secretRef"));
                }
                (Some(_), Some(_)) => {
                    let message = "there is a value and a secretRef; which of the two counts?";
                    return Err(problem(field("secretRef"), message));
                }
            }
        }
        Ok(())
    }
}

impl SecretKeyRef {
    fn check(&self, field: &str) -> Result<()> {
        self.name
            .parse::<Name>()
            .map_err(|error| problem(format!("{field}.name"), error.to_string()))?;
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let is_key = (1..=KEY_LEN_MAX).contains(&self.key.len())
            && self.key.chars().all(good)
            && !self.key.starts_with('.');
        if !is_key {
            let message = format!("{:?} is no key: letters, digits, -, _ and .", self.key);
            return Err(problem(format!("{field}.key"), message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(extra: &str) -> Option<String> {
        let json = format!(r#"{{"triggers":[{{"stream":"s"}}],{extra}}}"#);
        let spec: FunctionSpec = serde_json::from_str(&json).unwrap();
        let error = spec.check(&"confirm".parse().unwrap()).err();
        error.and_then(|error| error.field().map(str::to_owned))
    }

    #[test]
    fn a_container_has_the_defaults_of_the_documentation() {
        let json = r#"{"image":"r.example/f:1","triggers":[{"stream":"s"}]}"#;
        let spec: FunctionSpec = serde_json::from_str(json).unwrap();

        assert_eq!((spec.port, spec.protocol), (8_080, Protocol::Auto));
        assert_eq!((spec.policy.as_str(), spec.runtime()), ("restricted", Runtime::Container));
        assert_eq!(spec.resources.memory.to_string(), "128Mi");
        assert_eq!((spec.security.run_as_user, spec.security.read_only_root), (65_532, true));
        assert_eq!(spec.security.tmpfs, ["/tmp"]);
    }

    #[test]
    fn each_wrong_field_of_the_template_is_named() {
        let good = r#""image":"f","args":["a"],"port":80,"protocol":"h2c","policy":"p",
            "resources":{"cpu":2,"memory":"1Gi","ephemeral":0,"pids":1},
            "probe":{"path":"/ready","initial_budget":"2m"},
            "security":{"run_as_user":1,"read_only_root":false,"tmpfs":["/a/b"],"runtime_class":"x"},
            "env":[{"name":"A","secretRef":{"name":"s","key":"k.txt"}},{"name":"B","value":""}]"#;
        assert_eq!(check(good), None);
        let env = |text: &str| format!(r#""image":"f","env":[{{"name":"A"{text}}}]"#);
        let secret = |name: &str, key: &str| {
            env(&format!(r#","secretRef":{{"name":"{name}","key":"{key}"}}"#))
        };
        let with = |text: &str| format!(r#""image":"f",{text}"#);
        let cases = [
            (r#""image":"a b""#.to_owned(), "spec.image"),
            (r#""command":["a"],"args":["b"]"#.to_owned(), "spec.args"),
            (with(r#""args":["\u0000"]"#), "spec.args"),
            (with(r#""port":0"#), "spec.port"),
            (with(r#""resources":{"cpu":"0m"}"#), "spec.resources.cpu"),
            (with(r#""resources":{"cpu":"257"}"#), "spec.resources.cpu"),
            (with(r#""resources":{"memory":"1Mi"}"#), "spec.resources.memory"),
            (with(r#""resources":{"pids":0}"#), "spec.resources.pids"),
            (with(r#""probe":{"path":"ready"}"#), "spec.probe.path"),
            (with(r#""probe":{"path":"/a b"}"#), "spec.probe.path"),
            (with(r#""probe":{"initial_budget":"0s"}"#), "spec.probe.initial_budget"),
            (with(r#""probe":{"initial_budget":"2h"}"#), "spec.probe.initial_budget"),
            (with(r#""security":{"tmpfs":["tmp"]}"#), "spec.security.tmpfs[0]"),
            (with(r#""security":{"tmpfs":["/a","/a"]}"#), "spec.security.tmpfs[1]"),
            (with(r#""security":{"tmpfs":["/a/../b"]}"#), "spec.security.tmpfs[0]"),
            (with(r#""security":{"tmpfs":["/a:rw"]}"#), "spec.security.tmpfs[0]"),
            (with(r#""security":{"runtime_class":"a/b"}"#), "spec.security.runtime_class"),
            (with(r#""policy":"A""#), "spec.policy"),
            (env(""), "spec.env[0].value"),
            (env(r#","value":"a\u0000""#), "spec.env[0].value"),
            (
                secret("s", "k").replace(r#""name":"A""#, r#""name":"A","value":"v""#),
                "spec.env[0].secretRef",
            ),
            (secret("../s", "k"), "spec.env[0].secretRef.name"),
            (secret("s", ".."), "spec.env[0].secretRef.key"),
            (secret("s", "a/b"), "spec.env[0].secretRef.key"),
        ];
        for (json, field) in cases {
            assert_eq!(check(&json).as_deref(), Some(field), "{json}");
        }
    }
}
