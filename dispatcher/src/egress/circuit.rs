//! Leaves a receiver alone that fails again and again, and asks now and then whether it is back.

use std::time::Duration;

use crate::delivery::{Random, backoff_max};

/// Failures in a row after which it is left alone.
pub const FAILURES_MAX: u32 = 20;
/// Longest time before the first question; doubles with each that fails.
const PAUSE_BASE: Duration = Duration::from_secs(2);
const PAUSE_CAP: Duration = Duration::from_mins(5);

/// Whether a receiver is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is.
    Closed,
    /// Not before this time.
    Open(Duration),
    /// One request shall tell whether it is back; the flag: it is on its way.
    HalfOpen(bool),
}

/// The breaker of one receiver.
#[derive(Clone, Debug)]
pub struct Circuit {
    state: State,
    failures: u32,
    /// How often it opened since the receiver last did well.
    trips: u32,
}

impl Default for Circuit {
    fn default() -> Self {
        Self { state: State::Closed, failures: 0, trips: 0 }
    }
}

impl Circuit {
    /// What holds now.
    pub fn state(&mut self, now: Duration) -> State {
        if let State::Open(until) = self.state
            && until <= now
        {
            self.state = State::HalfOpen(false);
        }
        self.state
    }

    /// Whether a request may go.
    pub fn may_send(&mut self, now: Duration) -> bool {
        matches!(self.state(now), State::Closed | State::HalfOpen(false))
    }

    /// A request goes, after `may_send`.
    pub const fn handle_sent(&mut self) {
        if matches!(self.state, State::HalfOpen(false)) {
            self.state = State::HalfOpen(true);
        }
    }

    /// A request was taken.
    pub const fn handle_success(&mut self) {
        self.failures = 0;
        // Those that were on their way when it opened say nothing about now.
        if !matches!(self.state, State::Open(_)) {
            self.state = State::Closed;
            self.trips = 0;
        }
    }

    /// A request failed.
    pub fn handle_failure(&mut self, random: &mut Random, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        let trips = match self.state {
            State::Closed => self.failures >= FAILURES_MAX,
            State::HalfOpen(is_sent) => is_sent,
            State::Open(_) => false,
        };
        if trips {
            self.trips = self.trips.saturating_add(1);
            let high = backoff_max(PAUSE_BASE, PAUSE_CAP, self.trips);
            let pause = random.between(high / 2, high);
            self.state = State::Open(now.saturating_add(pause));
        }
    }

    /// A request ended and says nothing about whether the receiver works.
    pub const fn handle_neutral(&mut self) {
        if matches!(self.state, State::HalfOpen(true)) {
            self.state = State::HalfOpen(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn opened(random: &mut Random) -> Circuit {
        let mut circuit = Circuit::default();
        for _ in 0..FAILURES_MAX {
            circuit.handle_failure(random, SECOND);
        }
        circuit
    }

    #[test]
    fn it_opens_asks_once_and_closes() {
        let mut random = Random::new(1);
        let mut circuit = opened(&mut random);
        let State::Open(until) = circuit.state(SECOND) else { panic!("{circuit:?}") };
        assert!(!circuit.may_send(until.saturating_sub(Duration::from_nanos(1))));

        assert!(circuit.may_send(until));
        circuit.handle_sent();
        assert!(!circuit.may_send(until + SECOND), "one question at a time");
        circuit.handle_neutral();
        assert!(circuit.may_send(until), "it was no answer");
        circuit.handle_sent();
        circuit.handle_failure(&mut random, until);
        let State::Open(later) = circuit.state(until) else { panic!("{circuit:?}") };
        assert!(later > until);
        assert!(circuit.may_send(later));
        circuit.handle_sent();
        circuit.handle_success();
        assert_eq!(circuit.state(later), State::Closed);
    }

    #[test]
    fn a_late_success_does_not_close_what_is_open() {
        let mut circuit = opened(&mut Random::new(1));
        circuit.handle_success();
        assert!(matches!(circuit.state(SECOND), State::Open(_)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Send,
        Success,
        Failure,
        Neutral,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u64..200_000).prop_map(Step::Wait),
            Just(Step::Send),
            Just(Step::Send),
            Just(Step::Success),
            Just(Step::Failure),
            Just(Step::Failure),
            Just(Step::Neutral),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

        #[test]
        fn nothing_goes_while_it_is_open_and_it_never_stays_open(
            steps in proptest::collection::vec(step(), 1..400),
            seed: u64,
        ) {
            let mut random = Random::new(seed);
            let mut circuit = Circuit::default();
            let (mut now, mut in_a_row) = (Duration::ZERO, 0);
            for step in steps {
                let before = circuit.state(now);
                match step {
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                    Step::Send => {
                        let may = circuit.may_send(now);
                        prop_assert_eq!(may, matches!(before, State::Closed | State::HalfOpen(false)));
                        if may {
                            circuit.handle_sent();
                        }
                        if before == State::HalfOpen(false) {
                            prop_assert!(!circuit.may_send(now));
                        }
                    }
                    Step::Success => {
                        circuit.handle_success();
                        in_a_row = 0;
                    }
                    Step::Failure => {
                        circuit.handle_failure(&mut random, now);
                        in_a_row += 1;
                        // Fewer in a row never open what was closed.
                        let is_open = matches!(circuit.state(now), State::Open(_));
                        let may_open = in_a_row >= FAILURES_MAX || before != State::Closed;
                        prop_assert!(!is_open || may_open);
                    }
                    Step::Neutral => circuit.handle_neutral(),
                }
                if let State::Open(until) = circuit.state(now) {
                    prop_assert!(until > now && until <= now + PAUSE_CAP);
                    prop_assert!(circuit.clone().may_send(until));
                }
            }
        }
    }
}
