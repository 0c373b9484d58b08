//! A running image: who it is, across agents; whether it lives; how to end it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout};

use crate::pid1::EXITS;
use crate::sys::linux::{open_pidfd, signal_pidfd, watch_readable};

/// SIGRTMIN+3, by which systemd is told to halt (systemd(1)). The number is glibc's: musl counts from one higher.
const SIGRTMIN_3: i32 = 37;
/// Time that an init has to end by itself.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Time that the kernel has after SIGKILL, to end every process of the namespace.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Time that PID 1 has to leave word of an exit status.
const WORD_LIMIT: Duration = Duration::from_secs(1);

/// What must be known of an image to find it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Name.
    pub(crate) name: String,
    /// Digest of its manifest.
    pub(crate) digest: String,
    /// Its init, as everybody outside sees it.
    pub(crate) pid: u32,
    /// When that process started, clock ticks since boot: with the number, its identity.
    pub(crate) start_time: u64,
    /// Times that an image's init ended untold since the node booted.
    pub(crate) deaths: u32,
}

impl Record {
    /// Its file in the agent's directory, which is gone after a boot.
    pub(crate) const FILE: &str = "image.json";

    /// Writes it, whole or not at all.
    pub(crate) fn save(&self, run_dir: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        write_whole(&run_dir.join(Self::FILE), &text)
    }

    /// Reads it; `None` if no image was left behind, or its file makes no sense.
    pub(crate) fn load(run_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(run_dir.join(Self::FILE)).ok()?).ok()
    }
}

/// Writes a file under another name, then moves it into place.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let draft = path.with_extension("draft");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(bytes)?;
    fs::rename(&draft, path)
}

/// When a process started, in clock ticks since boot; `None` if there is none or it has ended.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22 of proc_pid_stat(5), unless field 3 says that the process is dead. The name in field 2 may hold anything.
fn parse_stat(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok())?
}

/// An image's init that lives, or has just died.
#[derive(Debug)]
pub(crate) struct Process {
    record: Record,
    fd: AsyncFd<OwnedFd>,
    exit_file: PathBuf,
}

impl Process {
    /// Takes over a process from its record; `None` if it has ended. Needs the runtime.
    pub(crate) fn adopt(record: Record, run_dir: &Path) -> Option<Self> {
        let fd = open_pidfd(record.pid).ok()?;
        // Looked at after the descriptor holds the number, so that it cannot become another's in between.
        if start_time(record.pid) != Some(record.start_time) {
            return None;
        }
        let exit_file = exit_file(run_dir, record.pid);
        Some(Self {
            fd: watch_readable(fd).ok()?,
            record,
            exit_file,
        })
    }

    /// Who it is.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        // A pidfd is readable from its process's end on.
        while self.fd.readable().await.is_err() {
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// How it ended, in words, as PID 1 left them.
    pub(crate) async fn last_words(&self) -> String {
        last_words(&self.exit_file).await
    }

    /// Ends it: the way its init understands, then by force.
    ///
    /// # Errors
    /// Not even SIGKILL ends it.
    pub(crate) async fn stop(&self) -> Result<(), String> {
        if let Some(signal) = polite_signal(self.record.pid) {
            let _ = signal_pidfd(self.fd.as_fd(), signal);
            if timeout(STOP_LIMIT, self.ended()).await.is_ok() {
                return Ok(());
            }
        }
        let _ = signal_pidfd(self.fd.as_fd(), libc::SIGKILL);
        timeout(KILL_LIMIT, self.ended()).await.map_err(|_| {
            format!(
                "process {} does not end, not even by SIGKILL",
                self.record.pid
            )
        })
    }
}

/// Where PID 1 leaves word of this process.
pub(crate) fn exit_file(run_dir: &Path, pid: u32) -> PathBuf {
    run_dir.join(EXITS).join(pid.to_string())
}

/// Reads and removes the word that PID 1 leaves.
pub(crate) async fn last_words(exit_file: &Path) -> String {
    let deadline = Instant::now() + WORD_LIMIT;
    loop {
        let words = fs::read_to_string(exit_file).unwrap_or_default();
        if !words.is_empty() || Instant::now() >= deadline {
            let _ = fs::remove_file(exit_file);
            return if words.is_empty() {
                "nobody saw how".to_owned()
            } else {
                words
            };
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// The signal by which this init wants to be ended: the first of those for which it has a handler. The first process of a pid
/// namespace ignores all others, whatever their default.
fn polite_signal(pid: u32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))?;
    choose_signal(u64::from_str_radix(mask.trim(), 16).ok()?)
}

fn choose_signal(caught: u64) -> Option<i32> {
    [SIGRTMIN_3, libc::SIGTERM]
        .into_iter()
        .find(|signal| caught & (1 << (signal - 1)) != 0)
}

#[cfg(test)]
mod tests;
