use std::collections::BTreeMap;

use super::*;

/// Seeds of the test run, in four parts that the test harness runs side by side.
const SEEDS: u64 = 200;

fn run(options: Options) -> Summary {
    World::new(options)
        .run()
        .unwrap_or_else(|violation| panic!("{violation}\nKRAKEN_SIM_SEED={} cargo test -p engine --features sim one_seed -- --nocapture shows it again", violation.seed))
}

/// One seed, event by event: for whoever looks into a failure.
#[test]
fn one_seed() {
    if let Some(seed) = std::env::var("KRAKEN_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        let summary = run(Options {
            verbose: std::env::var_os("KRAKEN_SIM_QUIET").is_none(),
            ..Options::of_seed(seed)
        });
        println!("{summary:#?}");
    }
}

/// The seeds `part`, `part + 4`, and so on; each run is one line to show again.
fn quarter(part: u64) -> BTreeMap<&'static str, u64> {
    let mut hits = BTreeMap::new();
    let mut broken = Vec::new();
    for seed in (part..SEEDS).step_by(4) {
        match World::new(Options::of_seed(seed)).run() {
            Ok(summary) => summary.hits.into_iter().for_each(|(what, count)| *hits.entry(what).or_default() += count),
            Err(violation) => broken.push(violation.to_string()),
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    hits
}

#[test]
fn seeds_first_quarter() {
    quarter(0);
}

#[test]
fn seeds_second_quarter() {
    quarter(1);
}

#[test]
fn seeds_third_quarter() {
    quarter(2);
}

#[test]
fn seeds_fourth_quarter() {
    quarter(3);
}
