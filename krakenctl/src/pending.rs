//! `pending`: machines that asked for a boot and belong to no node.

use proto::v1;
use proto::v1::plan_request::Write;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::node::spec::SpecArgs;
use crate::output::{Format, Table};
use crate::write::{DryRunArgs, WriteArgs, Written};
use crate::{Context, complete, view, what_if};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the machines, the latest first
    List {
        /// How to print them
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// Make a machine a node
    Enrol(Box<EnrolArgs>),
}

/// Arguments of `pending enrol`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The machine's MAC becomes the one the node boots from. It goes on booting by itself within seconds, without a reset, once its \
Cfg asks for a boot.

Examples:
  krakenctl pending enrol 52:54:00:4b:00:07 n7 --address 10.77.0.17/24 --group rack1
  krakenctl pending enrol 52:54:00:4b:00:07 n7 --address 10.77.0.17/24 /RunState=SYNC")]
pub(crate) struct EnrolArgs {
    /// Its link-layer address, as `pending list` shows it
    #[arg(add = complete::pending())]
    mac: String,
    /// Name of the node to create
    name: String,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    dry: DryRunArgs,
    #[command(flatten)]
    write: WriteArgs,
}

/// A machine for JSON and YAML. Field names are an interface.
#[derive(Clone, Debug, Serialize)]
struct PendingView {
    mac: String,
    uuid: Option<String>,
    arch: u32,
    vendor_class: String,
    interface: String,
    giaddr: Option<String>,
    hostname: String,
    first_seen_ms: u64,
    last_seen_ms: u64,
    count: u64,
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::List { output } => list(output, context).await,
        Command::Enrol(args) => enrol(*args, context).await,
    }
}

async fn list(output: Format, context: &Context) -> Result<Exit, Failure> {
    let mut head = context.head().await?;
    let mut pending = head
        .list_pending(v1::ListPendingRequest {})
        .await?
        .into_inner()
        .pending;
    pending.sort_by(|a, b| {
        b.last_seen_ms
            .cmp(&a.last_seen_ms)
            .then_with(|| a.mac.cmp(&b.mac))
    });
    let views: Vec<PendingView> = pending.iter().map(view_of).collect();
    if views.is_empty() && matches!(output, Format::Table | Format::Wide) {
        context.note("no machine waits to be enrolled");
    }
    context.screen.list(
        output,
        &views,
        |machine| machine.mac.clone(),
        || table(&pending),
    )?;
    Ok(Exit::Ok)
}

fn view_of(machine: &v1::Pending) -> PendingView {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    PendingView {
        mac: machine.mac.clone(),
        uuid: some(&machine.uuid),
        arch: machine.arch,
        vendor_class: machine.vendor_class.clone(),
        interface: machine.interface.clone(),
        giaddr: some(&machine.giaddr),
        hostname: machine.hostname.clone(),
        first_seen_ms: machine.first_seen_ms,
        last_seen_ms: machine.last_seen_ms,
        count: machine.count,
    }
}

fn table(pending: &[v1::Pending]) -> Table {
    let now = view::now_ms();
    let mut table = Table::new([
        "MAC",
        "FIRMWARE",
        "INTERFACE",
        "RELAY",
        "SEEN",
        "REQUESTS",
        "+UUID",
        "+CLASS",
        "+HOSTNAME",
        "+FIRST SEEN",
    ]);
    for machine in pending {
        table.row(vec![
            machine.mac.as_str().into(),
            firmware(machine.arch).into(),
            machine.interface.as_str().into(),
            machine.giaddr.as_str().into(),
            view::ago(machine.last_seen_ms, now).into(),
            machine.count.to_string().into(),
            machine.uuid.as_str().into(),
            machine.vendor_class.as_str().into(),
            machine.hostname.as_str().into(),
            view::ago(machine.first_seen_ms, now).into(),
        ]);
    }
    table
}

/// Name of a processor architecture type (IANA, "Processor Architecture Types"; RFC 4578 2.1 as corrected by its errata).
fn firmware(arch: u32) -> String {
    match arch {
        0 => "BIOS x86".to_owned(),
        6 => "UEFI x86".to_owned(),
        7 | 9 => "UEFI x86-64".to_owned(),
        11 => "UEFI aarch64".to_owned(),
        15 | 16 => "HTTP x86-64".to_owned(),
        19 => "HTTP aarch64".to_owned(),
        27 => "UEFI riscv64".to_owned(),
        other => format!("type {other}"),
    }
}

async fn enrol(args: EnrolArgs, context: &Context) -> Result<Exit, Failure> {
    let node = args.spec.node(context, &args.name)?;
    let request = v1::EnrolRequest {
        mac: args.mac,
        node: Some(node),
        options: args.write.options(),
    };
    if args.dry.dry_run {
        return what_if::of(context, Write::Enrol(request), args.write.output).await;
    }
    let mut head = context.head().await?;
    let written = Written::from(head.enrol(request).await?.into_inner());
    written.print(context, args.write.output, "enrolled")?;
    Ok(Exit::Ok)
}
