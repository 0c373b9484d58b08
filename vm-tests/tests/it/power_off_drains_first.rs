//! Claim: a node that is to be off first stops its image and leaves sync; only then its power is cut, once.

use std::time::Instant;

use crate::lab::{self, BOOT_TIME, SOON};

#[test]
fn power_off_drains_first() {
    lab::claim("power_off_drains_first", |cluster, _| {
        let off = |kind: &str| cluster.resets("n2", kind).expect("a count");
        let before = off("ForceOff") + off("GracefulShutdown");
        let ons = off("On");
        lab::order_off(cluster, "n2");
        let end = Instant::now() + BOOT_TIME;
        let mut steps = Vec::new();
        while steps.last().map(String::as_str) != Some("POWER_OFF") {
            assert!(Instant::now() < end, "it never went off: {steps:?}");
            let known = |url: &str| cluster.known("n2", url).expect("a value");
            let (image, run, phys) = (
                known("/image/state"),
                known("/RunState"),
                known("/PhysState"),
            );
            let cut = off("ForceOff") + off("GracefulShutdown") > before;
            if cut && steps.is_empty() {
                panic!("the power was cut while the image ran");
            }
            let step = if phys == "POWER_OFF" {
                "POWER_OFF"
            } else if run != "SYNC" {
                "left"
            } else if image != "ACTIVE" {
                "drained"
            } else {
                continue;
            };
            if steps.last().map(String::as_str) != Some(step) {
                steps.push(step.to_owned());
            }
        }
        assert!(
            steps.len() > 1,
            "it was drained before it was off: {steps:?}"
        );
        assert_eq!(
            off("ForceOff") + off("GracefulShutdown"),
            before + 1,
            "one request cut the power"
        );
        assert_eq!(off("On"), ons, "and nobody switched it on");
        let done = mutations(&cluster.head_log(), "n2");
        let at = |name: &str| done.iter().rposition(|mutation| mutation == name);
        assert!(
            at("image/ACTIVEtoIDLE").is_some()
                && at("image/ACTIVEtoIDLE") < at("core/SYNCtoINIT")
                && at("core/SYNCtoINIT") < at("power/ONtoOFF"),
            "{done:?}"
        );
        let status = cluster.status().expect("status");
        let machine = status
            .machines
            .iter()
            .find(|machine| machine.name == "n2")
            .expect("n2");
        assert_eq!(machine.pid, None, "no QEMU process");

        lab::order_on(cluster, "n2");
        cluster
            .wait(SOON, "n2 is switched on", || Ok(off("On") > ons))
            .expect("power");
        lab::wait_up(cluster, &["n2"]);
    });
}

/// The mutations that the head's log names for a node, in order.
fn mutations(log: &[serde_json::Value], node: &str) -> Vec<String> {
    log.iter()
        .filter(|line| line["node"] == node)
        .filter_map(|line| Some(line["mutation"].as_str()?.to_owned()))
        .collect()
}
