//! Claim: what a compute node would do by itself waits until all `@io` nodes are in SYNC and says for whom; the moment they are, it is done.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use vm_tests::{artifacts::python, network};

use crate::lab::{self, BOOT_TIME, PYTHON, SOON};

/// How long the node is watched to wait; a mutation that may go is done within one.
const WATCHED: Duration = Duration::from_secs(3);

/// What the mutations of the file declare besides.
const WAITS: &str = r#"requires_of = [{ who = "@io", url = "/RunState", any_of = ["SYNC"] }]"#;

#[test]
fn python_module_waits_for_io_nodes() {
    lab::claim_in(&PYTHON, "python_module_waits_for_io_nodes", |cluster, _| {
        let known = |url: &str| cluster.known("n1", url).expect("a value");
        let told = |what: &str| {
            let explain = || cluster.ctl(&["node", "explain", "n1"]);
            let held = || Ok(explain()?.contains(what));
            let waited = cluster.wait(SOON, what, held);
            assert!(waited.is_ok(), "{waited:?}: {}", explain().expect("a text"));
        };
        let file = fs::read_to_string(python::examples().join("tuner.toml")).expect("a file");
        let part = "timeout = \"20s\"";
        assert_eq!(file.matches(part).count(), 2, "{file}");
        let waiting = file.replace(part, &format!("{part}\n{WAITS}"));
        lab::declare(cluster, "tuner", &waiting, "@io /RunState=SYNC");

        cluster
            .wait(BOOT_TIME, "the module has looked", || {
                Ok(!cluster.known("n1", "/tuner/profile")?.is_empty())
            })
            .expect("a profile");
        let before = known("/tuner/swappiness");
        let (profile, swappiness) = match known("/tuner/profile").as_str() {
            "LATENCY" => ("THROUGHPUT", "60"),
            _ => ("LATENCY", "10"),
        };
        lab::set(cluster, "n1", &[&format!("/tuner/profile={profile}")]);
        told("waits for @io, and no node is in that group");
        let io = cluster.machine("n2").expect("n2");
        cluster.add_node_to(io, "io").expect("a node");
        told("waits for @io: n2 not in SYNC");
        let until = Instant::now() + WATCHED;
        while Instant::now() < until {
            let now = known("/tuner/swappiness");
            if cluster.known("n2", "/RunState").expect("a state") == "SYNC" {
                break;
            }
            assert_eq!(now, before, "it waits");
            thread::sleep(Duration::from_millis(200));
        }

        lab::wait_up(cluster, &["n2"]);
        cluster
            .wait(SOON, "n1 goes", || {
                Ok(cluster.known("n1", "/tuner/profile")? == profile)
            })
            .expect("the mutation");
        let address = network::node_address(cluster.machine("n1").expect("n1").index);
        let page = cluster.http_get(&format!("http://{address}/cgi-bin/swappiness"));
        let page = page.expect("a request").expect("the page");
        assert_eq!(page.trim(), swappiness, "the kernel's own word");
        let log = cluster.head_log();
        let at = |node: &str, url: &str, value: &str| {
            let is = |line: &serde_json::Value| {
                line["node"] == node && line["url"] == url && line["value"] == value
            };
            log.iter().rposition(is)
        };
        let (there, gone) = (
            at("n2", "/RunState", "SYNC"),
            at("n1", "/tuner/profile", profile),
        );
        assert!(there.is_some() && there < gone, "{there:?} {gone:?}");

        // As the next claim wants to find it.
        lab::declare(cluster, "tuner", &file, "tuner/TO_LATENCY");
        let usual = "/tuner/profile=THROUGHPUT";
        cluster
            .ctl(&["node", "set", "n1", usual, "--wait"])
            .expect("the mutation");
        lab::order_off(cluster, "n2");
        cluster
            .wait(BOOT_TIME, "n2 is off", || {
                Ok(cluster.known("n2", "/PhysState")? == "POWER_OFF")
            })
            .expect("off");
        cluster.ctl(&["node", "delete", "n2"]).expect("no node");
    });
}
