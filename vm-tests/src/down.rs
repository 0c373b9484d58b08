//! `cargo lab down`: ends a cluster and proves that no process, interface or mount of it remains.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    control::{self, Files, Identity, Request},
    namespace,
};

/// The head may take 6 s to end, QEMU a moment.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is left of a cluster; empty lists are the proof.
#[derive(Debug, Default)]
pub struct Remains {
    /// Processes inside the cluster's network namespace, or that name its folder.
    pub processes: Vec<String>,
    /// Interfaces of this machine's own namespace that carry a name of the lab's.
    pub interfaces: Vec<String>,
    /// Mounts at or below the cluster's folder.
    pub mounts: Vec<String>,
}

impl Remains {
    /// Whether nothing is left.
    pub fn is_nothing(&self) -> bool {
        self.processes.is_empty() && self.interfaces.is_empty() && self.mounts.is_empty()
    }
}

/// Ends the cluster in `dir` and removes the folder. Without a cluster this is no error.
///
/// # Errors
/// When something remains; the folder then stays, too.
pub fn down(dir: &Path) -> Result<String> {
    let files = Files(dir.to_owned());
    if !dir.exists() {
        return Ok(format!("no cluster in {}", dir.display()));
    }
    let identity: Option<Identity> = fs::read(files.identity())
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let asked = control::call::<Value>(&files.control(), &Request::ShutDown, PATIENCE);
    let until = Instant::now() + PATIENCE;
    let mut remains = look(dir, identity);
    while !remains.processes.is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
        remains = look(dir, identity);
        let late = Instant::now() + PATIENCE / 3 > until;
        if let (Some(identity), true) = (identity, late || asked.is_err())
            && is_supervisor(identity.pid, dir)
        {
            kill(Pid::from_raw(identity.pid), Signal::SIGKILL).ok();
        }
    }
    if !remains.is_nothing() {
        bail!(
            "the cluster in {} did not go away: {remains:?}",
            dir.display()
        );
    }
    // A supervisor on a lifeline may have done it.
    if let Err(error) = fs::remove_dir_all(dir)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error.into());
    }
    let namespace = identity.map_or_else(String::new, |identity| {
        format!(" (was net:[{}])", identity.net)
    });
    Ok(format!(
        "nothing remains: 0 processes in its network namespace{namespace}, 0 interfaces, 0 mounts; {} is removed",
        dir.display()
    ))
}

/// Looks for what is left of the cluster in `dir`.
pub fn look(dir: &Path, identity: Option<Identity>) -> Remains {
    let mut remains = Remains::default();
    let text = dir.display().to_string();
    for pid in pids() {
        let in_namespace =
            identity.is_some_and(|identity| namespace::net_inode(&pid) == Some(identity.net));
        // The caller's own command line may name the folder; only the supervisor's does so as an argument of its own.
        let line = command_line(&pid);
        let supervises = line.len() > 2 && line[1] == "supervise" && line[2] == text;
        if in_namespace || supervises {
            remains.processes.push(format!("{pid} {}", line.join(" ")));
        }
    }
    if let Ok(entries) = fs::read_dir("/sys/class/net") {
        let own = |name: &str| {
            name == crate::network::BRIDGE
                && fs::read_to_string("/proc/net/fib_trie")
                    .is_ok_and(|table| table.contains(&crate::network::HEAD.to_string()))
        };
        remains.interfaces = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| own(name))
            .collect();
    }
    if let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") {
        remains.mounts = mounts
            .lines()
            .filter(|line| {
                line.split(' ')
                    .nth(4)
                    .is_some_and(|at| Path::new(at).starts_with(dir))
            })
            .map(str::to_owned)
            .collect();
    }
    remains
}

/// Clusters of this user that have a folder.
pub fn clusters(base: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(base) else {
        return Vec::new();
    };
    let mut dirs: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|dir| Files(dir.clone()).exists())
        .collect();
    dirs.sort();
    dirs
}

fn is_supervisor(pid: i32, dir: &Path) -> bool {
    let line = command_line(&pid.to_string());
    line.len() > 2 && line[1] == "supervise" && Path::new(&line[2]) == dir
}

fn pids() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .collect()
}

fn command_line(pid: &str) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end_matches('\0')
        .split('\0')
        .map(str::to_owned)
        .collect()
}
