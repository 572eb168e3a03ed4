//! What the window and the table promise.

use proptest::prelude::*;
use weft_proto::{Offset, PartitionUid, Timestamp};

use super::*;

const UID: PartitionUid = PartitionUid(1);

fn at(secs: u64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + secs * 1_000_000)
}

#[test]
fn claim_takes_all_or_nothing() {
    let mut table = Table::new(&Window::new());
    assert_eq!(table.claim(&[1, 2, 3], Offset(0), at(0)), Ok(()));

    // 2 is known; 9 comes twice in the batch itself.
    let suspects = table.claim(&[8, 2, 9, 9], Offset(3), at(0)).unwrap_err();

    assert_eq!(suspects, [(1, Offset(1)), (3, Offset(5))]);
    assert_eq!((table.find(8), table.find(9), table.find(2)), (None, None, Some(Offset(1))));
}

#[test]
fn void_batches_leave_nothing_behind() {
    let mut table = Table::new(&Window::new());
    table.claim(&[1, 2], Offset(7), at(0)).unwrap();
    // Another batch took over one of them meanwhile.
    table.insert(&[2], Offset(20), at(0));

    table.release(&[1, 2], Offset(7));

    assert_eq!((table.find(1), table.find(2)), (None, Some(Offset(20))));
}

#[test]
fn identities_stay_for_the_window_and_go_after_two() {
    let mut table = Table::new(&Window::new());
    table.claim(&[1], Offset(0), at(0)).unwrap();
    let window = WINDOW_TIME.as_secs();

    table.claim(&[2], Offset(1), at(window + 1)).unwrap();
    assert_eq!(table.find(1), Some(Offset(0)), "the old generation still answers");

    table.claim(&[3], Offset(2), at(2 * window + 2)).unwrap();
    assert_eq!((table.find(1), table.find(2)), (None, Some(Offset(1))));
}

#[test]
fn window_forgets_by_time_and_by_number() {
    let mut window = Window::new();
    window.record(UID, Offset(0), [1_u64, 2].into_iter(), at(0));
    window.record(UID, Offset(2), [3_u64].into_iter(), at(WINDOW_TIME.as_secs()));
    assert_eq!((window.len(), window.since()), (3, Some(at(0))));
    window.record(UID, Offset(3), [4_u64].into_iter(), at(WINDOW_TIME.as_secs() + 1));
    assert_eq!(window.iter().map(|seen| seen.hash).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(
        (window.find(1), window.find(3), window.find(4)),
        (None, Some(Offset(2)), Some(Offset(3)))
    );
    window.record(UID, Offset(9), [3_u64].into_iter(), at(WINDOW_TIME.as_secs() + 1));
    assert_eq!(window.find(3), Some(Offset(9)), "the newest counts");
    assert_eq!(Window::new().find(3), None);

    let many = vec![5_u64; IDS_MAX - 1];
    window.record(UID, Offset(4), many.into_iter(), at(WINDOW_TIME.as_secs() + 2));
    assert_eq!(window.len(), IDS_MAX);
    assert_eq!(window.iter().next().map(|seen| seen.offset), Some(Offset(9)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A window that was read again from the log in two pieces is the window.
    #[test]
    fn prepended_windows_equal_the_whole(
        batches in proptest::collection::vec((1_usize..5, 0_u64..70), 1..30), cut in 0_usize..30,
    ) {
        let (mut whole, mut older, mut newer) = (Window::new(), Window::new(), Window::new());
        let (mut base, mut now, mut hash) = (0, 0, 0_u64);
        for (place, (count, pause)) in batches.iter().enumerate() {
            now += pause;
            let hashes: Vec<u64> = (0..*count).map(|_| { hash += 1; hash }).collect();
            let half = if place < cut { &mut older } else { &mut newer };
            for window in [&mut whole, half] {
                window.record(UID, Offset(base), hashes.iter().copied(), at(now));
            }
            base += *count as u64;
        }
        newer.prepend(older);
        prop_assert_eq!(&newer, &whole);

        let table = Table::new(&whole);
        for seen in whole.iter() {
            prop_assert_eq!(table.find(seen.hash), Some(seen.offset));
            prop_assert_eq!(whole.find(seen.hash), Some(seen.offset));
        }
    }
}
