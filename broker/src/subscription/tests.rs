//! One test for each rule about cursors, then a model: the set of settled offsets.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::entry::{Command, EntryBuilder, NewBatch, OffsetRange, Opening, Payload, Trim};
use crate::state::{GroupState, Reply};

const UID: PartitionUid = PartitionUid(1);
const SUBSCRIPTION: ResourceUid = ResourceUid(7);
const NOW: weft_proto::Timestamp = weft_proto::Timestamp::from_micros(1);

fn range(first: u64, last: u64) -> OffsetRange {
    OffsetRange::new(Offset(first), Offset(last)).unwrap()
}

/// A group with one partition of so many events.
fn group(events: usize) -> GroupState {
    let mut state = GroupState::new();
    let opening = Opening { partition: UID, start: Offset(0) };
    command(&mut state, Command::Open(vec![opening]));
    extend(&mut state, events);
    state
}

fn extend(state: &mut GroupState, events: usize) {
    if events > 0 {
        let events = vec![Bytes::from_static(b"event"); events];
        let end = state.partitions().get(UID).unwrap().end();
        let mut builder = EntryBuilder::new();
        builder.push(NewBatch::new(UID, end, Payload::Events(&events))).unwrap();
        state.apply(&builder.finish(NOW), 1).unwrap();
    }
}

#[expect(clippy::needless_pass_by_value, reason = "commands are written in place")]
fn command(state: &mut GroupState, command: Command) -> Reply {
    state.apply(&command.encode(NOW), 1).unwrap().reply
}

fn lease(state: &mut GroupState, start: u64) -> LeaseReply {
    let member = Member::new("m").unwrap();
    let (subscription, start) = (SUBSCRIPTION, Offset(start));
    let lease = Lease { subscription, partition: UID, start, member, lends: true };
    match command(state, Command::Lease(vec![lease])) {
        Reply::Leases(mut replies) => replies.remove(0),
        reply => panic!("{reply:?}"),
    }
}

fn settle(state: &mut GroupState, epoch: u64, ranges: &[(u64, u64)]) -> SettleReply {
    let ranges = ranges.iter().map(|&(first, last)| range(first, last)).collect();
    give_back(state, epoch, ranges, &[])
}

/// Settles ranges, and gives events back that failed so often.
fn give_back(
    state: &mut GroupState,
    epoch: u64,
    ranges: Vec<OffsetRange>,
    parked: &[(u64, u32)],
) -> SettleReply {
    let epoch = Epoch(epoch);
    let parked = parked.iter().map(|&(offset, attempts)| (Offset(offset), failed(attempts)));
    let parked = parked.collect();
    let (subscription, partition) = (SUBSCRIPTION, UID);
    let settlement = Settlement { subscription, partition, epoch, ranges, parked, lends: false };
    match command(state, Command::Settle(vec![settlement])) {
        Reply::Settlements(replies) => replies[0],
        reply => panic!("{reply:?}"),
    }
}

fn settled(watermark: u64) -> SettleReply {
    SettleReply::Settled { watermark: Offset(watermark) }
}

fn leased(epoch: u64, watermark: u64, ranges: &[(u64, u64)]) -> LeaseReply {
    LeaseReply::Leased {
        epoch: Epoch(epoch),
        previous: Epoch(epoch - 1),
        watermark: Offset(watermark),
        settled: ranges.iter().map(|&(first, last)| range(first, last)).collect(),
        parked: BTreeMap::new(),
    }
}

fn failed(attempts: u32) -> Parked {
    Parked { attempts, ..Parked::default() }
}

fn attempts(state: &GroupState) -> Vec<(u64, u32)> {
    let parked = state.cursors().get(SUBSCRIPTION, UID).unwrap().parked();
    parked.iter().map(|(offset, parked)| (offset.0, parked.attempts)).collect()
}

