//! `history`, `diff`, `undo`, `confirm`: what was written, what differs, and taking it back.
//!
//! The head decides; here its answers are shown. Old and new values look as in `plan`.

use std::time::Duration;

use proto::v1;
use proto::v1::plan_request::Write;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{Format, Paint, Table, Tone, printable};
use crate::value::Shown;
use crate::what_if::{self, DifferenceView};
use crate::write::{DryRunArgs, LimitArgs, WriteArgs, Written};
use crate::{Context, complete, names, value, view};

/// Changes of one revision shown in a list; the rest is told by `-o wide` and by programs' formats.
const MAX_LINES: usize = 8;

/// Arguments of `history`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Newest first: when, by whom, why, and what changed, with the value before and after. With a node set, only what concerns those nodes, deleted \
ones included. How much is kept is set by [history] in the head's configuration: a year or 10,000 revisions, unless it says otherwise.

Examples:
  krakenctl history                          the last 20 writes
  krakenctl history @rack1 --since 2h
  krakenctl history --since 1041 -n 1000 -o json
  krakenctl undo 1041 --reason 'wrong rack'")]
pub(crate) struct HistoryArgs {
    /// Node set; without it: everything
    #[arg(add = complete::nodes())]
    nodes: Option<String>,
    /// From this revision on, or not older than this: 30m, 2h, 7d
    #[arg(long, value_name = "REVISION|AGE")]
    since: Option<String>,
    /// So many of the newest
    #[arg(short, long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    number: u32,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Arguments of `diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What the second revision has otherwise than the first. A second argument that is no number is the node set.

Exit codes: 0 nothing differs, 8 something does, 4 history does not reach that far.

Examples:
  krakenctl diff 1041                   what became different since
  krakenctl diff 1041 1050 @rack1
  krakenctl diff 1041 n7 -o json")]
pub(crate) struct DiffArgs {
    /// The older revision
    from: u64,
    /// The newer revision (default: now), a node set, or both
    #[arg(num_args = 0..=2, value_name = "REVISION] [NODES")]
    rest: Vec<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Arguments of `undo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Writes back, as a new revision, what the given one changed: old values, groups, deleted nodes, extensions. It is refused with exit code 7 when later \
writes changed the same, and the error names them; --force overwrites those, too. --to takes back everything after a revision. What was \
undone can be undone.

Examples:
  krakenctl undo 1041 --dry-run              what would change, and what would nodes do then?
  krakenctl undo 1041 --reason 'wrong rack'
  krakenctl undo --to 1040")]
pub(crate) struct UndoArgs {
    /// The revision to take back
    #[arg(required_unless_present = "to", conflicts_with = "to")]
    revision: Option<u64>,
    /// Return to how everything was after this revision
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    /// Overwrite what was changed again since
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    dry: DryRunArgs,
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    write: WriteArgs,
}

/// Arguments of `confirm`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
`krakenctl node set ... --try 10m` makes a write that the head takes back by itself after that time, over its own restarts, too. \
`confirm` lets it stay; `undo` takes it back at once.

Examples:
  krakenctl node set @rack1 /image/name=new --try 10m
  krakenctl confirm 1041 --dry-run           what would stay, and how long is left?
  krakenctl confirm 1041")]
pub(crate) struct ConfirmArgs {
    /// The revision on trial
    revision: u64,
    #[command(flatten)]
    dry: DryRunArgs,
    #[command(flatten)]
    write: WriteArgs,
}

/// A revision for JSON and YAML. Field names are an interface.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct RevisionView {
    revision: u64,
    /// Milliseconds since the Unix epoch.
    at_ms: u64,
    author: String,
    reason: String,
    changes: Vec<DifferenceView>,
    notes: Vec<String>,
    /// Absent: it is not on trial.
    trial_until_ms: Option<u64>,
    settles: Vec<u64>,
    undoable: bool,
}

impl RevisionView {
    fn new(revision: &v1::Revision, shown: &Shown) -> Self {
        Self {
            revision: revision.revision,
            at_ms: revision.at_ms,
            author: revision.author.clone(),
            reason: revision.reason.clone(),
            changes: what_if::views(&revision.changes, shown),
            notes: revision.notes.clone(),
            trial_until_ms: (revision.trial_until_ms != 0).then_some(revision.trial_until_ms),
            settles: revision.settles.clone(),
            undoable: revision.undoable,
        }
    }
}

/// Shows what was written.
pub(crate) async fn history(args: HistoryArgs, context: &Context) -> Result<Exit, Failure> {
    let now = view::now_ms();
    let (since_revision, since_ms) = match args.since.as_deref().map(since).transpose()? {
        None => (0, 0),
        Some(Since::Revision(revision)) => (revision, 0),
        Some(Since::Age(age)) => {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            (0, now.saturating_sub(age))
        }
    };
    let request = v1::ListHistoryRequest {
        nodes: args.nodes.unwrap_or_default(),
        since_revision,
        since_ms,
        limit: args.number,
    };
    let mut head = context.head().await?;
    let found = head.list_history(request).await?.into_inner();
    let (shown, screen) = (&context.shown, &context.screen);
    match args.output {
        Format::Table | Format::Wide => {
            let all = args.output == Format::Wide;
            let pages: Vec<String> = found
                .revisions
                .iter()
                .map(|revision| page(revision, shown, screen.paint, all, now))
                .collect();
            screen.print(&pages.join("\n"))?;
            if pages.is_empty() {
                context.note(&format!(
                    "nothing was written there (revision {})",
                    found.revision
                ));
            }
        }
        format => {
            let views: Vec<RevisionView> = found
                .revisions
                .iter()
                .map(|revision| RevisionView::new(revision, shown))
                .collect();
            let name = |view: &RevisionView| view.revision.to_string();
            screen.list(format, &views, name, || table(&found.revisions, shown))?;
        }
    }
    Ok(Exit::Ok)
}

enum Since {
    Revision(u64),
    Age(Duration),
}

fn since(text: &str) -> Result<Since, Failure> {
    if let Ok(revision) = text.parse() {
        return Ok(Since::Revision(revision));
    }
    engine::extension::parse_duration(text)
        .map(Since::Age)
        .ok_or_else(|| {
            Failure::usage(format!(
                "--since {text:?}: a revision such as 1041 or an age such as 2h or 7d is wanted"
            ))
        })
}

fn page(revision: &v1::Revision, shown: &Shown, paint: Paint, all: bool, now: u64) -> String {
    let number = paint.text(&format!("revision {}", revision.revision), Tone::Bold);
    let mut out = format!(
        "{number}  {}  {}\n",
        view::ago(revision.at_ms, now),
        printable(&revision.author)
    );
    if !revision.reason.is_empty() {
        out += &format!("  {}\n", printable(&revision.reason));
    }
    if revision.trial_until_ms != 0 {
        let left = revision.trial_until_ms.saturating_sub(now) / 1000;
        let left = value::duration(Duration::from_secs(left));
        let text = format!(
            "on trial: taken back in {left} unless confirmed (krakenctl confirm {})",
            revision.revision
        );
        out += &format!("  {}\n", paint.text(&text, Tone::Warn));
    }
    for settled in &revision.settles {
        out += &format!("  ends the trial of revision {settled}\n");
    }
    for note in &revision.notes {
        out += &format!("  {}\n", printable(note));
    }
    let kept = if all {
        revision.changes.len()
    } else {
        revision.changes.len().min(MAX_LINES)
    };
    if kept > 0 {
        let rows = what_if::table(&revision.changes[..kept], shown).render(false, paint);
        out.extend(rows.lines().map(|line| format!("    {line}\n")));
    }
    if kept < revision.changes.len() {
        out += &format!("    and {} more: -o wide\n", revision.changes.len() - kept);
    }
    out
}

/// One row a change, for spreadsheets.
fn table(revisions: &[v1::Revision], shown: &Shown) -> Table {
    let mut table = Table::new([
        "REVISION", "AT_MS", "AUTHOR", "REASON", "NODES", "WHAT", "FROM", "TO",
    ]);
    for revision in revisions {
        for change in &revision.changes {
            let [nodes, what, from, to] = what_if::row(change, shown);
            let (number, at) = (revision.revision.to_string(), revision.at_ms.to_string());
            let row = [
                number,
                at,
                revision.author.clone(),
                revision.reason.clone(),
                nodes,
                what,
                from,
                to,
            ];
            table.row(row.into_iter().map(Into::into).collect());
        }
    }
    table
}

/// A diff for JSON and YAML. Field names are an interface.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct DiffView {
    from: u64,
    to: u64,
    changes: Vec<DifferenceView>,
}

/// Shows what differs between two revisions.
pub(crate) async fn diff(args: DiffArgs, context: &Context) -> Result<Exit, Failure> {
    let (to, nodes) = match &args.rest[..] {
        [] => (0, ""),
        [only] => only.parse().map_or((0, only.as_str()), |to| (to, "")),
        [to, nodes, ..] => {
            let to = to
                .parse()
                .map_err(|_| Failure::usage(format!("{to:?} is no revision")))?;
            (to, nodes.as_str())
        }
    };
    let request = v1::DiffRequest {
        from: args.from,
        to,
        nodes: nodes.to_owned(),
    };
    let mut head = context.head().await?;
    let found = head.diff(request).await?.into_inner();
    let (shown, screen) = (&context.shown, &context.screen);
    let view = DiffView {
        from: found.from,
        to: found.to,
        changes: what_if::views(&found.changes, shown),
    };
    match args.output {
        Format::Json | Format::Yaml => screen.item(args.output, &view, String::new)?,
        format => {
            let name = |change: &DifferenceView| change.nodes.clone();
            screen.list(format, &view.changes, name, || {
                what_if::table(&found.changes, shown)
            })?;
        }
    }
    if found.changes.is_empty() {
        context.note(&format!(
            "revisions {} and {} do not differ there",
            found.from, found.to
        ));
        return Ok(Exit::Ok);
    }
    Ok(Exit::Pending)
}

/// Takes a revision back.
pub(crate) async fn undo(args: UndoArgs, context: &Context) -> Result<Exit, Failure> {
    let request = v1::UndoRequest {
        revision: args.revision.unwrap_or(0),
        to_revision: args.to.unwrap_or(0),
        force: args.force,
        options: args.write.options(),
    };
    if request.revision == 0 && request.to_revision == 0 {
        return Err(Failure::usage(
            "revision 0 is before everything: give a revision of krakenctl history",
        ));
    }
    let plan = what_if::request(Write::Undo(request.clone()));
    if args.dry.dry_run {
        return what_if::show(context, plan, args.write.output).await;
    }
    let mut head = context.head().await?;
    if args.limit.limit(true).is_some() {
        let told = head.plan(plan).await?.into_inner();
        let sets = told
            .changes
            .iter()
            .filter_map(|change| names::expand(&change.nodes).ok());
        let mut touched: Vec<String> = sets.flatten().collect();
        touched.sort();
        touched.dedup();
        args.limit
            .approve(context, "change", &touched, true)
            .await?;
    }
    let written = Written::from(head.undo(request).await?.into_inner());
    if written.nodes.is_empty() {
        // The cluster's freeze, or an extension that no node has values of.
        let text = || format!("undone, revision {}\n", written.revision);
        context.screen.item(args.write.output, &written, text)?;
    } else {
        written.print(context, args.write.output, "changed back")?;
    }
    Ok(Exit::Ok)
}

/// Lets a write on trial stay.
pub(crate) async fn confirm(args: ConfirmArgs, context: &Context) -> Result<Exit, Failure> {
    let request = v1::ConfirmRequest {
        revision: args.revision,
        options: args.write.options(),
    };
    if args.dry.dry_run {
        return what_if::of(context, Write::Confirm(request), args.write.output).await;
    }
    let mut head = context.head().await?;
    let written = Written::from(head.confirm(request).await?.into_inner());
    context.screen.item(args.write.output, &written, || {
        format!(
            "revision {} stays (revision {})\n",
            args.revision, written.revision
        )
    })?;
    Ok(Exit::Ok)
}
