//! Policies: what functions may be made of.
//!
//! A policy is judged twice, with one function: by the catalog when a function is put, and by the
//! dispatcher before each start, because it may have become stricter in between.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    BytesText, CpuText, EnvVar, FunctionSpec, ResourcesSpec, Runtime, SecuritySpec, problem,
};
use crate::{Name, Pattern, QualifiedName, Result};

/// The policy of functions that name none; built in until there is one of that name.
pub const RESTRICTED: &str = "restricted";
const LIST_LEN_MAX: usize = 256;

/// What functions may be made of, and what must be enforced where they run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a rule that people write or leave out")]
pub struct ContainerPolicySpec {
    /// Patterns of namespaces whose functions may name it; none = all. Only in `weft-system`: all
    /// others are for their own namespace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Where functions may run; anywhere when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtimes: Option<Vec<Runtime>>,
    /// Patterns of references to images; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registries: Option<Vec<String>>,
    /// Whether an image must be named by its digest.
    pub require_digest: bool,
    /// Whether no instance may be the superuser.
    pub non_root: bool,
    /// Whether files must be read-only.
    pub read_only_root: bool,
    /// Whether instances have no capability.
    pub drop_capabilities: bool,
    /// Whether instances can never gain a right.
    pub no_escalation: bool,
    /// Limits that must be enforced, not only asked for.
    pub limits_required: BTreeSet<Limited>,
    /// The most that may be asked for.
    pub max: MaximaSpec,
    /// Patterns of names of secrets; all of the namespace when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<String>>,
    /// Whether a function is run where a rule cannot be enforced.
    pub allow_unenforced: bool,
}

impl Default for ContainerPolicySpec {
    fn default() -> Self {
        Self {
            namespaces: Vec::new(),
            runtimes: None,
            registries: None,
            require_digest: false,
            non_root: true,
            read_only_root: true,
            drop_capabilities: true,
            no_escalation: true,
            limits_required: [Limited::Cpu, Limited::Memory].into(),
            max: MaximaSpec::default(),
            secrets: None,
            allow_unenforced: false,
        }
    }
}

/// The most that one function may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaximaSpec {
    /// Processor time of an instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuText>,
    /// Memory of an instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<BytesText>,
    /// Instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
}

/// A limit of [`ResourcesSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limited {
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
    /// Processes and threads.
    Pids,
}

/// What a place that runs instances can be asked to enforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Memory is limited.
    Memory,
    /// Processor time is limited.
    Cpu,
    /// Processes and threads are limited.
    Pids,
    /// Files are read-only, scratch folders aside.
    ReadOnlyRoot,
    /// No instance is the superuser.
    NonRoot,
    /// No instance has a capability.
    DropCapabilities,
    /// No instance gains a right.
    NoEscalation,
    /// What runs is the image of the digest.
    Digest,
    /// Instances have a network of their own.
    Network,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "a limit of memory",
            Self::Cpu => "a limit of processor time",
            Self::Pids => "a limit of processes",
            Self::ReadOnlyRoot => "read-only files",
            Self::NonRoot => "a user other than root",
            Self::DropCapabilities => "no capabilities",
            Self::NoEscalation => "no escalation",
            Self::Digest => "images by digest",
            Self::Network => "a network of its own",
        })
    }
}

/// What a policy refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The field of the function.
    pub field: String,
    /// The field of the policy.
    pub rule: &'static str,
    /// A sentence for people; names the policy.
    pub message: String,
}

/// What a function asks for, as far as a policy cares.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its namespace.
    pub namespace: &'a Name,
    /// Its image; a process has none.
    pub image: Option<&'a str>,
    /// What an instance may use.
    pub resources: &'a ResourcesSpec,
    /// What an instance runs as.
    pub security: &'a SecuritySpec,
    /// Its environment.
    pub env: &'a [EnvVar],
    /// Instances at the same time, at most.
    pub instances: u32,
}

impl<'a> Asked<'a> {
    /// What a function of a namespace asks for.
    pub fn of(namespace: &'a Name, spec: &'a FunctionSpec) -> Self {
        Self {
            namespace,
            image: spec.image.as_deref(),
            resources: &spec.resources,
            security: &spec.security,
            env: &spec.env,
            instances: spec.scaling.max,
        }
    }

