//! `node delete`.

use proto::v1;
use proto::v1::plan_request::Write;

use crate::exit::{Exit, Failure};
use crate::write::{self, DryRunArgs, LimitArgs, WriteArgs, Written};
use crate::{Context, complete, names, what_if};

/// Arguments of `node delete`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The head forgets the nodes: it serves them no boot and fires no mutation for them. A machine that runs goes on running. \
More than 32 nodes are deleted only with --yes or a higher -m.

Examples:
  krakenctl node delete n4
  krakenctl node delete @rack3 --dry-run
  krakenctl node delete @rack3 --yes --reason 'sold'")]
pub(crate) struct DeleteArgs {
    /// Node set
    #[arg(add = complete::nodes())]
    nodes: String,
    #[command(flatten)]
    dry: DryRunArgs,
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    write: WriteArgs,
}

pub(crate) async fn delete(args: DeleteArgs, context: &Context) -> Result<Exit, Failure> {
    let mut request = v1::DeleteNodesRequest {
        nodes: write::node_set(&args.nodes)?,
        options: args.write.options(),
    };
    if args.dry.dry_run {
        return what_if::of(context, Write::Delete(request), args.write.output).await;
    }
    let mut head = context.head().await?;
    let names = args
        .limit
        .approve_set(context, &mut head, &request.nodes, ("delete", true));
    request.nodes = names::fold(&names.await?);
    let written = Written::from(head.delete_nodes(request).await?.into_inner());
    written.print(context, args.write.output, "deleted")?;
    Ok(Exit::Ok)
}
