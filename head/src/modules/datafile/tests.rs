//! Files against a real engine and a BMC that is a folder with two files: `power` is what it is, `mode` how it behaves.

use std::fs;
use std::path::Path;

use engine::Engine;
use engine::driver::{self, Clock};
use engine::engine::{EngineConfig, Role};
use engine::event::{Event, Input, MutationEvent, Output, Write, WriteOp};
use engine::mutation::file::{Loaded, load};
use engine::mutation::progress::Healing;
use engine::mutation::report::Outcome as Standing;
use engine::state::{Node, Values};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;

/// Long enough for anything here on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const ME: NodeId = NodeId::from_bytes([1; 16]);
const N1: NodeId = NodeId::from_bytes([2; 16]);

/// The program that stands for ipmitool: `bmc DIR status|on|off`. Each call leaves a line in DIR/calls.
const BMC: &str = r#"#!/bin/sh
cd "$1" || exit 2
echo "$2" >> calls
mode=$(cat mode)
case $mode in
dead) echo "Unable to establish IPMI v2 / RMCP+ session" >&2; exit 1;;
hangs) sleep 1000;;
esac
case $2 in
status)
    case $mode in
    garbage) head -c 300 /dev/urandom; exit 0;;
    both) echo "Chassis Power is on"; echo "Chassis Power is off"; exit 0;;
    silent) exit 0;;
    esac
    echo "Chassis Power is $(cat power)";;
*)
    [ "$mode" = lazy ] || echo "$2" > power
    [ "$mode" = deaf ] && { echo "node busy" >&2; exit 1; }
    echo "Chassis Power Control: $2";;
esac
"#;

/// The same shape as the shipped file, with less patience.
const FILE: &str = r#"
module = "bmc"
discoverables = ["/power/last_error"]
[[poll]]
name = "status"
every = "1s"
timeout = "2s"
requires = { "/power/driver" = "IPMITOOL" }
command = ["DIR/bmc", "{/power/target}", "status"]
map = [
  { line = "Chassis Power is on", discover = { "/PhysState" = "POWER_ON" }, unless = { "/PhysState" = "PHYS_HANG" } },
  { line = "Chassis Power is off", discover = { "/PhysState" = "POWER_OFF" } },
]
error = "/power/last_error"
[[mutation]]
name = "UKtoOFF"
context = "CHILD"
mutates = { "/PhysState" = { to = "POWER_OFF" } }
requires = { "/power/driver" = "IPMITOOL" }
timeout = "4s"
fail_to = { "/PhysState" = "PHYS_ERROR" }
ask = "status"
[[mutation]]
name = "OFFtoON"
context = "CHILD"
mutates = { "/PhysState" = { from = "POWER_OFF", to = "POWER_ON" } }
requires = { "/power/driver" = "IPMITOOL" }
timeout = "4s"
fail_to = { "/PhysState" = "PHYS_HANG" }
ask = "status"
command = ["DIR/bmc", "{/power/target}", "on"]
exit = { 1 = "retry" }
[[mutation]]
name = "HANGtoOFF"
context = "CHILD"
mutates = { "/PhysState" = { from = ["PHYS_HANG", "PHYS_ERROR"], to = "POWER_OFF" } }
requires = { "/power/driver" = "IPMITOOL" }
timeout = "4s"
fail_to = { "/PhysState" = "PHYS_ERROR" }
disruptive = true
ask = "status"
command = ["DIR/bmc", "{/power/target}", "off"]
"#;

struct World {
    dir: TempDir,
    files: DataFiles,
    handle: Handle,
    events: mpsc::UnboundedReceiver<Event>,
}

impl World {
    /// A head with this file, and a node whose BMC is in `mode` and whose power is `power`.
    fn new(file: &str, mode: &str, power: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("mutations")).unwrap();
        let shown = dir.path().display().to_string();
        fs::write(path("mutations/bmc.toml"), file.replace("DIR", &shown)).unwrap();
        fs::write(path("mode"), mode).unwrap();
        fs::write(path("power"), power).unwrap();
        script(&path("bmc"), BMC);

        let schema = Arc::new(Schema::built_in());
        let Loaded {
            mut set, programs, ..
        } = load(&path("mutations"), &schema).unwrap();
        set.generation = 1;
        let clock = Clock::start();
        let healing = Healing {
            attempts: 2,
            backoff: Duration::from_millis(100),
            settle: Duration::ZERO,
            ..Healing::default()
        };
        let config = EngineConfig {
            me: ME,
            role: Role::Head { epoch: 1 },
            sync: engine::sync::SyncConfig::default(),
            healing,
            seed: 1,
        };
        let mut engine = Engine::new(config, (*schema).clone(), clock.now());
        let mut node = Node::new(N1, "n1".parse().unwrap(), Some(ME));
        // What is wanted of machines that no power module knows is there from the start: it is nothing that a schema has.
        let raid = if file.contains("/raid/state") {
            "BUILT"
        } else {
            ""
        };
        node.cfg = values(&[
            ("/power/driver", "IPMITOOL"),
            ("/power/target", shown.as_str()),
            ("/raid/state", raid),
        ]);
        engine.restore_node(Node::new(ME, "head".parse().unwrap(), None));
        engine.restore_node(node);

