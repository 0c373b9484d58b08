//! Claim: a node that is to be off first stops its image and leaves sync; only then its power is cut, once.

use crate::lab::{self, BOOT_TIME, SOON};

/// What the demo image's init prints before it ends.
const STOPPED: &str = "demo image: stopped";

#[test]
fn power_off_drains_first() {
    lab::claim("power_off_drains_first", |cluster, _| {
        let off = |kind: &str| cluster.resets("n2", kind).expect("a count");
        let before = off("ForceOff") + off("GracefulShutdown");
        let ons = off("On");
        let stops = cluster.console("n2").matches(STOPPED).count();
        lab::order_off(cluster, "n2");
        cluster
            .wait(BOOT_TIME, "n2 is off", || {
                Ok(cluster.known("n2", "/PhysState")? == "POWER_OFF")
            })
            .expect("off");
        let stopped = cluster.console("n2").matches(STOPPED).count();
        assert_eq!(
            stopped,
            stops + 1,
            "the image ended by itself while there was power"
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
