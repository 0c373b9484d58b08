//! Commands on the console for tests of whole machines, offered only with `kraken.debug=1`.
//!
//! One line in, one line out. Whoever holds the console holds the machine; even so it is off unless asked for.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::reboot::Ending;

/// Longest line; what is longer is no command.
const MAX_LINE: usize = 128;
/// Most processes that `ps` names.
const MAX_PROCESSES: usize = 64;
/// Begins every answer, so that a test can tell it from the kernel's lines and its own echo.
const PREFIX: &str = "kraken-debug:";

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// SIGKILL for the agent.
    KillAgent,
    /// Names the processes.
    Ps,
    /// A job begins.
    Busy(String),
    /// A job ends.
    Free(String),
    /// End the machine.
    End(Ending),
}

/// Reads a command. The error is the answer.
pub(crate) fn parse(line: &str) -> Result<Command, String> {
    let mut words = line.split_whitespace();
    let command = words.next().unwrap_or_default();
    let name = words.next();
    match (command, name) {
        ("kill-agent", None) => Ok(Command::KillAgent),
        ("ps", None) => Ok(Command::Ps),
        ("reboot", None) => Ok(Command::End(Ending::Reboot)),
        ("poweroff", None) => Ok(Command::End(Ending::PowerOff)),
        ("busy", Some(name)) if is_holder(name) => Ok(Command::Busy(name.to_owned())),
        ("free", Some(name)) if is_holder(name) => Ok(Command::Free(name.to_owned())),
        _ => Err("commands: kill-agent, ps, busy NAME, free NAME, reboot, poweroff".to_owned()),
    }
}

/// Fit for a file name in the directory of those who keep the node busy.
fn is_holder(name: &str) -> bool {
    name.len() <= 64
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// The console as a source of lines.
#[derive(Debug)]
pub(crate) struct Console {
    file: File,
    line: Vec<u8>,
    too_long: bool,
}

impl Console {
    /// Opens it without becoming its session.
    pub(crate) fn open() -> std::io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
            .open("/dev/console")?;
        Ok(Self {
            file,
            line: Vec::new(),
            too_long: false,
        })
    }

    /// For poll(2).
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Reads what is there and returns complete lines; `None` when the console is gone.
    pub(crate) fn read_lines(&mut self) -> Option<Vec<String>> {
        let mut bytes = [0; 256];
        match self.file.read(&mut bytes) {
            Ok(0) => None,
            Ok(count) => Some(self.take(&bytes[..count])),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
                ) =>
            {
                Some(Vec::new())
            }
            Err(_) => None,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => {
                    let line = String::from_utf8_lossy(&self.line).trim().to_owned();
                    self.line.clear();
                    if !std::mem::take(&mut self.too_long) && !line.is_empty() {
                        lines.push(line);
                    }
                }
                _ if self.line.len() < MAX_LINE => self.line.push(*byte),
                _ => self.too_long = true,
            }
        }
        lines
    }

    /// Writes one line.
    pub(crate) fn answer(&mut self, text: &str) {
        let _ = self
            .file
            .write_all(format!("{PREFIX} {text}\r\n").as_bytes());
    }
}

/// `pid:name` of the processes that have a program, that is, without the kernel's own threads.
pub(crate) fn processes() -> String {
    let mut found: Vec<(u32, String)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let has_program = fs::read_link(entry.path().join("exe")).is_ok();
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            has_program.then(|| (pid, name.trim().to_owned()))
        })
        .collect();
    found.sort();
    let more = found.len().saturating_sub(MAX_PROCESSES);
    let mut words: Vec<String> = found
        .into_iter()
        .take(MAX_PROCESSES)
        .map(|(pid, name)| format!("{pid}:{name}"))
        .collect();
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    words.join(" ")
}

/// Sets or removes the mark of one holder.
pub(crate) fn mark(busy_dir: &Path, holder: &str, busy: bool) -> String {
    let path = busy_dir.join(holder);
    let done = if busy {
        fs::create_dir_all(busy_dir).and_then(|()| File::create(&path).map(drop))
    } else {
        fs::remove_file(&path)
    };
    match done {
        Ok(()) if busy => format!("busy {holder}"),
        Ok(()) => format!("free {holder}"),
        Err(error) => format!("{}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests;
