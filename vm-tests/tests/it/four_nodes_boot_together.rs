//! Claim: four machines that are switched on in the same moment all reach SYNC with their image, each on one power-on.

use vm_tests::cluster::Cluster;

use crate::lab;

#[test]
fn four_nodes_boot_together() {
    let Some(artifacts) = lab::artifacts("four_nodes_boot_together") else {
        return;
    };
    let _turn = lab::turn();
    let cluster = Cluster::start(&lab::options("four", 4), Some(&artifacts)).expect("a cluster");
    lab::prove("four_nodes_boot_together", &cluster, || {
        let names = lab::bring_up(&cluster, &artifacts);
        let status = cluster.status().expect("status");
        for machine in &status.machines {
            let resets: Vec<_> = machine
                .resets
                .iter()
                .map(|(kind, count)| (kind.as_str(), *count))
                .collect();
            assert_eq!(resets, [("On", 1)], "{}", machine.name);
            assert!(
                cluster.page(&machine.name).expect("a request").is_some(),
                "{} answers",
                machine.name
            );
        }
        let at = |stage: &str| -> Vec<u64> {
            status
                .events
                .iter()
                .filter(|event| event.stage == stage && names.contains(&event.node.as_str()))
                .map(|event| event.at_ms)
                .collect()
        };
        let (on, joined) = (at("power-on"), at("join"));
        assert!(
            on.iter().max() < joined.iter().min(),
            "they boot side by side, not one after the other"
        );
    });
    cluster.down().expect("nothing remains");
}
