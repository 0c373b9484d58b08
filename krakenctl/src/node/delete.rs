//! `node delete`, `node reboot` and `node release`.

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

/// Arguments of `node reboot`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each node leaves sync, stops its image, is switched off, and then goes back to where its Cfg wants it. A node with a job waits for \
the job's end, and all wait for the governor: with at_once = 1 for a group, its nodes reboot one by one. The wish is Cfg /Reboot \
until the node was off; unsetting that takes it back. More than 32 nodes are rebooted only with --yes or a higher -m.

Examples:
  krakenctl node reboot n4
  krakenctl node reboot @rack3 --reason 'new firmware'
  krakenctl node unset @rack3 /Reboot           not those that have not begun")]
pub(crate) struct RebootArgs {
    /// Node set
    #[arg(add = complete::nodes())]
    nodes: String,
    #[command(flatten)]
    limit: LimitArgs,
    #[command(flatten)]
    write: WriteArgs,
}

/// Arguments of `node release`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A node whose mutation failed too often is parked: the head leaves it alone. Releasing forgets the failures; `node explain` shows \
them first.

Examples:
  krakenctl node release n4
  krakenctl node release '@rack3'")]
pub(crate) struct ReleaseArgs {
    /// Node set
    #[arg(add = complete::nodes())]
    nodes: String,
    #[command(flatten)]
    limit: LimitArgs,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: crate::output::Format,
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

pub(crate) async fn reboot(args: RebootArgs, context: &Context) -> Result<Exit, Failure> {
    let nodes = write::node_set(&args.nodes)?;
    let mut head = context.head().await?;
    let names: Vec<String> = write::resolve(&mut head, &nodes)
        .await?
        .into_iter()
        .map(|node| node.name)
        .collect();
    args.limit.approve(context, "reboot", &names, true).await?;
    let value = v1::value::Kind::BoolValue(true);
    let request = v1::SetNodesRequest {
        nodes: names::fold(&names),
        changes: vec![v1::ValueChange {
            url: "/Reboot".to_owned(),
            value: Some(v1::Value { kind: Some(value) }),
        }],
        options: args.write.options(),
        ..v1::SetNodesRequest::default()
    };
    let written = Written::from(head.set_nodes(request).await?.into_inner());
    written.print(context, args.write.output, "asked for the reboot of")?;
    Ok(Exit::Ok)
}

pub(crate) async fn release(args: ReleaseArgs, context: &Context) -> Result<Exit, Failure> {
    let mut nodes = write::node_set(&args.nodes)?;
    let mut head = context.head().await?;
    if args.limit.limit(false).is_some() {
        let names: Vec<String> = write::resolve(&mut head, &nodes)
            .await?
            .into_iter()
            .map(|node| node.name)
            .collect();
        args.limit
            .approve(context, "release", &names, false)
            .await?;
        nodes = names::fold(&names);
    }
    let written = Written::from(
        head.release(v1::ReleaseRequest { nodes })
            .await?
            .into_inner(),
    );
    written.print(context, args.output, "released")?;
    Ok(Exit::Ok)
}
