//! What planning and following cost: `cargo lab bench engine`, or `cargo run --release -p engine --example bench_engine`.
//!
//! 1. `plans`: one plan. Chains of values, gated by power or not, beside Kraken's time for building its graph, which one plan there needs; set C,
//!    as Layercake declared it; 30 urls with 200 mutations.
//! 2. `nodes`: an engine with 1,000, 10,000 and 100,000 nodes, with modules and a store that answer at once: from unknown to SYNC, a Cfg change
//!    to all, adding and deleting all. Every mutation must have been fired exactly once a node.
//! 3. `questions`: what a change of all nodes would lead to (`krakenctl plan`), and the copy of the tree that a list is made of.
//! 4. `memory`: what a node takes, in a process of its own for each size.
//!
//! Kraken's figures were measured elsewhere, on two AMD EPYC cores; they are constants here.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod memory;
mod nodes;
mod plans;
mod questions;
mod sets;

use std::process::ExitCode;

/// What this program is for, if its arguments do not say.
const USAGE: &str = "usage: bench_engine [plans|nodes|questions|memory]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => {
            plans::run();
            nodes::run();
            questions::run();
            memory::run();
        }
        ["plans"] => plans::run(),
        ["nodes"] => nodes::run(),
        ["questions"] => questions::run(),
        ["memory"] => memory::run(),
        [memory::OF, count] => match count.parse() {
            Ok(count) => memory::child(count),
            Err(_) => return usage(),
        },
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
