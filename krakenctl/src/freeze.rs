//! `freeze` and `thaw`: the emergency brake.

use proto::v1;
use proto::v1::plan_request::Write;

use crate::exit::{Exit, Failure};
use crate::write::{self, DryRunArgs, LimitArgs, TryArgs, WriteArgs, Written};
use crate::{Context, complete, what_if};

/// Arguments of `freeze`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A frozen node, or a node of a frozen cluster, starts no mutation. What runs already goes on to its end, watching goes on, \
and Cfg can be changed. Freezing is kept when the head restarts.

Examples:
  krakenctl freeze --reason 'cooling failed'    the whole cluster
  krakenctl freeze @rack3                       one rack
  krakenctl freeze @rack3 --dry-run             what would stop there?")]
pub(crate) struct FreezeArgs {
    /// Node set; without it: the whole cluster
    #[arg(add = complete::nodes())]
    nodes: Option<String>,
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
The cluster and each node are frozen and thawed apart: `thaw` without a node set lifts the freeze of the whole cluster, and \
leaves single nodes frozen that were frozen by name. Every thawed node is planned afresh.

Examples:
  krakenctl thaw                                lift the freeze of the cluster
  krakenctl thaw n[1-4]                         these nodes
  krakenctl thaw --mutation power/OFFtoON       a mutation that failed on many nodes and was frozen for all
  krakenctl thaw --mass-failure                 many nodes fell silent at once, and they are at fault, not the head")]
pub(crate) struct ThawArgs {
    /// Node set; without it: the whole cluster
    #[arg(add = complete::nodes())]
    nodes: Option<String>,
    /// Let all nodes try this mutation again
    #[arg(long, value_name = "MODULE/NAME", conflicts_with_all = ["nodes", "dry_run"])]
    mutation: Option<String>,
    /// The head is not at fault for the nodes that fell silent
    #[arg(long, conflicts_with_all = ["nodes", "mutation", "dry_run"])]
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
    let nodes = args.nodes.as_deref().map(write::node_set).transpose()?;
    let how = (args.dry, &args.write, &args.trial);
    apply(context, nodes, true, how).await
}

pub(crate) async fn thaw(args: ThawArgs, context: &Context) -> Result<Exit, Failure> {
    use v1::lift_request::What;
    if let Some(mutation) = args.mutation {
        let text = format!("all nodes may try {mutation} again");
        return lift(context, What::Mutation(mutation), &text).await;
    }
    if args.mass_failure {
        let text = "nodes that fell silent hold nobody else any more";
        return lift(context, What::MassFailure(true), text).await;
    }
    let mut nodes = args.nodes.as_deref().map(write::node_set).transpose()?;
    if let (Some(set), Some(_)) = (&nodes, args.limit.limit(false))
        && !args.dry.dry_run
    {
        let mut head = context.head().await?;
        let names = args
            .limit
            .approve_set(context, &mut head, set, ("thaw", false));
        nodes = Some(crate::names::fold(&names.await?));
    }
    let how = (args.dry, &args.write, &args.trial);
    apply(context, nodes, false, how).await
}

async fn lift(
    context: &Context,
    what: v1::lift_request::What,
    done: &str,
) -> Result<Exit, Failure> {
    let mut head = context.head().await?;
    let request = v1::LiftRequest { what: Some(what) };
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
    Ok(Exit::Ok)
}