    /// What runs it.
    pub const fn runtime(&self) -> Runtime {
        if self.image.is_some() { Runtime::Container } else { Runtime::Process }
    }
}

/// A policy in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    name: String,
    origin: Origin,
    spec: ContainerPolicySpec,
}

/// Where a policy is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    BuiltIn,
    System,
    Namespace,
}

impl Policy {
    /// That of functions that name none, where none of that name exists.
    pub fn built_in() -> Self {
        let spec = ContainerPolicySpec::default();
        let name = format!("{RESTRICTED} (built in)");
        Self { name, origin: Origin::BuiltIn, spec }
    }

    /// One of the catalog.
    pub fn new(name: &QualifiedName, spec: ContainerPolicySpec) -> Self {
        let origin = if name.namespace.is_system() { Origin::System } else { Origin::Namespace };
        Self { name: name.to_string(), origin, spec }
    }

    /// The names under which the policy of a function is looked up, in order.
    pub fn places(namespace: &Name, policy: &Name) -> [QualifiedName; 2] {
        let of = |namespace: Name| QualifiedName { namespace, name: policy.clone() };
        [of(Name::system_namespace()), of(namespace.clone())]
    }

    /// Whether something may be run at all.
    ///
    /// # Errors
    ///
    /// The first rule that it breaks.
    pub fn judge(&self, asked: &Asked<'_>) -> Result<(), Denial> {
        let spec = &self.spec;
        let matches = |patterns: &[String], text: &str| {
            patterns.iter().any(|one| Pattern::new(one).is_ok_and(|pattern| pattern.matches(text)))
        };
        if self.origin == Origin::System
            && !spec.namespaces.is_empty()
            && !matches(&spec.namespaces, asked.namespace.as_str())
        {
            let what = format!("is not for functions of the namespace {}", asked.namespace);
            return self.deny("spec.policy", "namespaces", &what);
        }
        if spec.runtimes.as_ref().is_some_and(|runtimes| !runtimes.contains(&asked.runtime())) {
            return match asked.runtime() {
                Runtime::Process => self.deny("spec.command", "runtimes", "runs no processes"),
                Runtime::Container => self.deny("spec.image", "runtimes", "runs no containers"),
            };
        }
        if let Some(image) = asked.image {
            if spec.registries.as_ref().is_some_and(|globs| !matches(globs, image)) {
                let what = format!("allows no image {image}");
                return self.deny("spec.image", "registries", &what);
            }
            if spec.require_digest && !has_digest(image) {
                let what = format!("wants the digest of an image, NAME@sha256:..., not {image}");
                return self.deny("spec.image", "require_digest", &what);
            }
            if spec.non_root && asked.security.run_as_user == 0 {
                return self.deny("spec.security.run_as_user", "non_root", "lets nobody be root");
            }
        }
        if spec.read_only_root && !asked.security.read_only_root {
            let what = "wants files to be read-only";
            return self.deny("spec.security.read_only_root", "read_only_root", what);
        }
        self.judge_amounts(asked)?;
        let Some(allowed) = &spec.secrets else { return Ok(()) };
        for (place, variable) in asked.env.iter().enumerate() {
            if let Some(secret) = &variable.secret_ref
                && !matches(allowed, &secret.name)
            {
                let what = format!("does not give the secret {}", secret.name);
                return self.deny(&format!("spec.env[{place}].secretRef.name"), "secrets", &what);
            }
        }
        Ok(())
    }

    fn judge_amounts(&self, asked: &Asked<'_>) -> Result<(), Denial> {
        let MaximaSpec { cpu, memory, instances } = self.spec.max;
        if let Some(most) = cpu.filter(|most| asked.resources.cpu > *most) {
            let what = format!("allows a cpu of {most}, not {}", asked.resources.cpu);
            return self.deny("spec.resources.cpu", "max.cpu", &what);
        }
        if let Some(most) = memory.filter(|most| asked.resources.memory > *most) {
            let what = format!("allows a memory of {most}, not {}", asked.resources.memory);
            return self.deny("spec.resources.memory", "max.memory", &what);
        }
        if let Some(most) = instances.filter(|most| asked.instances > *most) {
            let what = format!("allows {most} instances, not {}", asked.instances);
            return self.deny("spec.scaling.max", "max.instances", &what);
        }
        Ok(())
    }

