//! `node reboot`.

use proto::v1;

use crate::exit::{Exit, Failure};
use crate::write::{self, LimitArgs, WriteArgs, Written};
use crate::{Context, complete, names};

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

pub(crate) async fn run(args: RebootArgs, context: &Context) -> Result<Exit, Failure> {
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
