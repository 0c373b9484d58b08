//! The one long-living process of a cluster: pid 1 of its namespaces, owner of head, BMCs, machines and capture.
//!
//! Reads `cluster.json`, sets up the network, starts all, then serves [`control`](crate::control) until it is told to end,
//! gets SIGTERM, or loses its lifeline (the pipe that a test holds the other end of). The kernel ends everything else with it.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use crate::{
    bmc, capture,
    control::{
        ClusterSpec, Files, Identity, MESSAGE_MAX, MachineStatus, Output, Reply, Request, Status,
    },
    namespace, network,
    timeline::Timeline,
    vm::Machine,
};

/// The head promises to end within 5 s of SIGTERM; then it is killed.
const HEAD_STOP_TIME: Duration = Duration::from_secs(6);

/// Tells pid 1, which cannot see it, the pid of the process that waits outside.
const OUTER_PID: &str = "KRAKEN_LAB_OUTER_PID";

/// Outside: enters the namespaces and waits for the supervisor in them. Must run before any thread exists.
pub fn outside(dir: &Path, lifeline: bool) -> Result<i32> {
    nix::unistd::setsid().ok();
    let mut inner = Command::new("/proc/self/exe");
    inner.arg("supervise").arg(dir).arg("--inner");
    if lifeline {
        inner.arg("--lifeline");
    } else {
        inner.stdin(Stdio::null());
    }
    inner.env(OUTER_PID, std::process::id().to_string());
    namespace::run_inside(&mut inner)
}

/// Inside: pid 1. Returns when the cluster is to end.
pub fn inside(dir: &Path, lifeline: bool) -> Result<()> {
    namespace::settle_inside()?;
    let files = Files(dir.to_owned());
    let spec: ClusterSpec = serde_json::from_slice(&fs::read(files.spec())?)?;
    let machines = spec.machines.iter().map(|machine| machine.index).max();
    network::set_up(machines.unwrap_or(0))?;
    crate::router6::start(network::BRIDGE)?;
    let identity = Identity {
        pid: std::env::var(OUTER_PID)?.parse()?,
        net: namespace::net_inode("self").context("no /proc/self/ns/net")?,
    };
    fs::write(files.identity(), serde_json::to_vec(&identity)?)?;
    // One thread: children are tied to the thread that starts them, and there is little to do.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(files, spec, lifeline))?;
    if lifeline {
        // Whoever held the other end is gone and cannot do it.
        fs::remove_dir_all(dir).ok();
    }
    Ok(())
}

struct Supervisor {
    files: Files,
    spec: ClusterSpec,
    machines: Vec<Machine>,
    timeline: Timeline,
    head: Head,
    end: Notify,
}

