//! For tests: a network of its own with a head's end and a client's end, in namespaces that die with the test.
//!
//! A test calls [`enter`] first. In the test process that starts the same test once more below `unshare` and waits for it;
//! in there it returns the network. Machines without namespaces or without a program say so on standard error, which the test
//! harness does not swallow, and the test counts as passed.

use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Set in the process that is in the namespaces.
const INSIDE: &str = "KRAKEN_TEST_NAMESPACE";

/// For one test with real clients; the slowest of them wait a few seconds.
const TIME: &str = "90";

/// A veth pair: `boot0` (10.77.0.1/24) here, `client0` in another network namespace, with no address.
pub(crate) struct Network {
    client: Child,
}

/// The network, if the calling test is to run now; otherwise the test has been run or cannot be.
pub(crate) fn enter(module: &str, test: &str, programs: &[&str]) -> Option<Network> {
    if std::env::var_os(INSIDE).is_some() {
        return Some(Network::new());
    }
    let base = ["unshare", "nsenter", "ip", "timeout"];
    for program in base.iter().chain(programs) {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output();
        if !found.is_ok_and(|output| output.status.success()) {
            cannot_run(test, &format!("{program} is not installed"));
            return None;
        }
    }
    let namespaces = ["-Urnmpf", "--kill-child", "--mount-proc"];
    if !Command::new("unshare")
        .args(namespaces)
        .arg("true")
        .status()
        .is_ok_and(|status| status.success())
    {
        cannot_run(
            test,
            "this machine does not allow namespaces (unshare -Urn)",
        );
        return None;
    }
    let (_, path) = module.split_once("::").expect("a module of a crate");
    let output = Command::new("timeout")
        .args([TIME, "unshare"])
        .args(namespaces)
        .arg(std::env::current_exe().expect("the path of this test"))
        .args([
            "--exact",
            &format!("{path}::{test}"),
            "--nocapture",
            "--test-threads=1",
        ])
        .env(INSIDE, "1")
        .output()
        .expect("timeout starts");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "in the namespaces:\n{text}");
    assert!(
        text.contains("1 passed"),
        "the test did not run in the namespaces:\n{text}"
    );
    None
}

fn cannot_run(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "\n*** {test} DID NOT RUN: {why} ***\n");
}

/// Runs a shell command that must succeed.
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", command])
        .output()
        .expect("sh starts");
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Network {
    fn new() -> Self {
        let client = Command::new("unshare")
            .args(["-n", "sleep", "1000"])
            .stdin(Stdio::null())
            .spawn()
            .expect("a process for the client's namespace");
        let own = std::fs::read_link("/proc/self/ns/net").expect("our namespace");
        let theirs = format!("/proc/{}/ns/net", client.id());
        until("the client's namespace", || {
            std::fs::read_link(&theirs).is_ok_and(|net| net != own)
        });
        sh("ip link set lo up");
        Network { client }
    }

    /// Makes the link; before this, `boot0` does not exist.
    pub(crate) fn connect(&self, client_mac: &str) {
        let pid = self.client.id();
        sh(&format!(
            "ip link add boot0 type veth peer name client0 address {client_mac}
             ip link set client0 netns {pid}
             ip addr add 10.77.0.1/24 dev boot0
             ip link set boot0 up"
        ));
        self.run("ip link set lo up; ip link set client0 up");
    }

    /// Runs Rust code on the client's side, in a thread of its own.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.client.id()));
        let namespace = namespace.expect("the client's namespace");
        let work = move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("entered");
            work()
        };
        std::thread::scope(|scope| {
            scope
                .spawn(work)
                .join()
                .expect("no panic on the client's side")
        })
    }

    /// A shell command on the client's side.
    pub(crate) fn client(&self, command: &str) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter.args([
            "-t",
            &self.client.id().to_string(),
            "-n",
            "sh",
            "-ec",
            command,
        ]);
        nsenter
    }

    /// Runs a command on the client's side, whatever its result.
    pub(crate) fn output(&self, command: &str) -> Output {
        self.client(command).output().expect("nsenter starts")
    }

    /// Runs a command on the client's side that must succeed.
    pub(crate) fn run(&self, command: &str) -> String {
        let output = self.output(command);
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{command}: {text}");
        text
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}
