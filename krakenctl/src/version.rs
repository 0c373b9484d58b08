//! `version`: of this program, and of the head it reaches.

use proto::v1;
use serde::Serialize;

use crate::Context;
use crate::exit::{Exit, Failure};
use crate::output::Format;

/// Arguments of `version`.
#[derive(Debug, clap::Args)]
pub(crate) struct VersionArgs {
    /// Of this program alone; asks no head
    #[arg(long)]
    client: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Versions for JSON and YAML. Field names are an interface.
#[derive(Clone, Debug, Serialize)]
struct VersionView {
    krakenctl: &'static str,
    /// Absent with --client, or when no head answered.
    head: Option<HeadView>,
}

#[derive(Clone, Debug, Serialize)]
struct HeadView {
    version: String,
    cluster: String,
    revision: u64,
    epoch: u64,
    frozen: bool,
    frozen_groups: Vec<String>,
}

pub(crate) async fn run(args: VersionArgs, context: &Context) -> Result<Exit, Failure> {
    let mut view = VersionView {
        krakenctl: env!("CARGO_PKG_VERSION"),
        head: None,
    };
    let mut failure = None;
    if !args.client {
        match ask(context).await {
            Ok(head) => view.head = Some(head),
            Err(error) => failure = Some(error),
        }
    }
    context
        .screen
        .item(args.output, &view, || text(&view, context))?;
    failure.map_or(Ok(Exit::Ok), Err)
}

async fn ask(context: &Context) -> Result<HeadView, Failure> {
    let mut head = context.head().await?;
    let answer = head
        .get_version(v1::GetVersionRequest {})
        .await?
        .into_inner();
    let groups = answer.frozen_groups.into_iter();
    Ok(HeadView {
        version: answer.version,
        cluster: answer.cluster,
        revision: answer.revision,
        epoch: answer.epoch,
        frozen: answer.frozen,
        frozen_groups: groups.map(|frozen| frozen.group).collect(),
    })
}

fn text(view: &VersionView, context: &Context) -> String {
    let mut text = format!("krakenctl  {}\n", view.krakenctl);
    if let Some(head) = &view.head {
        let frozen = match (head.frozen, &head.frozen_groups[..]) {
            (true, _) => ", frozen".to_owned(),
            (false, []) => String::new(),
            (false, groups) => format!(", frozen: @{}", groups.join(", @")),
        };
        text += &format!(
            "head       {} at {}, cluster {}, revision {}{frozen}\n",
            head.version,
            context.connect.describe(),
            head.cluster,
            head.revision
        );
    }
    text
}