async fn serve(files: Files, spec: ClusterSpec, lifeline: bool) -> Result<()> {
    let timeline = Timeline::default();
    let machines: Vec<Machine> = spec
        .machines
        .iter()
        .map(|machine| Machine::new(machine.clone(), &files.0, timeline.clone()))
        .collect();
    for machine in &machines {
        let address = (network::bmc_address(machine.spec().index), 80);
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address:?}"))?;
        let router = bmc::router(machine.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    if spec.capture {
        capture::start(network::BRIDGE, &files.capture())?;
    }
    let supervisor = Arc::new(Supervisor {
        head: Head::default(),
        files,
        spec,
        machines,
        timeline,
        end: Notify::new(),
    });
    if supervisor.spec.head.is_some() {
        supervisor.start_head()?;
    }

    if lifeline {
        let supervisor = Arc::clone(&supervisor);
        std::thread::spawn(move || {
            lifeline_cut();
            supervisor.end.notify_one();
        });
    }
    let control = UnixListener::bind(supervisor.files.control())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            accepted = control.accept() => {
                let (stream, _) = accepted?;
                let supervisor = Arc::clone(&supervisor);
                tokio::spawn(async move {
                    if let Err(error) = supervisor.converse(stream).await {
                        eprintln!("supervisor: control connection: {error:#}");
                    }
                });
            }
            () = supervisor.end.notified() => break,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    eprintln!("supervisor: ending");
    supervisor.stop_head(Signal::SIGTERM).await;
    for machine in &supervisor.machines {
        machine.power_off();
        machine.wait_off().await;
    }
    Ok(())
}

/// Returns when the other end of standard input is closed.
fn lifeline_cut() {
    let mut byte = [0];
    while matches!(std::io::stdin().read(&mut byte), Ok(1)) {}
}

#[derive(Default)]
struct Head {
    pid: Arc<Mutex<Option<Pid>>>,
    expected: Arc<AtomicBool>,
    deaths: Arc<AtomicU32>,
}

impl Head {
    fn pid(&self) -> Option<Pid> {
        *self.pid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Supervisor {
    async fn converse(&self, stream: UnixStream) -> Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader.take(MESSAGE_MAX as u64)).lines();
        while let Some(line) = lines.next_line().await? {
            let request: Request = serde_json::from_str(&line)?;
            let is_end = matches!(request, Request::ShutDown);
            let reply = match self.carry_out(request).await {
                Ok(value) => Reply::Ok(value),
                Err(error) => Reply::Error(format!("{error:#}")),
            };
            let mut line = serde_json::to_string(&reply)?;
            line.push('\n');
            writer.write_all(line.as_bytes()).await?;
            if is_end {
                self.end.notify_one();
            }
        }
        Ok(())
    }

    async fn carry_out(&self, request: Request) -> Result<Value> {
        match request {
            Request::Status => Ok(serde_json::to_value(self.status())?),
            Request::PowerOn { machine } => {
                self.machine(&machine)?.power_on()?;
                Ok(Value::Null)
            }
            Request::PullPlug { machine } => {
                let machine = self.machine(&machine)?;
                let had_power = machine.power_off();
                machine.wait_off().await;
                Ok(json!(had_power))
            }
            Request::StopHead { signal } => {
                let signal: Signal = signal.parse()?;
                Ok(json!(self.stop_head(signal).await))
            }
            Request::StartHead => {
                self.start_head()?;
                Ok(Value::Null)
            }
            Request::Run { argv, timeout_ms } => {
                let output = run(&argv, Duration::from_millis(timeout_ms)).await?;
                Ok(serde_json::to_value(output)?)
            }
            Request::ShutDown => Ok(Value::Null),
        }
    }

    fn machine(&self, name: &str) -> Result<&Machine> {
        self.machines
            .iter()
            .find(|machine| machine.spec().name == name)
            .ok_or_else(|| anyhow!("no machine {name}"))
    }

    fn status(&self) -> Status {
        let machines = self.machines.iter().map(|machine| MachineStatus {
            name: machine.spec().name.clone(),
            pid: machine.pid(),
            resets: machine.resets(),
        });
        Status {
            machines: machines.collect(),
            head: self.head.pid().map(Pid::as_raw),
            head_deaths: self.head.deaths.load(Ordering::Relaxed),
            events: self.timeline.events(),
        }
    }

    fn start_head(&self) -> Result<()> {
        let (program, config) = self
            .spec
            .head
            .as_ref()
            .context("this cluster has no head")?;
        let mut pid = self.head.pid.lock().unwrap_or_else(PoisonError::into_inner);
        if pid.is_some() {
            return Err(anyhow!("the head runs already"));
        }
        let mut child = tokio::process::Command::new(program)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let id = child.id().context("the head ended at once")?;
        *pid = Some(Pid::from_raw(i32::try_from(id)?));
        drop(pid);
        self.head.expected.store(false, Ordering::Relaxed);
        let errors = child.stderr.take().context("no pipe to the head")?;
        let mut log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.files.head_log())?;
        let timeline = self.timeline.clone();
        let (slot, expected, deaths) = (
            Arc::clone(&self.head.pid),
            Arc::clone(&self.head.expected),
            Arc::clone(&self.head.deaths),
        );
        tokio::spawn(async move {
            let mut lines = BufReader::new(errors).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                timeline.head_log_line(&line);
                if let Err(error) = writeln!(log, "{line}") {
                    eprintln!("supervisor: head log: {error}");
                }
            }
            let status = child.wait().await;
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = None;
            if !expected.load(Ordering::Relaxed) {
                deaths.fetch_add(1, Ordering::Relaxed);
                eprintln!("supervisor: the head ended by itself: {status:?}");
            }
        });
        Ok(())
    }

    /// Returns whether it went by itself within the time that it promises.
    async fn stop_head(&self, signal: Signal) -> bool {
        let Some(pid) = self.head.pid() else {
            return true;
        };
        self.head.expected.store(true, Ordering::Relaxed);
        kill(pid, signal).ok();
        let gone = async {
            while self.head.pid().is_some() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(HEAD_STOP_TIME, gone).await.is_ok() {
            return true;
        }
        kill(pid, Signal::SIGKILL).ok();
        while self.head.pid().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

async fn run(argv: &[String], limit: Duration) -> Result<Output> {
    let (program, arguments) = argv.split_first().context("nothing to run")?;
    let child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let Ok(output) = tokio::time::timeout(limit, child).await else {
        return Ok(Output {
            code: 124,
            stdout: String::new(),
            stderr: format!("{program}: killed after {limit:?}"),
        });
    };
    let output = output.with_context(|| format!("cannot start {program}"))?;
    Ok(Output {
        code: output.status.code().unwrap_or(128),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
