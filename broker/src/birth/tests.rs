//! Births over the in-process router: any order, crashes, lost folders, wrong lists.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::peer::router::Router;

const ADDRESSES: [&str; 3] = ["a:7001", "b:7001", "b:7002"];
const DEADLINE: Duration = Duration::from_mins(1);

fn founding(address: &str) -> Founding {
    let founders = ADDRESSES.iter().rev().map(|address| (*address).to_owned()).collect();
    Founding {
        address: address.to_owned(),
        founders,
        data_groups: 4,
        checkpoint_bytes: 7,
        join: Vec::new(),
    }
}

/// Reads the folder with its pledge, as a node does.
fn begin(folder: &Folder, founding: Founding) -> Result<Birth<'_>, Error> {
    let is_new = folder.identity()?.cluster.is_none();
    let pledge = Pledge::open(&folder.pledge(), is_new).unwrap();
    Birth::new(folder, Arc::new(pledge), founding)
}

/// Starts one founder as a process would: lock, introduce, complete.
async fn start(router: &Router, folder: &TempDir, address: &str) -> Result<Membership, Error> {
    let folder = Folder::open(folder.path())?;
    let birth = begin(&folder, founding(address))?;
    router.introduce(address, birth.introduction());
    let transport = router.transport(address);
    tokio::time::timeout(DEADLINE, birth.complete(&*transport)).await.unwrap()
}

fn folders() -> [TempDir; 3] {
    std::array::from_fn(|_| tempfile::tempdir().unwrap())
}

fn spawn(
    router: &Router,
    folder: &Arc<[TempDir; 3]>,
    node: usize,
) -> tokio::task::JoinHandle<Result<Membership, Error>> {
    let (router, folders) = (router.clone(), Arc::clone(folder));
    #[expect(clippy::disallowed_methods, reason = "the test joins it")]
    tokio::spawn(async move { start(&router, &folders[node], ADDRESSES[node]).await })
}

#[tokio::test(start_paused = true)]
async fn founders_are_born_in_any_order() {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for order in orders {
        let (router, folders) = (Router::new(), Arc::new(folders()));
        let mut running = Vec::new();
        for node in order {
            running.push((node, spawn(&router, &folders, node)));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let mut born = Vec::new();
        for (node, running) in running {
            let membership = running.await.unwrap().unwrap();
            assert_eq!(membership.node_id, NodeId(node as u64 + 1));
            born.push(membership);
        }
        assert!(born.iter().all(|one| one.cluster_uid == born[0].cluster_uid));
        assert!(born.iter().all(|one| one.founders == born[0].founders && one.data_groups == 4));
        assert!(born.iter().all(|one| one.checkpoint_bytes == 7));
    }
}

#[tokio::test]
async fn single_node_is_born_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let open = Folder::open(folder.path()).unwrap();
    let alone = Founding {
        address: "h:1".to_owned(),
        founders: Vec::new(),
        join: Vec::new(),
        data_groups: 2,
        checkpoint_bytes: 7,
    };

    let birth = begin(&open, alone).unwrap();
    let membership = birth.complete(&*Router::new().transport("h:1")).await.unwrap();

    assert_eq!((membership.node_id, membership.founders.len()), (NodeId(1), 1));
}

#[tokio::test(start_paused = true)]
async fn birth_continues_after_a_crash_of_any_founder() {
    for (crashed, address) in ADDRESSES.iter().enumerate() {
        let (router, folders) = (Router::new(), Arc::new(folders()));
        // Two founders wait for the third, one of them crashes, all start.
        let other = (crashed + 1) % 3;
        let waiting = spawn(&router, &folders, other);
        let crashing = spawn(&router, &folders, crashed);
        tokio::time::sleep(Duration::from_secs(1)).await;
        crashing.abort();
        assert!(crashing.await.unwrap_err().is_cancelled());
        router.remove(address);

        let again = spawn(&router, &folders, crashed);
        let last = spawn(&router, &folders, (crashed + 2) % 3);

        let born = [waiting, again, last];
        let mut uids = Vec::new();
        for founder in born {
            uids.push(founder.await.unwrap().unwrap().cluster_uid);
        }
        assert!(uids.iter().all(|uid| *uid == uids[0]));
    }
}

#[tokio::test(start_paused = true)]
async fn founder_that_crashed_before_it_saw_the_record_gets_it_later() {
    let (router, folders) = (Router::new(), Arc::new(folders()));
    // The last founder says who it is, but is gone when the record is made.
    let late = Folder::open(folders[2].path()).unwrap();
    let birth = begin(&late, founding(ADDRESSES[2])).unwrap();
    router.introduce(ADDRESSES[2], birth.introduction());
    let first = spawn(&router, &folders, 0);
    let second = spawn(&router, &folders, 1);
    let uid = first.await.unwrap().unwrap().cluster_uid;
    second.await.unwrap().unwrap();
    drop(birth);
    drop(late);
    router.remove(ADDRESSES[2]);

    let third = start(&router, &folders[2], ADDRESSES[2]).await.unwrap();

    assert_eq!((third.cluster_uid, third.node_id), (uid, NodeId(3)));
}

async fn born(router: &Router, folders: &Arc<[TempDir; 3]>) -> Vec<Membership> {
    let running = [0, 1, 2].map(|node| spawn(router, folders, node));
    let mut born = Vec::new();
    for founder in running {
        born.push(founder.await.unwrap().unwrap());
    }
    born
}

