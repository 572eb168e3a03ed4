//! House rules as a test: reads the text of the repository and names each violation by file and
//! line. Plain text search without dependencies, so that it compiles in a second.

use std::error::Error;
use std::fmt;
use std::fs;
use std::path::Path;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Which of our crates a crate may depend on. Arrows point down only; the root package sees all.
const ARROWS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("client", &["proto"]),
    ("registry", &["proto"]),
    ("broker", &["proto", "registry"]),
    ("dispatcher", &["proto", "client"]),
];

/// A crate, the only folder that names it, and the only member that depends on it.
const FENCES: &[(&str, &str, &str)] = &[
    ("openraft", "broker/src/raft", "broker"),
    ("rocksdb", "broker/src/store", "broker"),
    ("kube", "dispatcher/src/launch", "dispatcher"),
];

/// Folders that decide and never do: no I/O, no clock, no order that changes from run to run.
const PURE: &[&str] = &[
    "proto/src",
    "registry/src",
    "broker/src/dedup",
    "broker/src/entry",
    "broker/src/partition",
    "broker/src/state",
    "broker/src/subjects",
    "broker/src/subscription",
    "broker/src/catalog",
    "dispatcher/src/delivery",
    "dispatcher/src/egress",
    "dispatcher/src/flow",
    "dispatcher/src/scale",
];

const BANNED_IN_PURE: &[&str] = &["tokio::", "std::fs", "::now()", "HashMap", "async fn"];

/// The closure of a watch's `wait_for` runs under the watch's lock. Whoever takes another lock in it
/// waits for ever for a task that holds the other and sends to the watch.
const LOOKS_ELSEWHERE: &str = concat!("wait_for", "(|_");

/// Older releases can commit an entry without a quorum (openraft issue 1802).
const OPENRAFT: &str = "0.10.0-alpha.37";

/// Files above this are listed, not refused: judgement decides.
const LONG_FILE: usize = 600;

/// Not ours, or not committed.
const SKIPPED_FOLDERS: &[&str] =
    &[".git", "target", "weft-data", "node_modules", "vendor", "__pycache__", ".venv"];

/// In two pieces, because this file is searched too.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/tmp/", "bash_jobs")];

const TO_DO: &str = concat!("TO", "DO");

#[derive(Debug, PartialEq)]
struct Violation {
    path: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

/// Collects the violations of one file.
struct Report<'a> {
    path: &'a str,
    found: Vec<Violation>,
}

impl<'a> Report<'a> {
    fn new(path: &'a str) -> Self {
        Self { path, found: Vec::new() }
    }

    fn add(&mut self, line: usize, rule: impl Into<String>) {
        self.found.push(Violation { path: self.path.to_owned(), line, rule: rule.into() });
    }
}

/// All rules for one file; `path` is relative to the root of the repository.
fn check_file(path: &str, text: &str) -> Vec<Violation> {
    let mut report = Report::new(path);
    check_text(&mut report, text);
    if has_extension(path, "rs") {
        check_source(&mut report, text);
    } else if path == "Cargo.lock" {
        check_lock(&mut report, text);
    } else if path == "Cargo.toml" {
        check_members(&mut report, text);
    } else if let Some(member) = path.strip_suffix("/Cargo.toml")
        && !member.contains('/')
    {
        check_arrows(&mut report, member, text);
    }
    report.found
}

fn check_text(report: &mut Report<'_>, text: &str) {
    // Prose may speak about them; code must not leave them behind.
    let prose = has_extension(report.path, "md");
    for (number, line) in numbered(text) {
        for machine_path in MACHINE_PATHS {
            if starts_a_path(line, machine_path) {
                report.add(number, format!("names a folder of one machine: {machine_path}"));
            }
        }
        if !prose && has_bare_to_do(line) {
            report.add(number, format!("{TO_DO} without a number: write {TO_DO}(#123)"));
        }
    }
}

