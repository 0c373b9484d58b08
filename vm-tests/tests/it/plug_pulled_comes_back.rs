//! Claim: a node whose plug is pulled is found to be off, gets exactly one power-on, and is back in SYNC with its image.

use crate::lab::{self, BOOT_TIME, SOON};

#[test]
fn plug_pulled_comes_back() {
    lab::claim("plug_pulled_comes_back", |cluster, _| {
        let before = cluster.status().expect("status").machines;
        let digest = cluster.known("n1", "/image/digest").expect("a digest");
        cluster.pull_plug("n1").expect("no power");
        cluster
            .wait(SOON, "the loss is discovered", || {
                Ok(cluster.known("n1", "/RunState")? != "SYNC")
            })
            .expect("discovery");
        cluster
            .wait(BOOT_TIME, "n1 is switched on", || {
                Ok(cluster.last_boot("n1")?.contains(&"dhcp".to_owned()))
            })
            .expect("power");
        lab::wait_up(cluster, &["n1"]);
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
