//! Grants, limits and policies as a table shows them.

use serde_json::Value;
use weft_client::spec_of;
use weft_proto::resource::{ContainerPolicySpec, Effect, GrantSpec, Runtime};
use weft_proto::v1;

use crate::get::name_of;

/// The columns of [`grant`].
pub(crate) const GRANT: [&str; 6] = ["GRANT", "EFFECT", "PRINCIPALS", "MAY", "ON", "EVENTS"];
/// The columns of [`limit`].
pub(crate) const LIMIT: [&str; 3] = ["LIMIT", "FOR", "AT MOST"];

/// The columns of [`policy`].
pub(crate) const POLICY: [&str; 5] = ["POLICY", "RUNS", "IMAGES", "DEMANDS", "AT MOST"];

/// A row for a policy.
pub(crate) fn policy(resource: &v1::Resource) -> anyhow::Result<Vec<String>> {
    let spec: ContainerPolicySpec = spec_of(resource)?;
    let runs = spec.runtimes.unwrap_or_else(|| vec![Runtime::Container, Runtime::Process]);
    let runs = runs.iter().map(|runtime| match runtime {
        Runtime::Container => "container".to_owned(),
        Runtime::Process => "process".to_owned(),
    });
    let images = spec.registries.unwrap_or_else(|| vec!["*".to_owned()]);
    let flags = [
        (spec.require_digest, "digest"),
        (spec.non_root, "non-root"),
        (spec.read_only_root, "read-only"),
        (spec.drop_capabilities, "no-capabilities"),
        (spec.no_escalation, "no-escalation"),
        (!spec.limits_required.is_empty(), "limits"),
        (spec.allow_unenforced, "where-possible"),
    ];
    let flags = flags.iter().filter(|(on, _)| *on).map(|(_, word)| (*word).to_owned());
    let most = [
        spec.max.cpu.map(|cpu| format!("cpu={cpu}")),
        spec.max.memory.map(|memory| format!("memory={memory}")),
        spec.max.instances.map(|instances| format!("instances={instances}")),
    ];
    Ok(vec![
        name_of(resource),
        join(runs, " "),
        images.join(" "),
        join(flags, " "),
        join(most.into_iter().flatten(), " "),
    ])
}

/// A row for a grant.
pub(crate) fn grant(resource: &v1::Resource) -> anyhow::Result<Vec<String>> {
    let spec: GrantSpec = spec_of(resource)?;
    let effect = match spec.effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    };
    let may = match spec.role {
        Some(role) => serde_json::to_value(role)?.as_str().unwrap_or_default().to_owned(),
        None => join(spec.verbs.iter().map(ToString::to_string), ","),
    };
    let all = |patterns: &[String], otherwise: &str| {
        if patterns.is_empty() { vec![otherwise.to_owned()] } else { patterns.to_vec() }
    };
    let namespaces = all(&spec.namespaces, &resource.namespace);
    let names = all(&spec.names, "*");
    let on = namespaces
        .iter()
        .flat_map(|namespace| names.iter().map(move |name| format!("{namespace}/{name}")));
    let filters = match spec.filters.len() {
        0 => None,
        1 => Some("1 filter".to_owned()),
        more => Some(format!("{more} filters")),
    };
    let events = spec.types.iter().cloned().chain(filters);
    let row = [effect.to_owned(), join(spec.principals.iter().cloned(), " "), may];
    Ok([name_of(resource)]
        .into_iter()
        .chain(row)
        .chain([join(on, " "), join(events, " ")])
        .collect())
}

/// A row for a limit.
pub(crate) fn limit(resource: &v1::Resource) -> anyhow::Result<Vec<String>> {
    let spec: serde_json::Map<String, Value> = spec_of(resource)?;
    let list = |name: &str| spec.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let namespaces = list("namespaces").into_iter().map(|one| format!("{}/", text(&one)));
    let whose = list("principals").iter().map(text).chain(namespaces).collect::<Vec<_>>();
    let limits = spec.iter().filter(|(_, value)| value.is_number());
    let limits = limits.map(|(name, value)| format!("{name}={value}"));
    Ok(vec![name_of(resource), whose.join(" "), join(limits, " ")])
}

fn join(parts: impl Iterator<Item = String>, between: &str) -> String {
    parts.collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_client::resource_of;
    use weft_proto::resource::Kind;

    use super::*;

    #[test]
    fn a_grant_is_one_line() {
        let row = |name: &str, spec: Value| {
            grant(&resource_of(Kind::Grant, name, &spec).unwrap()).unwrap().join(" | ")
        };
        let spec =
            json!({"principals": ["key:shop/a"], "role": "writer", "names": ["orders", "b*"]});
        assert_eq!(
            row("shop/g", spec),
            "shop/g | allow | key:shop/a | writer | shop/orders shop/b* | "
        );
        let spec = json!({
            "principals": ["*", "key:a/b"], "effect": "deny", "verbs": ["read", "subscribe"],
            "namespaces": ["shop*"], "types": ["secret.*"], "filters": [{"exact": {"type": "x"}}],
        });
        assert_eq!(
            row("weft-system/g", spec),
            "weft-system/g | deny | * key:a/b | read,subscribe | shop*/* | secret.* 1 filter"
        );
    }

    #[test]
    fn a_policy_is_one_line() {
        let spec = json!({
            "runtimes": ["container"], "registries": ["r.example/*"], "require_digest": true,
            "no_escalation": false, "limits_required": [], "max": {"cpu": 2, "instances": 7},
        });
        let resource = resource_of(Kind::ContainerPolicy, "shop/p", &spec).unwrap();

        let row = policy(&resource).unwrap().join(" | ");

        let demands = "digest non-root read-only no-capabilities";
        let wanted = format!("shop/p | container | r.example/* | {demands} | cpu=2 instances=7");
        assert_eq!(row, wanted);
    }

    #[test]
    fn a_limit_is_one_line() {
        let spec = json!({
            "principals": ["key:shop/a"], "requests_per_second": 5,
            "namespaces": ["shop"], "streams": 7,
        });
        let resource = resource_of(Kind::Limit, "weft-system/l", &spec).unwrap();

        let row = limit(&resource).unwrap().join(" | ");

        assert_eq!(row, "weft-system/l | key:shop/a shop/ | requests_per_second=5 streams=7");
    }
}