#[test]
fn failures_are_remembered_until_the_event_is_settled() {
    let mut state = group(10);
    lease(&mut state, 0);
    settle(&mut state, 1, &[(0, 0), (4, 4)]);

    let parked = [(0, 1), (1, 1), (4, 1), (6, 2)];
    assert_eq!(give_back(&mut state, 1, vec![], &parked), settled(1));
    assert_eq!(attempts(&state), [(1, 1), (6, 2)], "settled events have none");
    give_back(&mut state, 1, vec![], &[(6, 3)]);
    assert_eq!(attempts(&state), [(1, 1), (6, 3)]);
    let LeaseReply::Leased { parked, .. } = lease(&mut state, 0) else { panic!() };
    assert_eq!(parked, [(Offset(1), failed(1)), (Offset(6), failed(3))].into_iter().collect());

    assert_eq!(
        give_back(&mut state, 1, vec![], &[(6, 9)]),
        SettleReply::Fenced { epoch: Epoch(2) }
    );
    assert_eq!(settle(&mut state, 2, &[(1, 8)]), settled(9));
    assert_eq!(attempts(&state), []);
    let beyond = SettleReply::BeyondEnd { end: Offset(10) };
    assert_eq!(give_back(&mut state, 2, vec![], &[(10, 1)]), beyond);
}

#[test]
fn a_floor_takes_failures_with_it() {
    let mut state = group(10);
    lease(&mut state, 0);
    give_back(&mut state, 1, vec![], &[(1, 1), (6, 2)]);

    let floors = vec![(UID, Offset(5))];
    command(&mut state, Command::Trim(Trim { floor_index: 0, floors }));

    assert_eq!(attempts(&state), [(6, 2)]);
}

#[test]
fn failures_are_bounded_and_a_refused_settlement_changes_nothing() {
    let mut state = group(PARKED_LEN + 10);
    lease(&mut state, 0);
    let most: Vec<(u64, u32)> = (1..).map(|offset| (offset, 1)).take(PARKED_LEN).collect();
    assert_eq!(give_back(&mut state, 1, vec![], &most), settled(0));
    let before = state.cursors().clone();

    let more = give_back(&mut state, 1, vec![range(0, 0)], &[(PARKED_LEN as u64 + 1, 1)]);
    assert_eq!(more, SettleReply::TooFragmented);
    assert_eq!(state.cursors(), &before);
    let again = give_back(&mut state, 1, vec![range(0, 1)], &[(PARKED_LEN as u64 + 1, 1)]);
    assert_eq!(again, settled(2));
}

/// Desks that were opened, and closed before they lent anything, void nothing.
#[test]
fn the_last_epoch_that_lent_is_told() {
    let mut state = group(10);
    let (subscription, partition) = (SUBSCRIPTION, UID);
    let open = |state: &mut GroupState| {
        let (start, member) = (Offset(0), Member::default());
        let lease = Lease { subscription, partition, start, member, lends: false };
        let Reply::Leases(replies) = command(state, Command::Lease(vec![lease])) else { panic!() };
        let LeaseReply::Leased { epoch, previous, .. } = replies[0] else { panic!() };
        (epoch.get(), previous.get())
    };
    let announce = |state: &mut GroupState, epoch: u64| {
        let (ranges, parked, epoch) = (Vec::new(), Vec::new(), Epoch(epoch));
        let settlement = Settlement { subscription, partition, epoch, ranges, parked, lends: true };
        command(state, Command::Settle(vec![settlement]))
    };

    assert_eq!(open(&mut state), (1, 0));
    assert_eq!(open(&mut state), (2, 0));
    assert_eq!(announce(&mut state, 2), Reply::Settlements(vec![settled(0)]));
    assert_eq!(open(&mut state), (3, 2));
    let fenced = SettleReply::Fenced { epoch: Epoch(3) };
    assert_eq!(announce(&mut state, 2), Reply::Settlements(vec![fenced]));
    assert_eq!(settle(&mut state, 3, &[(0, 0)]), settled(1));
    assert_eq!(open(&mut state), (4, 2));
    command(&mut state, Command::Seek(vec![Seek { subscription, partition, to: Offset(0) }]));
    assert_eq!(open(&mut state), (6, 5), "what was lent before it moved is void");
    lease(&mut state, 0);
    assert_eq!(open(&mut state), (8, 7), "it lends by offset");
}

#[test]
fn a_moved_cursor_forgets_and_fences() {
    let mut state = group(10);
    lease(&mut state, 0);
    settle(&mut state, 1, &[(0, 2), (5, 6)]);
    give_back(&mut state, 1, vec![], &[(8, 1)]);

    for (to, expected, epoch) in [(1, 1, 2), (7, 7, 3), (99, 10, 4)] {
        let seek = Seek { subscription: SUBSCRIPTION, partition: UID, to: Offset(to) };
        let reply = command(&mut state, Command::Seek(vec![seek]));
        assert_eq!(reply, Reply::Leases(vec![leased(epoch, expected, &[])]));
        let fenced = SettleReply::Fenced { epoch: Epoch(epoch) };
        assert_eq!(settle(&mut state, epoch - 1, &[(7, 7)]), fenced);
    }
    let unknown = Seek { partition: PartitionUid(9), subscription: SUBSCRIPTION, to: Offset(0) };
    let reply = command(&mut state, Command::Seek(vec![unknown]));
    assert_eq!(reply, Reply::Leases(vec![LeaseReply::UnknownPartition]));
}

