//! What both engines promise, and what the writer makes of it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;

use weft_proto::GroupId;

use super::*;

const GROUP: GroupId = GroupId(1);
const LOG: Family = Family::Log(GROUP);

/// Runs a check on both engines.
fn on_both(check: impl Fn(Arc<dyn LogEngine>)) {
    check(Arc::new(MemoryEngine::new()));
    let dir = tempfile::tempdir().unwrap();
    check(Arc::new(RocksEngine::open(dir.path(), Profile::Small).unwrap()));
}

fn put(family: Family, key: &[u8], value: &[u8]) -> Changes {
    let mut changes = Changes::new();
    changes.put(family, key, value);
    changes
}

fn all(engine: &dyn LogEngine, from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    engine
        .scan(Family::Meta, from, to, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

#[test]
fn a_write_is_head_and_body() {
    on_both(|engine| {
        engine.open_group(GROUP).unwrap();
        let mut changes = Changes::new();
        changes.put_parts(LOG, b"key", b"head", Bytes::from_static(b"body"));

        engine.write_synced(&[changes]).unwrap();

        assert_eq!(engine.get(LOG, b"key").unwrap().unwrap(), "headbody");
        assert_eq!(engine.get(Family::Meta, b"key").unwrap(), None);
    });
}

#[test]
fn later_changes_of_a_write_win() {
    on_both(|engine| {
        let mut second = put(Family::Meta, b"a", b"2");
        second.delete(Family::Meta, b"b");

        engine.write_unsynced(&[put(Family::Meta, b"b", b"1"), second]).unwrap();

        assert_eq!(engine.get(Family::Meta, b"a").unwrap().unwrap(), "2");
        assert_eq!(engine.get(Family::Meta, b"b").unwrap(), None);
    });
}

#[test]
fn scans_are_half_open_and_break_off() {
    on_both(|engine| {
        for key in [b"a", b"b", b"c", b"d"] {
            engine.write_unsynced(&[put(Family::Meta, key, key)]).unwrap();
        }

        let found = all(&*engine, b"b", b"d");
        let mut seen = 0;
        engine
            .scan(Family::Meta, b"a", b"z", &mut |_, _| {
                seen += 1;
                ControlFlow::Break(())
            })
            .unwrap();

        assert_eq!(found, [(b"b".into(), b"b".into()), (b"c".into(), b"c".into())]);
        assert_eq!(seen, 1);
        assert_eq!(all(&*engine, b"d", b"b"), []);
    });
}

#[test]
fn the_last_record_at_or_below_a_key_is_found() {
    on_both(|engine| {
        for key in [b"a", b"c", b"e"] {
            engine.write_unsynced(&[put(Family::Meta, key, b"")]).unwrap();
        }

        let last = |from: &[u8], to: &[u8]| {
            engine.last_in(Family::Meta, from, to).unwrap().map(|(key, _)| key.to_vec())
        };

        assert_eq!(last(b"a", b"d"), Some(b"c".to_vec()));
        assert_eq!(last(b"a", b"e"), Some(b"e".to_vec()));
        assert_eq!(last(b"b", b"b"), None);
        assert_eq!(last(b"d", b"b"), None);
    });
}

#[test]
fn a_group_must_be_opened_and_can_be_dropped() {
    on_both(|engine| {
        let refused = engine.write_synced(&[put(LOG, b"k", b"v")]).unwrap_err();
        engine.open_group(GROUP).unwrap();
        engine.open_group(GROUP).unwrap();
        engine.write_synced(&[put(LOG, b"k", b"v")]).unwrap();
        let groups = engine.groups();
        engine.drop_group(GROUP).unwrap();
        engine.open_group(GROUP).unwrap();

        assert!(matches!(refused, StoreError::UnknownGroup { group: GROUP }));
        assert_eq!(groups, [GROUP]);
        assert_eq!(engine.get(LOG, b"k").unwrap(), None);
    });
}

#[test]
fn a_crash_loses_exactly_what_was_not_synced() {
    let engine = MemoryEngine::new();
    engine.write_synced(&[put(Family::Meta, b"a", b"1")]).unwrap();
    engine.write_unsynced(&[put(Family::Meta, b"b", b"2")]).unwrap();
    engine.write_unsynced(&[put(Family::Meta, b"c", b"3")]).unwrap();

    let torn = engine.crash_keeping(1);
    let bare = engine.crash();

    assert_eq!(all(&torn, b"a", b"z").len(), 2);
    assert_eq!(all(&bare, b"a", b"z").len(), 1);
    assert!(engine.write_synced(&[Changes::new()]).is_err());
}

struct Running {
    writer: Writer,
    thread: std::thread::JoinHandle<Result<(), StoreError>>,
}

fn start(engine: &MemoryEngine, options: &WriterOptions) -> Running {
    let (writer, writer_loop) = Writer::new(Arc::new(engine.clone()), options);
    Running { writer, thread: std::thread::spawn(move || writer_loop.run_blocking()) }
}

impl Running {
    fn stop(self) -> Result<(), StoreError> {
        drop(self.writer);
        self.thread.join().unwrap()
    }
}

#[tokio::test]
async fn what_queues_up_during_a_sync_shares_the_next_one() {
    let engine = MemoryEngine::new();
    let running = start(&engine, &WriterOptions::default());
    let (tx, rx) = mpsc::channel();
    engine.pause_syncs();

    for number in 0..100_u8 {
        let tx = tx.clone();
        let done = Done::new(move |result| tx.send((number, result.is_ok())).unwrap());
        running.writer.submit(put(Family::Meta, &[number], b""), done).await.unwrap();
    }
    let early = rx.recv_timeout(Duration::from_millis(50));
    engine.resume_syncs();
    let order: Vec<_> = (0..100).map(|_| rx.recv().unwrap()).collect();

    assert!(early.is_err(), "a callback ran before its sync");
    assert_eq!(order, (0..100).map(|number| (number, true)).collect::<Vec<_>>());
    // The first may have gone alone; all the others waited for it.
    assert!(engine.syncs() <= 2, "{} syncs", engine.syncs());
    assert_eq!(running.writer.stats().syncs, engine.syncs());
    running.stop().unwrap();
}

#[tokio::test]
async fn unsynced_changes_force_no_sync_and_ride_along() {
    let engine = MemoryEngine::new();
    let running = start(&engine, &WriterOptions::default());

    running.writer.put_unsynced(put(Family::Meta, b"a", b"1")).await.unwrap();
    while engine.pending() == 0 {
        tokio::task::yield_now().await;
    }
    let before = engine.syncs();
    running.writer.put_synced(put(Family::Meta, b"b", b"2")).await.unwrap();

    assert_eq!((before, engine.syncs()), (0, 1));
    assert_eq!(all(&engine.crash(), b"a", b"z").len(), 2);
}

#[tokio::test]
async fn deferred_values_reach_the_disk_without_anything_else() {
    let engine = MemoryEngine::new();
    let running = start(&engine, &WriterOptions::default());

    for number in 0..1000_u64 {
        running.writer.put_deferred(b"c", number.to_le_bytes().to_vec());
    }
    while engine.get(Family::Meta, b"c").unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let stored = engine.get(Family::Meta, b"c").unwrap().unwrap();
    assert_eq!(*stored, 999_u64.to_le_bytes());
    assert_eq!((engine.pending(), engine.syncs()), (1, 0));
    running.stop().unwrap();
}

#[tokio::test]
async fn a_deferred_value_is_found_until_the_engine_has_it() {
    let engine = MemoryEngine::new();
    let running = start(&engine, &WriterOptions::default());
    let look = |key: &[u8]| match running.writer.deferred(key) {
        Some(Queued::Put(value)) => Some(value),
        Some(Queued::Remove) => None,
        None => engine.get(Family::Meta, key).unwrap().map(|value| value.to_vec()),
    };

    // Writes of others go on all the time, and take the values along now and then.
    for number in 0..2_000_u64 {
        let value = number.to_le_bytes().to_vec();
        running.writer.put_deferred(b"c", value.clone());
        for _ in 0..3 {
            assert_eq!(look(b"c"), Some(value.clone()), "{number}");
        }
        if number % 10 == 0 {
            running.writer.put_behind_deferred(put(Family::Meta, b"k", b"")).await.unwrap();
        }
    }
    running.writer.put_behind_deferred(Changes::new()).await.unwrap();
    running.writer.put_synced(Changes::new()).await.unwrap();

    assert_eq!(running.writer.deferred(b"c"), None);
    assert_eq!(look(b"c"), Some(1_999_u64.to_le_bytes().to_vec()));
    running.stop().unwrap();
}

/// Whatever a crash leaves: what stands behind deferred values is not there without them.
#[tokio::test]
async fn what_is_behind_deferred_values_is_never_there_without_them() {
    let engine = MemoryEngine::new();
    let running = start(&engine, &WriterOptions::default());

    running.writer.put_deferred(b"d", b"1".to_vec());
    running.writer.put_behind_deferred(put(Family::Meta, b"k", b"1")).await.unwrap();
    running.writer.put_synced(Changes::new()).await.unwrap();
    running.writer.put_deferred(b"d", b"2".to_vec());
    running.writer.put_behind_deferred(put(Family::Meta, b"k", b"2")).await.unwrap();
    let stored = || engine.get(Family::Meta, b"k").unwrap();
    while stored().as_deref() != Some(b"2".as_slice()) {
        tokio::task::yield_now().await;
    }

    for kept in 0..=engine.pending() {
        let survivor = engine.crash_keeping(kept);
        let value = |key: &[u8]| survivor.get(Family::Meta, key).unwrap();
        assert_eq!(value(b"d"), value(b"k"), "{kept} writes kept");
    }
}

#[tokio::test]
async fn a_value_is_removed_only_if_none_was_put_since() {
    let engine = MemoryEngine::new();
    let running = start(&engine, &WriterOptions::default());
    let flush = async || {
        running.writer.put_behind_deferred(Changes::new()).await.unwrap();
        running.writer.put_synced(Changes::new()).await.unwrap();
    };
    for key in [b"a", b"b", b"c"] {
        running.writer.put_deferred(key, b"old".to_vec());
    }
    flush().await;

    running.writer.put_deferred(b"b", b"new".to_vec());
    assert!(running.writer.remove_deferred(b"a", || Ok(true)).unwrap());
    assert!(!running.writer.remove_deferred(b"b", || Ok(true)).unwrap());
    assert!(!running.writer.remove_deferred(b"c", || Ok(false)).unwrap());
    assert_eq!(running.writer.deferred(b"a"), Some(Queued::Remove));
    flush().await;

    assert_eq!(running.writer.deferred(b"a"), None);
    let value = |key: &[u8]| engine.get(Family::Meta, key).unwrap();
    assert_eq!((value(b"a"), value(b"b").as_deref()), (None, Some(b"new".as_slice())));
    assert_eq!(value(b"c").as_deref(), Some(b"old".as_slice()));
    running.stop().unwrap();
}

/// There is no time for a tick: the clock stands still.
#[tokio::test(start_paused = true)]
async fn many_deferred_values_are_written_before_they_are_due() {
    let engine = MemoryEngine::new();
    let (writer, writer_loop) = Writer::new(Arc::new(engine.clone()), &WriterOptions::default());
    let begin = tokio::time::Instant::now();
    let fill = async {
        for number in 0..20_000_u32 {
            writer.put_deferred(&number.to_be_bytes(), vec![0; 8]);
        }
        while engine.get(Family::Meta, &0_u32.to_be_bytes()).unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        let waited = begin.elapsed();
        drop(writer);
        waited
    };
    let (result, waited) = tokio::join!(writer_loop.run(), fill);

    result.unwrap();
    assert_eq!(waited, Duration::ZERO);
}

#[tokio::test]
async fn a_failed_sync_is_final() {
    let engine = MemoryEngine::new();
    let running = start(&engine, &WriterOptions::default());
    let mut failure = running.writer.failure();
    engine.fail_next_sync();

    let first = running.writer.put_synced(put(Family::Meta, b"a", b"1")).await;
    failure.wait_for(Option::is_some).await.unwrap();
    let second = running.writer.put_synced(put(Family::Meta, b"b", b"2")).await;
    let third = running.writer.put_unsynced(put(Family::Meta, b"c", b"3")).await;

    assert!(matches!(first, Err(StoreError::Io { action: "sync", .. })), "{first:?}");
    assert!(matches!(second, Err(StoreError::Stopped { .. })), "{second:?}");
    assert!(matches!(third, Err(StoreError::Stopped { .. })), "{third:?}");
    assert!(running.stop().is_err());
    assert_eq!(engine.get(Family::Meta, b"b").unwrap(), None);
}

#[tokio::test]
async fn everything_waiting_fails_with_the_write_before_it() {
    let engine = MemoryEngine::new();
    let running = start(&engine, &WriterOptions::default());
    let (tx, rx) = mpsc::channel();
    engine.pause_syncs();
    engine.fail_next_sync();

    for number in 0..10_u8 {
        let tx = tx.clone();
        let done = Done::new(move |result| tx.send((number, result.is_ok())).unwrap());
        running.writer.submit(put(Family::Meta, &[number], b""), done).await.unwrap();
    }
    engine.resume_syncs();
    let outcome: Vec<_> = (0..10).map(|_| rx.recv().unwrap()).collect();

    assert_eq!(outcome, (0..10).map(|number| (number, false)).collect::<Vec<_>>());
    assert!(running.stop().is_err());
}

#[tokio::test]
async fn a_full_queue_makes_callers_wait() {
    let engine = MemoryEngine::new();
    let options = WriterOptions { queue_bytes_max: 1000, ..WriterOptions::default() };
    let running = start(&engine, &options);
    let big = || put(Family::Meta, b"k", &[0; 5000]);
    engine.pause_syncs();

    // Greater than the queue: it gets in alone.
    running.writer.submit(big(), Done::new(|_| ())).await.unwrap();
    let waiting = running.writer.put_synced(big());
    let early = tokio::time::timeout(Duration::from_millis(50), waiting).await;
    engine.resume_syncs();
    let late = running.writer.put_synced(big()).await;

    assert!(early.is_err(), "the queue took more than it may");
    late.unwrap();
    running.stop().unwrap();
}

#[tokio::test]
async fn a_log_is_dropped_after_what_was_queued_for_it() {
    let engine = MemoryEngine::new();
    engine.open_group(GROUP).unwrap();
    let running = start(&engine, &WriterOptions::default());

    running.writer.submit(put(LOG, b"k", b"v"), Done::new(|_| ())).await.unwrap();
    let mut last = put(Family::Meta, b"gone", b"");
    last.drop_group(GROUP);
    running.writer.put_synced(last).await.unwrap();
    running.stop().unwrap();

    assert_eq!(engine.groups(), []);
}

#[tokio::test]
async fn a_closed_writer_ends_with_all_that_was_queued_on_disk() {
    let engine = MemoryEngine::new();
    let running = start(&engine, &WriterOptions::default());
    let kept = running.writer.clone();
    running.writer.submit(put(Family::Meta, b"k", b"v"), Done::new(|_| ())).await.unwrap();

    running.writer.close().await.unwrap();

    // A handle is still there, and the thread ends all the same.
    running.stop().unwrap();
    assert_eq!(engine.get(Family::Meta, b"k").unwrap().as_deref(), Some(b"v".as_slice()));
    let refused = kept.put_synced(put(Family::Meta, b"k", b"w")).await;
    assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn the_writer_also_runs_as_a_task() {
    let engine = MemoryEngine::new();
    let (writer, writer_loop) = Writer::new(Arc::new(engine.clone()), &WriterOptions::default());

    let work = async {
        writer.put_synced(put(Family::Meta, b"a", b"1")).await.unwrap();
        drop(writer);
    };
    let (result, ()) = tokio::join!(writer_loop.run(), work);

    result.unwrap();
    assert_eq!(engine.syncs(), 1);
}
