//! Files that cannot be used end the start with the key that names them; nothing hangs.

use std::fs;
use std::path::PathBuf;

use rcgen::ExtendedKeyUsagePurpose;
use tokio::time::timeout;
use weft_broker::Process;
use weft_broker::config::{Config, Security};

use crate::node::{Files, HANGS, configs};
use crate::pki::{Authority, BOTH, Signed};

const FOR_SERVERS: &[ExtendedKeyUsagePurpose] = &[ExtendedKeyUsagePurpose::ServerAuth];
const FOR_CLIENTS: &[ExtendedKeyUsagePurpose] = &[ExtendedKeyUsagePurpose::ClientAuth];
const GARBAGE: &str = "this is not PEM\n";
/// A frame of PEM around bytes that are no certificate.
const HOLLOW: &str = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";

/// Why a node with this configuration does not start.
async fn refusal(config: Config) -> String {
    let run = weft_broker::run(config, Process::default(), std::future::pending());
    timeout(HANGS, run).await.unwrap().unwrap_err().to_string()
}

fn secured() -> (Files, Authority, Config) {
    let (files, clients, peers) =
        (Files::new(), Authority::new("clients"), Authority::new("peers"));
    let mut config = configs(1, &files).remove(0);
    config.security = files.security(&clients.node(), &peers.pem, &peers.node());
    (files, peers, config)
}

type File = fn(&Security) -> Option<&PathBuf>;

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named_with_its_key() {
    let keys: [(&str, File); 5] = [
        ("security.certificate", |security| security.certificate.as_ref()),
        ("security.key", |security| security.key.as_ref()),
        ("security.peer_ca", |security| security.peer_ca.as_ref()),
        ("security.peer_certificate", |security| security.peer_certificate.as_ref()),
        ("security.peer_key", |security| security.peer_key.as_ref()),
    ];
    for (key, file) in keys {
        for wrong in [None, Some(""), Some(GARBAGE), Some(HOLLOW)] {
            let (_files, _peers, config) = secured();
            let path = file(&config.security).unwrap().clone();
            match wrong {
                Some(text) => fs::write(&path, text).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }

            let refusal = refusal(config).await;

            assert!(refusal.contains(&format!("{key}: ")), "{key}, {wrong:?}: {refusal}");
            assert!(refusal.contains(&*path.to_string_lossy()), "{key}, {wrong:?}: {refusal}");
            if wrong.is_none() {
                assert!(refusal.contains("cannot read"), "{key}: {refusal}");
            }
        }
    }
}

#[tokio::test]
async fn a_key_of_another_certificate_is_refused() {
    for key in ["security.key", "security.peer_key"] {
        let (files, peers, mut config) = secured();
        let other = files.write("other.key", &peers.node().key);
        match key {
            "security.key" => config.security.key = Some(other),
            _ => config.security.peer_key = Some(other),
        }

        let refusal = refusal(config).await;

        assert!(refusal.contains(&format!("{key}: ")), "{refusal}");
        assert!(refusal.contains("is not the key of the first certificate in"), "{refusal}");
    }
}

#[tokio::test]
async fn a_certificate_that_other_nodes_would_refuse_is_refused_here() {
    let other = Authority::new("peers");
    for (name, usages, expected) in [
        ("weft-1.example", BOTH, "not valid for name"),
        ("127.0.0.1", FOR_SERVERS, "extended key usage"),
        ("127.0.0.1", FOR_CLIENTS, "extended key usage"),
    ] {
        let (files, peers, mut config) = secured();
        show(&files, &mut config, &peers.sign(&[name], usages));
        let refusal = refusal(config).await;
        assert!(refusal.contains("security.peer_certificate: "), "{refusal}");
        assert!(refusal.contains(expected), "{refusal}");
    }

    let (files, _peers, mut config) = secured();
    show(&files, &mut config, &other.node());
    let refusal = refusal(config).await;
    assert!(refusal.contains("security.peer_certificate: "), "{refusal}");
    assert!(refusal.contains("it must be signed by"), "{refusal}");
}

fn show(files: &Files, config: &mut Config, signed: &Signed) {
    config.security.peer_certificate = Some(files.write("peer.pem", &signed.certificate));
    config.security.peer_key = Some(files.write("peer.key", &signed.key));
}

#[tokio::test]
async fn nothing_is_left_behind_by_a_refusal() {
    let (files, _peers, mut config) = secured();
    config.security.key = Some(files.path().join("nowhere"));
    let data = config.node.data.clone();

    refusal(config).await;

    assert!(!data.exists());
}
