//! One test per rule, then random demand.

use proptest::prelude::*;

use super::*;

fn policy() -> Policy {
    Policy { min: 0, max: 10, idle: Duration::from_secs(30), down_delay: Duration::from_secs(5) }
}

fn at(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn demand(runnable: u64, in_flight: u64, instances: u32) -> Demand {
    Demand { runnable, in_flight, permits: 4, instances }
}

#[test]
fn the_first_event_starts_one_instance_and_none_before() {
    let mut scale = Scale::new(policy());

    assert_eq!(scale.decide(demand(0, 0, 0), at(0)), Decision { want: 0, check_at: None });
    assert_eq!(scale.decide(demand(1, 0, 0), at(1)).want, 1);
}

#[test]
fn backlog_adds_instances_up_to_max() {
    let mut scale = Scale::new(policy());

    assert_eq!(scale.decide(demand(9, 0, 0), at(0)).want, 3);
    assert_eq!(scale.decide(demand(1_000, 0, 0), at(0)).want, 8);
    assert_eq!(scale.decide(demand(1_000, 0, 8), at(0)).want, 10);
    assert_eq!(scale.decide(demand(u64::MAX, u64::MAX, u32::MAX), at(0)).want, 10);
}

#[test]
fn the_last_instance_goes_after_idle_and_not_before() {
    let mut scale = Scale::new(policy());
    assert_eq!(scale.decide(demand(0, 1, 1), at(0)).want, 1);

    let quiet = scale.decide(demand(0, 0, 1), at(10));

    assert_eq!(quiet, Decision { want: 1, check_at: Some(at(30)) });
    assert_eq!(scale.decide(demand(0, 0, 1), at(29)).want, 1);
    assert_eq!(scale.decide(demand(0, 0, 1), at(30)).want, 0);
}

#[test]
fn an_event_in_flight_keeps_its_instance_for_ever() {
    let mut scale = Scale::new(policy());

    for s in [0, 60, 3_600] {
        assert_eq!(scale.decide(demand(0, 1, 1), at(s)).want, 1);
    }
}

#[test]
fn extra_instances_go_when_demand_was_low_for_a_while() {
    let mut scale = Scale::new(policy());
    assert_eq!(scale.decide(demand(0, 12, 3), at(0)).want, 3);

    let lower = scale.decide(demand(0, 1, 3), at(3));

    assert_eq!(lower, Decision { want: 3, check_at: Some(at(5)) });
    assert_eq!(scale.decide(demand(0, 1, 3), at(6)).want, 1);
}

#[test]
fn crossed_bounds_end_at_max() {
    let mut scale = Scale::new(Policy { min: 7, max: 3, ..policy() });

    assert_eq!(scale.decide(demand(0, 0, 0), at(0)).want, 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn bounds_hold_work_gets_an_instance_and_quiet_ends_at_min(
        min in 0_u32..4,
        max in 1_u32..12,
        history in proptest::collection::vec((0_u64..50, 0_u64..50, 0_u64..40), 1..60),
    ) {
        let policy = Policy { min, max, ..policy() };
        let mut scale = Scale::new(policy);
        let (mut now, mut instances) = (Duration::ZERO, 0);
        for (runnable, in_flight, wait) in history {
            now += at(wait);
            let want = scale.decide(demand(runnable, in_flight, instances), now).want;
            prop_assert!(want <= max && want >= min.min(max));
            if runnable + in_flight > 0 {
                prop_assert!(want >= 1);
            }
            instances = want;
        }

        // The caller asks only when told to, and still ends at the floor.
        for _ in 0..10 {
            let decision = scale.decide(demand(0, 0, instances), now);
            instances = decision.want;
            match decision.check_at {
                Some(check_at) => {
                    prop_assert!(check_at > now);
                    now = check_at;
                }
                None => break,
            }
        }
        prop_assert_eq!(instances, min.min(max));
    }
}
