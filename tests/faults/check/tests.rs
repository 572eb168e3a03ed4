//! Tests of the checkers; not libtest's, because this program has a `main` of its own.

/// A test and its name.
type Test = (&'static str, fn());

pub(crate) const NAMES: &[Test] = &[];

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
