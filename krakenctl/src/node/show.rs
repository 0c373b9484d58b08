//! `node show`.

use proto::v1;

use crate::exit::{Exit, Failure};
use crate::output::{Cell, Format, Paint, Table, Tone, printable};
use crate::value::Shown;
use crate::view::{self, NodeView};
use crate::{Context, complete, write};

/// Arguments of `node show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
CFG is what the node should be, DSC what it is. A value without DSC is unknown, one without CFG is left to itself.

Examples:
  krakenctl node show n1
  krakenctl node show n1 /host /image           these branches alone
  krakenctl node show @rack1 -o yaml > rack1.yaml    can be read by `node add -f`")]
pub(crate) struct ShowArgs {
    /// Node set
    #[arg(add = complete::nodes())]
    nodes: String,
    /// Urls, or branches of them, to show
    #[arg(value_name = "URL", add = complete::urls())]
    urls: Vec<String>,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

pub(crate) async fn run(args: ShowArgs, context: &Context) -> Result<Exit, Failure> {
    let nodes = write::node_set(&args.nodes)?;
    let mut head = context.head().await?;
    let mut found = write::resolve(&mut head, &nodes).await?;
    for node in &mut found {
        for values in [&mut node.cfg, &mut node.dsc].into_iter().flatten() {
            values
                .values
                .retain(|change| is_wanted(&args.urls, &change.url));
        }
    }
    let shown = &context.shown;
    match args.output {
        Format::Table | Format::Wide => {
            let pages: Vec<String> = found
                .iter()
                .map(|node| page(node, &args.urls, shown, context.screen.paint))
                .collect();
            context.screen.print(&pages.join("\n"))?;
        }
        format => {
            let views: Vec<NodeView> = found
                .iter()
                .map(|node| NodeView::new(node, shown))
                .collect();
            context.screen.list(
                format,
                &views,
                |node| node.name.clone(),
                || rows(&found, shown),
            )?;
        }
    }
    Ok(Exit::Ok)
}

/// True for a url that is named, or lies below one that is.
fn is_wanted(urls: &[String], url: &str) -> bool {
    let below = |branch: &String| {
        let branch = branch.trim_matches('/');
        let rest = url.trim_start_matches('/').strip_prefix(branch);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || branch.is_empty())
    };
    urls.is_empty() || urls.iter().any(below)
}

fn page(node: &v1::Node, urls: &[String], shown: &Shown, paint: Paint) -> String {
    let mut out = paint.text(&printable(&node.name), Tone::Bold) + "\n";
    if urls.is_empty() {
        let now = view::now_ms();
        let labels: Vec<String> = node
            .labels
            .iter()
            .map(|(key, text)| format!("{key}={text}"))
            .collect();
        let mut labels = labels;
        labels.sort();
        let lines = [
            ("id", view::id_text(&node.id).unwrap_or_default()),
            (
                "parent",
                match (&node.parent_name[..], view::id_text(&node.parent_id)) {
                    ("", id) => id.unwrap_or_default(),
                    (name, _) => name.to_owned(),
                },
            ),
            ("groups", node.groups.join(",")),
            ("labels", labels.join(",")),
            ("revision", node.cfg_revision.to_string()),
            ("last seen", view::ago(node.last_seen_ms, now)),
            (
                "frozen",
                if node.frozen {
                    "yes".to_owned()
                } else {
                    String::new()
                },
            ),
        ];
        for trial in &node.trials {
            let text = paint.text(&view::trial(trial, now), Tone::Warn);
            out += &format!("  {:<10} {text}\n", "on trial");
        }
        for (title, text) in lines.iter().filter(|(_, text)| !text.is_empty()) {
            out += &format!("  {title:<10} {}\n", printable(text));
        }
        out.push('\n');
    }
    let mut table = Table::new(["URL", "CFG", "DSC"]);
    for (url, cfg, dsc) in merged(node) {
        let (cfg_text, dsc_text) = (shown.text(url, cfg), shown.text(url, dsc));
        let differs = cfg.is_some() && cfg != dsc && (dsc.is_some() || shown.is_discoverable(url));
        let tone = if differs { Tone::Warn } else { Tone::Plain };
        let dsc_text = if differs && dsc.is_none() {
            "unknown".to_owned()
        } else {
            dsc_text
        };
        table.row(vec![url.into(), cfg_text.into(), Cell::new(dsc_text, tone)]);
    }
    let text = if table.is_empty() {
        "no values\n".to_owned()
    } else {
        table.render(false, paint)
    };
    for line in text.lines() {
        out += &format!("  {line}\n");
    }
    out
}

/// All urls of a node with both values, by url.
fn merged(node: &v1::Node) -> Vec<(&str, Option<&v1::Value>, Option<&v1::Value>)> {
    let mut urls: Vec<&str> = view::cfg(node)
        .iter()
        .chain(view::dsc(node))
        .map(|change| change.url.as_str())
        .collect();
    urls.sort_unstable();
    urls.dedup();
    urls.into_iter()
        .map(|url| {
            (
                url,
                view::get(view::cfg(node), url),
                view::get(view::dsc(node), url),
            )
        })
        .collect()
}

/// One row a value, for spreadsheets.
fn rows(nodes: &[v1::Node], shown: &Shown) -> Table {
    let mut table = Table::new(["NODE", "URL", "CFG", "DSC"]);
    for node in nodes {
        for (url, cfg, dsc) in merged(node) {
            let row = [
                &node.name,
                url,
                &shown.text(url, cfg),
                &shown.text(url, dsc),
            ];
            table.row(row.into_iter().map(Cell::from).collect());
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_hold_what_lies_below_them() {
        let wanted = |branch: &str, url| is_wanted(&[branch.to_owned()], url);
        assert!(
            wanted("/host", "/host/cpus")
                && wanted("host/", "/host/cpus")
                && wanted("/host/cpus", "/host/cpus")
        );
        assert!(!wanted("/host", "/hostile/x") && !wanted("/host/cpus", "/host"));
        assert!(wanted("/", "/PhysState") && is_wanted(&[], "/PhysState"));
    }
}