#[test]
fn what_was_given_back_below_an_offset_is_found() {
    let mut state = group(10);
    lease(&mut state, 0);
    give_back(&mut state, 1, vec![], &[(1, 1), (4, 2), (8, 1)]);
    settle(&mut state, 1, &[(0, 1)]);
    let below = |partition, floor| -> Vec<(u64, u32)> {
        let all = state.cursors().parked_below(partition, Offset(floor));
        assert!(all.iter().all(|(holder, _, _)| *holder == (SUBSCRIPTION, Epoch(1))));
        all.into_iter().map(|(_, offset, parked)| (offset.0, parked.attempts)).collect()
    };

    assert_eq!(below(UID, 8), [(4, 2)]);
    assert_eq!(below(UID, 9), [(4, 2), (8, 1)]);
    assert_eq!(below(UID, 4), []);
    assert_eq!(below(PartitionUid(9), 9), []);
}

#[test]
fn an_appended_batch_settles_what_it_takes_the_place_of() {
    const DEAD: PartitionUid = PartitionUid(2);
    let mut state = group(5);
    command(&mut state, Command::Open(vec![Opening { partition: DEAD, start: Offset(0) }]));
    lease(&mut state, 0);
    give_back(&mut state, 1, vec![], &[(0, 5), (2, 5)]);
    let settles = Settles {
        subscription: SUBSCRIPTION,
        partition: UID,
        epoch: Epoch(1),
        offsets: vec![Offset(2), Offset(0)],
    };
    let events = vec![Bytes::from_static(b"dead"); 2];
    let append = |expected: u64, state: &mut GroupState| {
        let batch = NewBatch::new(DEAD, Offset(expected), Payload::Events(&events));
        let mut builder = EntryBuilder::new();
        builder.push(NewBatch { settles: Some(&settles), ..batch }).unwrap();
        state.apply(&builder.finish(NOW), 1).unwrap();
    };

    append(9, &mut state);
    assert_eq!(attempts(&state), [(0, 5), (2, 5)], "a void batch settles nothing");
    append(0, &mut state);

    assert_eq!(attempts(&state), []);
    assert_eq!(state.cursors().get(SUBSCRIPTION, UID).unwrap().watermark(), Offset(1));
    assert_eq!(state.partitions().get(DEAD).unwrap().end(), Offset(2));
    assert_eq!(settle(&mut state, 1, &[(1, 1)]), settled(3));
}

#[test]
fn watermark_waits_for_the_oldest_unsettled_event() {
    let mut state = group(10);
    assert_eq!(lease(&mut state, 0), leased(1, 0, &[]));

    assert_eq!(settle(&mut state, 1, &[(1, 3), (6, 6)]), settled(0));
    assert_eq!(settle(&mut state, 1, &[(0, 0)]), settled(4));
    assert_eq!(settle(&mut state, 1, &[(4, 5)]), settled(7));
}

#[test]
fn settling_again_is_harmless() {
    let mut state = group(10);
    lease(&mut state, 0);
    settle(&mut state, 1, &[(0, 2), (5, 6)]);
    let before = state.cursors().clone();

    assert_eq!(settle(&mut state, 1, &[(0, 2), (5, 6), (6, 6), (1, 1)]), settled(3));

    assert_eq!(state.cursors(), &before);
}

#[test]
fn newer_lease_keeps_the_place_and_fences_the_older() {
    let mut state = group(10);
    lease(&mut state, 0);
    settle(&mut state, 1, &[(0, 1), (4, 5)]);

    assert_eq!(lease(&mut state, 9), leased(2, 2, &[(4, 5)]));

    assert_eq!(settle(&mut state, 1, &[(2, 2)]), SettleReply::Fenced { epoch: Epoch(2) });
    assert_eq!(settle(&mut state, 3, &[(2, 2)]), SettleReply::Fenced { epoch: Epoch(2) });
    assert_eq!(settle(&mut state, 2, &[(2, 2)]), settled(3));
}

