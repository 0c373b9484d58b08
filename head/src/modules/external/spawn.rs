//! A module's process: started in a session of its own, within its limits, and ended with everything that it started.
//!
//! The head starts itself again as `kraken-head module-exec`, which confines itself and becomes the module's program: limits hold from its
//! first instruction. What holds what:
//!
//! - processes: RLIMIT_NPROC, where the module does not run as root. It counts all tasks of the user, so it is set to those there are and the
//!   module's own. Besides, the session's processes are counted once a second.
//! - memory: the session's resident pages are counted once a second; RLIMIT_AS at four times the limit (at least 1 GiB more) stops one huge
//!   allocation between two looks.
//! - both: a cgroup, where one was delegated to the head (`cgroup`). The rest stays, for what it costs.
//! - the head's end: PR_SET_PDEATHSIG ends the module's first process.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, Uid, User};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::cgroup::{self, Cgroup};
use super::processes;
use super::told::Told;
use crate::config::{Limits, ModuleConfig};

/// A module has this long to end after SIGTERM.
const TERM_TIMEOUT: Duration = Duration::from_secs(2);
/// Time to read the last words of a process that has ended.
const OUTPUT_TIMEOUT: Duration = Duration::from_millis(200);
/// Lines of a module's output a second that are logged; the others are dropped.
const MAX_LINES: u32 = 20;
/// Longest line of a module's output that is logged, in characters.
const MAX_LINE: usize = 512;
/// Bytes of a line that are read: secrets are found before it is cut, so that none is cut in two.
const MAX_READ: usize = 4096;

/// `kraken-head module-exec`.
#[derive(clap::Args)]
pub(crate) struct Confined {
    /// The head; if it is gone already, so is the module.
    #[arg(long)]
    parent: i32,
    #[arg(long)]
    memory: u64,
    #[arg(long)]
    pids: u64,
    #[arg(long)]
    user: Option<String>,
    #[arg(long)]
    cgroup: Option<PathBuf>,
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl Confined {
    /// Becomes the module's program; returns only if that fails.
    pub(crate) fn exec(&self) -> ExitCode {
        if let Err(error) = self.confine() {
            eprintln!("cannot confine the module: {error}");
            return ExitCode::from(126);
        }
        let words: Result<Vec<CString>, _> = self
            .command
            .iter()
            .map(|word| CString::new(word.as_bytes()))
            .collect();
        match words {
            Ok(words) => {
                let Err(error) = nix::unistd::execvp(&words[0], &words);
                eprintln!("cannot run {}: {error}", self.command[0]);
            }
            Err(_) => eprintln!("a word of the command holds a zero byte"),
        }
        ExitCode::from(127)
    }

    fn confine(&self) -> std::io::Result<()> {
        if let Some(path) = &self.cgroup {
            cgroup::enter(path)?;
        }
        nix::unistd::setsid()?;
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        let space = (self.memory.saturating_mul(4)).max(self.memory.saturating_add(1 << 30));
        setrlimit(Resource::RLIMIT_AS, space, space)?;
        // When memory runs out, a module goes before the head.
        let _ = std::fs::write("/proc/self/oom_score_adj", "500");
        if let Some(name) = &self.user {
            let user = User::from_name(name)?.ok_or(nix::Error::ENOENT)?;
            if user.uid != Uid::effective() {
                let name = CString::new(name.as_bytes()).map_err(|_| nix::Error::EINVAL)?;
                nix::unistd::initgroups(&name, user.gid)?;
                nix::unistd::setgid(user.gid)?;
                nix::unistd::setuid(user.uid)?;
            }
        }
        let tasks = processes::tasks_of(Uid::effective().as_raw());
        let most = tasks.saturating_add(self.pids);
        setrlimit(Resource::RLIMIT_NPROC, most, most)?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if nix::unistd::getppid() != Pid::from_raw(self.parent) {
            return Err(nix::Error::ESRCH.into());
        }
        Ok(())
    }
}

/// A module's process and all that it started.
pub(super) struct Process {
    child: Child,
    session: Pid,
    cgroup: Option<Cgroup>,
    limits: Limits,
    last_line: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a module's program, in its cgroup if it has one.
    ///
    /// # Errors
    /// The system's reason.
    pub(super) fn start(
        module: &ModuleConfig,
        socket: &Path,
        cgroup: Option<Cgroup>,
        told: Arc<Told>,
    ) -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("module-exec")
            .args(["--parent", &std::process::id().to_string()])
            .args(["--memory", &module.limits.memory.to_string()])
            .args(["--pids", &module.limits.pids.to_string()]);
        if let Some(user) = &module.user {
            command.args(["--user", user]);
        }
        if let Some(cgroup) = &cgroup {
            command.arg("--cgroup").arg(cgroup.path());
        }
        let mut child = command
            .arg("--")
            .args(&module.command)
            .envs(&module.env)
            .env("KRAKEN_MODULE_SOCKET", socket)
            .env("KRAKEN_MODULE_NAME", &module.name)
            .env_remove("KRAKEN_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let session = Pid::from_raw(
            child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .unwrap_or_default(),
        );
        let last_line = Arc::default();
        let mut readers = Vec::new();
        if let Some(output) = child.stdout.take() {
            readers.push(tokio::spawn(repeat(
                module.name.clone(),
                output,
                Arc::clone(&last_line),
                Arc::clone(&told),
            )));
        }
        if let Some(output) = child.stderr.take() {
            readers.push(tokio::spawn(repeat(
                module.name.clone(),
                output,
                Arc::clone(&last_line),
                Arc::clone(&told),
            )));
        }
        Ok(Self {
            child,
            session,
            cgroup,
            limits: module.limits,
            last_line,
            readers,
        })
    }

