//! Settings of a process: defaults, then a TOML file, then the environment.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

const PREFIX: &str = "WEFT_";
/// Between section and key. Names without it, such as `WEFT_ENDPOINT`, are other settings.
const SEPARATOR: &str = "__";

/// The environment of this process. A name or value that is no text is nobody's setting.
pub(crate) fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: OsString| text.into_string().ok();
    std::env::vars_os().filter_map(move |(name, value)| Some((text(name)?, text(value)?)))
}

/// Whether an environment variable sets a key of a process's settings.
pub(crate) fn is_setting(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|name| name.contains(SEPARATOR))
}

/// Reads settings; an unknown key is an error.
pub(crate) fn load<T: DeserializeOwned>(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> anyhow::Result<T> {
    let table = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            parse::<T>(&text).with_context(|| format!("{} is not usable", path.display()))?
        }
        None => Table::new(),
    };
    overlay(table, environment)
}

/// Adds to an error about the value of a key where that key was set.
pub(crate) fn blame(
    error: impl Into<anyhow::Error>,
    key: &str,
    file: Option<&Path>,
) -> anyhow::Error {
    let text = file.and_then(|path| std::fs::read_to_string(path).ok());
    let error = error.into();
    match (variable_of(key, environment()), file) {
        (Some(name), _) => error.context(format!("environment variable {name} is not usable")),
        (None, Some(path)) => match text.and_then(|text| line_of(&text, key)) {
            Some(line) => error.context(format!("{} is not usable: line {line}", path.display())),
            None => error.context(format!("{} is not usable", path.display())),
        },
        (None, None) => error,
    }
}

/// The variable that sets a key, if there is one.
fn variable_of(
    key: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Option<String> {
    let wanted = format!("{PREFIX}{}", key.replace('.', SEPARATOR));
    let mut names = environment.into_iter().map(|(name, _)| name);
    names.find(|name| is_setting(name) && name.eq_ignore_ascii_case(&wanted))
}

/// The line, from 1, that sets a key; or that opens its section, when the key itself is missing.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let document = toml::de::DeTable::parse(text).ok()?;
    let mut table = Some(document.get_ref());
    let mut start = None;
    for part in key.split('.') {
        let Some((name, value)) = table.and_then(|table| table.get_key_value(part)) else { break };
        start = Some(name.span().start);
        table = value.get_ref().as_table();
    }
    let before = text.get(..start?)?;
    Some(before.matches('\n').count() + 1)
}

/// The text as a table, once it is known to make sense. The error tells line, column and key.
fn parse<T: DeserializeOwned>(text: &str) -> anyhow::Result<Table> {
    toml::from_str::<T>(text)?;
    Ok(toml::from_str(text)?)
}

fn overlay<T: DeserializeOwned>(
    mut table: Table,
    environment: impl IntoIterator<Item = (String, String)>,
) -> anyhow::Result<T> {
    let mut settings: Vec<_> =
        environment.into_iter().filter(|(name, _)| is_setting(name)).collect();
    // The environment has no order; the first error must not depend on luck.
    settings.sort();
    for (name, text) in settings {
        table = with_setting::<T>(&table, &name, &text)
            .with_context(|| format!("environment variable {name} is not usable"))?;
    }
    Ok(table.try_into()?)
}

/// The table with one key set. A number, list or truth value is tried as such first, and as text
/// if the key does not take it.
fn with_setting<T: DeserializeOwned>(
    table: &Table,
    name: &str,
    text: &str,
) -> anyhow::Result<Table> {
    let path = name.strip_prefix(PREFIX).unwrap_or(name).to_lowercase();
    let path: Vec<&str> = path.split(SEPARATOR).collect();
    let typed = text.parse::<Value>().ok();
    let mut first_error = None;
    for value in typed.into_iter().chain([Value::String(text.to_owned())]) {
        let mut table = table.clone();
        set(&mut table, &path, value)?;
        match table.clone().try_into::<T>() {
            Ok(_) => return Ok(table),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    match first_error {
        Some(error) => Err(error.into()),
        None => bail!("it has no value"),
    }
}

fn set(table: &mut Table, path: &[&str], value: Value) -> anyhow::Result<()> {
    match path {
        [] => bail!("it names no key"),
        [key] => {
            table.insert((*key).to_owned(), value);
            Ok(())
        }
        [section, rest @ ..] => {
            let entry = table.entry(*section).or_insert_with(|| Value::Table(Table::new()));
            match entry {
                Value::Table(table) => set(table, rest, value),
                _ => bail!("{section} is a key, not a section"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_broker::config::Config;

    use super::*;

    fn loaded(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let owned = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let table = parse::<Config>(text).map_err(|error| format!("{error:#}"))?;
        overlay(table, owned).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
        let file = "[listen]\ngrpc = \"127.0.0.1:1\"\nhttp = \"127.0.0.1:2\"\n";
        let environment = [
            ("WEFT_LISTEN__GRPC", "127.0.0.1:9"),
            ("WEFT_CLUSTER__DATA_GROUPS", "7"),
            ("WEFT_CLUSTER__FOUNDERS", "[\"a:1\", \"b:1\", \"c:1\"]"),
            ("WEFT_NODE__DATA", "42"),
            ("WEFT_ENDPOINT", "not a setting of this process"),
        ];

        let config = loaded(file, &environment).unwrap();

        assert_eq!(config.listen.grpc, "127.0.0.1:9");
        assert_eq!(config.listen.http, "127.0.0.1:2");
        assert_eq!(config.listen.peer, Config::default().listen.peer);
        assert_eq!(config.cluster.data_groups, 7);
        assert_eq!(config.cluster.founders.len(), 3);
        assert_eq!(config.node.data, Path::new("42"));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = loaded("[listen]\ngrpc = \"h:1\"\nhtpp = \"h:2\"\n", &[]).unwrap_err();

        assert!(error.contains("line 3"), "{error}");
        assert!(error.contains("htpp"), "{error}");
    }

    #[test]
    fn a_wrong_type_is_named_with_its_line() {
        let error = loaded("[cluster]\n\ndata_groups = \"many\"\n", &[]).unwrap_err();

        assert!(error.contains("line 3"), "{error}");
        assert!(error.contains("data_groups"), "{error}");
    }

    #[test]
    fn the_line_of_a_key_is_found() {
        let text = "x = 1\n\n[listen]\n# grpc\ngrpc = \"a\"\n[cluster]\n";

        assert_eq!(line_of(text, "x"), Some(1));
        assert_eq!(line_of(text, "listen.grpc"), Some(5));
        assert_eq!(line_of(text, "cluster.data_groups"), Some(6));
        assert_eq!(line_of(text, "store.profile"), None);
    }

    #[test]
    fn the_variable_of_a_key_is_found() {
        let environment = |name: &str| [(name.to_owned(), String::new())];

        let found = variable_of("listen.grpc", environment("WEFT_LISTEN__GRPC"));
        assert_eq!(found.as_deref(), Some("WEFT_LISTEN__GRPC"));
        assert_eq!(variable_of("listen.http", environment("WEFT_LISTEN__GRPC")), None);
        assert_eq!(variable_of("endpoints", environment("WEFT_ENDPOINTS")), None);
    }

    #[test]
    fn a_wrong_environment_variable_is_named() {
        for (name, value) in [
            ("WEFT_LISTEN__GPRC", "h:1"),
            ("WEFT_NOWHERE__KEY", "1"),
            ("WEFT_CLUSTER__DATA_GROUPS", "many"),
        ] {
            let error = loaded("", &[(name, value)]).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }
}