#[test]
fn cursor_never_passes_the_end() {
    let mut state = group(3);
    lease(&mut state, 0);

    let beyond = SettleReply::BeyondEnd { end: Offset(3) };
    assert_eq!(settle(&mut state, 1, &[(0, 1), (2, 3)]), beyond);
    assert_eq!(settle(&mut state, 1, &[(0, u64::MAX)]), beyond);
    assert_eq!(state.cursors().get(SUBSCRIPTION, UID).unwrap().watermark(), Offset(0));
    assert_eq!(settle(&mut state, 1, &[(0, 2)]), settled(3));
}

#[test]
fn new_cursor_starts_within_what_is_stored() {
    for (start, expected) in [(0, 2), (3, 3), (u64::MAX, 5)] {
        let mut state = group(5);
        let floors = vec![(UID, Offset(2))];
        command(&mut state, Command::Trim(Trim { floor_index: 0, floors }));

        assert_eq!(lease(&mut state, start), leased(1, expected, &[]));
    }
}

#[test]
fn fragments_are_bounded_and_a_refused_settlement_changes_nothing() {
    let mut state = group(40_000);
    lease(&mut state, 0);
    let odd = |from: u64, count: usize| -> Vec<(u64, u64)> {
        (from..).step_by(2).take(count).map(|offset| (offset, offset)).collect()
    };
    assert_eq!(settle(&mut state, 1, &odd(1, RANGES_LEN)), settled(0));
    let before = state.cursors().clone();

    assert_eq!(settle(&mut state, 1, &[(39_001, 39_001)]), SettleReply::TooFragmented);
    assert_eq!(state.cursors(), &before);
    // What leaves no more gaps is still welcome.
    assert_eq!(settle(&mut state, 1, &[(39_001, 39_001), (0, 0)]), settled(2));
    assert_eq!(settle(&mut state, 1, &[(2, 39_000)]), settled(39_002));
}

#[test]
fn unknown_cursors_and_partitions_are_told() {
    let mut state = group(3);

    assert_eq!(settle(&mut state, 1, &[(0, 0)]), SettleReply::UnknownCursor);
    lease(&mut state, 0);
    command(&mut state, Command::Forget(ResourceUid(8)));
    assert_eq!(settle(&mut state, 1, &[(0, 0)]), settled(1));
    command(&mut state, Command::Forget(SUBSCRIPTION));
    assert_eq!(settle(&mut state, 1, &[(0, 0)]), SettleReply::UnknownCursor);
    lease(&mut state, 0);
    command(&mut state, Command::Drop(vec![UID]));
    assert_eq!(settle(&mut state, 1, &[(0, 0)]), SettleReply::UnknownCursor);
    assert_eq!(lease(&mut state, 0), LeaseReply::UnknownPartition);
    assert_eq!(state.cursors().of(SUBSCRIPTION).count(), 0);
}

#[test]
fn ranges_join_up_to_the_largest_number() {
    let mut set = OffsetSet::default();

    set.insert(range(u64::MAX, u64::MAX));
    set.insert(range(0, 0));
    set.insert(range(u64::MAX - 2, u64::MAX - 1));

    let ranges: Vec<_> = set.iter().collect();
    assert_eq!(ranges, [range(0, 0), range(u64::MAX - 2, u64::MAX)]);
    set.remove_below(Offset(u64::MAX));
    assert_eq!(set.iter().collect::<Vec<_>>(), [range(u64::MAX, u64::MAX)]);
}

#[test]
fn ranges_are_read_only_as_they_were_written() {
    let decode = |ranges: &[OffsetRange]| {
        let mut bytes = BytesMut::new();
        put_list(&mut bytes, ranges.iter(), |out, range| range.put(out));
        OffsetSet::decode(&mut Reader::new(&bytes))
    };

    assert!(decode(&[range(1, 2), range(4, u64::MAX)]).is_ok());
    assert!(decode(&[range(1, 2), range(3, 4)]).is_err());
    assert!(decode(&[range(4, 5), range(1, 2)]).is_err());
    assert!(decode(&[range(1, u64::MAX), range(4, 4)]).is_err());
}

const NO_LIMIT: UnsettledMax = UnsettledMax { events: usize::MAX, bytes: u64::MAX };