    /// Its first process.
    pub(super) fn pid(&self) -> u32 {
        self.session.as_raw().unsigned_abs()
    }

    /// Waits until its first process ends, and says how. Can be asked again.
    pub(super) async fn ended(&mut self) -> String {
        let how = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        // What it said last is on its way through the pipes; one that a process left behind holds open does not matter.
        for reader in self.readers.drain(..) {
            let _ = timeout(OUTPUT_TIMEOUT, reader).await;
        }
        if let Some(excess) = self.excess_of_cgroup() {
            return excess;
        }
        let last = self
            .last_line
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match last.as_str() {
            "" => format!("its process ended ({how})"),
            last => format!("its process ended ({how}): {last}"),
        }
    }

    fn excess_of_cgroup(&self) -> Option<String> {
        self.cgroup.as_ref()?.excess(&self.limits)
    }

    /// What is wrong with what it uses, if anything is.
    pub(super) fn excess(&self) -> Option<String> {
        if let Some(excess) = self.excess_of_cgroup() {
            return Some(excess);
        }
        let used = processes::of_session(self.session.as_raw());
        let limits = &self.limits;
        if used.tasks > u64::from(limits.pids) {
            return Some(format!(
                "it runs {} processes and threads, more than {}",
                used.tasks, limits.pids
            ));
        }
        (used.resident > limits.memory).then(|| {
            format!(
                "it uses {} MiB of memory, more than {}",
                used.resident >> 20,
                limits.memory >> 20
            )
        })
    }

    /// Ends it and everything in its session.
    pub(super) async fn end(mut self) {
        if self.session.as_raw() <= 1 {
            return;
        }
        let _ = killpg(self.session, Signal::SIGTERM);
        let _ = timeout(TERM_TIMEOUT, self.child.wait()).await;
        // Also those that made groups of their own; each round ends what the one before had just started.
        for _ in 0..10 {
            let left = processes::members(self.session.as_raw());
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let _ = self.child.wait().await;
        if let Some(cgroup) = self.cgroup {
            cgroup.end().await;
        }
    }
}

/// Repeats a module's output in the log, cut and free of secrets and control characters, not too many lines a second.
async fn repeat(
    module: String,
    output: impl AsyncRead + Unpin,
    last: Arc<Mutex<String>>,
    told: Arc<Told>,
) {
    let mut reader = BufReader::new(output);
    let (mut second, mut lines, mut line) = (Instant::now(), 0, Vec::new());
    loop {
        line.clear();
        match read_line(&mut reader, &mut line).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return,
        }
        let text = told.scrubbed(String::from_utf8_lossy(&line).into_owned());
        let text: String = text
            .trim_end()
            .chars()
            .take(MAX_LINE)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        if text.is_empty() {
            continue;
        }
        last.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&text);
        if second.elapsed() >= Duration::from_secs(1) {
            (second, lines) = (Instant::now(), 0);
        }
        lines += 1;
        match lines {
            1..=MAX_LINES => info!(module, text, "module output"),
            n if n == MAX_LINES + 1 => warn!(
                module,
                "module output is cut: more than {MAX_LINES} lines a second"
            ),
            _ => {}
        }
    }
}

/// The next line, of which at most [`MAX_READ`] bytes are kept. False at the end.
async fn read_line(
    reader: &mut (impl AsyncBufReadExt + Unpin),
    line: &mut Vec<u8>,
) -> std::io::Result<bool> {
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(chunk.len(), |at| at + 1);
        let room = MAX_READ.saturating_sub(line.len()).min(used);
        line.extend_from_slice(&chunk[..room]);
        reader.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}