fn check_source(report: &mut Report<'_>, text: &str) {
    let path = report.path;
    if !text.starts_with("//!") {
        report.add(1, "the file does not start with a `//!` comment that says what it is for");
    }
    let pure = !path.contains("generated") && PURE.iter().any(|folder| is_in(path, folder));
    for (number, line) in numbered(&code_only(text)) {
        for (name, folder, _) in FENCES {
            if !is_in(path, folder) && names_crate(line, name) {
                report.add(number, format!("`{name}` is named outside {folder}"));
            }
        }
        if line.contains(LOOKS_ELSEWHERE) {
            report.add(number, "`wait_for` looks at something else than its value".to_owned());
        }
        for word in BANNED_IN_PURE {
            if pure && line.contains(word) {
                report.add(number, format!("`{word}` in a pure folder"));
            }
        }
    }
}

fn check_arrows(report: &mut Report<'_>, member: &str, manifest: &str) {
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == member) else {
        return;
    };
    for (number, dependency) in dependencies(manifest) {
        if let Some(target) = dependency.strip_prefix("weft-")
            && !allowed.contains(&target)
        {
            report.add(number, format!("`{member}` must not depend on `{dependency}`"));
        }
        for (name, _, owner) in FENCES {
            if dependency == *name && member != *owner {
                report.add(number, format!("only `{owner}` depends on `{name}`"));
            }
        }
    }
}

/// Each member has its row of arrows.
fn check_members(report: &mut Report<'_>, manifest: &str) {
    for (number, line) in numbered(manifest) {
        let Some(members) = line.strip_prefix("members = [") else { continue };
        for member in members.trim_end_matches(']').split(',') {
            let member = member.trim().trim_matches('"');
            if !member.is_empty() && !ARROWS.iter().any(|(name, _)| *name == member) {
                report.add(number, format!("member `{member}` has no row in ARROWS"));
            }
        }
    }
}

fn check_lock(report: &mut Report<'_>, lock: &str) {
    let mut package = "";
    for (number, line) in numbered(lock) {
        if let Some(name) = line.strip_prefix("name = ") {
            package = name.trim_matches('"');
        }
        if let Some(version) = line.strip_prefix("version = ")
            && package == "openraft"
            && version.trim_matches('"') != OPENRAFT
        {
            report.add(number, format!("openraft is {version}, not {OPENRAFT}"));
        }
    }
}

/// The keys of `[dependencies]` and `[build-dependencies]`, also of one target, with their lines.
fn dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (number, line) in numbered(manifest) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.split(']').next().unwrap_or(table);
            let parts = ["build-dependencies", "dependencies"];
            inside = parts.iter().any(|part| {
                table == *part || (table.starts_with("target.") && table.ends_with(part))
            }) && !table.ends_with("dev-dependencies");
            // [dependencies.name]
            let header = parts.iter().find_map(|part| table.strip_prefix(part));
            if let Some(name) = header.and_then(|rest| rest.strip_prefix('.')) {
                found.push((number, name));
            }
        } else if inside {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            if !name.is_empty() && !name.starts_with('#') {
                found.push((number, name));
            }
        }
    }
    found
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// Whether a file belongs to a module: `folder/..` or `folder.rs`.
fn is_in(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Whether a line uses a crate: `name::..` or `use name`, but not `module::name`.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(start, _)| {
        let before = &line[..start];
        let after = &line[start + name.len()..];
        if before.ends_with(is_word) || after.starts_with(is_word) {
            return false;
        }
        let inner = before.trim_end().ends_with("::") && !before.trim_start().starts_with("::");
        !inner && (after.starts_with("::") || before.trim_end().ends_with("use"))
    })
}

/// Whether an absolute path begins here; `docs/work/` or a web address does not count.
fn starts_a_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(start, _)| {
        !line[..start].ends_with(|c: char| is_word(c) || matches!(c, '.' | '-' | '/' | '}'))
    })
}