    fn deny(&self, field: &str, rule: &'static str, what: &str) -> Result<(), Denial> {
        let message = format!("the ContainerPolicy {} {what} ({field}, {rule})", self.name);
        Err(Denial { field: field.to_owned(), rule, message })
    }

    /// What must be enforced where it is run.
    pub fn demands(&self, runtime: Runtime) -> BTreeSet<Rule> {
        let spec = &self.spec;
        // A process is not asked for what only a container can have, unless somebody wrote so.
        if self.origin == Origin::BuiltIn && runtime == Runtime::Process {
            return [Rule::NoEscalation].into();
        }
        let limits = spec.limits_required.iter().map(|limit| match limit {
            Limited::Cpu => Rule::Cpu,
            Limited::Memory => Rule::Memory,
            Limited::Pids => Rule::Pids,
        });
        let flags = [
            (spec.non_root, Rule::NonRoot),
            (spec.read_only_root, Rule::ReadOnlyRoot),
            (spec.drop_capabilities, Rule::DropCapabilities),
            (spec.no_escalation, Rule::NoEscalation),
            (spec.require_digest && runtime == Runtime::Container, Rule::Digest),
        ];
        limits.chain(flags.iter().filter(|(on, _)| *on).map(|(_, rule)| *rule)).collect()
    }

    /// Whether a place that enforces `enforced` may run it.
    ///
    /// # Errors
    ///
    /// The first rule that is demanded and not enforced.
    pub fn admits(&self, runtime: Runtime, enforced: &BTreeSet<Rule>) -> Result<(), Denial> {
        if self.spec.allow_unenforced {
            return Ok(());
        }
        match self.demands(runtime).difference(enforced).next() {
            None => Ok(()),
            Some(rule) => {
                let what = format!("demands {rule}, which is not enforced here");
                self.deny("spec.policy", "allow_unenforced", &what)
            }
        }
    }
}

