//! Claim: on a node whose image is a rack's own head, the kernel keeps modules within their cgroups: one that eats memory and one that forks
//! without end are ended with all they started, with the reason in sight, and started again after ever longer rests; nobody else notices.

use std::{fs, path::Path, process::Command};

use vm_tests::{
    artifacts::{Artifacts, libraries},
    cluster::Cluster,
    network,
};

use crate::lab::{self, BOOT_TIME, SOON};

/// The image's init: the head, and pages about it. The head gets what its unit has from systemd: a cgroup below which it may make others,
/// without limits but those of the modules. Everything else moves out of the way, for no process may live where controllers are handed down.
const INIT: &str = r#"
export PATH=/bin
cg=/sys/fs/cgroup
for applet in cat cut httpd ip mkdir mv sh sleep; do busybox ln -s busybox /bin/$applet; done
trap 'exit 0' TERM
ip link set lo up
mkdir -p /www /var/lib/head $cg/rest $cg/kraken-head.service/kraken-head
echo 0 > $cg/rest/cgroup.procs
until echo "+memory +pids" > $cg/cgroup.subtree_control; do sleep 1; done
httpd -p 80 -h /www
(echo 0 > $cg/kraken-head.service/kraken-head/cgroup.procs; exec kraken-head --config /etc/head.toml 2> /www/head.log) &
while :; do
    krakenctl --socket /var/lib/head/run/api.sock module list -o json > /www/new 2> /www/why && mv /www/new /www/modules.json
    sleep 1
done
"#;

/// The head's configuration. It boots nobody.
const HEAD: &str = r#"
cluster = "rack"
state_dir = "/var/lib/head/state"
run_dir = "/var/lib/head/run"
keys_dir = "/etc/keys"
[sync]
address = "127.0.0.1"
[modules.eater]
command = ["/bin/eater"]
limits = { memory = "32MiB", pids = 16 }
[modules.forker]
command = ["/bin/forker"]
limits = { memory = "32MiB", pids = 16 }
"#;

/// Notes when it starts, and eats all the memory that it gets.
const EATER: &str = r#"#!/bin/sh
cut -d' ' -f1 /proc/uptime >> /www/eater.starts
food=nom
while :; do food=$food$food; done
"#;

/// Notes when it starts, and forks what forks. Who is refused ends, the others stay.
const FORKER: &str = r#"#!/bin/sh
cut -d' ' -f1 /proc/uptime >> /www/forker.starts
fork() { fork & fork & sleep 60; }
fork
"#;

/// First rest of a module that failed; it doubles (`head/src/modules/external/keeper.rs`).
const FIRST_REST: f64 = 0.5;

/// Failures that are waited for.
const FAILURES: usize = 3;

fn fill(artifacts: &Artifacts, root: &Path) {
    for program in [&artifacts.head, &artifacts.krakenctl] {
        libraries::install(program, root).expect("a program");
    }
    for (name, text) in [("eater", EATER), ("forker", FORKER)] {
        lab::write_program(&root.join("bin").join(name), text);
    }
    let etc = root.join("etc");
    fs::create_dir_all(&etc).expect("a folder");
    fs::write(etc.join("head.toml"), HEAD).expect("a file");
    let mut keys = Command::new(&artifacts.image_tool);
    let keys = keys.arg("keys").arg(etc.join("keys")).output();
    assert!(keys.expect("kraken-image").status.success());
}

/// What the node's own head says of a module; none before it says anything.
fn module(cluster: &Cluster, pages: &str, name: &str) -> Option<serde_json::Value> {
    let page = cluster.http_get(&format!("{pages}/modules.json")).ok()??;
    let list: serde_json::Value = serde_json::from_str(&page).ok()?;
    let list = list.as_array()?;
    list.iter().find(|module| module["name"] == name).cloned()
}

/// Seconds between one start of a module and the next.
fn gaps(cluster: &Cluster, pages: &str, name: &str) -> Vec<f64> {
    let page = cluster.http_get(&format!("{pages}/{name}.starts"));
    let page = page.ok().flatten().unwrap_or_default();
    let starts: Vec<f64> = page.lines().filter_map(|line| line.parse().ok()).collect();
    starts.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn module_is_bounded() {
    lab::claim("module_is_bounded", |cluster, artifacts| {
        let set = |values: &[&str]| lab::set(cluster, "n2", values);
        let known = |url: &str| cluster.known("n2", url).expect("a value");
        let folder = tempfile::tempdir().expect("a folder");
        fill(artifacts, &folder.path().join("root"));
        lab::add_image(cluster, artifacts, folder.path(), "rack-head", INIT);
        let agent_starts = known("/host/agent_starts");
        set(&["/image/state=IDLE"]);
        lab::wait_image(cluster, "n2", "IDLE", SOON);
        set(&["/image/name=rack-head", "/image/state=ACTIVE"]);
        lab::wait_image(cluster, "n2", "ACTIVE", BOOT_TIME);

        let address = network::node_address(cluster.machine("n2").expect("n2").index);
        let pages = format!("http://{address}");
        for (name, reason) in [
            (
                "eater",
                "the kernel ended it for want of memory, more than 32 MiB",
            ),
            ("forker", "it asked for processes and threads, more than 16"),
        ] {
            let told = || module(cluster, &pages, name);
            let failures = |module: &serde_json::Value| module["failures"].as_u64();
            let ended = || Ok(told().as_ref().and_then(failures) >= Some(FAILURES as u64));
            let waited = cluster.wait(BOOT_TIME, &format!("{name} is ended again"), ended);
            if let Err(error) = waited {
                let log = cluster.http_get(&format!("{pages}/head.log"));
                panic!("{error:#}\n{log:?}");
            }
            let module = told().expect("a list of modules");
            assert_eq!(module["last_error"], reason, "{module}");
            assert_eq!(module["limited_by"], "cgroup", "{module}");
            let gaps = gaps(cluster, &pages, name);
            assert!(gaps.len() >= FAILURES - 1, "{name}: {gaps:?}");
            let mut rest = FIRST_REST;
            for gap in gaps {
                assert!(
                    gap >= rest,
                    "{name}: {gap} s between two starts, not {rest}"
                );
                rest *= 2.0;
            }
        }

        assert!(cluster.is_up("n2").expect("a state"));
        assert_eq!(known("/host/agent_starts"), agent_starts, "the agent lives");
        assert_eq!(known("/image/deaths").trim_start_matches('0'), "");
        set(&["/image/state=IDLE"]);
        lab::wait_image(cluster, "n2", "IDLE", SOON);
        set(&["/image/name=demo", "/image/state=ACTIVE"]);
        lab::wait_up(cluster, &["n2"]);
    });
}
