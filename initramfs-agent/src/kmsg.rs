//! Lines for people: into the kernel's log, which puts them on the console with its own time stamps and keeps them for `dmesg`.
//!
//! Where there is no kernel log to write to (a plain process), lines go to standard error.

use std::fs::{File, OpenOptions};
use std::io::Write;

/// Longest line; the kernel cuts at about 1,000 bytes (`LOG_LINE_MAX`).
const MAX_LINE: usize = 900;

/// Weight of a line, by the numbers of syslog (RFC 5424, 6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// The node cannot do what it is there for.
    Error = 3,
    /// Odd, but coped with.
    Warn = 4,
    /// A step of the boot, a change of state.
    Info = 5,
    /// A decision.
    Debug = 7,
}

impl Level {
    /// As `LogLine.level` of the schema has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// Where lines go.
#[derive(Debug)]
pub(crate) struct Kmsg(Option<File>);

impl Kmsg {
    /// The kernel's log.
    pub(crate) fn open() -> Self {
        Self(OpenOptions::new().write(true).open("/dev/kmsg").ok())
    }

    /// Standard error.
    pub(crate) fn stderr() -> Self {
        Self(None)
    }

    /// Writes one line; a failure is nothing that a logger could report.
    pub(crate) fn line(&self, level: Level, text: &str) {
        let line = tidy(text);
        let _ = match &self.0 {
            Some(file) => {
                (&*file).write_all(format!("<{}>kraken: {line}\n", level as u8).as_bytes())
            }
            None => std::io::stderr()
                .write_all(format!("kraken-agent {:5} {line}\n", level.as_str()).as_bytes()),
        };
    }
}

/// One line, without control characters (a peer's text must not steer the terminal), of bounded length.
fn tidy(text: &str) -> String {
    let mut line: String = text
        .trim_end()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.len() > MAX_LINE {
        let cut = (0..=MAX_LINE)
            .rev()
            .find(|at| line.is_char_boundary(*at))
            .unwrap_or(0);
        line.truncate(cut);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_single_printable_and_bounded() {
        assert_eq!(tidy("a\x1b[2Jb\nc\n"), "a [2Jb c");
        assert_eq!(tidy(&"ä".repeat(1000)).len(), MAX_LINE);
    }
}
