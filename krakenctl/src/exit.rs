//! How a run of krakenctl ends: the exit codes of DESIGN 7 and the error that carries one, with a hint at what to do next.
//!
//! Leaves out how an error is shown (`main`).

use std::fmt;
use std::io;

use tonic::{Code, Status};

/// Exit codes, stable for scripts (DESIGN 7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Exit {
    /// All good.
    Ok = 0,
    /// It failed.
    Failure = 1,
    /// Wrong arguments, or a value that does not fit.
    Usage = 2,
    /// Some nodes succeeded, some did not.
    Partial = 3,
    /// No such node, image, machine.
    NotFound = 4,
    /// The head knows who asks and refuses.
    NotPermitted = 5,
    /// No answer from a head.
    Unreachable = 6,
    /// Taken, or not at the expected revision.
    Conflict = 7,
    /// A dry run found changes to make.
    Pending = 8,
    /// Not within the time allowed (as timeout(1) has it).
    Timeout = 124,
    /// Ctrl-C (as shells have it).
    Interrupted = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error as people see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    /// How the process ends.
    pub(crate) exit: Exit,
    /// What went wrong.
    pub(crate) text: String,
    /// What to do next.
    pub(crate) hint: Option<String>,
    /// The reader of our output went away: nobody to tell, nothing wrong.
    pub(crate) silent: bool,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self {
            exit,
            text: text.into(),
            hint: None,
            silent: false,
        }
    }

    /// Wrong arguments.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    /// Adds what to do next, unless something more precise is there already.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// True when the status was made on this side, because the connection failed, and not by a head.
fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// True for what the transport on this side says when an answer takes too long; a head's own message tells more.
fn is_client_timeout(message: &str) -> bool {
    message.contains("imeout expired") || message == Code::DeadlineExceeded.description()
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let message = match status.message() {
            "" => status.code().description().to_owned(),
            message => message.to_owned(),
        };
        match status.code() {
            Code::NotFound => Self::new(Exit::NotFound, message),
            Code::AlreadyExists | Code::Aborted => Self::new(Exit::Conflict, message),
            Code::InvalidArgument | Code::OutOfRange => Self::new(Exit::Usage, message),
            Code::PermissionDenied => Self::new(Exit::NotPermitted, message).hint(
                "the unix socket admits root and the head's own user (sudo); over TCP, give the token of <state_dir>/admin.token",
            ),
            Code::Unauthenticated => Self::new(Exit::NotPermitted, message)
                .hint("give the token of <state_dir>/admin.token with --token-file or KRAKEN_TOKEN"),
            Code::DeadlineExceeded if !is_client_timeout(&message) => Self::new(Exit::Timeout, message),
            Code::DeadlineExceeded => Self::slow(),
            Code::Cancelled if is_client_timeout(&message) => Self::slow(),
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal if is_transport(&status) => {
                let text = format!("the connection to the head broke: {}", root_cause(&status));
                Self::new(Exit::Unreachable, text)
                    .hint("a write may or may not have been carried out: look before you repeat it")
            }
            Code::ResourceExhausted => Self::new(Exit::Failure, message)
                .hint("make room on the head's disk, or split the request into smaller node sets"),
            Code::Unimplemented => Self::new(Exit::Failure, format!("this head cannot do that: {message}"))
                .hint("compare both versions with `krakenctl version`"),
            _ => Self::new(Exit::Failure, message),
        }
    }
}

impl From<Box<Status>> for Failure {
    fn from(status: Box<Status>) -> Self {
        Self::from(*status)
    }
}

impl Failure {
    fn slow() -> Self {
        Self::new(Exit::Timeout, "the head did not answer in time")
            .hint("see its log (journalctl -u kraken-head), or allow more with --request-timeout")
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

impl From<io::Error> for Failure {
    /// An error of writing to standard output: everything else is reported with what was tried.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self {
                silent: true,
                ..Self::new(Exit::Ok, "")
            };
        }
        Self::new(
            Exit::Failure,
            format!("could not write the output: {error}"),
        )
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(failure) => failure,
            Err(error) => Self::new(Exit::Failure, format!("{error:#}")),
        }
    }
}

#[cfg(test)]
mod tests;