fn has_digest(image: &str) -> bool {
    image.split_once("@sha256:").is_some_and(|(name, digest)| {
        !name.is_empty()
            && digest.len() == 64
            && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

impl ContainerPolicySpec {
    /// Checks the rules that need no other resource.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field.
    pub fn check(&self, name: &QualifiedName) -> Result<()> {
        if !self.namespaces.is_empty() && !name.namespace.is_system() {
            let message = "a policy outside weft-system is for its own namespace";
            return Err(problem("spec.namespaces", message));
        }
        let none = Vec::new();
        for (field, patterns) in [
            ("namespaces", &self.namespaces),
            ("registries", self.registries.as_ref().unwrap_or(&none)),
            ("secrets", self.secrets.as_ref().unwrap_or(&none)),
        ] {
            if patterns.len() > LIST_LEN_MAX {
                let message = format!("{} patterns, more than {LIST_LEN_MAX}", patterns.len());
                return Err(problem(format!("spec.{field}"), message));
            }
            for (place, pattern) in patterns.iter().enumerate() {
                Pattern::new(pattern).map_err(|error| {
                    problem(format!("spec.{field}[{place}]"), error.to_string())
                })?;
            }
        }
        if self.max.instances == Some(0) {
            let message = "no instance at all is `runtimes: []`";
            return Err(problem("spec.max.instances", message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Policy {
        let name = "shop/p".parse().unwrap();
        let spec: ContainerPolicySpec = serde_json::from_str(json).unwrap();
        spec.check(&name).unwrap();
        Policy::new(&name, spec)
    }

    fn denied(policy: &Policy, function: &str) -> Option<(String, &'static str)> {
        let json = format!(r#"{{"triggers":[{{"stream":"s"}}],{function}}}"#);
        let spec: FunctionSpec = serde_json::from_str(&json).unwrap();
        spec.check(&"f".parse().unwrap()).unwrap();
        let namespace = "shop".parse().unwrap();
        let denial = policy.judge(&Asked::of(&namespace, &spec)).err()?;
        assert!(denial.message.contains(denial.rule), "{}", denial.message);
        Some((denial.field, denial.rule))
    }

    #[test]
    fn each_rule_names_the_field_that_breaks_it() {
        let digest = format!("r.example/f@sha256:{}", "a".repeat(64));
        let with_digest = format!(r#""image":"{digest}""#);
        let secret = r#""image":"f","env":[{"name":"A","secretRef":{"name":"other","key":"k"}}]"#;
        let root = r#""image":"f","security":{"run_as_user":0}"#;
        let writable = r#""command":["f"],"security":{"read_only_root":false}"#;
        let wide = r#""image":"f","scaling":{"max":9}"#;
        let cases = [
            (r#"{"runtimes":["container"]}"#, r#""command":["f"]"#, "spec.command", "runtimes"),
            (r#"{"runtimes":["process"]}"#, r#""image":"f""#, "spec.image", "runtimes"),
            (r#"{"registries":["r.example/*"]}"#, r#""image":"f""#, "spec.image", "registries"),
            (r#"{"registries":[]}"#, &*with_digest, "spec.image", "registries"),
            (r#"{"require_digest":true}"#, r#""image":"f:1""#, "spec.image", "require_digest"),
            ("{}", root, "spec.security.run_as_user", "non_root"),
            ("{}", writable, "spec.security.read_only_root", "read_only_root"),
            (r#"{"max":{"cpu":"100m"}}"#, r#""image":"f""#, "spec.resources.cpu", "max.cpu"),
            (
                r#"{"max":{"memory":"1Mi"}}"#,
                r#""image":"f""#,
                "spec.resources.memory",
                "max.memory",
            ),
            (r#"{"max":{"instances":3}}"#, wide, "spec.scaling.max", "max.instances"),
            (r#"{"secrets":["mine-*"]}"#, secret, "spec.env[0].secretRef.name", "secrets"),
        ];
        for (rules, function, field, rule) in cases {
            assert_eq!(denied(&policy(rules), function), Some((field.to_owned(), rule)), "{rules}");
        }
        let all =
            r#"{"registries":["r.example/*"],"require_digest":true,"runtimes":["container"]}"#;
        assert_eq!(denied(&policy(all), &with_digest), None);
        let loose = r#"{"non_root":false,"read_only_root":false,"secrets":["o*"]}"#;
        for function in [root, writable, secret, wide] {
            assert_eq!(denied(&policy(loose), function), None, "{function}");
        }
    }

    #[test]
    fn a_policy_of_the_system_may_be_for_some_namespaces() {
        let spec =
            ContainerPolicySpec { namespaces: vec!["ship*".to_owned()], ..Default::default() };
        let name = "weft-system/p".parse().unwrap();
        spec.check(&name).unwrap();

        let found = denied(&Policy::new(&name, spec.clone()), r#""image":"f""#);

        assert_eq!(found, Some(("spec.policy".to_owned(), "namespaces")));
        let error = spec.check(&"shop/p".parse().unwrap()).unwrap_err();
        assert_eq!(error.field(), Some("spec.namespaces"));
    }

    #[test]
    fn what_is_not_enforced_is_refused_unless_that_is_allowed() {
        let processes = [Rule::NoEscalation, Rule::ReadOnlyRoot].into();
        let built_in = Policy::built_in();

        assert!(built_in.admits(Runtime::Process, &processes).is_ok());
        let denial = built_in.admits(Runtime::Process, &BTreeSet::new()).unwrap_err();
        assert!(denial.message.contains("no escalation"), "{}", denial.message);
        assert!(built_in.admits(Runtime::Container, &processes).is_err());
        assert!(policy("{}").admits(Runtime::Process, &processes).is_err());
        let allowed = policy(r#"{"allow_unenforced":true}"#);
        assert!(allowed.admits(Runtime::Process, &BTreeSet::new()).is_ok());
        let loose = policy(
            r#"{"non_root":false,"drop_capabilities":false,"limits_required":[],
            "require_digest":true}"#,
        );
        assert!(loose.admits(Runtime::Process, &processes).is_ok());
        assert!(loose.admits(Runtime::Container, &processes).is_err());
    }

    #[test]
    fn wrong_patterns_and_counts_are_named() {
        let field = |json: &str| {
            let spec: ContainerPolicySpec = serde_json::from_str(json).unwrap();
            spec.check(&"shop/p".parse().unwrap()).unwrap_err().field().unwrap().to_owned()
        };
        assert_eq!(field(r#"{"registries":[""]}"#), "spec.registries[0]");
        assert_eq!(field(r#"{"secrets":["a",""]}"#), "spec.secrets[1]");
        assert_eq!(field(r#"{"max":{"instances":0}}"#), "spec.max.instances");
    }
}
