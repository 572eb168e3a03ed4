//! What only an engine on disk can show: locks, damage, and errors that name the path.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

const GROUP: GroupId = GroupId(7);

fn open(path: &Path) -> Result<RocksEngine, StoreError> {
    RocksEngine::open(path, Profile::Small)
}

fn entries(from: u64, to: u64) -> Changes {
    let mut changes = Changes::new();
    for index in from..to {
        let body = Bytes::from(vec![u8::try_from(index % 251).unwrap(); 1000]);
        changes.put_parts(Family::Log(GROUP), &index.to_be_bytes(), b"head", body);
    }
    changes
}

fn files(path: &Path, ending: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    all.filter(|file| file.extension().is_some_and(|found| found == ending)).collect()
}

#[test]
fn a_store_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path()).unwrap();

    let second = open(dir.path()).unwrap_err();

    assert!(matches!(second, StoreError::InUse { .. }), "{second}");
    assert!(second.to_string().contains(dir.path().to_str().unwrap()));
}

#[test]
fn a_folder_that_cannot_be_created_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"not a folder").unwrap();

    let error = open(&file.join("store")).unwrap_err();

    assert!(error.to_string().contains("file/store"), "{error}");
}

#[test]
fn everything_survives_reopening() {
    let dir = tempfile::tempdir().unwrap();
    {
        let engine = open(dir.path()).unwrap();
        engine.open_group(GROUP).unwrap();
        engine.write_synced(&[entries(0, 10)]).unwrap();
    }

    let engine = open(dir.path()).unwrap();

    assert_eq!(engine.groups(), [GROUP]);
    let value = engine.get(Family::Log(GROUP), &9_u64.to_be_bytes()).unwrap().unwrap();
    assert_eq!(&value[..5], b"head\x09");
}

#[test]
fn a_missing_manifest_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    for file in fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        if file.file_name().to_string_lossy().starts_with("MANIFEST") {
            fs::write(file.path(), b"garbage").unwrap();
        }
    }

    let error = open(dir.path()).unwrap_err();

    assert!(error.is_suspect(), "{error}");
}

#[test]
fn a_scan_over_a_damaged_file_is_an_error_not_an_end() {
    let dir = tempfile::tempdir().unwrap();
    {
        let engine = open(dir.path()).unwrap();
        engine.open_group(GROUP).unwrap();
        engine.write_synced(&[entries(0, 1000)]).unwrap();
        engine.db.flush_cf(&engine.family(Family::Log(GROUP)).unwrap()).unwrap();
    }
    let largest = files(dir.path(), "sst").into_iter().max_by_key(|f| f.metadata().unwrap().len());
    let largest = largest.unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let engine = open(dir.path()).unwrap();

    let mut seen = 0;
    let keys = (0_u64.to_be_bytes(), u64::MAX.to_be_bytes());
    let result = engine.scan(Family::Log(GROUP), &keys.0, &keys.1, &mut |_, _| {
        seen += 1;
        ControlFlow::Continue(())
    });

    assert!(seen < 1000);
    assert!(result.unwrap_err().is_suspect());
}

#[test]
fn dropping_files_frees_disk_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    engine.open_group(GROUP).unwrap();
    for round in 0..4 {
        engine.write_synced(&[entries(round * 1000, (round + 1) * 1000)]).unwrap();
        engine.db.flush_cf(&engine.family(Family::Log(GROUP)).unwrap()).unwrap();
    }
    engine.db.compact_range_cf(
        &engine.family(Family::Log(GROUP)).unwrap(),
        None::<&[u8]>,
        None::<&[u8]>,
    );
    engine.write_synced(&[entries(4000, 4010)]).unwrap();

    engine.drop_files(GROUP, 3999).unwrap();

    let first = engine.get(Family::Log(GROUP), &0_u64.to_be_bytes()).unwrap();
    let kept = engine.get(Family::Log(GROUP), &4000_u64.to_be_bytes()).unwrap();
    assert!(first.is_none());
    assert!(kept.is_some());
}

#[test]
fn recycling_is_on_and_survives_the_recovery_mode() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());

    let options = files(dir.path(), "").len();
    let mut text = String::new();
    for file in fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        if file.file_name().to_string_lossy().starts_with("OPTIONS") {
            text = fs::read_to_string(file.path()).unwrap();
        }
    }

    assert_eq!(options, 0);
    assert!(text.contains("recycle_log_file_num=8"), "{text}");
    let direct = format!("use_direct_io_for_flush_and_compaction={}", takes_direct_io(dir.path()));
    assert!(text.contains(&direct), "{text}");
    assert!(text.contains("wal_recovery_mode=kPointInTimeRecovery"));
    assert!(text.contains("track_and_verify_wals_in_manifest=true"));
    assert!(text.contains("avoid_flush_during_recovery=false"));
}

#[test]
fn errors_say_what_to_do() {
    let of = |detail: &str| classify("/data".to_owned(), "write", false, detail.to_owned());

    let full = of("IO error: No space left on device: While appending to file: /data/1.log");
    let read_only = of("IO error: While open a file for appending: /data/1: Read-only file system");
    let other = of("IO error: Input/output error: While fdatasync: /data/1.log");

    assert!(matches!(full, StoreError::Full { .. }));
    assert!(matches!(read_only, StoreError::ReadOnly { .. }));
    assert!(matches!(other, StoreError::Io { .. }));
    for error in [full, read_only, other] {
        assert!(error.to_string().contains("/data"));
    }
}
