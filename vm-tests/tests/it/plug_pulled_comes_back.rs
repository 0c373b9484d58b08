//! Claim: a node whose plug is pulled is found to be off, gets exactly one power-on, and is back in SYNC with its image.

use crate::lab;

#[test]
fn plug_pulled_comes_back() {
    lab::claim("plug_pulled_comes_back", |cluster, _| {
        let before = cluster.status().expect("status").machines;
        let digest = cluster.known("n1", "/image/digest").expect("a digest");
        lab::pull_plug_and_wait(cluster, "n1");
        let found_off = cluster
            .head_log()
            .iter()
            .any(|line| line["node"] == "n1" && line["mutation"] == "power/OFFtoON");
        assert!(
            found_off,
            "the head found it off and planned to switch it on"
        );
        let after = cluster.status().expect("status").machines;
        for (before, after) in before.iter().zip(&after) {
            let mut expect = before.resets.clone();
            if before.name == "n1" {
                *expect.entry("On".to_owned()).or_default() += 1;
            }
            assert_eq!(
                after.resets, expect,
                "{} got these requests and no others",
                after.name
            );
        }
        assert_eq!(
            cluster.known("n1", "/image/digest").expect("a digest"),
            digest
        );
        assert!(
            cluster.page("n1").expect("a request").is_some(),
            "the image answers"
        );
    });
}
