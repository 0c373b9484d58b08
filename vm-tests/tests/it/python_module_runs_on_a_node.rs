//! Claim: a module in Python runs on a node, inside its image; the agent finds it, reports what it discovers, hands it the mutation that an
//! operator asks for by one value, and again when somebody undoes by hand what it did.

use std::fs;

use vm_tests::{
    artifacts::python,
    cluster::{Cluster, Options},
    network,
};

use crate::lab::{self, BOOT_TIME, SOON};

#[test]
fn python_module_runs_on_a_node() {
    let claim = "python_module_runs_on_a_node";
    let Some(artifacts) = lab::artifacts(claim) else {
        return;
    };
    let image = python::image(&artifacts).expect("an image with Python");
    let _turn = lab::turn();
    let options = Options {
        memory_mib: 512,
        ..lab::options("python", 1)
    };
    let cluster = Cluster::start(&options, Some(&artifacts)).expect("a cluster");
    lab::prove(claim, &cluster, || {
        let extension = python::examples().join("tuner.proto");
        let extension = extension.to_str().expect("a path");
        cluster
            .ctl(&["extension", "add", extension])
            .expect("an extension");
        let mutations = cluster.files.head_state().join("mutations");
        fs::create_dir_all(&mutations).expect("a folder");
        fs::copy(
            python::examples().join("tuner.toml"),
            mutations.join("tuner.toml"),
        )
        .expect("a file");
        cluster
            .wait(SOON, "the head knows the mutations", || {
                Ok(cluster
                    .ctl(&["mutation", "list"])?
                    .contains("tuner/TO_LATENCY"))
            })
            .expect("mutations");
        cluster.enrol(&image, &["n1".to_owned()]).expect("a node");
        lab::wait_up(&cluster, &["n1"]);
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
    cluster.down().expect("nothing remains");
}
