//! What all writes share: reason, expected revision, the limit on how many nodes one command touches, and the answer.
//!
//! A command that can end jobs asks before it touches more nodes than a person sees at a glance; where nobody can answer, it refuses
//! and says how to mean it. The names that were counted are the names that are sent, so the set cannot grow in between.

use std::io::{IsTerminal, Read};

use proto::v1;
use serde::Serialize;

use crate::connect::Head;
use crate::exit::{Exit, Failure};
use crate::output::{Format, printable};
use crate::{Context, names, view};

/// Nodes that one command may disrupt or delete without being asked twice: one rack.
pub(crate) const DISRUPTIVE_LIMIT: usize = 32;
/// Longest list of names read from standard input.
const MAX_STDIN_BYTES: u64 = 1 << 20;

/// Options of every write.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct WriteArgs {
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Refuse (exit code 7) unless the cluster is at this revision
    #[arg(long, value_name = "REVISION")]
    pub(crate) if_revision: Option<u64>,
    /// Carry it out once, however often it is sent: a text of your own, new for each write that is meant
    #[arg(long, value_name = "KEY", hide_short_help = true)]
    pub(crate) idempotency_key: Option<String>,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// A write that takes itself back.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct TryArgs {
    /// Take the write back after this time, unless it is confirmed: `krakenctl confirm REVISION`
    #[arg(long = "try", value_name = "DURATION", value_parser = crate::connect::parse_duration)]
    pub(crate) trial: Option<std::time::Duration>,
}

/// A write that is only thought of.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct DryRunArgs {
    /// Print what would change and what nodes would do then, as `krakenctl plan` does, and write nothing: exit code 8, or 0 if nothing would
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl TryArgs {
    /// Puts a write on trial.
    pub(crate) fn apply(&self, options: Option<v1::WriteOptions>) -> Option<v1::WriteOptions> {
        let time = self.trial.unwrap_or_default().as_millis();
        let mut options = options.unwrap_or_default();
        options.try_ms = u64::try_from(time).unwrap_or(u64::MAX);
        Some(options)
    }
}

impl WriteArgs {
    pub(crate) fn options(&self) -> Option<v1::WriteOptions> {
        Some(v1::WriteOptions {
            reason: self.reason.clone().unwrap_or_default(),
            if_revision: self.if_revision.unwrap_or(0),
            idempotency_key: self.idempotency_key.clone().unwrap_or_default(),
            try_ms: 0,
        })
    }
}

/// How many nodes a command may touch.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct LimitArgs {
    /// Ask before touching more nodes than this; where nobody can answer, refuse [default: 32 where jobs could end, else none]
    #[arg(short, long, value_name = "N")]
    pub(crate) max_nodes: Option<usize>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// What to do about a number of nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Go,
    Ask,
    Refuse,
}

impl LimitArgs {
    /// The limit to check, if any.
    pub(crate) fn limit(&self, disruptive: bool) -> Option<usize> {
        if self.yes {
            return None;
        }
        self.max_nodes.or(disruptive.then_some(DISRUPTIVE_LIMIT))
    }

    /// Finds the nodes of a set and has their number approved. What is sent are these names, so the set cannot grow meanwhile.
    pub(crate) async fn approve_set(
        &self,
        context: &Context,
        head: &mut Head,
        nodes: &str,
        (verb, disruptive): (&str, bool),
    ) -> Result<Vec<String>, Failure> {
        let found = resolve(head, nodes).await?;
        let names: Vec<String> = found.into_iter().map(|node| node.name).collect();
        self.approve(context, verb, &names, disruptive).await?;
        Ok(names)
    }

    /// Asks or refuses when `names` are more than the limit.
    pub(crate) async fn approve(
        &self,
        context: &Context,
        verb: &str,
        names: &[String],
        disruptive: bool,
    ) -> Result<(), Failure> {
        let Some(limit) = self.limit(disruptive) else {
            return Ok(());
        };
        let nodes = view::count(names.len(), "node");
        let folded = printable(&names::fold(names));
        match verdict(names.len(), limit, context.screen.interactive) {
            Verdict::Go => Ok(()),
            Verdict::Refuse => Err(Failure::usage(format!(
                "this would {verb} {nodes}, more than {limit}: {folded}"
            ))
            .hint("add --yes if you mean it, or -m with a higher limit")),
            Verdict::Ask => {
                let question = format!("This will {verb} {nodes}: {folded}\nGo on? [y/N] ");
                if ask(question).await {
                    return Ok(());
                }
                Err(Failure::new(Exit::Failure, "nothing was changed"))
            }
        }
    }
}

fn verdict(count: usize, limit: usize, interactive: bool) -> Verdict {
    match (count > limit, interactive) {
        (false, _) => Verdict::Go,
        (true, true) => Verdict::Ask,
        (true, false) => Verdict::Refuse,
    }
}

