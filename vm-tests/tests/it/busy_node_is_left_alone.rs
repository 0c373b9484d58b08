//! Claim: nothing disruptive happens to a node whose job says that it is busy, whatever is ordered; when the job ends, it happens.

use std::{
    thread,
    time::{Duration, Instant},
};

use vm_tests::network;

use crate::lab::{self, BOOT_TIME, SOON};

/// How long the order is watched to have no effect; a drain takes 1 s.
const WATCHED: Duration = Duration::from_secs(10);

#[test]
fn busy_node_is_left_alone() {
    lab::claim("busy_node_is_left_alone", |cluster, _| {
        let address = network::node_address(cluster.machine("n2").expect("n2").index);
        let job = |what: &str| {
            let url = format!("http://{address}/cgi-bin/busy?{what}");
            cluster.http_get(&url)
        };
        let resets = cluster.all_resets().expect("counts");
        let page = job("on").expect("a request").expect("the job's page");
        assert!(page.contains("busy"));
        cluster
            .wait(SOON, "the head knows", || {
                Ok(cluster.known("n2", "/Busy")? == "BUSY")
            })
            .expect("busy");
        let page = cluster.page("n2").expect("a request");
        lab::order_off(cluster, "n2");
        let until = Instant::now() + WATCHED;
        while Instant::now() < until {
            assert_eq!(
                cluster.page("n2").expect("a request"),
                page,
                "the image answers on"
            );
            assert!(cluster.is_up("n2").expect("a state"), "and stays as it is");
            thread::sleep(Duration::from_millis(500));
        }
        assert_eq!(
            cluster.all_resets().expect("counts"),
            resets,
            "no power action"
        );
        let why = cluster
            .ctl(&["node", "explain", "n2"])
            .expect("an explanation");
        assert!(
            why.contains("node n2 is BUSY: a job runs on it"),
            "it says why nothing happens: {why}"
        );

        // The image is stopped as soon as the mark is gone, often before this page is out: what follows shows that the job has ended.
        job("off").expect("a request");
        cluster
            .wait(BOOT_TIME, "the order is carried out", || {
                Ok(cluster.known("n2", "/PhysState")? == "POWER_OFF")
            })
            .expect("off");
        lab::order_on(cluster, "n2");
        lab::wait_up(cluster, &["n2"]);
    });
}
