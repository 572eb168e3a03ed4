//! What a member of a subscription may send: credit and acknowledgements with any offsets, against
//! the window of a delivery.
//!
//! A model says what must hold: no event is delivered twice or beyond the limits, and what is settled
//! is settled.

#![cfg_attr(fuzzing, no_main)]

use std::collections::BTreeSet;

use prost::Message as _;
use weft_broker::entry::OffsetRange;
use weft_broker::subscription::{Credit, OffsetSet, UnsettledMax, Window};
use weft_fuzz::{Input, chosen};
use weft_proto::{Offset, v1};

weft_fuzz::target!();

pub const MAX_LEN: usize = 1_024;

const MAX: UnsettledMax = UnsettledMax { events: 8, bytes: 100 };

pub fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    if input.u8() & 1 == 0 {
        return frame(input.rest());
    }
    let watermark = input.number();
    let settled: OffsetSet = (0..input.u8() % 4).filter_map(|_| range(&mut input)).collect();
    let (mut window, mut credit) =
        (Window::new(Offset(watermark), settled, MAX), Credit::default());
    let mut delivered = BTreeSet::new();
    while !input.is_empty() {
        let before = window.next();
        match input.u8() % 4 {
            0 => credit.add(u32::try_from(input.number()).unwrap_or(u32::MAX), input.number()),
            1 => {
                let end = Offset(input.number());
                let Some(wanted) = window.wanted(end, &credit) else { continue };
                assert_eq!(wanted.first(), window.next());
                assert!(wanted.last() < end);
                let bytes = input.number();
                if window.delivered(wanted.first(), bytes, &mut credit) {
                    assert!(delivered.insert(wanted.first()), "delivered twice");
                }
            }
            2 => {
                if let Some(range) = range(&mut input) {
                    window.settle(range);
                    assert!(
                        window.oldest_unsettled().is_none_or(|oldest| {
                            oldest < range.first() || oldest > range.last()
                        })
                    );
                }
            }
            _ => window.skip_to(Offset(input.number())),
        }
        assert!(window.next() >= before, "a window never goes back");
        assert!(window.unsettled_events() <= MAX.events);
        assert!(window.unsettled_events() <= delivered.len());
        if window.unsettled_events() == 0 {
            assert_eq!(window.unsettled_bytes(), 0);
        }
    }
    true
}

fn range(input: &mut Input<'_>) -> Option<OffsetRange> {
    let first = input.number();
    OffsetRange::new(Offset(first), Offset(first.saturating_add(input.number())))
}

/// A frame as it comes: each range of an acknowledgement is one or is refused, and a set of them
/// holds exactly their offsets.
fn frame(bytes: &[u8]) -> bool {
    let Ok(request) = v1::SubscribeRequest::decode(bytes) else { return false };
    let mut set = OffsetSet::default();
    match request.frame {
        None => return false,
        Some(v1::subscribe_request::Frame::Open(_)) => {}
        Some(v1::subscribe_request::Frame::Credit(credit)) => {
            let mut given = Credit::default();
            given.add(credit.events, credit.bytes);
            given.add(credit.events, credit.bytes);
        }
        Some(v1::subscribe_request::Frame::Settle(settle)) => {
            for ack in settle.acks {
                let Some(range) = OffsetRange::new(Offset(ack.first), Offset(ack.last)) else {
                    assert!(ack.last < ack.first);
                    continue;
                };
                set.insert(range);
                assert!(set.contains(range.first()) && set.contains(range.last()));
                let around = set.range_at(range.first()).expect("it was inserted");
                assert!(around.first() <= range.first() && around.last() >= range.last());
            }
        }
    }
    let ranges: Vec<OffsetRange> = set.iter().collect();
    for pair in ranges.windows(2) {
        assert!(pair[0].last().get() + 1 < pair[1].first().get(), "ranges touch");
    }
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let frame = |frame| chosen(0, v1::SubscribeRequest { frame: Some(frame) }.encode_to_vec());
    use v1::subscribe_request::Frame;
    let ack = |first, last| v1::SettledRange {
        partition: 1,
        epoch: 1,
        first,
        last,
        redriven: false,
        replay_job: 0,
    };
    vec![
        frame(Frame::Open(v1::SubscribeOpen {
            subscription: "s".to_owned(),
            member: "m".to_owned(),
            ..Default::default()
        })),
        frame(Frame::Credit(v1::Credit { events: 10, bytes: 1_000 })),
        frame(Frame::Settle(v1::Settle {
            tag: 7,
            acks: vec![ack(0, 3), ack(5, 5), ack(4, 4), ack(9, 8)],
            nacks: vec![v1::Nack {
                leases: Some(ack(1, 2)),
                delay_ms: Some(5),
                ..Default::default()
            }],
            rejects: vec![v1::Reject { leases: Some(ack(3, 3)), reason: "no".to_owned() }],
            extends: vec![v1::Extend { leases: None, by_ms: None }],
        })),
        frame(Frame::Settle(v1::Settle {
            tag: 7,
            acks: vec![ack(0, u64::MAX), ack(u64::MAX, u64::MAX)],
            ..Default::default()
        })),
        chosen(1, [0, 1, 3, 2, 0, 9, 90, 1, 20, 5, 1, 20, 5, 1, 20, 5, 2, 0, 1, 3, 9, 1, 30, 60]),
        chosen(0, [0xff]),
    ]
}
