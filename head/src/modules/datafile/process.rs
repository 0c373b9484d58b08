//! One run of a command: a process group of its own, a clean environment, bounded output, and nothing left of it when nobody waits any more.
//!
//! A run that is dropped kills its group: by an interrupt, a timeout, the end of the head. A head that is killed itself cannot; there it is the
//! service manager that ends the control group.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use engine::mutation::file::output::last_words;
use engine::mutation::file::program::Filled;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

/// What is kept of each output; an inventory of a machine is a few KiB. The rest is read and forgotten, so that the program does not block.
const MAX_OUTPUT_BYTES: usize = 64 << 10;

/// What a program started and left behind may hold the outputs open for so long after its end; then it is killed.
const LINGER: Duration = Duration::from_secs(2);

/// Where programs are looked for when the head itself was not told.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A run that has ended.
#[derive(Debug)]
pub(super) struct Ran {
    /// Exit code; none: a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    stderr: String,
}

/// Why there is no such run.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// It cannot be started, and will not be the next time.
    #[error("cannot run {program}: {error}{}", hint(.error))]
    Start {
        /// The program.
        program: String,
        /// Why.
        error: io::Error,
    },
    /// It was killed.
    #[error("{program} did not end in time and was killed")]
    Late {
        /// The program.
        program: String,
    },
    /// Its end is not known.
    #[error("{program}: {error}")]
    Lost {
        /// The program.
        program: String,
        /// Why.
        error: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; install it, or write its full path",
        io::ErrorKind::PermissionDenied => "; make it executable for the head's user",
        _ => "",
    }
}

/// A process and all that it starts, as far as they stay in its group.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Without an id it has been waited for, and its number may be somebody else's.
        if let Some(id) = self.0.id() {
            kill_group(id);
        }
    }
}

impl Ran {
    /// Why it failed, in its own words; never with a secret that it was given.
    pub(super) fn words(&self, filled: &Filled) -> String {
        let program = filled.argv.first().map_or("", String::as_str);
        let end = match self.code {
            Some(code) => format!("{program} ended with code {code}"),
            None => format!("{program} was ended by a signal"),
        };
        match last_words(
            &filled.redacted(&self.stderr),
            &filled.redacted(&self.stdout),
        ) {
            said if said.is_empty() => end,
            said => format!("{end}: {said}"),
        }
    }
}

/// Runs a command until it ends, or kills it at `deadline`.
pub(super) async fn run(filled: &Filled, home: &Path, deadline: Instant) -> Result<Ran, RunError> {
    let (program, arguments) = match filled.argv.split_first() {
        Some((program, arguments)) => (program.clone(), arguments),
        None => (String::new(), &[][..]),
    };
    debug!(command = ?filled, "run");
    let inherited =
        |name: &str, default: &str| std::env::var_os(name).unwrap_or_else(|| default.into());
    let mut command = Command::new(&program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", inherited("PATH", DEFAULT_PATH))
        .env("LANG", inherited("LANG", "C.UTF-8"))
        .env("HOME", inherited("HOME", "/"))
        .envs(filled.env.iter().map(|(name, value)| (name, value)))
        .current_dir(home)
        .process_group(0)
        .kill_on_drop(true)
        .stdin(match filled.stdin {
            Some(_) => Stdio::piped(),
            None => Stdio::null(),
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut group = match command.spawn() {
        Ok(child) => Group(child),
        Err(error) => return Err(RunError::Start { program, error }),
    };
    let id = group.0.id();
    let child = &mut group.0;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let talk = async {
        let feed = async {
            if let (Some(mut pipe), Some(text)) = (stdin, &filled.stdin) {
                // A program that does not read its input is not worth a word.
                let _ = pipe.write_all(text.as_bytes()).await;
            }
        };
        tokio::join!(read(stdout, &mut said), read(stderr, &mut complained), feed);
    };
    let work = async {
        let mut talk = std::pin::pin!(talk);
        tokio::select! {
            () = &mut talk => child.wait().await,
            status = child.wait() => {
                if timeout(LINGER, talk).await.is_err() && let Some(id) = id {
                    kill_group(id);
                }
                status
            }
        }
    };
    let status = match timeout_at(deadline, work).await {
        Err(_) => return Err(RunError::Late { program }),
        Ok(Err(error)) => return Err(RunError::Lost { program, error }),
        Ok(Ok(status)) => status,
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ran {
        code: status.code(),
        stdout: text(said),
        stderr: text(complained),
    })
}

fn kill_group(id: u32) {
    if let Ok(id) = i32::try_from(id) {
        let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
    }
}

/// Reads until the end, or until nobody waits; what was read by then is there.
async fn read(pipe: Option<impl AsyncRead + Unpin>, bytes: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut part = vec![0; 4096];
    while let Ok(length @ 1..) = pipe.read(&mut part).await {
        let room = MAX_OUTPUT_BYTES - bytes.len();
        bytes.extend_from_slice(&part[..length.min(room)]);
    }
}

#[cfg(test)]
mod tests;
