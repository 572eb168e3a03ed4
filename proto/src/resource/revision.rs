//! Revisions of a function: what instances are made of, and which of them get which events.

use serde::{Deserialize, Serialize};

use super::template::{policy_default, port_default};
use super::{
    Concurrency, DurationText, EnvVar, FunctionSpec, Ordering, ProbeSpec, Protocol, ResourcesSpec,
    SecuritySpec, problem,
};
use crate::{Name, Result, Timestamp};

/// Revisions that are kept, beside those that get events.
const REVISIONS_LEN: usize = 10;
/// Revisions that may get events at once.
const TRAFFIC_LEN_MAX: usize = 10;
/// Names the newest revision in `traffic`.
pub const LATEST: &str = "latest";

/// What instances of a function are made of: a change of it makes another revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// As in the function.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// As in the function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// As in the function.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// As in the function.
    #[serde(default = "port_default")]
    pub port: u16,
    /// As in the function.
    #[serde(default)]
    pub protocol: Protocol,
    /// As in the function.
    #[serde(default)]
    pub resources: ResourcesSpec,
    /// As in the function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeSpec>,
    /// As in the function.
    #[serde(default)]
    pub security: SecuritySpec,
    /// As in the function.
    #[serde(default = "policy_default")]
    pub policy: String,
    /// As in the function.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// As in the function.
    pub timeout: DurationText,
    /// As in the function.
    pub concurrency: Concurrency,
}

/// One revision; it never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// `<function>-<number>`, with five digits at least.
    pub name: String,
    /// When it was made, in RFC 3339.
    pub created: String,
    /// Who made it.
    pub by: String,
    /// What its instances are made of.
    pub template: Template,
}

impl Revision {
    /// Its number, from 1.
    pub fn number(&self) -> u64 {
        let digits = self.name.rsplit('-').next().unwrap_or_default();
        digits.parse().unwrap_or_default()
    }
}

/// A part of the events, and the revision that gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrafficSpec {
    /// Name of a revision, or `latest`.
    #[serde(default = "latest")]
    pub revision: String,
    /// Of 100. Which events they are is decided by a hash of their key, so that a key stays with
    /// its revision.
    pub percent: u32,
    /// What this part is called, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

fn latest() -> String {
    LATEST.to_owned()
}

impl FunctionSpec {
    /// What instances are made of now.
    pub fn template(&self) -> Template {
        Template {
            command: self.command.clone(),
            image: self.image.clone(),
            args: self.args.clone(),
            port: self.port,
            protocol: self.protocol,
            resources: self.resources,
            probe: self.probe.clone(),
            security: self.security.clone(),
            policy: self.policy.clone(),
            env: self.env.clone(),
            timeout: self.timeout,
            concurrency: self.concurrency,
        }
    }

    /// The revision of this name, or the newest for `latest`.
    pub fn revision(&self, name: &str) -> Option<&Revision> {
        if name == LATEST {
            return self.revisions.last();
        }
        self.revisions.iter().find(|revision| revision.name == name)
    }

    /// Revisions and the part of 100 that each gets, in the order of `traffic`; those that get
    /// nothing are left out.
    pub fn shares(&self) -> Vec<(&Revision, u32)> {
        if self.traffic.is_empty() {
            return self.revisions.last().map(|newest| (newest, 100)).into_iter().collect();
        }
        let share = |part: &TrafficSpec| Some((self.revision(&part.revision)?, part.percent));
        self.traffic.iter().filter_map(share).filter(|(_, percent)| *percent > 0).collect()
    }

    /// Carries the revisions on from what was stored before, and adds one if the template is
    /// another one than that of the newest. Whoever changes a function may leave them out, or send
    /// those that are stored.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the field: revisions are made by the cluster alone, and only those that
    /// exist may get events.
    pub fn revise(
        &mut self,
        name: &Name,
        old: Option<&Self>,
        by: &str,
        now: Timestamp,
    ) -> Result<()> {
        let stored = old.map(|old| old.revisions.as_slice()).unwrap_or_default();
        if !self.revisions.is_empty() && self.revisions != stored {
            let message = "revisions are made by the cluster; leave them out";
            return Err(problem("spec.revisions", message));
        }
        self.revisions = stored.to_vec();
        let template = self.template();
        if self.revisions.last().is_none_or(|newest| newest.template != template) {
            let number = self.revisions.last().map_or(0, Revision::number).saturating_add(1);
            self.revisions.push(Revision {
                name: format!("{name}-{number:05}"),
                created: now.to_string(),
                by: by.to_owned(),
                template,
            });
        }
        for (place, part) in self.traffic.iter().enumerate() {
            if self.revision(&part.revision).is_none() {
                let kept: Vec<_> = self.revisions.iter().map(|kept| kept.name.as_str()).collect();
                let message = format!(
                    "there is no revision {:?}; there are {}",
                    part.revision,
                    kept.join(", ")
                );
                return Err(problem(format!("spec.traffic[{place}].revision"), message));
            }
        }
        self.forget_old();
        Ok(())
    }

    /// Leaves out the oldest revisions that get no events.
    fn forget_old(&mut self) {
        let serves = |name: &str| self.traffic.iter().any(|part| part.revision == name);
        let surplus = self.revisions.len().saturating_sub(REVISIONS_LEN);
        let mut old: Vec<String> = self.revisions.iter().map(|kept| kept.name.clone()).collect();
        old.pop();
        old.retain(|name| !serves(name));
        old.truncate(surplus);
        self.revisions.retain(|kept| !old.contains(&kept.name));
    }

