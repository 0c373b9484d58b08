//! A virtual cluster seen from outside its namespaces: start it, ask it, act on it, end it. `up` and every claim use this.
//!
//! What an operator would do goes through `krakenctl`; what happens to hardware (plugs, captures) through the supervisor.

use std::{
    fs,
    io::Write,
    os::unix::{fs::DirBuilderExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    artifacts::Artifacts,
    bmc,
    control::{self, ClusterSpec, Files, Output, Request, Status},
    down, network, paths, timeline,
    vm::MachineSpec,
};

/// A namespace, a bridge and a head take about a second on an idle machine.
const START_TIME: Duration = Duration::from_secs(40);

/// Answers of the supervisor that need no waiting.
const CALL_TIME: Duration = Duration::from_secs(20);

/// The head's HTTP port on the boot network.
pub const HTTP_PORT: u16 = 8080;

/// Between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(250);

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names the folder, and tells clusters apart.
    pub name: String,
    /// Machines, numbered from 1 in this order.
    pub machines: Vec<String>,
    /// Memory of a machine.
    pub memory_mib: u32,
    /// Whether the cluster ends with this process.
    pub lifeline: bool,
    /// Added to the kernel command line of every machine.
    pub append: String,
    /// Added to the head's configuration: whole tables.
    pub config: String,
    /// The `kraken-lab` program, which is also the supervisor.
    pub lab: PathBuf,
}

impl Options {
    /// `count` machines n1, n2, ... that outlive this process.
    pub fn new(name: &str, count: u8) -> Self {
        Self {
            name: name.to_owned(),
            machines: (1..=count).map(|index| format!("n{index}")).collect(),
            memory_mib: 512,
            lifeline: false,
            append: String::new(),
            config: String::new(),
            lab: PathBuf::from("/proc/self/exe"),
        }
    }
}

/// A running cluster.
pub struct Cluster {
    /// What it is made of.
    pub spec: ClusterSpec,
    /// Its folder.
    pub files: Files,
    krakenctl: PathBuf,
    supervisor: Option<(Child, Option<ChildStdin>)>,
    ends_with_me: AtomicBool,
}

impl Cluster {
    /// Starts supervisor, network, BMCs, capture and, with `artifacts`, a head that is ready. The machines have no power yet.
    pub fn start(options: &Options, artifacts: Option<&Artifacts>) -> Result<Self> {
        let count = options.machines.len();
        if count == 0 || count > usize::from(network::MACHINES_MAX) {
            bail!(
                "a lab cluster has 1 to {} machines, not {count}",
                network::MACHINES_MAX
            );
        }
        let dir = paths::cluster(&options.name)?;
        let files = Files(dir.clone());
        if control::call::<Status>(&files.control(), &Request::Status, CALL_TIME).is_ok() {
            bail!(
                "a cluster {} is up already; type: cargo lab down",
                options.name
            );
        }
        down::down(&dir).context("an earlier cluster is in the way")?;
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let accel = artifacts.map_or("tcg", |artifacts| artifacts.accel.as_str());
        let spec = ClusterSpec {
            name: options.name.clone(),
            machines: (1..)
                .zip(&options.machines)
                .map(|(index, name)| MachineSpec {
                    name: name.clone(),
                    index,
                    accel: accel.to_owned(),
                    memory_mib: options.memory_mib,
                })
                .collect(),
            head: artifacts.map(|artifacts| (artifacts.head.clone(), files.head_config())),
            capture: true,
        };
        fs::write(files.spec(), serde_json::to_vec_pretty(&spec)?)?;
        if let Some(artifacts) = artifacts {
            fs::create_dir_all(files.head_run())?;
            fs::create_dir_all(files.head_state())?;
            let config = head_config(&files, artifacts, &options.append);
            fs::write(files.head_config(), config + &options.config)?;
        }
        let log = fs::File::create(files.supervisor_log())?;
        let mut command = Command::new(&options.lab);
        command.arg("supervise").arg(&dir);
        if options.lifeline {
            command.arg("--lifeline").stdin(Stdio::piped());
        } else {
            command.stdin(Stdio::null());
        }
        let mut child = command
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", options.lab.display()))?;
        let lifeline = child.stdin.take();
        let mut cluster = Self {
            spec,
            files,
            krakenctl: paths::program("krakenctl"),
            supervisor: Some((child, lifeline)),
            ends_with_me: AtomicBool::new(true),
        };
        cluster.wait_ready()?;
        cluster
            .ends_with_me
            .store(options.lifeline, Ordering::Relaxed);
        Ok(cluster)
    }