        let (reports, mut reported) = Reports::channel();
        let files = DataFiles::new(reports, dir.path().to_owned());
        files.put(programs, schema);
        let (handle, inbox) = driver::channel();
        let (happened, events) = mpsc::unbounded_channel();
        let (doer, back) = (files.clone(), handle.clone());
        let act = move |output| match output {
            Output::Commit { commit, .. } => {
                let result = Ok(());
                assert!(back.try_input(Input::Committed { commit, result }));
            }
            Output::Fire(fire) => doer.fire(fire),
            Output::Interrupt { node, attempt, .. } => {
                doer.interrupt(node, attempt);
            }
            Output::Event(event) => drop(happened.send(event)),
            _ => {}
        };
        let never = std::future::pending();
        tokio::spawn(driver::run(engine, clock, inbox, act, never));
        let engine = handle.clone();
        tokio::spawn(async move {
            while let Some(input) = reported.recv().await {
                engine.input(input).await.unwrap();
            }
        });
        assert!(handle.try_input(Input::Declare(set)));
        Self {
            dir,
            files,
            handle,
            events,
        }
    }

    fn bmc(&self, file: &str, text: &str) {
        // Whole at once: the script must not read half of it.
        let (new, path) = (self.dir.path().join("new"), self.dir.path().join(file));
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// How often the BMC was called like this.
    fn calls(&self, word: &str) -> usize {
        let calls = fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
        calls.lines().filter(|line| *line == word).count()
    }

    async fn set(&self, url: &'static str, value: &'static str) {
        let write = Write {
            request: engine::event::RequestId(1),
            author: "test".into(),
            reason: String::new(),
            if_revision: 0,
            key: None,
            now_ms: 0,
            ops: vec![WriteOp::Set {
                node: N1,
                changes: vec![Change::set(url.parse().unwrap(), Value::from(value))],
            }],
        };
        self.handle.input(Input::Write(write)).await.unwrap();
    }

    async fn known(&self, url: &'static str) -> String {
        let read = self.handle.query(move |engine, _| {
            let node = engine.tree().get(N1)?;
            Some(node.dsc.text(url).unwrap_or_default().to_owned())
        });
        read.await.unwrap().unwrap()
    }

    async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds().await {
            assert!(Instant::now() < deadline, "waited too long: {what}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_known(&self, url: &'static str, value: &str) {
        self.until(value, async || self.known(url).await == value)
            .await;
    }

    /// The next failure of a mutation, and why.
    async fn failure(&mut self) -> (String, String) {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.events.recv()).await;
            if let Event::Mutation {
                mutation,
                what: MutationEvent::Failed { text },
                ..
            } = next.unwrap().unwrap()
            {
                return (mutation.to_string(), text);
            }
        }
    }
}

fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    // Written by another process: a file that this one has open for writing cannot be executed by a child of a sister test's fork.
    let status = std::process::Command::new("/bin/sh")
        .args(["-c", "printf '%s' \"$1\" > \"$2\"", "sh", text])
        .arg(path)
        .status();
    assert!(status.unwrap().success());
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(url, value)| (url.parse().unwrap(), Value::from(*value)))
        .collect()
}

#[test]
fn the_shipped_file_and_the_example_of_the_page_are_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = Schema::built_in();
    let shipped = load(&root.join("mutations"), &schema).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(shipped.programs[0].runs.len(), shipped.set.mutations.len());
    let page = fs::read_to_string(root.join("../engine/docs/mutation-file.md")).unwrap();
    let example = page.split("```toml\n").nth(1).unwrap();
    let example = example.split("```").next().unwrap();
    let read = engine::mutation::file::read("mutation-file.md", example, &schema);
    let read = read.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((read.program.runs.len(), read.program.polls.len()), (1, 1));
}

#[tokio::test]
async fn a_machine_is_asked_told_and_asked_again() {
    let world = World::new(FILE, "good", "off");
    world.set("/PhysState", "POWER_ON").await;
    world.until_known("/PhysState", "POWER_ON").await;
    assert_eq!(world.calls("on"), 1, "one command");
    assert_eq!(world.calls("off"), 0);
}

#[tokio::test]
async fn what_the_device_has_done_already_is_not_asked_of_it_again() {
    // It does what it is told and says that it did not; the command asks for another try.
    let world = World::new(FILE, "deaf", "off");
    world.set("/PhysState", "POWER_ON").await;
    world.until_known("/PhysState", "POWER_ON").await;
    assert_eq!(world.calls("on"), 1, "found on before the second try");
}

