//! What one plan costs: chains of values, and the Layercake-like set C, without and with the cache.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::mutation::MutationSet;
use engine::mutation::graph::MutationGraph;
use engine::mutation::path::{Plan, Planner};
use engine::state::{Value, Values};

use crate::sets::{layercake, mutation, wanted, wide, wide_goal};

/// All tables of this part.
pub(crate) fn run() {
    chains();
    layercake_plans(&layercake());
    wide_plans();
}

/// Least time of some runs: what the code costs without what else the machine did.
fn least(runs: usize, mut run: impl FnMut()) -> Duration {
    let times = (0..runs).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed()
    });
    times.min().unwrap_or_default()
}

fn ms(duration: Duration) -> String {
    format!("{:.4} ms", duration.as_secs_f64() * 1e3)
}

/// `count` chains of `values` values each, forward from unknown and back; `gated`: all need power.
fn chain_set(count: usize, values: usize, gated: bool) -> (MutationSet, Values, Values) {
    let gate: &[(&str, &str)] = if gated {
        &[("/PhysState", "POWER_ON")]
    } else {
        &[]
    };
    let mut set = MutationSet::default();
    let mut goal = Values::default();
    for chain in 0..count {
        let url = format!("/chain{chain}/state");
        let name = |at: usize| {
            if at == 0 {
                String::new()
            } else {
                format!("v{at}")
            }
        };
        for at in 1..values {
            let forth = [(url.as_str(), &*name(at - 1), &*name(at))];
            set.mutations
                .push(mutation(&format!("chain{chain}/to{at}"), &forth, gate, &[]));
            if at > 1 {
                let back = [(url.as_str(), &*name(at), &*name(at - 1))];
                set.mutations.push(mutation(
                    &format!("chain{chain}/from{at}"),
                    &back,
                    gate,
                    &[],
                ));
            }
        }
        goal.set(
            url.parse().expect("a url"),
            Some(Value::text(name(values - 1))),
        );
    }
    if gated {
        let power = |id, from, to| mutation(id, &[("/PhysState", from, to)], &[], &[]);
        set.mutations.push(power("power/UKtoOFF", "", "POWER_OFF"));
        set.mutations
            .push(power("power/OFFtoON", "POWER_OFF", "POWER_ON"));
        set.mutations
            .push(power("power/ONtoOFF", "POWER_ON", "POWER_OFF"));
    }
    (set, Values::default(), goal)
}

fn chains() {
    println!(
        "Chains of values, from all unknown to the end of each: one plan, compiling the set included."
    );
    println!(
        "{:>7} {:>7} {:>7} {:>13} {:>13} {:>16}",
        "chains", "values", "gated", "compile", "plan", "Kraken, build *"
    );
    for (count, values, gated, kraken) in [
        (3, 4, false, "6.4 ms"),
        (5, 4, false, "555 ms"),
        (5, 4, true, "195 ms"),
        (6, 4, true, "3.9 s"),
        (6, 5, false, "over 58 s"),
        (6, 5, true, "over 58 s"),
        (10, 10, true, "-"),
        (30, 8, true, "-"),
    ] {
        let (set, dsc, cfg) = chain_set(count, values, gated);
        let compile = least(20, || drop(black_box(MutationGraph::new(&set))));
        let graph = MutationGraph::new(&set).expect("the set is valid");
        let plan = least(20, || drop(black_box(graph.plan(&dsc, &cfg))));
        let steps = graph.plan(&dsc, &cfg).steps().len();
        let gates = if gated { 2 } else { 0 };
        assert_eq!(
            steps,
            count * (values - 1) + gates,
            "the plan is the shortest"
        );
        println!(
            "{count:>7} {values:>7} {gated:>7} {:>13} {:>13} {kraken:>16}",
            ms(compile),
            ms(plan)
        );
    }
    println!("* measured elsewhere\n");
}

fn layercake_plans(set: &MutationSet) {
    let unknown = Values::default();
    let sync = wanted("/RunState", "SYNC");
    let active = wanted("/image/state", "ACTIVE");
    let compile = least(100, || drop(black_box(MutationGraph::new(set))));
    let graph = Arc::new(MutationGraph::new(set).expect("the set is valid"));
    let to_sync = least(1000, || drop(black_box(graph.plan(&unknown, &sync))));
    let to_active = least(1000, || drop(black_box(graph.plan(&unknown, &active))));
    let mut planner = Planner::new(graph.clone());
    assert!(matches!(planner.plan(&unknown, &sync).plan, Plan::Path(_)));
    let cached = least(1000, || drop(black_box(planner.plan(&unknown, &sync))));
    println!("Set C ({} mutations)", set.mutations.len());
    println!(
        "  compile                     {:>12}   Kraken: 7.3 ms *",
        ms(compile)
    );
    println!(
        "  plan unknown to SYNC        {:>12}   Kraken: about 0.1 ms *",
        ms(to_sync)
    );
    println!("  plan unknown to ACTIVE      {:>12}", ms(to_active));
    println!("  the same out of the cache   {:>12}", ms(cached));
    println!("* measured elsewhere\n");
}

fn wide_plans() {
    let set = wide();
    let compile = least(20, || drop(black_box(MutationGraph::new(&set))));
    let graph = MutationGraph::new(&set).expect("the set is valid");
    let (unknown, goal) = (Values::default(), wide_goal());
    let plan = least(20, || drop(black_box(graph.plan(&unknown, &goal))));
    let steps = graph.plan(&unknown, &goal).steps().len();
    println!("30 urls, {} mutations", set.mutations.len());
    println!("  compile                     {:>12}", ms(compile));
    println!(
        "  plan unknown to goal        {:>12}   {steps} steps\n",
        ms(plan)
    );
}
