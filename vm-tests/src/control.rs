//! How the lab talks to a cluster's supervisor: one JSON request a line over `ctl.sock`, one JSON answer a line.
//!
//! The folder of the socket is open to its owner only, so a connection is proof enough of who calls.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{timeline::Event, vm::MachineSpec};

/// The longest request or answer; an answer carries at most a program's output.
pub const MESSAGE_MAX: usize = 8 << 20;

/// What a cluster consists of; kept as `cluster.json` in its folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// The cluster's name, also its folder's.
    pub name: String,
    /// All machines, those included that the head does not know.
    pub machines: Vec<MachineSpec>,
    /// Program and configuration of the head; none: a bare rig.
    pub head: Option<(PathBuf, PathBuf)>,
    /// Whether packets on the bridge are captured.
    pub capture: bool,
}

/// The folder's files that both sides use.
#[derive(Clone, Debug)]
pub struct Files(pub PathBuf);

impl Files {
    /// The cluster's description.
    pub fn spec(&self) -> PathBuf {
        self.0.join("cluster.json")
    }
    /// The supervisor's socket.
    pub fn control(&self) -> PathBuf {
        self.0.join("ctl.sock")
    }
    /// The pid outside, and the network namespace, of the supervisor; see [`Identity`].
    pub fn identity(&self) -> PathBuf {
        self.0.join("supervisor.json")
    }
    /// What the supervisor has to say.
    pub fn supervisor_log(&self) -> PathBuf {
        self.0.join("supervisor.log")
    }
    /// The head's log, over all its starts.
    pub fn head_log(&self) -> PathBuf {
        self.0.join("head.log")
    }
    /// The head's configuration.
    pub fn head_config(&self) -> PathBuf {
        self.0.join("head.toml")
    }
    /// The head's run folder.
    pub fn head_run(&self) -> PathBuf {
        self.0.join("head")
    }
    /// The head's API.
    pub fn api(&self) -> PathBuf {
        self.head_run().join("api.sock")
    }
    /// The head's durable state.
    pub fn head_state(&self) -> PathBuf {
        self.0.join("state")
    }
    /// Packets on the bridge.
    pub fn capture(&self) -> PathBuf {
        self.0.join("bridge.pcap")
    }
    /// Whether a cluster was described here, up or not.
    pub fn exists(&self) -> bool {
        self.spec().exists()
    }
}

/// What `down` checks for after the end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The waiting process outside the namespaces.
    pub pid: i32,
    /// Inode of the cluster's network namespace.
    pub net: u64,
}

/// What the lab asks of a supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Answers [`Status`].
    Status,
    /// Presses a machine's power-on button, past its BMC.
    PowerOn {
        /// The machine.
        machine: String,
    },
    /// Pulls a machine's plug, past its BMC.
    PullPlug {
        /// The machine.
        machine: String,
    },
    /// Sends the head a signal by name and waits until it is gone.
    StopHead {
        /// `SIGKILL` or `SIGTERM`.
        signal: String,
    },
    /// Starts the head again.
    StartHead,
    /// Runs a program inside the namespaces; answers [`Output`].
    Run {
        /// Program and arguments.
        argv: Vec<String>,
        /// It is killed after this time.
        timeout_ms: u64,
    },
    /// Ends everything. The answer comes first.
    ShutDown,
}

/// The outcome of a [`Request`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Carried out.
    Ok(serde_json::Value),
    /// Not carried out, and why.
    Error(String),
}

/// A cluster at a glance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Every machine.
    pub machines: Vec<MachineStatus>,
    /// The head's pid inside; none: it does not run.
    pub head: Option<i32>,
    /// How often the head ended without being asked to.
    pub head_deaths: u32,
    /// All boot stages seen.
    pub events: Vec<Event>,
}

/// One machine at a glance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MachineStatus {
    /// Its name.
    pub name: String,
    /// QEMU's pid inside; none: no power.
    pub pid: Option<i32>,
    /// Requests that its BMC was sent, by type.
    pub resets: BTreeMap<String, u64>,
}

/// What a program printed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Output {
    /// Exit code; 124 after a time-out.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Sends one request and waits up to `patience` for its answer.
pub fn call<T: DeserializeOwned>(
    socket: &Path,
    request: &Request,
    patience: Duration,
) -> Result<T> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("no cluster answers at {}", socket.display()))?;
    stream.set_read_timeout(Some(patience))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .with_context(|| format!("no answer to {request:?} within {patience:?}"))?;
    if answer.is_empty() {
        bail!("the supervisor ended instead of answering {request:?}");
    }
    match serde_json::from_str(&answer)? {
        Reply::Ok(value) => Ok(serde_json::from_value(value)?),
        Reply::Error(text) => bail!("{text}"),
    }
}
