//! Tests of the checkers; not libtest's, because this program has a `main` of its own.
//!
//! For each class some histories that show it and nothing else, and some that nearly do.

mod bad;
mod good;
mod lent;
mod random;
mod story;

/// A test and its name.
type Test = (&'static str, fn());

pub(crate) const NAMES: &[Test] = &[
    ("each_class_is_found_and_no_other", bad::each_class_is_found_and_no_other),
    ("near_misses_are_not_found", good::near_misses_are_not_found),
    ("each_class_has_three_of_both", each_class_has_three_of_both),
    ("a_correct_log_raises_nothing", random::a_correct_log_raises_nothing),
    ("damage_to_a_correct_log_is_found", random::damage_to_a_correct_log_is_found),
    ("a_history_survives_its_file", random::a_history_survives_its_file),
];

/// Runs those that are wanted; whether all passed.
pub(crate) fn run(wanted: &dyn Fn(&str) -> bool) -> bool {
    let mut good = true;
    for (name, test) in NAMES.iter().filter(|(name, _)| wanted(name)) {
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        good &= passed;
    }
    good
}

fn each_class_has_three_of_both() {
    for class in super::Class::ALL {
        let bad = bad::stories().iter().filter(|(of, ..)| of == class).count();
        let good = good::stories().iter().filter(|(of, ..)| of == class).count();
        assert!(bad >= 3 && good >= 3, "{class}: {bad} bad histories, {good} near misses");
    }
}
