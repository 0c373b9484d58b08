//! Claim: a rack of four whose group lets one node be disrupted at once reboots one by one by one command, and never two are down together.

use vm_tests::cluster::{Cluster, Options};

use crate::lab::{self, BOOT_TIME};

/// The group that `kraken-lab` puts nodes into.
const LIMIT: &str = "\n[governor.group.compute]\nat_once = 1\n";

#[test]
fn rack_reboots_one_by_one() {
    let Some(artifacts) = lab::artifacts("rack_reboots_one_by_one") else {
        return;
    };
    let _turn = lab::turn();
    let options = Options {
        config: LIMIT.to_owned(),
        ..lab::options("rack", 4)
    };
    let cluster = Cluster::start(&options, Some(&artifacts)).expect("a cluster");
    lab::prove("rack_reboots_one_by_one", &cluster, || {
        let names = lab::bring_up(&cluster, &artifacts);
        let before = cluster.head_log().len();
        cluster
            .ctl(&["node", "reboot", "n[1-4]", "--reason", "claim"])
            .expect("an order");
        let why = cluster
            .ctl(&["node", "explain", "n[1-4]"])
            .expect("an explanation");
        assert!(
            why.contains("group @compute lets 1 node be disrupted at once"),
            "those that wait say for what: {why}"
        );
        let offs = |name: &str| -> anyhow::Result<u64> {
            let off = |kind| cluster.resets(name, kind);
            Ok(off("ForceOff")? + off("GracefulShutdown")?)
        };
        let limit = BOOT_TIME * 4;
        cluster
            .wait(limit, "all have rebooted", || {
                for name in &names {
                    if offs(name)? != 1 || !cluster.is_up(name)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            })
            .expect("four reboots");
        let log = cluster.head_log();
        let down = most_down(&log[before..], &names);
        assert_eq!(down, 1, "never two were down at once");
        for name in &names {
            assert_eq!(offs(name).expect("a count"), 1, "{name}: one power-off");
            assert_eq!(cluster.resets(name, "On").expect("a count"), 2, "{name}");
        }
    });
    cluster.down().expect("nothing remains");
}

/// The most nodes at one time whose image did not run, by the head's log: all of them ran it at its start.
fn most_down(log: &[serde_json::Value], names: &[&str]) -> usize {
    let mut down: Vec<&str> = Vec::new();
    let mut most = 0;
    for line in log {
        let Some(node) = names.iter().find(|name| line["node"] == **name) else {
            continue;
        };
        if line["url"] != "/image/state" {
            continue;
        }
        down.retain(|name| name != node);
        if line["value"] != "ACTIVE" {
            down.push(*node);
            most = most.max(down.len());
        }
    }
    most
}
