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
    if let Some(seed) = std::env::var("KRAKEN_SIM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        let summary = run(Options {
            verbose: std::env::var_os("KRAKEN_SIM_QUIET").is_none(),
            ..Options::of_seed(seed)
        });
        println!("{summary:#?}");
    }
}

/// Runs one seed and adds up what it met.
fn add(seed: u64, hits: &mut BTreeMap<&'static str, u64>, broken: &mut Vec<String>) {
    match World::new(Options::of_seed(seed)).run() {
        Ok(summary) => summary
            .hits
            .into_iter()
            .for_each(|(what, count)| *hits.entry(what).or_default() += count),
        Err(violation) => broken.push(violation.to_string()),
    }
}

/// All seeds, on as many threads as the machine has processors. Every promise holds in each, and together they meet every fault and every
/// rare branch: a fault that is never injected proves nothing.
#[test]
fn a_head_and_ten_agents_converge_whatever_fails() {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let mut hits: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut broken = Vec::new();
    std::thread::scope(|scope| {
        let part = |part: u64| {
            let (mut hits, mut broken) = (BTreeMap::new(), Vec::new());
            (part..SEEDS)
                .step_by(threads as usize)
                .for_each(|seed| add(seed, &mut hits, &mut broken));
            (hits, broken)
        };
        let workers: Vec<_> = (0..threads)
            .map(|number| scope.spawn(move || part(number)))
            .collect();
        for worker in workers {
            let (part, errors) = worker.join().expect("a world does not panic");
            part.into_iter()
                .for_each(|(what, count)| *hits.entry(what).or_default() += count);
            broken.extend(errors);
        }
    });
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    let missed: Vec<&str> = FAULTS
        .iter()
        .copied()
        .filter(|what| !hits.contains_key(what))
        .collect();
    assert!(
        missed.is_empty(),
        "never met in {SEEDS} seeds: {missed:?}\nmet: {hits:#?}"
    );
}

#[test]
fn one_seed_gives_one_trace() {
    for seed in [2, 3] {
        let options = Options::of_seed(seed);
        assert_eq!(run(options), run(options));
    }
    assert_ne!(
        run(Options::of_seed(2)).trace,
        run(Options::of_seed(4)).trace
    );
}

/// F12: at 20 % loss nobody is ever called dead.
#[test]
fn loss_alone_kills_nobody() {
    let options = Options {
        chaos: Duration::ZERO,
        loss_permille: 200,
        ..Options::of_seed(1)
    };
    let summary = World::new(options)
        .run_quietly(Duration::from_secs(1_800))
        .unwrap();
    assert_eq!(
        summary.hits.get("silent for too long"),
        None,
        "{:#?}",
        summary.hits
    );
    assert!(summary.hits["probe"] > 0 && summary.hits["datagram lost"] > 1000);
}

/// The checker of the limits sees who goes beyond them.
#[test]
fn a_disruption_beyond_the_limits_is_seen() {
    let graph = crate::mutation::graph::MutationGraph::new(&mutations()).unwrap();
    let fire = |node: u8| crate::event::Fire {
        node: crate::state::NodeId::from_bytes([node; 16]),
        name: format!("n{node}").parse().unwrap(),
        mutation: crate::mutation::MutationId::new("power", "ONtoOFF"),
        attempt: 1,
        deadline: None,
        cfg: Default::default(),
        dsc: Default::default(),
    };
    let rack = [cluster::RACK.to_owned()].into();
    let now = crate::time::Instant::ZERO;
    // Seed 2: two at once, one of the rack.
    let mut check = check::Check::new(graph, cluster::guards(2).limits);
    check.disrupts(&fire(1), &rack, now);
    check.disrupts(&fire(1), &rack, now);
    check.disrupts(&fire(2), &Default::default(), now);
    assert_eq!(check.broken(), None);
    check.settle(|node| node == fire(2).node);
    check.disrupts(&fire(3), &rack, now);
    assert!(check.broken().is_some_and(|what| what.contains("n3")));
    check.settle(|_| true);
    check.disrupts(&fire(4), &rack, now);
    assert_eq!(check.broken(), None);
    for n in 5..=6 {
        check.disrupts(&fire(n), &Default::default(), now);
    }
    assert!(check.broken().is_some_and(|what| what.contains("n6")));
}