fn credit(events: u32, bytes: u64) -> Credit {
    let mut credit = Credit::default();
    credit.add(events, bytes);
    credit
}

#[test]
fn nothing_is_delivered_without_credit_of_both_kinds() {
    let window = Window::new(Offset(0), OffsetSet::default(), NO_LIMIT);

    assert_eq!(window.wanted(Offset(9), &credit(0, 100)), None);
    assert_eq!(window.wanted(Offset(9), &credit(5, 0)), None);
    assert_eq!(window.wanted(Offset(9), &credit(5, 1)), Some(range(0, 4)));
    assert_eq!(window.wanted(Offset(3), &credit(5, 1)), Some(range(0, 2)));
    assert_eq!(window.wanted(Offset(0), &credit(5, 1)), None);
}

#[test]
fn bytes_are_exceeded_by_one_event_which_the_next_credit_pays() {
    let mut window = Window::new(Offset(0), OffsetSet::default(), NO_LIMIT);
    let mut credit = credit(10, 100);

    assert!(window.delivered(Offset(0), 90, &mut credit));
    assert!(window.delivered(Offset(1), 90, &mut credit));
    assert!(!window.delivered(Offset(2), 1, &mut credit));
    credit.add(0, 80);
    assert!(!window.delivered(Offset(2), 1, &mut credit));
    credit.add(0, 1);
    assert!(window.delivered(Offset(2), 1, &mut credit));
}

#[test]
fn settled_events_are_not_delivered_again() {
    let settled = [range(2, 3), range(6, 6)].into_iter().collect();
    let mut window = Window::new(Offset(1), settled, NO_LIMIT);
    let mut credit = credit(100, 100);

    assert_eq!(window.wanted(Offset(9), &credit), Some(range(1, 1)));
    assert!(window.delivered(Offset(1), 1, &mut credit));
    assert_eq!(window.wanted(Offset(9), &credit), Some(range(4, 5)));
    assert!(!window.delivered(Offset(6), 1, &mut credit), "only the next one");
    window.settle(range(4, 7));
    assert_eq!(window.wanted(Offset(9), &credit), Some(range(8, 8)));
    window.skip_to(Offset(9));
    assert_eq!(window.wanted(Offset(9), &credit), None);
}

#[test]
fn unsettled_events_are_bounded() {
    let max = UnsettledMax { events: 2, bytes: 10 };
    let mut window = Window::new(Offset(0), OffsetSet::default(), max);
    let mut credit = credit(100, 100);

    assert_eq!(window.wanted(Offset(9), &credit), Some(range(0, 1)));
    assert!(window.delivered(Offset(0), 1, &mut credit));
    assert!(window.delivered(Offset(1), 1, &mut credit));
    assert_eq!(window.wanted(Offset(9), &credit), None);
    window.settle(range(1, 1));
    assert_eq!(window.oldest_unsettled(), Some(Offset(0)));
    assert!(window.delivered(Offset(2), 20, &mut credit));
    window.settle(range(0, 0));
    assert_eq!(window.wanted(Offset(9), &credit), None, "too many bytes");
    window.settle(range(2, 2));
    assert_eq!((window.unsettled_events(), window.unsettled_bytes()), (0, 0));
    assert_eq!(window.wanted(Offset(9), &credit), Some(range(3, 4)));
}

#[test]
fn window_ends_at_the_largest_number() {
    let mut window = Window::new(Offset(u64::MAX - 1), OffsetSet::default(), NO_LIMIT);
    let mut credit = credit(u32::MAX, u64::MAX);

    let end = Offset(u64::MAX);
    assert_eq!(window.wanted(end, &credit), Some(range(u64::MAX - 1, u64::MAX - 1)));
    assert!(window.delivered(Offset(u64::MAX - 1), u64::MAX, &mut credit));
    assert_eq!(window.wanted(end, &credit), None);
    assert!(!window.delivered(Offset(u64::MAX), 1, &mut credit));
    window.settle(range(0, u64::MAX));
    assert_eq!(window.unsettled_bytes(), 0);
}

#[derive(Clone, Debug)]
enum Action {
    Lease,
    Extend(usize),
    Settle { stale: bool, ranges: Vec<(u64, u64)> },
}

