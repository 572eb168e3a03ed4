//! Seeds that must hold, and bugs that seeds must find.

use super::run::run;

#[test]
fn first_try() {
    let started = tokio::time::Instant::now();
    for seed in 0..10 {
        let report = run(seed, None, false);
        println!("seed {seed}: {:?}", report.seen);
        if let Some(violation) = report.violation {
            println!("{}", report.lines.join("\n"));
            panic!("seed {seed}: {violation}");
        }
    }
    println!("{:?}", started.elapsed());
}
