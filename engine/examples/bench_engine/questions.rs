//! Questions to an engine with many nodes: what a change of all would lead to, and a copy of the tree for a list.

use std::sync::Arc;
use std::time::Duration;

use engine::event::WriteOp;
use engine::state::Node;

use crate::nodes::{SIZES, World, node_id, timed};
use crate::sets::{layercake, wanted};

/// Bar for 10,000 nodes: a person waits for the answer, and the engine does nothing else meanwhile.
const TARGET: Duration = Duration::from_secs(1);

/// Times that each question is asked: the kernel's account of a thread's time grows by some milliseconds at once.
const TIMES: u32 = 20;

/// The table.
pub(crate) fn run() {
    println!(
        "Engine: questions about all nodes, in SYNC; CPU time, mean of {TIMES} (the engine does nothing else meanwhile)"
    );
    println!(
        "{:>9} {:>14} {:>12} {:>7} {:>12} {:>13} {:>12}",
        "nodes", "what if: off", "a node", "groups", "target", "what they do", "a snapshot"
    );
    for count in SIZES {
        let mut world = World::new(&layercake(), count);
        world.boot();
        let off = wanted("/PhysState", "POWER_OFF").to_changes();
        let ops = (0..count).map(|number| WriteOp::Set {
            node: node_id(number),
            changes: off.clone(),
        });
        let ops: Vec<WriteOp> = ops.collect();
        let ids: Vec<_> = (0..count).map(node_id).collect();
        let mut groups = 0;
        let mean = |run: &mut dyn FnMut()| timed(|| (0..TIMES).for_each(|_| run())) / TIMES;
        let change = mean(&mut || {
            let what = world.engine().what_if(&ops, &[], world.now);
            let what = what.expect("the write is good");
            let planned = what.groups.iter().map(|group| group.nodes.len());
            assert_eq!(planned.sum::<usize>(), count as usize);
            assert!(
                what.groups
                    .iter()
                    .all(|group| !group.report.steps.is_empty())
            );
            groups = what.groups.len();
        });
        let present = mean(&mut || {
            let what = world.engine().what_if(&[], &ids, world.now);
            assert_eq!(what.expect("nothing is written").groups.len(), 1);
        });
        let mut shared: Vec<Arc<Node>> = Vec::new();
        let snapshot = mean(&mut || shared = world.engine().tree().share_all().collect());
        assert_eq!(shared.len(), count as usize + 1);
        let verdict = match (count, change <= TARGET) {
            (10_000, true) => "1 s met",
            (10_000, false) => "1 s MISSED",
            _ => "-",
        };
        let seconds = |time: Duration| format!("{:.4} s", time.as_secs_f64());
        println!(
            "{count:>9} {:>14} {:>9.2} us {groups:>7} {verdict:>12} {:>13} {:>12}",
            seconds(change),
            change.as_secs_f64() * 1e6 / f64::from(count),
            seconds(present),
            seconds(snapshot)
        );
    }
    println!();
}