async fn ask(question: String) -> bool {
    let answer = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut answer = String::new();
        let mut screen = std::io::stderr();
        let asked = screen
            .write_all(question.as_bytes())
            .and_then(|()| screen.flush());
        asked
            .and_then(|()| std::io::stdin().read_line(&mut answer))
            .map(|_| answer)
    });
    let answer = answer.await.ok().and_then(Result::ok).unwrap_or_default();
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// The node set that was typed; `-` reads names from standard input. An empty one is refused: to the API it means all.
pub(crate) fn node_set(text: &str) -> Result<String, Failure> {
    let text = if text == "-" {
        read_names()?
    } else {
        text.trim().to_owned()
    };
    if text.is_empty() {
        return Err(Failure::usage("the node set is empty")
            .hint("an unset shell variable? All nodes are written @*"));
    }
    Ok(text)
}

fn read_names() -> Result<String, Failure> {
    if std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "'-' reads names from standard input, which is a terminal",
        ));
    }
    let mut text = String::new();
    let read = std::io::stdin()
        .take(MAX_STDIN_BYTES + 1)
        .read_to_string(&mut text);
    match read {
        Ok(n) if n as u64 <= MAX_STDIN_BYTES => {
            Ok(text.split_whitespace().collect::<Vec<_>>().join(","))
        }
        Ok(_) => Err(Failure::usage("more than 1 MiB of names on standard input")),
        Err(error) => Err(Failure::new(
            Exit::Failure,
            format!("cannot read names from standard input: {error}"),
        )),
    }
}

/// The nodes of a set. No node is an error: to act on nothing is never what was meant.
pub(crate) async fn resolve(head: &mut Head, nodes: &str) -> Result<Vec<v1::Node>, Failure> {
    let request = v1::ListNodesRequest {
        nodes: nodes.to_owned(),
    };
    let found = head.list_nodes(request).await?.into_inner().nodes;
    if found.is_empty() {
        return Err(
            Failure::new(Exit::NotFound, format!("no node is in {nodes}"))
                .hint("krakenctl node list shows all"),
        );
    }
    Ok(found)
}

/// Refuses a request that the head would refuse, with advice.
pub(crate) fn check_size(message: &impl prost::Message) -> Result<(), Failure> {
    let bytes = message.encoded_len();
    if bytes <= crate::connect::MAX_REQUEST_BYTES {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the request has {bytes} bytes; a head takes 1 MiB at once"
    ))
    .hint("split it into several commands"))
}

/// The answer to a write, for programs. Field names are an interface.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Written {
    pub(crate) revision: u64,
    pub(crate) nodes: Vec<String>,
    /// Groups that were frozen or thawed as such.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) groups: Vec<String>,
    /// Milliseconds since the Unix epoch; absent: the write stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trial_until_ms: Option<u64>,
    /// The changes as the head keeps them.
    #[serde(skip)]
    pub(crate) kept: Vec<v1::ValueChange>,
}

impl From<v1::WriteResponse> for Written {
    fn from(response: v1::WriteResponse) -> Self {
        Self {
            revision: response.revision,
            nodes: response.nodes,
            groups: response.groups,
            kept: response.kept,
            trial_until_ms: (response.trial_until_ms != 0).then_some(response.trial_until_ms),
        }
    }
}

impl Written {
    /// What has to be done about a trial.
    pub(crate) fn trial(&self) -> String {
        let Some(until) = self.trial_until_ms else {
            return String::new();
        };
        let left = until.saturating_sub(view::now_ms()).div_ceil(1000);
        let left = crate::value::duration(std::time::Duration::from_secs(left));
        let revision = self.revision;
        format!(
            "on trial for {left}: krakenctl confirm {revision} lets it stay, krakenctl undo {revision} takes it back at once\n"
        )
    }

    fn groups(&self) -> Vec<String> {
        match &self.groups[..] {
            [] => Vec::new(),
            groups => vec![format!("group {}", groups.join(", "))],
        }
    }

    /// Prints `VERB n[1-4]: revision 17`.
    pub(crate) fn print(
        &self,
        context: &Context,
        format: Format,
        verb: &str,
    ) -> Result<(), Failure> {
        if format == Format::Name {
            return context
                .screen
                .list(format, &self.nodes, Clone::clone, Default::default);
        }
        context.screen.item(format, self, || {
            let mut changed = self.groups();
            if !self.nodes.is_empty() {
                let count = view::count(self.nodes.len(), "node");
                changed.push(format!("{} ({count})", names::fold(&self.nodes)));
            }
            let nodes = match changed.is_empty() {
                true => "no node needed a change".to_owned(),
                false => format!("{verb} {}", printable(&changed.join(", "))),
            };
            format!("{nodes}, revision {}\n{}", self.revision, self.trial())
        })
    }
}

#[cfg(test)]
mod tests;
