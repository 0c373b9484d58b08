//! `node set` and `node unset`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use engine::mutation::graph::MutationGraph;
use engine::state::StateUrl;
use proto::v1;
use proto::v1::plan_request::Write;

use tokio::time::Instant;

use super::progress;
use crate::exit::{Exit, Failure};
use crate::value::{self, Shown};
use crate::wait::Goal;
use crate::write::{self, DryRunArgs, LimitArgs, TryArgs, WriteArgs, Written};
use crate::{Context, complete, connect, mutation, names, what_if};

/// Longest value read from a file; the longest a node can have (state.proto).
const MAX_VALUE_FILE_BYTES: u64 = engine::state::MAX_VALUE_BYTES as u64;

/// Arguments of `node set`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Sets what the nodes should be (Cfg), on all nodes of the set or on none. The head then plans what has to happen: setting \
/RunState=SYNC alone implies power and boot. An empty VALUE unsets. Types and names are checked before anything is sent.

A change of /PhysState, /RunState or /image can end jobs: on more than 32 nodes it needs --yes or a higher -m.

With --wait the command ends when each node is what was set (exit code 0), when the rest cannot get there (3, or 1 if none did), or \
after --timeout (124). Ctrl-C ends the waiting, not the change.

Examples:
  krakenctl node set n[1-4] /RunState=SYNC --wait
  krakenctl node set @rack1 /image/name=demo /image/state=ACTIVE --wait --timeout 5m
  krakenctl node set n7 /PhysState=POWER_OFF --reason 'broken fan' --dry-run
  krakenctl node set @rack1 /image/name=new --try 10m    comes back by itself unless confirmed
  krakenctl node set n7 /power/username=admin --from-file /power/password=bmc.secret
  krakenctl node set 'run=ERROR' --add-group quarantine
  krakenctl node set @rack3 --parent rack3       below another node: their agents join again, nothing is switched")]
pub(crate) struct SetArgs {
    /// Node set
    #[arg(add = complete::nodes())]
    nodes: String,
    /// What to set
    #[arg(add = complete::assignments(), value_name = "URL=VALUE", required_unless_present_any = ["from_file", "add_group", "remove_group", "parent"])]
    values: Vec<String>,
    /// Set a value from a file, for secrets: arguments can be seen by other users
    #[arg(long, value_name = "URL=FILE")]
    from_file: Vec<String>,
    /// Put the nodes in this group
    #[arg(long, value_name = "GROUP")]
    add_group: Vec<String>,
    /// Take the nodes out of this group
    #[arg(long, value_name = "GROUP")]
    remove_group: Vec<String>,
    /// Put the nodes below this one (the head's own name: below the head itself); their agents join again, and nothing is switched
    #[arg(long, value_name = "NODE", add = complete::nodes())]
    parent: Option<String>,
    #[command(flatten)]
    how: HowArgs,
}

/// Arguments of `node unset`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The head then no longer cares: it leaves the value as it is. To switch a node off, set /PhysState=POWER_OFF instead.

Examples:
  krakenctl node unset n7 /PhysState /RunState
  krakenctl node unset @rack1 /image/name")]
pub(crate) struct UnsetArgs {
    /// Node set
    #[arg(add = complete::nodes())]
    nodes: String,
    /// What to unset
    #[arg(add = complete::urls(), value_name = "URL", required = true)]
    urls: Vec<String>,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Debug, clap::Args)]
struct HowArgs {
    /// Wait until each node is what was set
    #[arg(short, long, conflicts_with = "dry_run")]
    wait: bool,
    /// Longest wait
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = connect::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    dry: DryRunArgs,
    #[command(flatten)]
    trial: TryArgs,
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    write: WriteArgs,
}

/// What a write shall do.
#[derive(Debug, Default)]
struct Wanted {
    changes: Vec<v1::ValueChange>,
    add_groups: Vec<String>,
    remove_groups: Vec<String>,
    parent: Option<String>,
}

pub(crate) async fn set(args: SetArgs, context: &Context) -> Result<Exit, Failure> {
    let group = |group: &String| group.trim_start_matches('@').to_owned();
    let wanted = Wanted {
        changes: changes(&args.values, &args.from_file, &[], context)?,
        add_groups: args.add_group.iter().map(group).collect(),
        remove_groups: args.remove_group.iter().map(group).collect(),
        parent: args.parent.clone(),
    };
    apply(&args.nodes, wanted, &args.how, "set", context).await
}

