//! Completion in the shell: commands and options by clap, names of nodes and groups from the head, urls and their values from the schema.
//!
//! A shell waits while this runs, so the head gets a second to answer, and whatever fails completes nothing.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use engine::extension::{Kind, Schema};
use proto::v1;

use crate::cli::Cli;
use crate::connect::Head;
use crate::exit::{Exit, Failure};

/// Set by the shell's script when it asks for completions.
const VARIABLE: &str = "KRAKENCTL_COMPLETE";
/// Longest time a shell waits for the head.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most names offered; nobody reads more.
const MAX_CANDIDATES: usize = 500;

/// Shells that can be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
    Elvish,
}

impl Shell {
    fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
            Self::Elvish => "elvish",
        }
    }
}

/// Answers the shell and ends the process, when it is a shell that asks.
pub(crate) fn answer_shell() {
    CompleteEnv::with_factory(Cli::command)
        .var(VARIABLE)
        .complete();
}

/// For bash a script of ours: the generated one splits words at `=`, `:` and `@`, which urls, MACs and groups hold.
const BASH: &str = include_str!("complete/krakenctl.bash");

/// The script that makes a shell ask.
pub(crate) fn registration(shell: Shell) -> Result<String, Failure> {
    if shell == Shell::Bash {
        return Ok(BASH.to_owned());
    }
    let failed = |why: &str| {
        Failure::new(
            Exit::Failure,
            format!("no completion for {}: {why}", shell.name()),
        )
    };
    let shells = Shells::builtins();
    let completer = shells
        .completer(shell.name())
        .ok_or_else(|| failed("it is not known"))?;
    let mut script = Vec::new();
    completer
        .write_registration(VARIABLE, "krakenctl", "krakenctl", "krakenctl", &mut script)
        .map_err(|error| failed(&error.to_string()))?;
    String::from_utf8(script).map_err(|error| failed(&error.to_string()))
}

/// Completes node sets: names, and groups behind `@`.
pub(crate) fn nodes() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let found = ask_head(async |mut head: Head| {
            let request = v1::ListNodesRequest::default();
            Some(head.list_nodes(request).await.ok()?.into_inner().nodes)
        });
        node_candidates(&current.to_string_lossy(), &found.unwrap_or_default())
    })
}

/// Completes MACs of machines that wait to be enrolled.
pub(crate) fn pending() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let current = current.to_string_lossy().into_owned();
        let found = ask_head(async |mut head: Head| {
            let request = v1::ListPendingRequest {};
            Some(head.list_pending(request).await.ok()?.into_inner().pending)
        });
        let macs = found
            .unwrap_or_default()
            .into_iter()
            .map(|machine| machine.mac);
        candidates(macs.filter(|mac| mac.starts_with(&current)))
    })
}

/// Completes urls.
pub(crate) fn urls() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        candidates(url_candidates(&current.to_string_lossy(), &Schema::built_in()).into_iter())
    })
}

/// Completes `URL=VALUE`, values where the schema names them.
pub(crate) fn assignments() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        candidates(
            assignment_candidates(&current.to_string_lossy(), &Schema::built_in()).into_iter(),
        )
    })
}

fn candidates(texts: impl Iterator<Item = String>) -> Vec<CompletionCandidate> {
    texts
        .take(MAX_CANDIDATES)
        .map(CompletionCandidate::new)
        .collect()
}

fn ask_head<T>(ask: impl AsyncFnOnce(Head) -> Option<T>) -> Option<T> {
    // The connection options come from the environment: those on the line being completed are not known here.
    let cli = Cli::try_parse_from(["krakenctl", "version"]).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let asking = async { ask(cli.connect.connect().await.ok()?).await };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, asking).await.ok().flatten() })
}

/// Candidates for the last item of a node set; what stands before it is kept.
fn node_candidates(current: &str, nodes: &[v1::Node]) -> Vec<CompletionCandidate> {
    let start = current.rfind([',', '!', '&', '^']).map_or(0, |at| at + 1);
    let (before, item) = current.split_at(start);
    let words: BTreeSet<String> = match item.strip_prefix('@') {
        Some(_) => nodes
            .iter()
            .flat_map(|node| node.groups.iter().map(|group| format!("@{group}")))
            .collect(),
        None => nodes.iter().map(|node| node.name.clone()).collect(),
    };
    let fitting = words.into_iter().filter(|word| word.starts_with(item));
    candidates(fitting.map(|word| format!("{before}{word}")))
}

/// Urls that begin as typed; one with names in between ends before the first name.
fn url_candidates(current: &str, schema: &Schema) -> Vec<String> {
    let current = if current.starts_with('/') {
        current.to_owned()
    } else {
        format!("/{current}")
    };
    let all: BTreeSet<String> = schema
        .iter()
        .map(|(pattern, _)| match pattern.split_once('*') {
            Some((before, _)) => before.to_owned(),
            None => pattern.to_owned(),
        })
        .collect();
    all.into_iter()
        .filter(|url| url.starts_with(&current))
        .collect()
}

fn assignment_candidates(current: &str, schema: &Schema) -> Vec<String> {
    let Some((url, value)) = current.split_once('=') else {
        let urls = url_candidates(current, schema).into_iter();
        return urls
            .map(|url| if url.ends_with('/') { url } else { url + "=" })
            .collect();
    };
    let field = url.parse().ok().and_then(|url| schema.field(&url));
    let values: Vec<&str> = match field.map(|field| &field.kind) {
        Some(Kind::Enum(names)) => names.iter().map(String::as_str).collect(),
        Some(Kind::Bool) => vec!["true", "false"],
        _ => Vec::new(),
    };
    let fitting = values.into_iter().filter(|name| name.starts_with(value));
    fitting.map(|name| format!("{url}={name}")).collect()
}

#[cfg(test)]
mod tests;
