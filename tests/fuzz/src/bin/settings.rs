//! Files of a node that people or other programs write: broker and dispatcher settings in TOML, and
//! `node.json`.

#![cfg_attr(fuzzing, no_main)]

use serde::Serialize;
use serde::de::DeserializeOwned;
use weft_fuzz::chosen;

weft_fuzz::target!();

pub const MAX_LEN: usize = 4_096;

pub fn run(data: &[u8]) -> bool {
    let Some((&form, text)) = data.split_first() else { return false };
    let Ok(text) = std::str::from_utf8(text) else { return false };
    match form % 3 {
        0 => {
            let Some(config) = survives::<weft_broker::config::Config>(text) else { return false };
            config.check().is_ok()
        }
        1 => {
            let Some(config) = survives::<weft_dispatcher::Config>(text) else { return false };
            config.check().is_ok()
        }
        _ => {
            use weft_broker::identity::Identity;
            let Ok(identity) = serde_json::from_str::<Identity>(text) else { return false };
            let written = serde_json::to_string(&identity).expect("an identity can be written");
            assert_eq!(serde_json::from_str::<Identity>(&written).expect("and read"), identity);
            true
        }
    }
}

fn survives<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(
    text: &str,
) -> Option<T> {
    let config: T = toml::from_str(text).ok()?;
    // Numbers beyond 63 bits are read where the type has room, but TOML cannot write them.
    if let Ok(written) = toml::to_string(&config) {
        assert_eq!(toml::from_str::<T>(&written).expect("what we write we read"), config);
    }
    Some(config)
}

pub fn seeds() -> Vec<Vec<u8>> {
    let cases = [
        (
            0,
            "[node]\ndata = \"/d\"\n[listen]\ngrpc = \"10.0.0.1:7400\"\nhttp = \"[::1]:7500\"\npeer = \"h:7600\"\n[cluster]\nfounders = [\"h:7600\"]\ndata_groups = 3\nheartbeat_ms = 100\n[security]\ncertificate = \"/c\"\nkey = \"/k\"\ninsecure = true\n",
        ),
        (0, "[store]\nprofile = \"small\"\n[retention]\ntick_ms = 1\n"),
        (0, ""),
        (
            1,
            "endpoints = [\"127.0.0.1:7400\"]\n[process]\nenabled = true\ndirectories = [\"/a\"]\n",
        ),
        (1, "endpoints = [\"h:1\"]\ntoken_file = \"t\"\n[tls]\nenabled = true\nca_file = \"ca\"\n"),
        (
            2,
            r#"{"format":0,"node_uid":"a","cluster":{"cluster_uid":"c","node_id":1,"data_groups":3,"founders":[{"node_id":1,"node_uid":"a","address":"h:1"}]}}"#,
        ),
        (2, r#"{"format":0,"node_uid":"a"}"#),
        (2, "{}"),
    ];
    cases.iter().map(|(form, text)| chosen(*form, text)).collect()
}
