//! `node add`.

use std::io::Read;
use std::path::{Path, PathBuf};

use proto::v1;
use proto::v1::plan_request::Write;

use super::spec::SpecArgs;
use crate::exit::{Exit, Failure};
use crate::write::{self, DryRunArgs, WriteArgs, Written};
use crate::{Context, document, names, what_if};

/// Longest file of nodes; what it makes must fit a request of 1 MiB anyway.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Arguments of `node add`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Names are listed, or written short: n[1-4], r[1-2]n[01-16]. Values can have places that each node fills:
  {i}          the last number in its name (12 for r3n12)     {i1} {i2}    its numbers from left to right (3, 12)
  {n}          its position in the list, from 0               {name}       the name
  {i+10} {i*2-1} {i/16} {i%16}   arithmetic, left to right    {i:02x} {i:03}   hexadecimal, zero padding
  {{ }}        braces
--mac-start and --address-start count up from their value, one for each node in the order given.

A file (YAML or JSON, '-' for standard input) holds a list; `node list -o yaml` prints what can be read here:
  - nodes: n[1-4]            # or `name: n1`, which is taken as it is, without places
    groups: [rack1]
    labels: {row: b}
    cfg:
      /ipv4/boot/mac: 52:54:00:4b:00:{i:02x}
      /ipv4/boot/address: 10.77.0.{i+10}/24
      /RunState: SYNC

All nodes are added, or none.

Examples:
  krakenctl node add n1 --mac 52:54:00:4b:00:01 --address 10.77.0.11/24
  krakenctl node add n[1-4] --group rack1 --mac 52:54:00:4b:00:{i:02x} --address 10.77.0.{i+10}/24
  krakenctl node add n[001-128] --mac-start 52:54:00:4b:00:01 --address-start 10.77.0.11/16 /image/name=demo
  krakenctl node add n[1-4] /power/driver=REDFISH '/power/target=https://bmc-{name}/redfish/v1/Systems/1'
  krakenctl node add -f nodes.yaml --dry-run     what would be added, and what would it do then?")]
pub(crate) struct AddArgs {
    /// Names to make
    #[arg(required_unless_present = "file")]
    names: Option<String>,
    #[command(flatten)]
    spec: SpecArgs,
    /// MAC of the interface it boots from; short for /ipv4/boot/mac=...
    #[arg(long, value_name = "MAC", conflicts_with = "mac_start")]
    mac: Option<String>,
    /// First MAC; the next node gets the next one
    #[arg(long, value_name = "MAC")]
    mac_start: Option<String>,
    /// First address; the next node gets the next one, within the network
    #[arg(long, value_name = "ADDRESS/PREFIX", conflicts_with = "address")]
    address_start: Option<String>,
    /// Read nodes from a file; '-': standard input
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["names", "mac", "mac_start", "address_start", "address", "groups", "labels"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    dry: DryRunArgs,
    #[command(flatten)]
    write: WriteArgs,
}

pub(crate) async fn run(args: AddArgs, context: &Context) -> Result<Exit, Failure> {
    let nodes = match &args.file {
        Some(path) => from_file(path, context)?,
        None => from_arguments(&args, context)?,
    };
    let request = v1::AddNodesRequest {
        nodes,
        options: args.write.options(),
    };
    write::check_size(&request)?;
    if args.dry.dry_run {
        return what_if::of(context, Write::Add(request), args.write.output).await;
    }
    let mut head = context.head().await?;
    let written = Written::from(head.add_nodes(request).await?.into_inner());
    written.print(context, args.write.output, "added")?;
    Ok(Exit::Ok)
}

fn from_arguments(args: &AddArgs, context: &Context) -> Result<Vec<v1::Node>, Failure> {
    let list = args.names.as_deref().unwrap_or_default();
    let list = write::node_set(list)?;
    let names = names::expand(&list).map_err(|error| Failure::usage(error.to_string()))?;
    let mut spec = args.spec.spec()?;
    if let Some(mac) = &args.mac {
        spec.set_mac(mac)?;
    }
    if let Some(start) = &args.mac_start {
        spec.count_macs(start, names.len())?;
    }
    if let Some(start) = &args.address_start {
        spec.count_addresses(start, names.len())?;
    }
    spec.nodes(context.shown.schema(), &names)
}

fn from_file(path: &Path, context: &Context) -> Result<Vec<v1::Node>, Failure> {
    let shown = if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin()
            .take(MAX_FILE_BYTES + 1)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
    };
    let bytes =
        read.map_err(|error| Failure::new(Exit::Failure, format!("cannot read {shown}: {error}")))?;
    if bytes as u64 > MAX_FILE_BYTES {
        return Err(Failure::usage(format!("{shown} has more than 16 MiB")));
    }
    let document = document::read(&text, context.shown.schema()).map_err(|failure| Failure {
        text: format!("{shown}: {}", failure.text),
        ..failure
    })?;
    for note in &document.notes {
        context.note(&format!("{shown}: {note}"));
    }
    Ok(document.nodes)
}