    /// Attaches to a cluster that runs.
    pub fn find(name: &str) -> Result<Self> {
        let files = Files(paths::cluster(name)?);
        let bytes = fs::read(files.spec())
            .with_context(|| format!("no cluster {name} is up; type: cargo lab up"))?;
        Ok(Self {
            spec: serde_json::from_slice(&bytes)?,
            files,
            krakenctl: paths::program("krakenctl"),
            supervisor: None,
            ends_with_me: AtomicBool::new(false),
        })
    }

    fn wait_ready(&mut self) -> Result<()> {
        let until = Instant::now() + START_TIME;
        loop {
            if let Some((child, _)) = &mut self.supervisor
                && let Some(status) = child.try_wait()?
            {
                bail!(
                    "the supervisor ended ({status}):\n{}",
                    self.log_tail(&self.files.supervisor_log())
                );
            }
            if let Ok(status) = self.status() {
                if self.spec.head.is_none() {
                    return Ok(());
                }
                if status.head.is_none() && status.head_deaths > 0 {
                    bail!("the head ended:\n{}", self.log_tail(&self.files.head_log()));
                }
                if self
                    .krakenctl(&["version"])
                    .is_ok_and(|output| output.code == 0)
                {
                    return Ok(());
                }
            }
            if Instant::now() > until {
                bail!(
                    "no head within {START_TIME:?}:\n{}{}",
                    self.log_tail(&self.files.supervisor_log()),
                    self.log_tail(&self.files.head_log())
                );
            }
            std::thread::sleep(POLL);
        }
    }