fn action() -> impl Strategy<Value = Action> {
    let one = (0_u64..60, 0_u64..6).prop_map(|(first, more)| (first, first + more));
    prop_oneof![
        1 => Just(Action::Lease),
        2 => (0_usize..15).prop_map(Action::Extend),
        6 => (prop::bool::weighted(0.1), vec(one, 0..5))
            .prop_map(|(stale, ranges)| Action::Settle { stale, ranges }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn cursor_is_the_set_of_settled_offsets(
        start in 0_u64..8,
        actions in vec(action(), 0..60),
    ) {
        let mut state = group(10);
        lease(&mut state, start);
        let (mut epoch, mut end) = (1, 10);
        let mut model: BTreeSet<u64> = (0..start).collect();

        for action in actions {
            match action {
                Action::Lease => {
                    epoch += 1;
                    lease(&mut state, 0);
                }
                Action::Extend(events) => {
                    extend(&mut state, events);
                    end += u64::try_from(events).unwrap();
                }
                Action::Settle { stale, ranges } => {
                    let reply = settle(&mut state, epoch - u64::from(stale), &ranges);
                    if stale {
                        prop_assert_eq!(reply, SettleReply::Fenced { epoch: Epoch(epoch) });
                    } else if ranges.iter().any(|&(_, last)| last >= end) {
                        prop_assert_eq!(reply, SettleReply::BeyondEnd { end: Offset(end) });
                    } else {
                        model.extend(ranges.iter().flat_map(|&(first, last)| first..=last));
                        let watermark = (0..=end).find(|offset| !model.contains(offset)).unwrap();
                        prop_assert_eq!(reply, settled(watermark));
                    }
                }
            }
            let cursor = state.cursors().get(SUBSCRIPTION, UID).unwrap();
            prop_assert!(cursor.watermark().get() <= end);
            prop_assert_eq!(cursor.epoch(), Epoch(epoch));
            for offset in 0..end {
                let is_settled = offset < cursor.watermark().get()
                    || cursor.settled().contains(Offset(offset));
                prop_assert_eq!(is_settled, model.contains(&offset), "{}", offset);
            }
            let decoded = GroupState::decode(&state.encode());
            prop_assert_eq!(decoded.as_ref(), Ok(&state));
        }
    }

    #[test]
    fn window_delivers_each_unsettled_event_once(
        acked in vec((0_u64..40, 0_u64..6), 0..8),
        steps in vec((0_u32..4, 0_u64..30, 0_u64..50, 0_u64..50), 0..40),
    ) {
        let acked: OffsetSet =
            acked.iter().map(|&(first, more)| range(first, first + more)).collect();
        let max = UnsettledMax { events: 6, bytes: 40 };
        let mut window = Window::new(Offset(0), acked.clone(), max);
        let mut credit = Credit::default();
        let mut delivered = BTreeSet::new();
        let mut unsettled = BTreeSet::new();
        let mut end = Offset(0);

        for (events, bytes, more, first) in steps {
            credit.add(events, bytes);
            end = Offset(end.get() + more % 7);
            while let Some(wanted) = window.wanted(end, &credit) {
                let room = 6 - unsettled.len();
                prop_assert!(wanted.count() <= credit.events().min(room.try_into().unwrap()));
                let offset = wanted.first();
                let is_unsettled = |offset| !acked.contains(Offset(offset));
                prop_assert!((wanted.first().get()..=wanted.last().get()).all(is_unsettled));
                prop_assert!(wanted.last() < end);
                prop_assert!(delivered.insert(offset), "{} was delivered twice", offset);
                unsettled.insert(offset);
                prop_assert!(window.delivered(offset, 1 + offset.get() % 9, &mut credit));
            }
            if let Some(first) = delivered.iter().copied().nth(first.try_into().unwrap()) {
                let settled = range(first.get(), first.get() + 2);
                if delivered.contains(&settled.last()) {
                    window.settle(settled);
                    unsettled.retain(|&own| own < settled.first() || own > settled.last());
                }
            }
            prop_assert_eq!(window.unsettled_events(), unsettled.len());
            let bytes: u64 = unsettled.iter().map(|offset| 1 + offset.get() % 9).sum();
            prop_assert_eq!(window.unsettled_bytes(), bytes);
            prop_assert_eq!(window.oldest_unsettled(), unsettled.first().copied());
        }
        // Below the next one nothing was left out.
        for offset in (0..window.next().get()).map(Offset) {
            prop_assert!(delivered.contains(&offset) || acked.contains(offset), "{}", offset);
        }
    }
}