    pub(super) fn check_traffic(&self) -> Result<()> {
        if self.traffic.is_empty() {
            return Ok(());
        }
        if self.traffic.len() > TRAFFIC_LEN_MAX {
            let message = format!("{} parts, more than {TRAFFIC_LEN_MAX}", self.traffic.len());
            return Err(problem("spec.traffic", message));
        }
        let sum: u64 = self.traffic.iter().map(|part| u64::from(part.percent)).sum();
        if sum != 100 {
            return Err(problem("spec.traffic", format!("the parts are {sum} percent, not 100")));
        }
        for (place, part) in self.traffic.iter().enumerate() {
            let before = &self.traffic[..place];
            if before.iter().any(|other| other.revision == part.revision) {
                let message = format!("the revision {:?} is there twice", part.revision);
                return Err(problem(format!("spec.traffic[{place}].revision"), message));
            }
        }
        let is_strict = self.triggers.iter().any(|trigger| trigger.ordering == Ordering::Strict);
        if is_strict && self.traffic.iter().filter(|part| part.percent > 0).count() > 1 {
            let message = "a trigger with ordering strict keeps one order: one revision gets all";
            return Err(problem("spec.traffic", message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(command: &str, traffic: &[(&str, u32)]) -> FunctionSpec {
        let traffic: Vec<_> = traffic
            .iter()
            .map(|(name, percent)| serde_json::json!({"revision": name, "percent": percent}))
            .collect();
        let json = serde_json::json!({
            "command": [command], "triggers": [{"stream": "s"}], "traffic": traffic,
        });
        serde_json::from_value(json).unwrap()
    }

    fn revise(spec: &mut FunctionSpec, old: Option<&FunctionSpec>) -> Option<String> {
        let name = "f".parse().unwrap();
        spec.check(&name).unwrap();
        let revised = spec.revise(&name, old, "ada", Timestamp::default());
        revised.err().and_then(|error| error.field().map(str::to_owned))
    }

    fn names(spec: &FunctionSpec) -> Vec<&str> {
        spec.revisions.iter().map(|revision| revision.name.as_str()).collect()
    }

    #[test]
    fn another_template_is_another_revision_and_anything_else_is_not() {
        let mut first = spec("a", &[]);
        assert_eq!(revise(&mut first, None), None);
        let mut same = spec("a", &[]);
        same.scaling.max = 7;
        assert_eq!(revise(&mut same, Some(&first)), None);
        assert_eq!(names(&same), ["f-00001"]);
        let mut second = FunctionSpec { command: vec!["b".to_owned()], ..same.clone() };
        assert_eq!(revise(&mut second, Some(&same)), None);
        assert_eq!(names(&second), ["f-00001", "f-00002"]);
        assert_eq!(second.shares()[0].0.name, "f-00002");

        let mut forged = spec("a", &[]);
        forged.revisions = second.revisions[..1].to_vec();
        assert_eq!(revise(&mut forged, Some(&second)).as_deref(), Some("spec.revisions"));
        let mut unknown = spec("b", &[("f-00009", 100)]);
        let field = revise(&mut unknown, Some(&second));
        assert_eq!(field.as_deref(), Some("spec.traffic[0].revision"));
        let mut back = spec("b", &[("f-00001", 90), ("latest", 10)]);
        assert_eq!(revise(&mut back, Some(&second)), None);
        let shares: Vec<_> =
            back.shares().iter().map(|(kept, percent)| (kept.number(), *percent)).collect();
        assert_eq!(shares, [(1, 90), (2, 10)]);
    }

    #[test]
    fn ten_revisions_are_kept_and_those_that_get_events() {
        let mut now = spec("0", &[]);
        revise(&mut now, None);
        for command in 1..15 {
            let mut next = spec(&command.to_string(), &[("f-00002", 50), ("latest", 50)]);
            if command == 1 {
                next.traffic.clear();
            }
            assert_eq!(revise(&mut next, Some(&now)), None);
            now = next;
        }
        assert_eq!(now.revisions.len(), REVISIONS_LEN);
        assert_eq!((names(&now)[0], names(&now)[1]), ("f-00002", "f-00007"));
        assert_eq!(now.revisions.last().unwrap().number(), 15);
    }

    #[test]
    fn traffic_is_a_hundred_percent_of_revisions_that_are_named_once() {
        let field = |traffic: &[(&str, u32)], ordering: &str| {
            let mut spec = spec("a", traffic);
            spec.triggers[0].ordering = serde_json::from_value(ordering.into()).unwrap();
            let error = spec.check(&"f".parse().unwrap()).err()?;
            error.field().map(str::to_owned)
        };
        assert_eq!(field(&[("f-1", 30), ("latest", 70)], "per_key"), None);
        assert_eq!(field(&[("f-1", 0), ("latest", 100)], "strict"), None);
        let cases = [
            ([("f-1", 30), ("latest", 71)], "per_key", "spec.traffic"),
            ([("f-1", 30), ("f-1", 70)], "per_key", "spec.traffic[1].revision"),
            ([("f-1", 30), ("latest", 70)], "strict", "spec.traffic"),
        ];
        for (traffic, ordering, wanted) in cases {
            assert_eq!(field(&traffic, ordering).as_deref(), Some(wanted));
        }
    }
}
