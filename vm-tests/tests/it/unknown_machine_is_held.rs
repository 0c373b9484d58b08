//! Claim: a machine that belongs to no node gets no address and no boot; it shows in the holding list, and one command enrols it.

use std::thread;
use std::time::Duration;

use vm_tests::network;

use crate::lab::{self, BOOT_TIME, STRANGER};

#[test]
fn unknown_machine_is_held() {
    lab::claim("unknown_machine_is_held", |cluster, _| {
        let machine = cluster.machine(STRANGER).expect("a machine");
        let (mac, address) = (
            network::node_mac(machine.index),
            network::node_address(machine.index),
        );
        cluster.press_power(STRANGER).expect("power");
        let listed = || cluster.ctl(&["pending", "list", "-o", "json"]);
        cluster
            .wait(BOOT_TIME, "it is listed", || Ok(listed()?.contains(&mac)))
            .expect("the holding list");
        // Firmware and SMBIOS disagree about the byte order of a UUID; the head lists the bytes as they came.
        let uuid = machine.uuid();
        let other_order = format!("{}-{}", "42414c4b-0000-0040", &uuid[19..]);
        let list = listed().expect("a list");
        assert!(
            list.contains(&uuid) || list.contains(&other_order),
            "with the evidence that it gave: {list}"
        );
        thread::sleep(Duration::from_secs(8));
        let console = cluster.console(STRANGER);
        assert!(
            !console.contains(&format!("net0: {address}")),
            "it got no address"
        );
        assert!(!console.contains("Linux version"), "it got no kernel");
        let nodes = cluster.nodes().expect("nodes");
        assert!(
            nodes.iter().all(|node| node["name"] != STRANGER),
            "nobody made it a node"
        );

        cluster
            .ctl(&[
                "pending",
                "enrol",
                &mac,
                STRANGER,
                "--address",
                &format!("{address}/24"),
            ])
            .expect("enrolment");
        cluster
            .wait(BOOT_TIME, "it gets its address", || {
                Ok(cluster
                    .console(STRANGER)
                    .contains(&format!("net0: {address}")))
            })
            .expect("an address");
        assert!(
            !listed().expect("a list").contains(&mac),
            "it is held no longer"
        );
        cluster
            .ctl(&["node", "delete", STRANGER, "--yes"])
            .expect("deleted");
        cluster.pull_plug(STRANGER).expect("no power");
    });
}
