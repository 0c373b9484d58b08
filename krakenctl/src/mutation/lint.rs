//! `mutation lint`: what is doubtful in the set of a head, or in files before a head reads them, and which files a
//! head cannot use. The engine decides what that is (`engine::mutation::lint`).

use std::path::PathBuf;

use engine::extension::Schema;
use engine::mutation::file::lint::Polled;
use engine::mutation::file::load_paths;
use engine::mutation::graph::MutationGraph;
use engine::mutation::lint::{Known, Severity};
use proto::v1;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{Cell, Format, Table, Tone};
use crate::{Context, view};

/// Arguments of `mutation lint`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 no warning (notes do not count), 1 there are warnings, 2 the files cannot be used.

Examples:
  krakenctl mutation lint                                    of the running head
  krakenctl mutation lint --offline /var/lib/kraken/mutations
  krakenctl mutation lint --offline power.toml pxe.toml")]
pub(crate) struct LintArgs {
    /// Read files in place of asking the head
    #[arg(long, value_name = "DIR-or-FILE", num_args = 1..)]
    offline: Vec<PathBuf>,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// A lint for JSON and YAML. Field names are an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct LintView {
    /// `warn` or `note`.
    severity: String,
    /// A word that stays the same over versions.
    kind: String,
    text: String,
}

pub(super) async fn run(args: &LintArgs, context: &Context) -> Result<Exit, Failure> {
    let (mutations, views) = match &args.offline[..] {
        [] => of_head(context).await?,
        paths => of_files(paths)?,
    };
    let name = |view: &LintView| view.kind.clone();
    context
        .screen
        .list(args.output, &views, name, || table(&views))?;
    let warnings = views
        .iter()
        .filter(|view| view.severity == Severity::Warn.word());
    let warnings = warnings.count();
    context.note(&format!(
        "{}, {}, {}",
        view::count(mutations, "mutation"),
        view::count(warnings, "warning"),
        view::count(views.len() - warnings, "note")
    ));
    Ok(if warnings == 0 {
        Exit::Ok
    } else {
        Exit::Failure
    })
}

/// How many mutations a head has, and what is doubtful in them and in its files.
async fn of_head(context: &Context) -> Result<(usize, Vec<LintView>), Failure> {
    let mut head = context.head().await?;
    let answer = head.lint_mutations(v1::LintMutationsRequest {}).await?;
    let v1::LintMutationsResponse { lints, mutations } = answer.into_inner();
    let views = lints.into_iter().map(|lint| LintView {
        severity: lint.severity,
        kind: lint.kind,
        text: lint.text,
    });
    Ok((
        usize::try_from(mutations).unwrap_or(usize::MAX),
        views.collect(),
    ))
}

/// Likewise of files.
fn of_files(paths: &[PathBuf]) -> Result<(usize, Vec<LintView>), Failure> {
    let schema = Schema::built_in();
    let loaded = load_paths(paths, &schema);
    let loaded = loaded.map_err(|error| Failure::usage(error.to_string()))?;
    let count = loaded.set.mutations.len();
    let graph = MutationGraph::new(&loaded.set.with_reported(&schema));
    let graph = graph.map_err(|error| Failure::usage(error.to_string()))?;
    // The head that will read them may have more extensions.
    let known = Known {
        schema: &schema,
        complete: false,
    };
    let lints = Polled::new(&loaded.programs).lint(&graph, known);
    let views = lints.into_iter().map(|lint| LintView {
        severity: lint.severity.word().to_owned(),
        kind: lint.kind.word().to_owned(),
        text: lint.text,
    });
    Ok((count, views.collect()))
}

fn table(views: &[LintView]) -> Table {
    let mut table = Table::new(["", "KIND", "WHAT AND WHAT TO DO"]);
    for view in views {
        let tone = match view.severity.as_str() {
            "warn" => Tone::Warn,
            _ => Tone::Dim,
        };
        table.row(vec![
            Cell::new(view.severity.as_str(), tone),
            view.kind.as_str().into(),
            view.text.as_str().into(),
        ]);
    }
    table
}
