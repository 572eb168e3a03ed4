//! Generates the wire types from the protocol files, without protoc.
//!
//! Two views of one wire: the published descriptors keep `CloudEvent` (for reflection and for
//! other languages), the Rust types of `weft.v1` take the same fields as raw bytes, so that events
//! pass through clients and brokers without being decoded and encoded again.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message as _;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::Type;

const CLOUD_EVENT: &str = ".io.cloudevents.v1.CloudEvent";

#[expect(clippy::disallowed_methods, reason = "cargo talks to build scripts by environment")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut files = Vec::new();
    for folder in ["io/cloudevents/v1", "weft/v1", "weft/internal/v1"] {
        let folder = root.join(folder);
        println!("cargo::rerun-if-changed={}", folder.display());
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "proto") {
                files.push(path);
            }
        }
    }
    files.sort();

    let mut set: FileDescriptorSet = protox::compile(&files, [&root])?;
    // What nodes say to each other is nobody else's business.
    let mut published = set.clone();
    published.file.retain(|file| !file.package().starts_with("weft.internal."));
    fs::write(out.join("descriptors.bin"), published.encode_to_vec())?;
    fs::write(out.join("methods.rs"), methods(&published)?)?;
    take_events_as_bytes(&mut set);
    // Replicas hash and store resources: their labels need an order.
    let config = tonic_prost_build::configure().bytes(".").btree_map(".weft.v1.Resource");
    config.compile_fds(set)?;
    Ok(())
}

/// Message and bytes fields look the same on the wire; only the generated type differs.
fn take_events_as_bytes(set: &mut FileDescriptorSet) {
    let ours = set.file.iter_mut().filter(|file| file.package().starts_with("weft."));
    for field in ours.flat_map(|file| &mut file.message_type).flat_map(|message| &mut message.field)
    {
        if field.type_name() == CLOUD_EVENT {
            field.set_type(Type::Bytes);
            field.type_name = None;
        }
    }
}

/// One variant for each published method: whoever decides about calls matches on all of them, and a
/// new one that nobody decided about does not compile.
fn methods(set: &FileDescriptorSet) -> Result<String, std::fmt::Error> {
    let mut list = String::new();
    for file in set.file.iter().filter(|file| file.package().starts_with("weft.")) {
        for service in &file.service {
            for method in &service.method {
                let (service, name) = (service.name(), method.name());
                let path = format!("/{}.{service}/{name}", file.package());
                let (up, down) = (method.client_streaming(), method.server_streaming());
                writeln!(list, "    {service}{name} = {path:?}, {up}, {down};")?;
            }
        }
    }
    Ok(format!("methods! {{\n{list}}}\n"))
}