    fn log_tail(&self, log: &Path) -> String {
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Asks the supervisor.
    pub fn status(&self) -> Result<Status> {
        control::call(&self.files.control(), &Request::Status, CALL_TIME)
    }

    /// Runs `krakenctl` against this cluster's head.
    pub fn krakenctl(&self, args: &[&str]) -> Result<Output> {
        let output = Command::new(&self.krakenctl)
            .arg("--socket")
            .arg(self.files.api())
            .args(args)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", self.krakenctl.display()))?;
        Ok(Output {
            code: output.status.code().unwrap_or(128),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs `krakenctl`; anything but success is an error that shows what it said.
    pub fn ctl(&self, args: &[&str]) -> Result<String> {
        let output = self.krakenctl(args)?;
        if output.code != 0 {
            bail!(
                "krakenctl {}: exit code {}: {}{}",
                args.join(" "),
                output.code,
                output.stdout,
                output.stderr
            );
        }
        Ok(output.stdout)
    }

    /// The nodes as `krakenctl node list -o json` shows them.
    pub fn nodes(&self) -> Result<Vec<Value>> {
        let text = self.ctl(&["node", "list", "-o", "json"])?;
        let value: Value = serde_json::from_str(&text).context("krakenctl printed no JSON")?;
        let list = value.get("nodes").unwrap_or(&value);
        Ok(list.as_array().context("no list of nodes")?.clone())
    }

    /// What is known (Dsc) of one value of a node; empty: nothing.
    pub fn known(&self, node: &str, url: &str) -> Result<String> {
        let nodes = self.nodes()?;
        let found = nodes.iter().find(|value| value["name"] == node);
        let found = found.with_context(|| format!("no node {node}"))?;
        Ok(match &found["dsc"][url] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    /// Makes the demo image known to the head, and `machines` its nodes that shall run it.
    pub fn enrol(&self, demo: &Path, machines: &[String]) -> Result<()> {
        self.ctl(&["image", "add", &demo.display().to_string()])?;
        for machine in &self.spec.machines {
            if machines.contains(&machine.name) {
                self.add_node(machine)?;
            }
        }
        Ok(())
    }

    /// Adds one machine as a compute node that shall run the demo image.
    pub fn add_node(&self, machine: &MachineSpec) -> Result<()> {
        self.add_node_to(machine, "compute")
    }

    /// The same, in another group.
    pub fn add_node_to(&self, machine: &MachineSpec, group: &str) -> Result<()> {
        let index = machine.index;
        let values = [
            ("/ipv4/boot/mac", network::node_mac(index)),
            (
                "/ipv4/boot/address",
                format!("{}/24", network::node_address(index)),
            ),
            ("/power/driver", "REDFISH".to_owned()),
            ("/power/target", power_target(machine)),
            ("/power/username", bmc::USER.to_owned()),
            ("/power/password", bmc::PASSWORD.to_owned()),
            ("/image/name", "demo".to_owned()),
            ("/image/state", "ACTIVE".to_owned()),
            ("/RunState", "SYNC".to_owned()),
        ];
        let values = values.map(|(url, value)| format!("{url}={value}"));
        let mut args = vec!["node", "add", &machine.name, "--group", group];
        args.extend(values.iter().map(String::as_str));
        self.ctl(&args).map(drop)
    }

    /// Whether the agent is joined and the image runs.
    pub fn is_up(&self, node: &str) -> Result<bool> {
        Ok(self.known(node, "/RunState")? == "SYNC"
            && self.known(node, "/image/state")? == "ACTIVE")
    }

    /// Runs a program inside the cluster's namespaces, next to the head.
    pub fn run(&self, argv: &[&str], limit: Duration) -> Result<Output> {
        let request = Request::Run {
            argv: argv.iter().map(|&arg| arg.to_owned()).collect(),
            timeout_ms: u64::try_from(limit.as_millis())?,
        };
        control::call(&self.files.control(), &request, limit + CALL_TIME)
    }

    /// Fetches a page as a machine on the bridge would; none when it does not answer with 200.
    pub fn http_get(&self, url: &str) -> Result<Option<String>> {
        let argv = [
            "curl",
            "--silent",
            "--fail",
            "--path-as-is",
            "--max-time",
            "3",
            url,
        ];
        let output = self.run(&argv, CALL_TIME)?;
        Ok((output.code == 0).then_some(output.stdout))
    }

    /// Presses a machine's own power button: no BMC and no head is involved.
    pub fn press_power(&self, machine: &str) -> Result<()> {
        let machine = machine.to_owned();
        self.act(&Request::PowerOn { machine })
    }

    /// Pulls a machine's plug.
    pub fn pull_plug(&self, machine: &str) -> Result<()> {
        let machine = machine.to_owned();
        self.act(&Request::PullPlug { machine })
    }

    /// Kills the head at once.
    pub fn kill_head(&self) -> Result<()> {
        self.act(&Request::StopHead {
            signal: "SIGKILL".to_owned(),
        })
    }

    /// Starts the head again and waits until it answers.
    pub fn start_head(&self) -> Result<()> {
        self.act(&Request::StartHead)?;
        self.wait(START_TIME, "the head answers", || {
            Ok(self.krakenctl(&["version"])?.code == 0)
        })
    }

    fn act(&self, request: &Request) -> Result<()> {
        control::call::<Value>(&self.files.control(), request, CALL_TIME).map(drop)
    }

    /// Requests of one type that a machine's BMC was sent.
    pub fn resets(&self, machine: &str, kind: &str) -> Result<u64> {
        let status = self.status()?;
        let machine = status.machines.iter().find(|status| status.name == machine);
        let machine = machine.context("no such machine")?;
        Ok(machine.resets.get(kind).copied().unwrap_or(0))
    }

    /// Requests of all types that all BMCs were sent.
    pub fn all_resets(&self) -> Result<u64> {
        let status = self.status()?;
        Ok(status
            .machines
            .iter()
            .flat_map(|machine| machine.resets.values())
            .sum())
    }

    /// Waits for a condition, or says that it did not come.
    pub fn wait(
        &self,
        limit: Duration,
        what: &str,
        mut is_true: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let until = Instant::now() + limit;
        loop {
            let why = match is_true() {
                Ok(true) => return Ok(()),
                Ok(false) => String::new(),
                Err(error) => format!(": {error:#}"),
            };
            if Instant::now() > until {
                bail!("waited {limit:?} in vain until {what}{why}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// Everything that a machine wrote to its serial line, over all its boots.
    pub fn console(&self, machine: &str) -> String {
        let path = self.files.0.join(format!("{machine}.console.log"));
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Types a line at a machine's serial console.
    pub fn type_line(&self, machine: &str, line: &str) -> Result<()> {
        let socket = self.files.0.join(format!("{machine}.tty"));
        let mut stream = UnixStream::connect(&socket)
            .with_context(|| format!("no console at {}", socket.display()))?;
        stream.write_all(format!("{line}\n").as_bytes())?;
        // QEMU takes what it can when it can; a connection that is closed too early loses the rest.
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    }

    /// The machine's number, address and so on.
    pub fn machine(&self, name: &str) -> Result<&MachineSpec> {
        let found = self
            .spec
            .machines
            .iter()
            .find(|machine| machine.name == name);
        found.with_context(|| format!("no machine {name}"))
    }

    /// The page that the demo image serves on a node; none when nothing answers.
    pub fn page(&self, node: &str) -> Result<Option<String>> {
        let address = network::node_address(self.machine(node)?.index);
        self.http_get(&format!("http://{address}/"))
    }

    /// The stages of the node's boot after its latest power-on.
    pub fn last_boot(&self, node: &str) -> Result<Vec<String>> {
        let events = self.status()?.events;
        let boot = timeline::last_boot(&events, node);
        Ok(boot.into_iter().map(|(stage, _)| stage).collect())
    }

    /// The head's log over all its starts, as JSON lines.
    pub fn head_log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.files.head_log()).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// One of the head's metrics: the sum over all series of this name whose labels contain `labels`.
    pub fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let output = Command::new("curl")
            .args(["--silent", "--fail", "--max-time", "5", "--unix-socket"])
            .arg(self.files.api())
            .arg("http://head/metrics")
            .output()
            .context("cannot start curl")?;
        if !output.status.success() {
            bail!("the head shows no metrics: curl: {}", output.status);
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let sum = text
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(labels))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        Ok(sum)
    }

    /// Leaves the cluster running when this value goes.
    pub fn keep(&self) {
        self.ends_with_me.store(false, Ordering::Relaxed);
    }

    /// Ends the cluster and proves that nothing remains.
    pub fn down(&self) -> Result<String> {
        self.ends_with_me.store(false, Ordering::Relaxed);
        down::down(&self.files.0)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.ends_with_me.load(Ordering::Relaxed)
            && let Err(error) = down::down(&self.files.0)
        {
            eprintln!("lab: {error:#}");
        }
        if let Some((child, lifeline)) = &mut self.supervisor
            && lifeline.take().is_some()
        {
            child.wait().ok();
        }
    }
}

/// Where a machine's power is switched.
fn power_target(machine: &MachineSpec) -> String {
    let bmc = network::bmc_address(machine.index);
    format!("http://{bmc}/redfish/v1/Systems/{}", machine.name)
}

fn head_config(files: &Files, artifacts: &Artifacts, append: &str) -> String {
    let path = |path: &Path| Value::from(path.display().to_string()).to_string();
    let loader = Path::new("/usr/lib/ipxe/undionly.kpxe");
    format!(
        r#"cluster = "lab"
name = "head"
state_dir = {state}
run_dir = {run}
keys_dir = {keys}

[log]
format = "json"
level = "info"

[boot]
interfaces = ["{bridge}"]
http_port = {HTTP_PORT}
kernel = {kernel}
initramfs = {initramfs}
append = "console=ttyS0 panic=5 {append}"
loaders = {{ bios = {loader} }}

[power]
poll = "1s"
"#,
        state = path(&files.head_state()),
        run = path(&files.head_run()),
        keys = path(&artifacts.keys),
        bridge = network::BRIDGE,
        kernel = path(&artifacts.kernel.join("vmlinuz")),
        initramfs = path(&artifacts.initramfs),
        loader = path(loader),
    )
}
