//! `node reboot`.

use proto::v1;
use proto::v1::plan_request::Write;

use crate::exit::{Exit, Failure};
use crate::write::{self, DryRunArgs, LimitArgs, WriteArgs, Written};
use crate::{Context, complete, names, what_if};

/// Arguments of `node reboot`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each node leaves sync, stops its image, is switched off, and then goes back to where its Cfg wants it. A node with a job waits for \
the job's end, and all wait for the governor: with at_once = 1 for a group, its nodes reboot one by one. The wish is Cfg /Reboot \
until the node was off; unsetting that takes it back. --dry-run and `node explain` tell the way off and the way back, and estimate both. More than 32 nodes are rebooted only with --yes or a higher -m.

Examples:
  krakenctl node reboot n4
  krakenctl node reboot @rack3 --dry-run
  krakenctl node reboot @rack3 --reason 'new firmware'
  krakenctl node unset @rack3 /Reboot           not those that have not begun")]
pub(crate) struct RebootArgs {
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

pub(crate) async fn run(args: RebootArgs, context: &Context) -> Result<Exit, Failure> {
    let value = v1::value::Kind::BoolValue(true);
    let mut request = v1::SetNodesRequest {
        nodes: write::node_set(&args.nodes)?,
        changes: vec![v1::ValueChange {
            url: "/Reboot".to_owned(),
            value: Some(v1::Value { kind: Some(value) }),
        }],
        options: args.write.options(),
        ..v1::SetNodesRequest::default()
    };
    if args.dry.dry_run {
        return what_if::of(context, Write::Set(request), args.write.output).await;
    }
    let mut head = context.head().await?;
    let names = args
        .limit
        .approve_set(context, &mut head, &request.nodes, ("reboot", true));
    request.nodes = names::fold(&names.await?);
    let written = Written::from(head.set_nodes(request).await?.into_inner());
    written.print(context, args.write.output, "asked for the reboot of")?;
    Ok(Exit::Ok)
}