fn has_bare_to_do(line: &str) -> bool {
    line.match_indices(TO_DO).any(|(start, _)| {
        let after = &line[start + TO_DO.len()..];
        if line[..start].ends_with(is_word) || after.starts_with(is_word) {
            return false;
        }
        let number = after.trim_start_matches(['(', ' ', ':']).strip_prefix('#');
        !number.is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// The code of a Rust file: comments and the contents of literals become blanks, lines stay.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = comment_length(rest)
            .or_else(|| if code.ends_with(is_word) { None } else { raw_string_length(rest) })
            .or_else(|| literal_length(rest));
        let length = skipped.unwrap_or_else(|| first.len_utf8());
        let (piece, tail) = rest.split_at(length);
        if skipped.is_some() {
            code.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            code.push(first);
        }
        rest = tail;
    }
    code
}

fn comment_length(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let tail = &rest.as_bytes()[at..];
        if tail.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += 1;
        }
    }
    Some(rest.len())
}

fn raw_string_length(rest: &str) -> Option<usize> {
    let body = ["r", "br", "cr"].iter().find_map(|prefix| rest.strip_prefix(prefix))?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let contents = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let closing = contents.find(&end).map_or(contents.len(), |at| at + end.len());
    Some(rest.len() - contents.len() + closing)
}

/// A string or character literal; a lifetime such as `'a` is none.
fn literal_length(rest: &str) -> Option<usize> {
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut characters = rest.char_indices().skip(1);
    let mut seen = 0;
    while let Some((at, character)) = characters.next() {
        if character == quote {
            return Some(at + 1);
        }
        if character == '\\' {
            let escaped = characters.next();
            let unicode = quote == '\'' && escaped.is_some_and(|(_, c)| c == 'u' || c == 'x');
            seen = if unicode { -12 } else { seen };
        }
        seen += 1;
        if quote == '\'' && seen > 1 {
            return None;
        }
    }
    if quote == '"' { Some(rest.len()) } else { None }
}

/// Calls `visit` with each text file below a folder, in the order of names.
fn walk(root: &Path, folder: &Path, visit: &mut impl FnMut(&str, &str)) -> Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type()?;
        let name = entry.file_name();
        // A file in the place of a folder: `.git` in a work tree beside the first.
        if SKIPPED_FOLDERS.iter().any(|skipped| name == *skipped) {
            continue;
        }
        if kind.is_dir() {
            walk(root, &path, visit)?;
        } else if kind.is_file()
            && let Ok(text) = String::from_utf8(fs::read(&path)?)
        {
            let relative = path.strip_prefix(root)?;
            visit(&relative.to_string_lossy().replace('\\', "/"), &text);
        }
    }
    Ok(())
}

#[test]
fn house_rules_hold() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut violations = Vec::new();
    let mut files = 0;
    walk(root, root, &mut |path, text| {
        files += 1;
        violations.extend(check_file(path, text).iter().map(ToString::to_string));
        let lines = text.lines().count();
        if has_extension(path, "rs") && lines > LONG_FILE {
            println!("long: {path} has {lines} lines");
        }
    })?;
    assert!(files > 5, "found only {files} files below {}", root.display());
    assert!(violations.is_empty(), "house rules are broken:\n{}", violations.join("\n"));
    Ok(())
}

/// The lines on which a planted text breaks a rule.
fn lines_found(path: &str, text: &str) -> Vec<usize> {
    check_file(path, text).iter().map(|violation| violation.line).collect()
}

#[test]
fn a_violation_names_file_line_and_rule() {
    let found = check_file("proto/src/offset.rs", "//! Offsets.\nasync fn next() {}\n");
    let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["proto/src/offset.rs:2: `async fn` in a pure folder"]);
}

#[test]
fn headers_are_required() {
    assert_eq!(lines_found("src/main.rs", "fn main() {}\n"), [1]);
    assert_eq!(lines_found("src/main.rs", "//! Starts.\nfn main() {}\n"), []);
}

