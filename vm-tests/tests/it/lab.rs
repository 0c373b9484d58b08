//! What the claims share: artifacts, a cluster that several claims use one after the other, and the bundle of a failed one.

use std::{
    fs,
    io::Write,
    ops::Deref,
    os::unix::fs::PermissionsExt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use vm_tests::{
    artifacts::Artifacts,
    cluster::{Cluster, Options},
    doctor, failure_bundle, suite,
};

/// From power-off to a running image: 15 s alone on a core under TCG; ten times that on a busy machine is still no failure.
pub(crate) const BOOT_TIME: Duration = Duration::from_secs(180);

/// For what takes a second or two when the machine has time.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// The nodes of the shared cluster.
pub(crate) const NODES: [&str; 2] = ["n1", "n2"];

/// A machine of the shared cluster that the head does not know, and that has no power between claims.
pub(crate) const STRANGER: &str = "x3";

/// The shared cluster, and at the same time the turn: two cores without KVM carry one cluster.
static SHARED: Mutex<Option<Cluster>> = Mutex::new(None);

/// Prints past libtest's capture, so that it is seen.
pub(crate) fn tell(text: &str) {
    std::io::stderr()
        .write_all(format!("{text}\n").as_bytes())
        .ok();
}

/// The artifacts, if the lab runs this test; else says aloud that the claim was not tried.
pub(crate) fn artifacts(claim: &str) -> Option<Artifacts> {
    let Some(list) = std::env::var_os(suite::ARTIFACTS_VARIABLE) else {
        tell(&format!(
            "SKIP {claim}: VM claims run under `cargo lab test`"
        ));
        return None;
    };
    let bytes = fs::read(list).expect("the list of artifacts");
    Some(serde_json::from_slice(&bytes).expect("a list of artifacts"))
}

/// Options for a cluster of machines n1, n2, ... that ends with this process. Another run of the tests on the same machine, as the same
/// user, has clusters of its own.
pub(crate) fn options(name: &str, count: u8) -> Options {
    Options {
        lifeline: true,
        lab: PathBuf::from(env!("CARGO_BIN_EXE_kraken-lab")),
        append: "kraken.debug=1".to_owned(),
        ..Options::new(&format!("{name}-{}", std::process::id()), count)
    }
}

/// A turn without the shared cluster, which is ended if it is up.
pub(crate) fn turn() -> MutexGuard<'static, Option<Cluster>> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = shared.take() {
        cluster.down().expect("the shared cluster ends");
    }
    shared
}

/// The shared cluster: [`NODES`] in SYNC with their image, [`STRANGER`] off. A claim leaves it like that, or it is replaced.
pub(crate) struct Shared(MutexGuard<'static, Option<Cluster>>);

impl Deref for Shared {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.0.as_ref().expect("there as long as the turn lasts")
    }
}

/// Tries `body` on the shared cluster. If it panics, all evidence is kept and the cluster is ended.
pub(crate) fn claim(name: &str, body: impl FnOnce(&Cluster, &Artifacts)) {
    let Some(artifacts) = artifacts(name) else {
        return;
    };
    let mut guard = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let whole = |cluster: &Cluster| {
        NODES
            .iter()
            .all(|node| cluster.is_up(node).unwrap_or(false))
    };
    if guard.as_ref().is_some_and(|cluster| !whole(cluster)) {
        *guard = None;
    }
    if guard.is_none() {
        let machines = NODES.iter().chain([&STRANGER]).map(|&name| name.to_owned());
        let options = Options {
            machines: machines.collect(),
            ..options("claims", 0)
        };
        *guard = Some(Cluster::start(&options, Some(&artifacts)).expect("a cluster"));
    }
    let shared = Shared(guard);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        prove(name, &shared, || {
            if shared
                .nodes()
                .expect("nodes")
                .iter()
                .all(|node| node["name"] != NODES[0])
            {
                let nodes = NODES.map(str::to_owned);
                shared.enrol(&artifacts.demo, &nodes).expect("nodes");
            }
            wait_up(&shared, &NODES);
            body(&shared, &artifacts);
        });
    }));
    if let Err(panic) = outcome {
        let Shared(mut guard) = shared;
        *guard = None;
        drop(guard);
        resume_unwind(panic);
    }
}

