//! What a node takes of memory: the resident set of a process that holds an engine and nothing else, by the kernel's account.
//!
//! Each size has a process of its own, so that no size profits from what another one freed. What the allocator keeps for itself counts.

use std::process::Command;

use crate::nodes::{SIZES, World};
use crate::sets::layercake;

/// First argument of the process that measures itself.
pub(crate) const OF: &str = "memory-of";

/// Bar for one node (bytes).
const TARGET: u64 = 8 << 10;

/// Starts one process a size and prints what they say.
pub(crate) fn run() {
    println!(
        "Memory: resident set of an engine with nodes of set C in SYNC, over the same process without nodes"
    );
    let program = std::env::current_exe().expect("a program knows where it is");
    for count in SIZES {
        let output = Command::new(&program)
            .args([OF, &count.to_string()])
            .output()
            .expect("the program starts once more");
        let text = String::from_utf8_lossy(&output.stdout);
        let bytes: u64 = text
            .trim()
            .parse()
            .expect("the process prints a number of bytes");
        let each = bytes / u64::from(count);
        let verdict = if each <= TARGET { "met" } else { "MISSED" };
        println!(
            "  {count:>7} nodes {:>8.1} MiB {each:>6} bytes a node   target {TARGET}: {verdict}",
            bytes as f64 / f64::from(1 << 20)
        );
    }
    println!();
}

/// Brings nodes to SYNC and prints the bytes that this process has grown by.
pub(crate) fn child(count: u32) {
    let before = resident();
    let mut world = World::new(&layercake(), count);
    world.boot();
    println!("{}", resident().saturating_sub(before));
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel's account");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.expect("a resident set") << 10
}
