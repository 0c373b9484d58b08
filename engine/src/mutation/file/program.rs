//! What a mutation file has the head run: commands of mutations, and polls that look at nodes again and again. Data only.
//!
//! The reader makes it, `head/src/modules/datafile` carries it out. [`Command::fill`] is where values of a node become arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::output::Reading;
use super::template::{FillError, Place, Subject, Template};
use crate::mutation::{Condition, MutationId};
use crate::state::{Change, StateUrl};

/// Most arguments of a command, its program included; far below any kernel's limit.
pub const MAX_ARGUMENTS: usize = 256;
/// Longest argument, variable or input of a command. Linux takes 128 KiB; a value is up to 64 KiB, and all that people mean is far shorter.
pub const MAX_ARGUMENT_BYTES: usize = 16 << 10;
/// Most variables that a command is given.
pub const MAX_VARIABLES: usize = 64;
/// Most polls of one file.
pub const MAX_POLLS: usize = 32;
/// Shortest period of a poll: a process for each node in each period.
pub const MIN_PERIOD: Duration = Duration::from_secs(1);
/// Longest run of a command whose mutation has no timeout, and of a poll.
pub const MAX_RUN: Duration = Duration::from_secs(600);
/// What a poll may take if its file does not say: ipmitool gives up on a dead BMC after about 20 s.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(30);

/// All that one file has run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Program {
    /// The file's module.
    pub module: String,
    /// Urls that its commands may report: those that it mutates or lists as discoverables.
    pub may_discover: BTreeSet<StateUrl>,
    /// How its mutations are carried out; the others are carried out by a module of that name.
    pub runs: BTreeMap<MutationId, Run>,
    /// In the order of the file, no name twice.
    pub polls: Vec<Poll>,
}

/// How a mutation is carried out. It has a command, a poll to ask, or both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// What is run; none: only the poll is asked, and whatever it finds is reported.
    pub command: Option<Command>,
    /// The poll (its place in [`Program::polls`]) that is asked before the command, which is not run if the values are there already, and after it until they are.
    pub ask: Option<usize>,
    /// A command that ends well has brought the values about; nobody needs to look.
    pub trust: bool,
    /// The mutation's.
    pub timeout: Option<Duration>,
    /// What the mutation brings about.
    pub to: Vec<Change>,
}

/// A program with arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// The program, without fields, and its arguments; never empty.
    pub argv: Vec<Template>,
    /// Its variables, on top of the few that every command has.
    pub env: Vec<(String, Template)>,
    /// Its standard input; none: empty.
    pub stdin: Option<Template>,
    /// What its exit codes mean.
    pub exit: ExitCodes,
}

/// What a program's end means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It did what it should.
    Ok,
    /// It could not, and trying again at once is no use.
    Failed,
    /// It could not yet: it is run again after a pause, within the same attempt.
    Retry,
    /// It found out these values.
    Discover(Vec<Change>),
}

/// Outcomes by exit code. What a file leaves out: 0 is ok, 75 (`EX_TEMPFAIL` of sysexits.h) is retry, every other is failed, and so is a signal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExitCodes {
    /// By code.
    pub codes: BTreeMap<u8, Outcome>,
    /// Of all others.
    pub other: Outcome,
}

/// A question asked of nodes again and again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Poll {
    /// Its name within the file.
    pub name: String,
    /// How often each node is looked at while it answers.
    pub every: Duration,
    /// The command is killed after this time.
    pub timeout: Duration,
    /// Which nodes: all must hold.
    pub requires: Vec<Condition>,
    /// What is run.
    pub command: Command,
    /// What its output means, beside lines of `discover URL VALUE`; empty: nothing else.
    pub readings: Vec<Reading>,
    /// The url that says why there is no answer.
    pub error: Option<StateUrl>,
}

/// A command for one node. Neither its variables nor its input can be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Filled {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its variables.
    pub env: Vec<(String, String)>,
    /// Its input.
    pub stdin: Option<String>,
    secrets: Vec<String>,
}

impl Default for ExitCodes {
    fn default() -> Self {
        Self {
            codes: BTreeMap::from([(0, Outcome::Ok), (75, Outcome::Retry)]),
            other: Outcome::Failed,
        }
    }
}

impl ExitCodes {
    /// What an exit code means; `None`: a signal ended the program.
    pub fn outcome(&self, code: Option<i32>) -> &Outcome {
        const SIGNAL: &Outcome = &Outcome::Failed;
        match code {
            None => SIGNAL,
            Some(code) => u8::try_from(code)
                .ok()
                .and_then(|code| self.codes.get(&code))
                .unwrap_or(&self.other),
        }
    }
}

impl Command {
    /// All templates with their places.
    pub fn templates(&self) -> impl Iterator<Item = (Place, &Template)> {
        let arguments = self.argv.iter().map(|template| (Place::Argument, template));
        let hidden = self.env.iter().map(|(_, template)| template);
        let hidden = hidden.chain(&self.stdin);
        arguments.chain(hidden.map(|template| (Place::Hidden, template)))
    }

    /// The command for one node.
    ///
    /// # Errors
    /// A value is missing, or must not stand where its field is.
    pub fn fill(&self, subject: &Subject<'_>) -> Result<Filled, FillError> {
        let mut secrets = Vec::new();
        let mut fill = |place, template: &Template| template.fill(place, subject, &mut secrets);
        let argv = self
            .argv
            .iter()
            .map(|template| fill(Place::Argument, template))
            .collect::<Result<_, _>>()?;
        let env = self
            .env
            .iter()
            .map(|(name, template)| Ok((name.clone(), fill(Place::Hidden, template)?)))
            .collect::<Result<_, FillError>>()?;
        let stdin = match &self.stdin {
            Some(template) => Some(fill(Place::Hidden, template)?),
            None => None,
        };
        // One may be part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Ok(Filled {
            argv,
            env,
            stdin,
            secrets,
        })
    }
}

impl Filled {
    /// A text without the secrets that went into the command: programs like to repeat what they were given.
    pub fn redacted(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), crate::extension::REDACTED);
        }
        text
    }
}

impl fmt::Debug for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted(&self.argv.join(" ")))
    }
}

impl fmt::Display for Command {
    /// For people: words with blanks in them are quoted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, template) in self.argv.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            let word = template.to_string();
            if word.is_empty() || word.contains(char::is_whitespace) {
                write!(f, "'{word}'")?;
            } else {
                f.write_str(&word)?;
            }
        }
        Ok(())
    }
}
