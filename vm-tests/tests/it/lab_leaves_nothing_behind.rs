//! Claim: when a lab cluster ends, asked or killed, no process, interface or mount of it remains.

use std::{fs, thread::sleep, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use vm_tests::{cluster::Cluster, control::Identity, down};

use crate::lab;

fn start(claim: &str) -> (Cluster, Identity) {
    let cluster = Cluster::start(&lab::options(claim, 2), None).expect("a bare rig");
    for machine in ["n1", "n2"] {
        cluster.press_power(machine).expect("power");
    }
    let status = cluster.status().expect("status");
    assert!(status.machines.iter().all(|machine| machine.pid.is_some()));
    let bytes = fs::read(cluster.files.identity()).expect("identity");
    let identity = serde_json::from_slice(&bytes).expect("identity");
    // The look that proves emptiness later must see both machines while they are there.
    let both_seen = || {
        let remains = down::look(&cluster.files.0, Some(identity));
        let machines = remains
            .processes
            .iter()
            .filter(|line| line.contains("qemu-system"));
        Ok(machines.count() == 2)
    };
    cluster
        .wait(Duration::from_secs(5), "both machines are seen", both_seen)
        .expect("machines");
    (cluster, identity)
}

#[test]
fn after_down() {
    let Some(_) = lab::artifacts("lab_leaves_nothing_behind::after_down") else {
        return;
    };
    let _turn = lab::turn();
    let (cluster, identity) = start("ends-by-down");
    cluster.down().expect("down");
    let remains = down::look(&cluster.files.0, Some(identity));
    assert!(remains.is_nothing(), "{remains:?}");
    assert!(!cluster.files.0.exists());
}

#[test]
fn after_kill() {
    let Some(_) = lab::artifacts("lab_leaves_nothing_behind::after_kill") else {
        return;
    };
    let _turn = lab::turn();
    let (cluster, identity) = start("ends-by-kill");
    kill(Pid::from_raw(identity.pid), Signal::SIGKILL).expect("kill");
    let mut remains = down::look(&cluster.files.0, Some(identity));
    for _ in 0..100 {
        if remains.is_nothing() {
            break;
        }
        sleep(Duration::from_millis(50));
        remains = down::look(&cluster.files.0, Some(identity));
    }
    assert!(remains.is_nothing(), "{remains:?}");
}
