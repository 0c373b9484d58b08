//! What the claims share: artifacts, a cluster that several claims use one after the other, and the bundle of a failed one.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    process::Command,
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use vm_tests::{
    artifacts::{Artifacts, python},
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

/// A cluster that several claims share.
pub(crate) struct Kind {
    name: &'static str,
    machines: &'static [&'static str],
    /// The nodes that each claim finds, and leaves, in SYNC with their image.
    up: &'static [&'static str],
    /// Makes what takes long and needs no turn.
    prepare: fn(&Artifacts),
    /// Makes the nodes known to a new head.
    set_up: fn(&Cluster, &Artifacts),
}

/// [`NODES`] with the demo image, [`STRANGER`] off.
static DEMO: Kind = Kind {
    name: "claims",
    machines: &[NODES[0], NODES[1], STRANGER],
    up: &NODES,
    prepare: |_| {},
    set_up: |cluster, artifacts| {
        let nodes = NODES.map(str::to_owned);
        cluster.enrol(&artifacts.demo, &nodes).expect("nodes");
    },
};

/// n1 with the image that holds the module `tuner`; n2 is not known to the head.
pub(crate) static PYTHON: Kind = Kind {
    name: "python",
    machines: &NODES,
    up: &[NODES[0]],
    prepare: |artifacts| {
        python_image(artifacts);
    },
    set_up: |cluster, artifacts| {
        let extension = python::examples().join("tuner.proto");
        let extension = extension.to_str().expect("a path");
        cluster
            .ctl(&["extension", "add", extension])
            .expect("an extension");
        let file = python::examples().join("tuner.toml");
        let text = fs::read_to_string(file).expect("a file");
        declare(cluster, "tuner", &text, "tuner/TO_LATENCY");
        cluster
            .enrol(python_image(artifacts), &[NODES[0].to_owned()])
            .expect("a node");
    },
};

/// Made once, whoever asks first.
fn python_image(artifacts: &Artifacts) -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| python::image(artifacts).expect("an image with Python"))
}

/// Makes every machine of a cluster a node that runs the demo image, and waits until all are up. Their names.
pub(crate) fn bring_up<'c>(cluster: &'c Cluster, artifacts: &Artifacts) -> Vec<&'c str> {
    let machines = cluster.spec.machines.iter();
    let names: Vec<&str> = machines.map(|machine| machine.name.as_str()).collect();
    let owned: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    cluster.enrol(&artifacts.demo, &owned).expect("nodes");
    wait_up(cluster, &names);
    names
}

/// Gives the head the mutation file of a module, and waits until `krakenctl mutation show` of its mutations has this text.
pub(crate) fn declare(cluster: &Cluster, module: &str, text: &str, shows: &str) {
    let folder = cluster.files.head_state().join("mutations");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(format!("{module}.toml")), text).expect("a file");
    let mutations = || cluster.krakenctl(&["mutation", "list", "-o", "wide"]);
    cluster
        .wait(SOON, "the head knows the mutations", || {
            Ok(mutations()?.stdout.contains(shows))
        })
        .expect("mutations");
}

/// The shared cluster that is up.
static SHARED: Mutex<Option<(&'static str, Cluster)>> = Mutex::new(None);

/// Tickets given, and the one whose turn it is: two cores without KVM carry one cluster. Nobody is passed over, so claims that share a
/// cluster and follow each other by name find it up.
static LINE: (Mutex<(u64, u64)>, Condvar) = (Mutex::new((0, 0)), Condvar::new());

/// Nobody else has a cluster until this is dropped.
pub(crate) struct Turn(());

impl Turn {
    fn wait() -> Self {
        let (line, moved) = &LINE;
        let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = line.0;
        line.0 += 1;
        let waits = |line: &mut (u64, u64)| line.1 != mine;
        drop(moved.wait_while(line, waits));
        Self(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (line, moved) = &LINE;
        line.lock().unwrap_or_else(PoisonError::into_inner).1 += 1;
        moved.notify_all();
    }
}

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
pub(crate) fn turn() -> Turn {
    let turn = Turn::wait();
    end_shared(&mut shared());
    turn
}

fn shared() -> MutexGuard<'static, Option<(&'static str, Cluster)>> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end_shared(shared: &mut Option<(&'static str, Cluster)>) {
    if let Some((_, cluster)) = shared.take() {
        cluster.down().expect("the shared cluster ends");
    }
}

/// Tries `body` on the cluster of [`NODES`]. If it panics, all evidence is kept and the cluster is ended.
pub(crate) fn claim(name: &str, body: impl FnOnce(&Cluster, &Artifacts)) {
    claim_in(&DEMO, name, body);
}

/// Tries `body` on a shared cluster, which it leaves as it found it, or it is replaced.
pub(crate) fn claim_in(kind: &'static Kind, name: &str, body: impl FnOnce(&Cluster, &Artifacts)) {
    let Some(artifacts) = artifacts(name) else {
        return;
    };
    (kind.prepare)(&artifacts);
    let _turn = Turn::wait();
    let mut guard = shared();
    let whole = |cluster: &Cluster| {
        let mut up = kind.up.iter();
        up.all(|node| cluster.is_up(node).unwrap_or(false))
    };
    let fits = |(of, cluster): &(&str, Cluster)| *of == kind.name && whole(cluster);
    if guard.as_ref().is_some_and(|shared| !fits(shared)) {
        end_shared(&mut guard);
    }
    let is_new = guard.is_none();
    let (_, cluster) = guard.get_or_insert_with(|| {
        let options = Options {
            machines: kind.machines.iter().map(|&name| name.to_owned()).collect(),
            ..options(kind.name, 0)
        };
        let cluster = Cluster::start(&options, Some(&artifacts)).expect("a cluster");
        (kind.name, cluster)
    });
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        prove(name, cluster, || {
            if is_new {
                (kind.set_up)(cluster, &artifacts);
            }
            wait_up(cluster, kind.up);
            body(cluster, &artifacts);
        });
    }));
    if let Err(panic) = outcome {
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

/// Makes a signed image in `folder`, whose init is a shell script of busybox that does this, and adds it to the head. Its root is `root`
/// there, with what is in it already. Returns where the image is.
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
    write_program(
        &root.join("sbin/init"),
        &format!("#!/bin/busybox sh\n{does}\n"),
    );
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

/// Writes a script.
pub(crate) fn write_program(path: &Path, text: &str) {
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
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
