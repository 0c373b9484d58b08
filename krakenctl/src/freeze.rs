//! `freeze` and `thaw`: the emergency brake, for the cluster, for groups and for nodes by name, each apart.

use proto::v1;
use proto::v1::plan_request::Write;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{Format, Table, printable};
use crate::write::{self, DryRunArgs, LimitArgs, TryArgs, WriteArgs, Written};
use crate::{Context, complete, names, what_if};

/// Arguments of `freeze`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A frozen node, or a node of a frozen cluster, starts no mutation. What runs already goes on to its end, watching goes on, \
and Cfg can be changed. Freezing is kept when the head restarts.

A group is frozen with whoever is in it: nodes that come into it later are, too. In a set that takes nodes out or picks some \
(@rack3!n7) a group stands for the nodes that it has now, and those are frozen by name.

Examples:
  krakenctl freeze --reason 'cooling failed'    the whole cluster
  krakenctl freeze @rack3                       one rack
  krakenctl freeze @rack3 --dry-run             what would stop there?
  krakenctl freeze --list                       what is frozen, and who froze groups and why; of nodes and the cluster `krakenctl history` tells it")]
pub(crate) struct FreezeArgs {
    /// Node set; without it: the whole cluster
    #[arg(add = complete::nodes())]
    nodes: Option<String>,
    /// Freeze nothing: show what is frozen
    #[arg(long, conflicts_with_all = ["nodes", "dry_run", "trial", "reason"])]
    list: bool,
    #[command(flatten)]
    dry: DryRunArgs,
    #[command(flatten)]
    trial: TryArgs,
    #[command(flatten)]
    write: WriteArgs,
}

/// Arguments of `thaw`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The cluster, each group and each node are frozen and thawed apart: `thaw` without a node set lifts the freeze of the whole \
cluster, and leaves groups and single nodes frozen that were frozen by name. Every thawed node is planned afresh.

Examples:
  krakenctl thaw                                lift the freeze of the cluster
  krakenctl thaw @rack3                         this group
  krakenctl thaw n[1-4]                         these nodes
  krakenctl thaw --mutation power/OFFtoON       a mutation that failed on many nodes and was frozen for all
  krakenctl thaw --mutation power/OFFtoON --dry-run   who waits for it, and what would they do then?
  krakenctl thaw --mass-failure                 many nodes fell silent at once, and they are at fault, not the head")]
pub(crate) struct ThawArgs {
    /// Node set; without it: the whole cluster
    #[arg(add = complete::nodes())]
    nodes: Option<String>,
    /// Let all nodes try this mutation again
    #[arg(long, value_name = "MODULE/NAME", conflicts_with_all = ["nodes", "trial"])]
    mutation: Option<String>,
    /// The head is not at fault for the nodes that fell silent
    #[arg(long, conflicts_with_all = ["nodes", "mutation", "trial"])]
    mass_failure: bool,
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    dry: DryRunArgs,
    #[command(flatten)]
    trial: TryArgs,
    #[command(flatten)]
    write: WriteArgs,
}

pub(crate) async fn freeze(args: FreezeArgs, context: &Context) -> Result<Exit, Failure> {
    if args.list {
        return list(context, args.write.output).await;
    }
    let nodes = args.nodes.as_deref().map(write::node_set).transpose()?;
    let how = (args.dry, &args.write, &args.trial);
    apply(context, nodes, true, how).await
}

pub(crate) async fn thaw(args: ThawArgs, context: &Context) -> Result<Exit, Failure> {
    use v1::lift_request::What;
    if let Some(mutation) = args.mutation {
        let text = format!("all nodes may try {mutation} again");
        let what = What::Mutation(mutation);
        return lift(context, what, &text, (args.dry, args.write.output)).await;
    }
    if args.mass_failure {
        let text = "nodes that fell silent hold nobody else any more";
        let what = What::MassFailure(true);
        return lift(context, what, text, (args.dry, args.write.output)).await;
    }
    let mut nodes = args.nodes.as_deref().map(write::node_set).transpose()?;
    if let (Some(set), Some(_)) = (&nodes, args.limit.limit(false))
        && !args.dry.dry_run
    {
        let mut head = context.head().await?;
        let names = args
            .limit
            .approve_set(context, &mut head, set, ("thaw", false));
        let names = names.await?;
        if !is_groups(set) {
            nodes = Some(names::fold(&names));
        }
    }
    let how = (args.dry, &args.write, &args.trial);
    apply(context, nodes, false, how).await
}

async fn lift(
    context: &Context,
    what: v1::lift_request::What,
    done: &str,
    (dry, output): (DryRunArgs, Format),
) -> Result<Exit, Failure> {
    let request = v1::LiftRequest { what: Some(what) };
    if dry.dry_run {
        return what_if::of(context, Write::Lift(request), output).await;
    }
    let mut head = context.head().await?;
    let lifted = head.lift(request).await?.into_inner().lifted;
    context.note(match lifted {
        true => done,
        false => "there was nothing to lift",
    });
    Ok(Exit::Ok)
}

