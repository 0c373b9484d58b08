//! Claim: a module in Python runs on a node, inside its image; the agent finds it, reports what it discovers, hands it the mutation that an
//! operator asks for by one value, and again when somebody undoes by hand what it did.

use vm_tests::network;

use crate::lab::{self, BOOT_TIME, PYTHON, SOON};

#[test]
fn python_module_runs_on_a_node() {
    lab::claim_in(&PYTHON, "python_module_runs_on_a_node", |cluster, _| {
        let wait_known = |url: &str, value: &str| {
            let known = || Ok(cluster.known("n1", url)? == value);
            cluster
                .wait(BOOT_TIME, &format!("{url} is {value}"), known)
                .expect("a discovery");
        };
        let address = network::node_address(cluster.machine("n1").expect("n1").index);
        let swappiness = |query: &str| {
            let url = format!("http://{address}/cgi-bin/swappiness{query}");
            let page = cluster.http_get(&url).expect("a request");
            page.expect("the page").trim().to_owned()
        };
        wait_known("/tuner/profile", "THROUGHPUT");
        assert_eq!(swappiness(""), "60", "the kernel's own value");
        assert_ne!(cluster.known("n1", "/tuner/kernel").expect("a value"), "");

        cluster
            .ctl(&["node", "set", "n1", "/tuner/profile=LATENCY", "--wait"])
            .expect("the mutation is carried out");
        assert_eq!(swappiness(""), "10");
        wait_known("/tuner/swappiness", "10");

        assert_eq!(swappiness("?60"), "60", "undone by hand");
        cluster
            .wait(SOON, "the module has mended it", || {
                Ok(swappiness("") == "10")
            })
            .expect("it is mended");
        wait_known("/tuner/profile", "LATENCY");
    });
}