/// Sets values, each written URL=VALUE, of a node.
pub(crate) fn set(cluster: &Cluster, node: &str, values: &[&str]) {
    let args: Vec<&str> = ["node", "set", node]
        .into_iter()
        .chain(values.iter().copied())
        .collect();
    cluster.ctl(&args).expect("an order");
}

/// Waits until the state of a node's image is known to be this.
pub(crate) fn wait_image(cluster: &Cluster, node: &str, state: &str, limit: Duration) {
    let known = || Ok(cluster.known(node, "/image/state")? == state);
    cluster
        .wait(limit, &format!("the image is {state}"), known)
        .expect("a state");
}

/// Makes a signed image in `folder`, whose init is a shell script of busybox that does this, and adds it to the head. Returns where it is.
pub(crate) fn add_image(
    cluster: &Cluster,
    artifacts: &Artifacts,
    folder: &Path,
    name: &str,
    does: &str,
) -> PathBuf {
    let (root, out) = (folder.join("root"), folder.join("image"));
    for part in ["sbin", "bin"] {
        fs::create_dir_all(root.join(part)).expect("a root");
    }
    let busybox = doctor::static_busybox().expect("busybox");
    fs::copy(busybox, root.join("bin/busybox")).expect("busybox");
    let init = root.join("sbin/init");
    fs::write(&init, format!("#!/bin/busybox sh\n{does}\n")).expect("an init");
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).expect("a mode");
    let mut command = Command::new(&artifacts.image_tool);
    command.args(["image", "--name", name, "--all-root", "--from"]);
    command.arg(root).arg("--keys").arg(&artifacts.keys);
    let output = command.arg("--out").arg(&out).output();
    let output = output.expect("kraken-image");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    cluster
        .ctl(&["image", "add", &out.display().to_string()])
        .expect("added");
    out
}

/// Orders a node to have no power, as an operator would: first no wish for agent and image, then the power.
pub(crate) fn order_off(cluster: &Cluster, node: &str) {
    cluster
        .ctl(&["node", "unset", node, "/RunState", "/image/state"])
        .expect("an order");
    set(cluster, node, &["/PhysState=POWER_OFF"]);
}

/// Takes [`order_off`] back.
pub(crate) fn order_on(cluster: &Cluster, node: &str) {
    cluster
        .ctl(&["node", "unset", node, "/PhysState"])
        .expect("an order");
    set(cluster, node, &["/RunState=SYNC", "/image/state=ACTIVE"]);
}

/// Waits until all `nodes` are in SYNC, run their image, and its service answers.
pub(crate) fn wait_up(cluster: &Cluster, nodes: &[&str]) {
    for node in nodes {
        cluster
            .wait(BOOT_TIME, &format!("{node} is up"), || {
                Ok(cluster.is_up(node)? && cluster.page(node)?.is_some())
            })
            .expect("a node that is up");
    }
}

/// Pulls the plug of `node` and waits until it is up after another power-on.
pub(crate) fn pull_plug_and_wait(cluster: &Cluster, node: &str) {
    let power_ons = || -> anyhow::Result<usize> {
        let events = cluster.status()?.events;
        let of_node = events.iter().filter(|event| event.node == node);
        Ok(of_node.filter(|event| event.stage == "power-on").count())
    };
    let before = power_ons().expect("a count");
    cluster.pull_plug(node).expect("no power");
    cluster
        .wait(BOOT_TIME, "the machine has power again", || {
            Ok(power_ons()? > before)
        })
        .expect("power");
    wait_up(cluster, &[node]);
}

/// Runs the body of a claim; if it panics, keeps all evidence of the cluster first. Tells the time it took.
pub(crate) fn prove(claim: &str, cluster: &Cluster, body: impl FnOnce()) {
    let started = Instant::now();
    let say = |text: &str| {
        tell(&format!(
            "claim {claim} {text} ({:.1} s)",
            started.elapsed().as_secs_f64()
        ));
    };
    let Err(panic) = catch_unwind(AssertUnwindSafe(body)) else {
        say("holds");
        return;
    };
    let why = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default();
    match failure_bundle::keep(cluster, claim, &why) {
        Ok(folder) => say(&format!(
            "FAILED; everything about it is in {}",
            folder.display()
        )),
        Err(error) => say(&format!(
            "FAILED, and so did keeping its evidence: {error:#}"
        )),
    }
    resume_unwind(panic);
}
