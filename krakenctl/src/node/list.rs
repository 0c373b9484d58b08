//! `node list`.

use proto::v1;

use crate::exit::{Exit, Failure};
use crate::output::{Cell, Format, Table, Tone, printable};
use crate::value::{self, Shown};
use crate::view::{self, NodeView};
use crate::{Context, complete, names, write};

/// Silence after which the agent of a node in SYNC is worth a note; five missed hellos (DESIGN 4).
const SILENT_MS: u64 = 10_000;

/// Arguments of `node list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A state shows what is known, and behind an arrow what is wanted where that differs: 'POWER_OFF -> POWER_ON'. NOTE says what stands out: a job \
('busy'), a freeze, a node that gave up ('parked'), backs off, or is held ('held: governor'); `krakenctl node explain` says why.

Examples:
  krakenctl node list
  krakenctl node list 'run=ERROR' -o name        names alone, for a loop
  krakenctl node list @rack1 --fold              n[1-16], for Slurm or clush
  krakenctl node list -u /host/memory -u /image/digest
  krakenctl node list -o json | jq '.[] | select(.dsc[\"/RunState\"] != \"SYNC\").name'")]
pub(crate) struct ListArgs {
    /// Node set; without it: all nodes
    #[arg(add = complete::nodes())]
    nodes: Option<String>,
    /// Add a column with this value, known or else wanted
    #[arg(short, long = "url", value_name = "URL", add = complete::urls())]
    urls: Vec<String>,
    /// Print the names as one folded set
    #[arg(long, conflicts_with = "output")]
    fold: bool,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

pub(crate) async fn run(args: ListArgs, context: &Context) -> Result<Exit, Failure> {
    let nodes = args.nodes.as_deref().map(write::node_set).transpose()?;
    let urls: Vec<String> = args
        .urls
        .iter()
        .map(|url| value::parse_url(url).map(|url| url.to_string()))
        .collect::<Result<_, _>>()?;
    let everything = nodes.is_none();
    let mut head = context.head().await?;
    let request = v1::ListNodesRequest {
        nodes: nodes.unwrap_or_default(),
    };
    let answer = head.list_nodes(request).await?.into_inner();
    let found = &answer.nodes;
    if args.fold {
        let folded = names::fold(found.iter().map(|node| &node.name));
        context.screen.print(&format!("{}\n", printable(&folded)))?;
        return Ok(Exit::Ok);
    }
    let people = matches!(args.output, Format::Table | Format::Wide);
    if people && answer.frozen {
        context.note("the cluster is frozen: no mutation starts until `krakenctl thaw`");
    }
    if people && !answer.frozen_groups.is_empty() {
        context.note("groups are frozen: `krakenctl freeze --list` shows them");
    }
    if people && found.is_empty() {
        context.note(if everything {
            "no nodes yet; `krakenctl node add --help` shows how to add some"
        } else {
            "no node is in this set"
        });
    }
    let views: Vec<NodeView> = found
        .iter()
        .map(|node| NodeView::new(node, &context.shown))
        .collect();
    context.screen.list(
        args.output,
        &views,
        |node| node.name.clone(),
        || table(&answer, &urls, &context.shown),
    )?;
    Ok(Exit::Ok)
}

fn table(answer: &v1::ListNodesResponse, urls: &[String], shown: &Shown) -> Table {
    let now = view::now_ms();
    let fixed = ["NAME", "PHYSSTATE", "RUNSTATE", "IMAGE", "GROUPS", "NOTE"];
    let wide = ["+ADDRESS", "+MAC", "+SEEN", "+REVISION", "+ID"];
    let mut table = Table::new(
        fixed
            .into_iter()
            .chain(urls.iter().map(String::as_str))
            .chain(wide),
    );
    for node in &answer.nodes {
        let text = |url: &str| {
            let known = view::get(view::dsc(node), url).or_else(|| view::get(view::cfg(node), url));
            Cell::from(shown.text(url, known))
        };
        let mut row = vec![
            Cell::new(node.name.as_str(), Tone::Bold),
            view::known_and_wanted(node, "/PhysState", shown),
            view::known_and_wanted(node, "/RunState", shown),
            image(node, shown),
            node.groups.join(",").into(),
            note(node, &answer.frozen_groups, now),
        ];
        row.extend(urls.iter().map(|url| text(url)));
        row.extend([
            text("/ipv4/boot/address"),
            text("/ipv4/boot/mac"),
            view::ago(node.last_seen_ms, now).into(),
            node.cfg_revision.to_string().into(),
            view::id_text(&node.id).unwrap_or_default().into(),
        ]);
        table.row(row);
    }
    table
}

/// Name and state of the image: `demo ACTIVE`.
fn image(node: &v1::Node, shown: &Shown) -> Cell {
    let name = view::known_and_wanted(node, "/image/name", shown);
    let state = view::known_and_wanted(node, "/image/state", shown);
    let text = format!("{} {}", name.text, state.text);
    Cell::new(text.trim(), state.tone)
}

fn note(node: &v1::Node, frozen: &[v1::FrozenGroup], now: u64) -> Cell {
    let is = |url: &str, word: &str| {
        let kind = view::get(view::dsc(node), url).and_then(|value| value.kind.as_ref());
        matches!(kind, Some(v1::value::Kind::TextValue(text)) if text == word)
    };
    let mut notes = Vec::new();
    if node.is_head {
        notes.push("head".to_owned());
    }
    if node.frozen {
        notes.push("frozen".to_owned());
    }
    let groups = frozen.iter().map(|frozen| &frozen.group);
    for group in groups.filter(|group| node.groups.contains(group)) {
        notes.push(format!("frozen with @{group}"));
    }
    if is("/Busy", "BUSY") {
        notes.push("busy".to_owned());
    }
    // What is frozen or busy is said above.
    let stopped = node.stopped_by.iter();
    for kind in stopped.filter(|kind| !["frozen", "busy"].contains(&kind.as_str())) {
        notes.push(match kind.as_str() {
            "parked" | "backoff" => kind.clone(),
            hold => format!("held: {hold}"),
        });
    }
    let silent_ms = now.saturating_sub(node.last_seen_ms);
    if !node.is_head && is("/RunState", "SYNC") && node.last_seen_ms != 0 && silent_ms > SILENT_MS {
        notes.push(format!("last seen {}", view::ago(node.last_seen_ms, now)));
    }
    let tone = if node.is_head { Tone::Dim } else { Tone::Warn };
    Cell::new(notes.join(", "), tone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_out_is_noted_once() {
        let node = |stopped_by: &[&str]| v1::Node {
            frozen: stopped_by.contains(&"frozen"),
            stopped_by: stopped_by.iter().map(ToString::to_string).collect(),
            ..v1::Node::default()
        };
        let noted = |stopped_by: &[&str]| note(&node(stopped_by), &[], 0).text;
        assert_eq!(noted(&[]), "");
        assert_eq!(noted(&["parked"]), "parked");
        assert_eq!(noted(&["backoff"]), "backoff");
        assert_eq!(noted(&["frozen", "governor"]), "frozen, held: governor");
    }
}
