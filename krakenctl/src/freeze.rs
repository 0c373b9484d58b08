//! `freeze` and `thaw`: the emergency brake.

use proto::v1;

use crate::exit::{Exit, Failure};
use crate::write::{self, LimitArgs, WriteArgs, Written};
use crate::{Context, complete};

/// Arguments of `freeze`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A frozen node, or a node of a frozen cluster, starts no mutation. What runs already goes on to its end, watching goes on, \
and Cfg can be changed. Freezing is kept when the head restarts.

Examples:
  krakenctl freeze --reason 'cooling failed'    the whole cluster
  krakenctl freeze @rack3                       one rack")]
pub(crate) struct FreezeArgs {
    /// Node set; without it: the whole cluster
    #[arg(add = complete::nodes())]
    nodes: Option<String>,
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
  krakenctl thaw n[1-4]                         these nodes")]
pub(crate) struct ThawArgs {
    /// Node set; without it: the whole cluster
    #[arg(add = complete::nodes())]
    nodes: Option<String>,
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    write: WriteArgs,
}

pub(crate) async fn freeze(args: FreezeArgs, context: &Context) -> Result<Exit, Failure> {
    let nodes = args.nodes.as_deref().map(write::node_set).transpose()?;
    apply(context, nodes, true, &args.write).await
}

pub(crate) async fn thaw(args: ThawArgs, context: &Context) -> Result<Exit, Failure> {
    let mut nodes = args.nodes.as_deref().map(write::node_set).transpose()?;
    if let (Some(set), Some(_)) = (&nodes, args.limit.limit(false)) {
        let mut head = context.head().await?;
        let names: Vec<String> = write::resolve(&mut head, set)
            .await?
            .into_iter()
            .map(|node| node.name)
            .collect();
        args.limit.approve(context, "thaw", &names, false).await?;
        nodes = Some(crate::names::fold(&names));
    }
    apply(context, nodes, false, &args.write).await
}

async fn apply(
    context: &Context,
    nodes: Option<String>,
    freeze: bool,
    write: &WriteArgs,
) -> Result<Exit, Failure> {
    let mut head = context.head().await?;
    let whole_cluster = nodes.is_none();
    let request = v1::FreezeRequest {
        nodes: nodes.unwrap_or_default(),
        freeze,
        options: write.options(),
    };
    let written = Written::from(head.freeze(request).await?.into_inner());
    let verb = if freeze { "froze" } else { "thawed" };
    if whole_cluster {
        context.screen.item(write.output, &written, || {
            format!("{verb} the cluster, revision {}\n", written.revision)
        })?;
    } else {
        written.print(context, write.output, verb)?;
    }
    Ok(Exit::Ok)
}
