//! `node retry` and `node release`: two ways to make a node go on.

use proto::v1;
use proto::v1::plan_request::Write;

use crate::exit::{Exit, Failure};
use crate::write::{self, DryRunArgs, LimitArgs, Written};
use crate::{Context, complete, names, what_if};

/// Arguments of `node retry`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A mutation that failed is tried again after a while, which grows; after some attempts the node is parked, and the head leaves it alone \
until its Cfg changes, or until what comes next is visibly something else. Retrying forgets the failed attempts, so that the node tries \
again now. Nothing else changes: a job still holds what would end it, a frozen node stays frozen. `node explain` shows the attempts.

See also: node release, which lifts more.

Examples:
  krakenctl node retry n4
  krakenctl node retry '@rack3'")]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    common: CommonArgs,
}

/// Arguments of `node release`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Releasing says \"I have looked at this node, go on\". Beyond what `node retry` forgets, it lifts what the head does not know better: that \
a silent node may still run, that a job was last seen on it, that a head which has just started waits for its agent. The node's agent \
joins again, without a reboot, and a node that gave up by itself starts anew, too.

See also: node retry, which forgets failed attempts only.

Examples:
  krakenctl node release n4
  krakenctl node release n4 --dry-run           what would it do then?
  krakenctl node release '@rack3'")]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Args)]
struct CommonArgs {
    /// Node set
    #[arg(add = complete::nodes())]
    nodes: String,
    #[command(flatten)]
    dry: DryRunArgs,
    #[command(flatten)]
    limit: LimitArgs,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: crate::output::Format,
}

impl CommonArgs {
    /// The nodes, counted and approved if there is a limit.
    async fn nodes(&self, context: &Context, verb: &str) -> Result<String, Failure> {
        let nodes = write::node_set(&self.nodes)?;
        if self.dry.dry_run || self.limit.limit(false).is_none() {
            return Ok(nodes);
        }
        let mut head = context.head().await?;
        let names = self
            .limit
            .approve_set(context, &mut head, &nodes, (verb, false));
        Ok(names::fold(&names.await?))
    }
}

pub(crate) async fn retry(args: RetryArgs, context: &Context) -> Result<Exit, Failure> {
    let nodes = args.common.nodes(context, "retry").await?;
    let request = v1::RetryRequest { nodes };
    if args.common.dry.dry_run {
        return what_if::of(context, Write::Retry(request), args.common.output).await;
    }
    let answer = context.head().await?.retry(request).await?;
    Written::from(answer.into_inner()).print(context, args.common.output, "retrying")?;
    Ok(Exit::Ok)
}

pub(crate) async fn release(args: ReleaseArgs, context: &Context) -> Result<Exit, Failure> {
    let nodes = args.common.nodes(context, "release").await?;
    let request = v1::ReleaseRequest { nodes };
    if args.common.dry.dry_run {
        return what_if::of(context, Write::Release(request), args.common.output).await;
    }
    let answer = context.head().await?.release(request).await?;
    Written::from(answer.into_inner()).print(context, args.common.output, "released")?;
    Ok(Exit::Ok)
}