#[tokio::test]
async fn f33_a_bmc_without_an_answer_leaves_power_as_it_was_known() {
    for mode in ["dead", "hangs", "garbage", "both", "silent"] {
        let world = World::new(FILE, "good", "on");
        world.files.start(world.handle.clone());
        world.until_known("/PhysState", "POWER_ON").await;
        world.bmc("mode", mode);
        world.bmc("power", "off");
        world
            .until("trouble", async || {
                !world.known("/power/last_error").await.is_empty()
            })
            .await;
        assert_eq!(world.known("/PhysState").await, "POWER_ON", "{mode}");
        // It powers by itself, and answers again: that is news.
        world.bmc("mode", "good");
        world.until_known("/PhysState", "POWER_OFF").await;
        world.until_known("/power/last_error", "").await;
        assert_eq!(world.calls("on") + world.calls("off"), 0, "nobody was told");
    }
}

#[tokio::test]
async fn f33_unknown_is_never_taken_for_off() {
    for (mode, why) in [
        ("dead", "RMCP+ session"),
        ("hangs", "did not end in time"),
        ("both", "says two things of /PhysState"),
        ("silent", "nothing in its output has a meaning"),
    ] {
        let mut world = World::new(FILE, mode, "off");
        world.set("/PhysState", "POWER_ON").await;
        for _ in 0..2 {
            let (mutation, text) = world.failure().await;
            assert_eq!(mutation, "bmc/UKtoOFF", "{mode}");
            assert!(text.contains(why), "{mode}: {text}");
        }
        assert_eq!(world.known("/PhysState").await, "", "{mode}");
        assert_eq!(world.calls("on"), 0, "{mode}");
        // Two attempts are all that this engine makes.
        let stands = world
            .handle
            .query(|engine, now| Some(engine.report(N1, now)?.outcome));
        assert_eq!(stands.await.unwrap(), Some(Standing::Parked), "{mode}");
    }
}

#[tokio::test]
async fn f33_a_bmc_that_accepts_and_does_nothing_is_told_a_bounded_number_of_times() {
    let mut world = World::new(FILE, "lazy", "off");
    world.set("/PhysState", "POWER_ON").await;
    let (mutation, text) = world.failure().await;
    assert_eq!(mutation, "bmc/OFFtoON");
    assert!(text.contains("4s"), "the engine's own words: {text}");
    // The machine is found off; after the last attempt there is peace.
    let (mutation, _) = world.failure().await;
    assert_eq!(mutation, "bmc/OFFtoON");
    assert_eq!(world.calls("on"), 2, "once an attempt");
    assert_eq!(world.calls("off"), 0, "it is off");
}

#[tokio::test]
async fn an_interrupt_kills_what_runs() {
    let world = World::new(FILE, "hangs", "off");
    world.set("/PhysState", "POWER_ON").await;
    world
        .until("asked", async || world.calls("status") > 0)
        .await;
    assert!(world.files.0.table().nodes[&N1].firing.len() == 1);
    let attempt = *world.files.0.table().nodes[&N1]
        .firing
        .keys()
        .next()
        .unwrap();
    assert!(world.files.interrupt(N1, attempt));
    assert!(!world.files.interrupt(N1, attempt), "once");
    world
        .until("its places are free", async || {
            world.files.0.processes.available_permits() == MAX_PROCESSES
        })
        .await;
}

#[tokio::test]
async fn lines_codes_and_trust_discover() {
    let file = r#"
module = "raid"
discoverables = ["/raid/disks"]
[[mutation]]
name = "BUILD"
context = "CHILD"
mutates = { "/raid/state" = { to = "BUILT" } }
timeout = "20s"
command = "echo discover /raid/disks 4; echo discover /raid/other 1; echo \"$NODE $PWD\" > built; exit $CODE"
shell = true
env = { NODE = "{node}#{attempt}", CODE = "{/power/port|3}" }
exit = { 3 = { "/raid/state" = "BUILT" } }
"#;
    let world = World::new(file, "good", "off");
    world.until_known("/raid/state", "BUILT").await;
    let built = fs::read_to_string(world.dir.path().join("built")).unwrap();
    assert!(built.starts_with("n1#"), "{built}");
    let disks = world.handle.query(|engine, _| {
        let node = engine.tree().get(N1)?;
        assert_eq!(node.dsc.get("/raid/other"), None);
        node.dsc.get("/raid/disks").cloned()
    });
    assert_eq!(disks.await.unwrap(), Some(Value::Int(4)));
}

#[tokio::test]
async fn files_may_change_under_way() {
    let world = World::new(FILE, "good", "off");
    let polled = MutationId::new("bmc", "OFFtoON");
    assert!(world.files.carries_out(&polled));
    let before = Arc::clone(&world.files.0.table().files[0]);
    let again = || load(&world.dir.path().join("mutations"), &Schema::built_in()).unwrap();
    let schema = || Arc::new(Schema::built_in());
    world.files.put(again().programs, schema());
    assert!(
        Arc::ptr_eq(&before, &world.files.0.table().files[0]),
        "the same file keeps its places"
    );
    world.files.put(Vec::new(), schema());
    assert!(!world.files.carries_out(&polled));
}
