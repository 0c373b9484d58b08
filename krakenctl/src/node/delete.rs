//! `node delete`.

use proto::v1;

use crate::exit::{Exit, Failure};
use crate::write::{self, LimitArgs, WriteArgs, Written};
use crate::{Context, complete, names};

/// Arguments of `node delete`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The head forgets the nodes: it serves them no boot and fires no mutation for them. A machine that runs goes on running. \
More than 32 nodes are deleted only with --yes or a higher -m.

Examples:
  krakenctl node delete n4
  krakenctl node delete @rack3 --yes --reason 'sold'")]
pub(crate) struct DeleteArgs {
    /// Node set
    #[arg(add = complete::nodes())]
    nodes: String,
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    write: WriteArgs,
}

pub(crate) async fn delete(args: DeleteArgs, context: &Context) -> Result<Exit, Failure> {
    let nodes = write::node_set(&args.nodes)?;
    let mut head = context.head().await?;
    let names: Vec<String> = write::resolve(&mut head, &nodes)
        .await?
        .into_iter()
        .map(|node| node.name)
        .collect();
    args.limit.approve(context, "delete", &names, true).await?;
    let request = v1::DeleteNodesRequest {
        nodes: names::fold(&names),
        options: args.write.options(),
    };
    let written = Written::from(head.delete_nodes(request).await?.into_inner());
    written.print(context, args.write.output, "deleted")?;
    Ok(Exit::Ok)
}