async fn apply(
    context: &Context,
    nodes: Option<String>,
    freeze: bool,
    (dry, write, trial): (DryRunArgs, &WriteArgs, &TryArgs),
) -> Result<Exit, Failure> {
    let whole_cluster = nodes.is_none();
    let request = v1::FreezeRequest {
        nodes: nodes.unwrap_or_default(),
        freeze,
        options: trial.apply(write.options()),
    };
    if dry.dry_run {
        return what_if::of(context, Write::Freeze(request), write.output).await;
    }
    let mut head = context.head().await?;
    let nodes = request.nodes.clone();
    let written = Written::from(head.freeze(request).await?.into_inner());
    let verb = if freeze { "froze" } else { "thawed" };
    if whole_cluster {
        context.screen.item(write.output, &written, || {
            format!(
                "{verb} the cluster, revision {}\n{}",
                written.revision,
                written.trial()
            )
        })?;
    } else {
        written.print(context, write.output, verb)?;
    }
    if !freeze {
        // The thaw is done; a head that is gone since then takes nothing from it.
        let request = v1::ListNodesRequest { nodes };
        if let Ok(answer) = head.list_nodes(request).await {
            for text in still_frozen(&answer.into_inner(), whole_cluster) {
                context.note(&printable(&text));
            }
        }
    }
    Ok(Exit::Ok)
}

/// Whether a node set is a list of groups, which are frozen and thawed as such.
fn is_groups(set: &str) -> bool {
    let is_group = |part: &str| {
        let name = part.trim().strip_prefix('@').unwrap_or_default();
        let is_letter = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !name.is_empty() && name.chars().all(is_letter)
    };
    set.split(',').all(is_group)
}

/// What still holds nodes that were thawed, and how to lift that.
fn still_frozen(answer: &v1::ListNodesResponse, whole_cluster: bool) -> Vec<String> {
    let mut texts = Vec::new();
    if answer.frozen && !whole_cluster {
        texts.push("the cluster is frozen: krakenctl thaw".to_owned());
    }
    for frozen in &answer.frozen_groups {
        let members = names_of(answer, |node| node.groups.contains(&frozen.group));
        if !members.is_empty() {
            let (group, by) = (&frozen.group, by(frozen));
            texts.push(format!(
                "{members} stays frozen with the group {group}, by {by}: krakenctl thaw @{group}"
            ));
        }
    }
    let by_name = names_of(answer, |node| node.frozen);
    if !by_name.is_empty() {
        texts.push(format!(
            "{by_name} stays frozen by name: krakenctl thaw {by_name}"
        ));
    }
    texts
}

fn names_of(answer: &v1::ListNodesResponse, wanted: impl Fn(&v1::Node) -> bool) -> String {
    let nodes = answer.nodes.iter().filter(|node| wanted(node));
    names::fold(nodes.map(|node| &node.name))
}

/// `alice: cooling failed`.
fn by(frozen: &v1::FrozenGroup) -> String {
    match frozen.reason.is_empty() {
        true => frozen.author.clone(),
        false => format!("{}: {}", frozen.author, frozen.reason),
    }
}

/// What is frozen, for programs. Field names are an interface.
#[derive(Clone, Debug, Serialize)]
struct Frozen {
    /// "cluster", "group" or "node".
    kind: &'static str,
    /// Of the group or node.
    name: String,
    /// Who froze the group, and why; `krakenctl history` tells it of the others.
    author: String,
    reason: String,
}

async fn list(context: &Context, output: Format) -> Result<Exit, Failure> {
    let mut head = context.head().await?;
    let all = v1::ListNodesRequest::default();
    let answer = head.list_nodes(all).await?.into_inner();
    let frozen = |kind, name: &str| Frozen {
        kind,
        name: name.to_owned(),
        author: String::new(),
        reason: String::new(),
    };
    let cluster = answer.frozen.then(|| frozen("cluster", ""));
    let groups = answer.frozen_groups.iter().map(|group| Frozen {
        author: group.author.clone(),
        reason: group.reason.clone(),
        ..frozen("group", &group.group)
    });
    let nodes = answer.nodes.iter().filter(|node| node.frozen);
    let nodes = nodes.map(|node| frozen("node", &node.name));
    let rows: Vec<Frozen> = cluster.into_iter().chain(groups).chain(nodes).collect();
    if rows.is_empty() && matches!(output, Format::Table | Format::Wide) {
        context.note("nothing is frozen");
        return Ok(Exit::Ok);
    }
    let set = |row: &Frozen| match row.kind {
        "group" => format!("@{}", row.name),
        _ => row.name.clone(),
    };
    context.screen.list(output, &rows, set, || {
        let mut table = Table::new(["FROZEN", "BY", "REASON", "LIFTED BY"]);
        for row in &rows {
            let what = match row.kind {
                "cluster" => "the cluster".to_owned(),
                _ => set(row),
            };
            let lift = format!("krakenctl thaw {}", set(row));
            let cells = [what, row.author.clone(), row.reason.clone()];
            let cells = cells.iter().map(|text| printable(text).into());
            table.row(cells.chain([lift.trim_end().into()]).collect());
        }
        table
    })?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_told_from_nodes() {
        assert!(is_groups("@rack3") && is_groups("@a, @b-2"));
        for nodes in ["", "@*", "n1,@a", "@a!n7", "@a&@b", "@a[1,2]", "n[1,3]"] {
            assert!(!is_groups(nodes), "{nodes}");
        }
    }
}
