//! `mutation list`: what the head's modules can change; `mutation lint`: what is doubtful about it.

mod lint;

use std::time::Duration;

use proto::v1;
use serde::Serialize;

use crate::Context;
use crate::exit::{Exit, Failure};
use crate::explain::{self, ChangeView};
use crate::output::{Cell, Format, Table, Tone};
use crate::value::{self, JsonValues, Shown};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the mutations, by module and name
    List {
        /// How to print them
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// Tell what is doubtful in a set of mutations: traps, mutations that never fire, rivals
    Lint(lint::LintArgs),
}

/// A mutation for JSON and YAML. Field names are an interface.
#[derive(Clone, Debug, Serialize)]
struct MutationView {
    module: String,
    name: String,
    context: &'static str,
    mutates: Vec<ChangeView>,
    requires: Vec<ConditionView>,
    excludes: Vec<ConditionView>,
    requires_of: Vec<OthersView>,
    /// 0: no limit.
    timeout_ms: u64,
    fail_to: JsonValues,
    cost: u32,
    disruptive: bool,
}

/// A condition on the parent, or on all other nodes of a group.
#[derive(Clone, Debug, Serialize)]
struct OthersView {
    who: String,
    #[serde(flatten)]
    condition: Option<ConditionView>,
}

#[derive(Clone, Debug, Serialize)]
struct ConditionView {
    url: String,
    /// Any of these; null: unknown. Empty where bounds stand instead.
    any_of: Vec<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_least: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_most: Option<serde_json::Value>,
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    let output = match command {
        Command::List { output } => output,
        Command::Lint(args) => return lint::run(&args, context).await,
    };
    let mut head = context.head().await?;
    let mut mutations = head
        .list_mutations(v1::ListMutationsRequest {})
        .await?
        .into_inner()
        .mutations;
    mutations.sort_by(|a, b| (&a.module, &a.name).cmp(&(&b.module, &b.name)));
    let shown = &context.shown;
    let views: Vec<MutationView> = mutations
        .iter()
        .map(|mutation| view_of(mutation, shown))
        .collect();
    let name = |view: &MutationView| format!("{}/{}", view.module, view.name);
    context
        .screen
        .list(output, &views, name, || table(&mutations, shown))?;
    Ok(Exit::Ok)
}

fn view_of(mutation: &v1::Mutation, shown: &Shown) -> MutationView {
    let conditions = |all: &[v1::UrlCondition]| -> Vec<ConditionView> {
        all.iter()
            .map(|condition| ConditionView {
                url: condition.url.clone(),
                at_least: bound(&condition.url, condition.at_least.as_ref(), shown),
                at_most: bound(&condition.url, condition.at_most.as_ref(), shown),
                any_of: condition
                    .any_of
                    .iter()
                    .map(|value| match &value.value {
                        Some(value) => shown.json(&condition.url, value),
                        None => serde_json::Value::Null,
                    })
                    .collect(),
            })
            .collect()
    };
    MutationView {
        module: mutation.module.clone(),
        name: mutation.name.clone(),
        context: explain::context_word(mutation.context()),
        mutates: mutation
            .mutates
            .iter()
            .map(|change| explain::change_view(change, shown))
            .collect(),
        requires: conditions(&mutation.requires),
        excludes: conditions(&mutation.excludes),
        requires_of: mutation
            .requires_of
            .iter()
            .map(|others| OthersView {
                who: others.who.clone(),
                condition: conditions(others.condition.as_slice()).pop(),
            })
            .collect(),
        timeout_ms: mutation.timeout_ms,
        fail_to: shown.json_values(&mutation.fail_to),
        cost: mutation.cost,
        disruptive: mutation.disruptive,
    }
}

fn bound(url: &str, bound: Option<&v1::Value>, shown: &Shown) -> Option<serde_json::Value> {
    bound.map(|value| shown.json(url, value))
}

fn table(mutations: &[v1::Mutation], shown: &Shown) -> Table {
    let mut table = Table::new([
        "MUTATION",
        "BY",
        "CHANGES",
        "TIMEOUT",
        "",
        "+REQUIRES",
        "+EXCLUDES",
        "+FAILS TO",
        "+COST",
    ]);
    for mutation in mutations {
        let changes: Vec<String> = mutation
            .mutates
            .iter()
            .map(|change| explain::change_text(change, shown))
            .collect();
        let conditions = |all: &[v1::UrlCondition]| {
            let texts: Vec<String> = all
                .iter()
                .map(|one| explain::condition_text(one, shown))
                .collect();
            texts.join(", ")
        };
        let of_others = mutation.requires_of.iter().map(|others| {
            let condition = conditions(others.condition.as_slice());
            format!("{} {condition}", others.who)
        });
        let requires: Vec<String> = [conditions(&mutation.requires)]
            .into_iter()
            .filter(|text| !text.is_empty())
            .chain(of_others)
            .collect();
        let fail_to: Vec<String> = mutation
            .fail_to
            .iter()
            .map(|change| match &change.value {
                Some(value) => format!("{}={}", change.url, shown.text(&change.url, Some(value))),
                None => format!("{}=unknown", change.url),
            })
            .collect();
        let timeout = match mutation.timeout_ms {
            0 => String::new(),
            ms => value::duration(Duration::from_millis(ms)),
        };
        table.row(vec![
            format!("{}/{}", mutation.module, mutation.name).into(),
            explain::context_word(mutation.context()).into(),
            changes.join(", ").into(),
            timeout.into(),
            Cell::new(
                if mutation.disruptive {
                    "disruptive"
                } else {
                    " "
                },
                Tone::Warn,
            ),
            requires.join(", ").into(),
            conditions(&mutation.excludes).into(),
            fail_to.join(", ").into(),
            mutation.cost.to_string().into(),
        ]);
    }
    table
}