#[test]
fn fences_hold_for_code_but_not_for_words() {
    let named = "//! x\nuse rocksdb::DB;\nfn a() { openraft::run(); }\nuse kube::{Api};\n";
    assert_eq!(lines_found("broker/src/node.rs", named), [2, 3, 4]);
    assert_eq!(lines_found("broker/src/store/rocks.rs", named), [3, 4]);
    assert_eq!(lines_found("broker/src/raft.rs", named), [2, 4]);

    let mentioned = "//! Uses rocksdb::DB.\nuse crate::launch::kube;\nlet s = \"openraft::\";\n";
    assert_eq!(lines_found("dispatcher/src/service.rs", mentioned), []);
    assert_eq!(lines_found("dispatcher/src/service.rs", "//! x\nuse kubert::x;\n"), []);
}

#[test]
fn pure_folders_are_pure() {
    let text = "//! x\nuse std::fs;\nuse std::collections::HashMap;\nlet t = Instant::now();\n\
                tokio::spawn(x);\n// HashMap and tokio:: may be mentioned\n";
    assert_eq!(lines_found("broker/src/catalog/mod.rs", text), [2, 3, 4, 5]);
    assert_eq!(lines_found("broker/src/catalog.rs", text), [2, 3, 4, 5]);
    assert_eq!(lines_found("broker/src/read/follow.rs", text), []);
    assert_eq!(lines_found("proto/src/generated.rs", text), []);
}

#[test]
fn arrows_point_down() {
    let manifest = "[dependencies]\nweft-proto.workspace = true\nweft-client = { path = \"x\" }\n\
                    [dependencies.weft-dispatcher]\npath = \"x\"\n\
                    [dev-dependencies]\nweft-dispatcher.workspace = true\n\
                    [target.'cfg(unix)'.dependencies]\nkube = \"1\"\n";
    assert_eq!(lines_found("broker/Cargo.toml", manifest), [3, 4, 9]);
    assert_eq!(lines_found("Cargo.toml", "members = [\"proto\", \"common\"]\n"), [1]);
}

#[test]
fn openraft_is_pinned() {
    let lock = |version: &str| format!("name = \"openraft\"\nversion = \"{version}\"\n");
    assert_eq!(lines_found("Cargo.lock", &lock("0.9.21")), [2]);
    assert_eq!(lines_found("Cargo.lock", &lock(OPENRAFT)), []);
}

#[test]
fn leftovers_are_found() {
    let text = format!("{TO_DO}: later\n{TO_DO}(#12): later\n{TO_DO} #12\nMASTO{TO_DO}N\n");
    assert_eq!(lines_found("deploy/compose.yaml", &text), [1]);
    assert_eq!(lines_found("README.md", &text), []);

    for machine_path in MACHINE_PATHS {
        assert_eq!(lines_found("README.md", &format!("a\nsee {machine_path}x\n")), [2]);
    }
    let other = format!("docs{}x", MACHINE_PATHS[0]);
    assert_eq!(lines_found("README.md", &other), []);
}

#[test]
fn comments_and_literals_are_blanked() {
    for (source, code) in [
        ("a // b", "a"),
        ("a /* b /* c */ d */ e", "a e"),
        (r#"a("b\"//c") d"#, "a( ) d"),
        ("r#\"x\"y\"# z", "z"),
        ("for\"x\"", "for"),
        ("fn f<'a>(c: &'a u8) // x", "fn f<'a>(c: &'a u8)"),
        (r"'\u{1F600}' '\'' '\\' 'x' y", "y"),
        ("'\"' a \"b\nc\" d", "a d"),
    ] {
        let blanked = code_only(source);
        assert_eq!(blanked.split_whitespace().collect::<Vec<_>>().join(" "), code, "{source}");
        assert_eq!(blanked.lines().count(), source.lines().count(), "{source}");
    }
}
