//! The file: what it survives, and whom it recognises.

use std::fs;

use super::*;

struct Log(GroupId, Mutex<Claim>);

impl Claims for Log {
    fn group(&self) -> GroupId {
        self.0
    }

    fn claim(&self) -> Claim {
        *self.1.lock().unwrap()
    }
}

fn claim(index: u64) -> Claim {
    Claim { vote: None, last: Some(ClaimedEntry { index, term: 1, chain: index }) }
}

fn written(path: &Path, index: u64) -> Pledge {
    let pledge = Pledge::open(path, true).unwrap();
    let log = Arc::new(Log(GroupId(1), Mutex::new(claim(index))));
    pledge.watch(&log);
    pledge.write().unwrap();
    pledge
}

#[test]
fn promises_and_runs_survive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pledge");

    let first = written(&path, 7).boot();
    let again = Pledge::open(&path, false).unwrap();

    assert_eq!(again.claim(GroupId(1)), claim(7));
    assert_eq!(again.claim(GroupId(2)), Claim::default());
    assert_eq!(again.boot().number, first.number + 1);
}

#[test]
fn a_torn_write_leaves_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pledge");
    let pledge = written(&path, 7);
    let log = Arc::new(Log(GroupId(1), Mutex::new(claim(8))));
    pledge.watch(&log);
    let before = fs::read(&path).unwrap();
    pledge.write().unwrap();
    let mut after = fs::read(&path).unwrap();
    let changed = (0..after.len()).find(|&at| after[at] != before[at]).unwrap();
    after[changed] ^= 0xff;
    fs::write(&path, after).unwrap();

    assert_eq!(Pledge::open(&path, false).unwrap().claim(GroupId(1)), claim(7));
}

#[test]
fn a_lost_or_damaged_pledge_is_no_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pledge");

    assert!(matches!(Pledge::open(&path, false), Err(Error::Missing(_))));
    fs::write(&path, vec![0; 2 * SLOT_BYTES]).unwrap();
    assert!(matches!(Pledge::open(&path, false), Err(Error::Damaged(_))));
    // A node that has promised nothing may begin.
    Pledge::open(&path, true).unwrap();
}

#[test]
fn a_copy_of_a_folder_that_went_on_is_recognised() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("pledge"), folder.path().join("copy"));
    let node = NodeId(2);
    let peer = Pledge::open(&folder.path().join("peer"), true).unwrap();
    drop(Pledge::open(&path, true).unwrap());
    fs::copy(&path, &copy).unwrap();

    let went_on = Pledge::open(&path, false).unwrap().boot();
    assert!(peer.note(node, went_on).unwrap());
    assert!(peer.note(node, went_on).unwrap(), "the same run may tell twice");
    let copied = Pledge::open(&copy, false).unwrap().boot();
    assert_eq!(copied.number, went_on.number);
    assert!(!peer.note(node, copied).unwrap());

    // It is remembered.
    drop(peer);
    let peer = Pledge::open(&folder.path().join("peer"), false).unwrap();
    assert!(!peer.note(node, copied).unwrap());
    assert!(peer.note(node, Pledge::open(&path, false).unwrap().boot()).unwrap());
}
