//! Claim: after kill -9 of the head with all nodes in SYNC, the next head adopts them; no BMC gets any request meanwhile, and the
//! images answer throughout.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use vm_tests::cluster::Cluster;

use crate::lab::{self, NODES, SOON};

/// How long the cluster is without a head.
const WITHOUT: Duration = Duration::from_secs(5);
/// How long the new head is watched; long enough for a dead timer (10 s) to go wrong.
const WATCHED: Duration = Duration::from_secs(20);

#[test]
fn head_killed_adopts_without_power_action() {
    lab::claim("head_killed_adopts_without_power_action", |cluster, _| {
        let pages: Vec<String> = NODES.iter().map(|node| page(cluster, node)).collect();
        let resets = cluster.all_resets().expect("counts");
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let watchers: Vec<_> = NODES
                .iter()
                .zip(&pages)
                .map(|(node, expect)| {
                    let over = &over;
                    scope.spawn(move || {
                        let mut asked = 0;
                        while !over.load(Ordering::Relaxed) {
                            assert_eq!(&page(cluster, node), expect, "{node} runs the same image");
                            asked += 1;
                            thread::sleep(Duration::from_millis(200));
                        }
                        asked
                    })
                })
                .collect();
            let outcome =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| kill_and_adopt(cluster)));
            over.store(true, Ordering::Relaxed);
            for watcher in watchers {
                assert!(
                    watcher.join().expect("answers throughout") > 20,
                    "it asked all the time"
                );
            }
            if let Err(panic) = outcome {
                std::panic::resume_unwind(panic);
            }
        });
        assert_eq!(
            cluster.all_resets().expect("counts"),
            resets,
            "no power action"
        );
    });
}

fn kill_and_adopt(cluster: &Cluster) {
    cluster.kill_head().expect("killed");
    thread::sleep(WITHOUT);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_millis();
    let restarted = u64::try_from(now).expect("a time");
    cluster.start_head().expect("started");
    cluster
        .wait(SOON, "all nodes are heard again and up", || {
            let nodes = cluster.nodes()?;
            let heard = |node: &&str| {
                nodes.iter().any(|value| {
                    value["name"] == **node && value["last_seen_ms"].as_u64() > Some(restarted)
                })
            };
            Ok(NODES.iter().all(heard) && cluster.is_up("n1")? && cluster.is_up("n2")?)
        })
        .expect("adoption");
    let until = Instant::now() + WATCHED;
    while Instant::now() < until {
        for node in NODES {
            assert!(cluster.is_up(node).expect("a state"), "{node} stays up");
        }
        thread::sleep(Duration::from_secs(1));
    }
}

fn page(cluster: &Cluster, node: &str) -> String {
    cluster
        .page(node)
        .expect("a request")
        .unwrap_or_else(|| panic!("{node} does not answer"))
}
