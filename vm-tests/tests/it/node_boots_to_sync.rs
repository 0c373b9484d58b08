//! Claim: a machine without disk and without power is switched on by its BMC, boots over the network and joins, on one power-on.

use crate::lab::{self, NODES};

#[test]
fn node_boots_to_sync() {
    lab::claim("node_boots_to_sync", |cluster, _| {
        for node in NODES {
            let boot = cluster.last_boot(node).expect("a boot");
            let expect = [
                "power-on",
                "dhcp",
                "script",
                "kernel",
                "initramfs",
                "grant",
                "join",
            ];
            let seen: Vec<&str> = boot
                .iter()
                .map(String::as_str)
                .filter(|stage| expect.contains(stage))
                .collect();
            assert_eq!(seen, expect, "{node} went through every stage, in order");

            let events = cluster.status().expect("status").events;
            let power_ons = events
                .iter()
                .filter(|event| event.node == node && event.stage == "power-on");
            let power_ons = u64::try_from(power_ons.count()).expect("a count");
            assert_eq!(
                cluster.resets(node, "On").expect("count"),
                power_ons,
                "every power-on was one request"
            );

            let machine = cluster.machine(node).expect("a machine");
            let known = |url: &str| cluster.known(node, url).expect("a value");
            assert_eq!(known("/RunState"), "SYNC");
            assert_eq!(known("/PhysState"), "POWER_ON");
            assert_eq!(known("/host/serial"), machine.serial());
            assert_eq!(known("/host/uuid").to_lowercase(), machine.uuid());
            let console = cluster.console(node);
            assert!(console.contains("iPXE"), "it came over the network");
        }
    });
}