pub(crate) async fn unset(args: UnsetArgs, context: &Context) -> Result<Exit, Failure> {
    let wanted = Wanted {
        changes: changes(&[], &[], &args.urls, context)?,
        ..Wanted::default()
    };
    apply(&args.nodes, wanted, &args.how, "unset", context).await
}

/// What was typed as `URL=VALUE`, `URL=FILE` and `URL` alone, each url once.
pub(crate) fn changes(
    values: &[String],
    from_file: &[String],
    unset: &[String],
    context: &Context,
) -> Result<Vec<v1::ValueChange>, Failure> {
    let schema = context.shown.schema();
    let mut changes: BTreeMap<StateUrl, v1::ValueChange> = BTreeMap::new();
    let mut add = |url: StateUrl, text: &str| -> Result<(), Failure> {
        let change = value::change(schema, &url, text)?;
        if changes.insert(url.clone(), change).is_some() {
            return Err(Failure::usage(format!("{url} is given twice")));
        }
        Ok(())
    };
    for assignment in values {
        let (url, text) = value::split_assignment(assignment)?;
        add(url, text)?;
    }
    for assignment in from_file {
        let (url, path) = value::split_assignment(assignment)?;
        add(url, &read_value(Path::new(path))?)?;
    }
    for url in unset {
        if let Some((url, _)) = url.split_once('=') {
            return Err(Failure::usage(format!(
                "{url}: what is unset has no value: give the url alone"
            )));
        }
        add(value::parse_url(url)?, "")?;
    }
    Ok(changes.into_values().collect())
}

async fn apply(
    nodes: &str,
    wanted: Wanted,
    how: &HowArgs,
    verb: &str,
    context: &Context,
) -> Result<Exit, Failure> {
    let mut request = v1::SetNodesRequest {
        nodes: write::node_set(nodes)?,
        changes: wanted.changes,
        add_groups: wanted.add_groups,
        remove_groups: wanted.remove_groups,
        parent: wanted.parent,
        options: how.trial.apply(how.write.options()),
    };
    if how.dry.dry_run {
        return what_if::of(context, Write::Set(request), how.write.output).await;
    }
    let mut head = context.head().await?;
    let disruptive = request
        .changes
        .iter()
        .any(|change| is_disruptive(&change.url));
    let mut names = Vec::new();
    if how.wait || how.limit.limit(disruptive).is_some() {
        let what = ("change", disruptive);
        let approved = how
            .limit
            .approve_set(context, &mut head, &request.nodes, what);
        names = approved.await?;
        request.nodes = names::fold(&names);
    }
    write::check_size(&request)?;
    // Counted from before the write, so that a trial is not over here later than it is there.
    let trial_ends = how.trial.trial.map(|trial| Instant::now() + trial);
    let written = Written::from(head.set_nodes(request).await?.into_inner());
    if !how.wait {
        written.print(context, how.write.output, verb)?;
        return Ok(Exit::Ok);
    }
    let goals = goals(&mut head, &written.kept, &context.shown).await?;
    progress::wait(
        head,
        names,
        goals,
        (how.timeout, trial_ends),
        &written,
        how.write.output,
        context,
    )
    .await
}

/// True for a url whose change can end what runs on a node.
fn is_disruptive(url: &str) -> bool {
    url == "/PhysState" || url == "/RunState" || url.starts_with("/image/")
}

/// What can be waited for: values that mutations change, that nodes report, or that are out of reach. `kept` are the changes as the head keeps them:
/// what was typed may be written in another way, and secrets are not told.
async fn goals(
    head: &mut connect::Head,
    kept: &[v1::ValueChange],
    shown: &Shown,
) -> Result<Vec<Goal>, Failure> {
    let set = mutation::of_head(head).await?;
    let graph = MutationGraph::new(&set).map_err(|error| Failure::usage(error.to_string()))?;
    let awaited = |url: &str| {
        let Ok(url) = url.parse::<StateUrl>() else {
            return false;
        };
        graph.is_mutated(&url)
            || (shown.is_discoverable(url.as_str()) && graph.is_out_of_reach(&url))
    };
    let set = kept
        .iter()
        .filter_map(|change| Some((&change.url, change.value.clone()?)));
    Ok(set
        .map(|(url, value)| Goal {
            awaited: awaited(url),
            url: url.clone(),
            value,
        })
        .collect())
}

fn read_value(path: &Path) -> Result<String, Failure> {
    use std::io::Read;
    let failed = |error: std::io::Error| {
        Failure::new(
            Exit::Failure,
            format!("cannot read {}: {error}", path.display()),
        )
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_VALUE_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    // Editors end a file with a newline that is no part of a password.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}