#[tokio::test(start_paused = true)]
async fn wiped_founder_is_refused_by_the_others() {
    // The first one matters most: it could make a second cluster.
    for wiped in 0..3 {
        let (router, folders) = (Router::new(), Arc::new(folders()));
        born(&router, &folders).await;
        fs::remove_file(folders[wiped].path().join("node.json")).unwrap();

        let error = start(&router, &folders[wiped], ADDRESSES[wiped]).await.unwrap_err();

        assert!(matches!(error, Error::Refused { .. }), "{error}");
        assert!(error.to_string().contains("another data folder"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn wiped_first_founder_decides_nothing_while_the_others_are_down() {
    let (router, folders) = (Router::new(), Arc::new(folders()));
    born(&router, &folders).await;
    fs::remove_file(folders[0].path().join("node.json")).unwrap();
    router.remove(ADDRESSES[1]);
    router.remove(ADDRESSES[2]);

    let alone = spawn(&router, &folders, 0);
    tokio::time::sleep(Duration::from_secs(30)).await;

    assert!(!alone.is_finished());
    alone.abort();
}

#[tokio::test(start_paused = true)]
async fn restarted_founder_needs_nobody() {
    let (router, folders) = (Router::new(), Arc::new(folders()));
    let before = born(&router, &folders).await;

    let after = start(&Router::new(), &folders[1], ADDRESSES[1]).await.unwrap();

    assert_eq!(after, before[1]);
}

#[tokio::test(start_paused = true)]
async fn folder_of_another_node_is_refused() {
    let (router, folders) = (Router::new(), Arc::new(folders()));
    born(&router, &folders).await;

    let error = start(&router, &folders[1], ADDRESSES[2]).await.unwrap_err();

    assert!(matches!(error, Error::OtherNode { node_id: NodeId(2), .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn folder_of_another_cluster_is_noticed() {
    let (router, mine) = (Router::new(), Arc::new(folders()));
    let (elsewhere, theirs) = (Router::new(), Arc::new(folders()));
    born(&router, &mine).await;
    born(&elsewhere, &theirs).await;

    let here = start(&router, &mine[0], ADDRESSES[0]).await;
    let there = start(&elsewhere, &mine[0], ADDRESSES[0]).await;

    here.unwrap();
    assert!(matches!(there, Err(Error::Refused { .. } | Error::OtherCluster { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_older_copy_of_a_folder_is_suspect() {
    let (router, folders) = (Router::new(), Arc::new(folders()));
    born(&router, &folders).await;
    // All have heard of each other's runs.
    for (folder, address) in folders.iter().zip(ADDRESSES) {
        start(&router, folder, address).await.unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    for file in ["node.json", "pledge"] {
        fs::copy(folders[1].path().join(file), copy.path().join(file)).unwrap();
    }
    // It goes on, and then the copy comes back.
    start(&router, &folders[1], ADDRESSES[1]).await.unwrap();

    let error = start(&router, &copy, ADDRESSES[1]).await.unwrap_err();

    assert!(matches!(error, Error::Suspect { .. }), "{error}");
    assert!(error.to_string().contains("node 2"), "{error}");
    // The real one is still welcome.
    start(&router, &folders[1], ADDRESSES[1]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stranger_at_one_address_does_not_outweigh_a_founder_that_agrees() {
    let (router, mine) = (Router::new(), Arc::new(folders()));
    let (elsewhere, theirs) = (Router::new(), Arc::new(folders()));
    born(&router, &mine).await;
    born(&elsewhere, &theirs).await;
    let own = Folder::open(mine[0].path()).unwrap();
    let stranger = Folder::open(theirs[1].path()).unwrap();
    let introduce = |folder: &Folder, place: usize| {
        let birth = begin(folder, founding(ADDRESSES[place])).unwrap();
        router.introduce(ADDRESSES[place], birth.introduction());
    };
    introduce(&stranger, 1);
    let start = async || {
        let birth = begin(&own, founding(ADDRESSES[0])).unwrap();
        birth.complete(&*router.transport(ADDRESSES[0])).await
    };

    let with_two = start().await;
    router.remove(ADDRESSES[2]);
    let with_the_stranger_alone = start().await;

    with_two.unwrap();
    with_the_stranger_alone.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn founders_that_disagree_are_refused() {
    let router = Router::new();
    let folders = folders();
    let one = Folder::open(folders[0].path()).unwrap();
    let birth = begin(&one, founding(ADDRESSES[0])).unwrap();
    router.introduce(ADDRESSES[0], birth.introduction());
    let two = Folder::open(folders[1].path()).unwrap();
    let mut other = founding(ADDRESSES[1]);
    other.founders.push("c:1".to_owned());

    let birth = begin(&two, other).unwrap();
    let error = birth.complete(&*router.transport(ADDRESSES[1])).await.unwrap_err();

    assert!(error.to_string().contains("its founders are"), "{error}");
}

#[test]
fn wrong_lists_of_founders_are_refused() {
    let cases: [(&[&str], &str); 4] = [
        (&["h:1", "h"], "h is not host:port"),
        (&["h:1", "h:0"], "h:0 is not host:port"),
        (&["h:1", "h:1"], "h:1 is there twice"),
        (&["h:2", "h:3"], "own address h:1 is not among"),
    ];
    for (founders, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let founders = founders.iter().map(|address| (*address).to_owned()).collect();
        let founding = Founding {
            address: "h:1".to_owned(),
            founders,
            data_groups: 1,
            checkpoint_bytes: 7,
            join: Vec::new(),
        };

        let error = begin(&Folder::open(folder.path()).unwrap(), founding).unwrap_err();

        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn ids_follow_addresses_by_number() {
    let founders = ["h:10000", "h:999", "g:5"].map(str::to_owned).to_vec();
    let founding = Founding {
        address: "g:5".to_owned(),
        founders,
        data_groups: 1,
        checkpoint_bytes: 7,
        join: Vec::new(),
    };

    assert_eq!(founding.in_order().unwrap(), ["g:5", "h:999", "h:10000"]);
}
