//! Lists the targets for `src/replay.rs`: each file in `src/bin` as a module and a row.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let folder = root.join("src/bin");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder)?.map(|file| Ok(file?.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    let (mut modules, mut rows) = (String::new(), String::new());
    for file in files {
        let Some(name) = file.file_stem().and_then(|name| name.to_str()) else { continue };
        writeln!(modules, "#[path = {:?}]\nmod {name};", file)?;
        writeln!(rows, "    ({name:?}, {name}::run, {name}::seeds, {name}::MAX_LEN),")?;
    }
    let table = format!("{modules}\nconst TARGETS: &[Target] = &[\n{rows}];\n");
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("targets.rs"), table)?;
    Ok(())
}
