//! `mutation list` and `show`: what the head's modules can change, and who does it; `mutation lint`: what is doubtful about it.

mod carrier;
mod lint;

use std::time::Duration;

use engine::extension::nearest;
use engine::mutation::MutationSet;
use engine::wire::convert::mutation_set_from_proto;
use proto::v1;
use serde::Serialize;

use self::carrier::CarrierView;
use crate::Context;
use crate::connect::Head;
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
    /// Show mutations with all that is declared of them, and the commands that carry them out
    Show(ShowArgs),
    /// Tell what is doubtful in a set of mutations: traps, mutations that never fire, rivals
    Lint(lint::LintArgs),
}

/// Arguments of `mutation show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  krakenctl mutation show power/OFFtoON
  krakenctl mutation show ipmitool               all of one module")]
pub(crate) struct ShowArgs {
    /// Mutations, as module/NAME, or whole modules
    #[arg(required = true, value_name = "MUTATION-or-MODULE")]
    names: Vec<String>,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
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
    carried_out: CarrierView,
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
    let (output, names) = match command {
        Command::List { output } => (output, Vec::new()),
        Command::Show(args) => (args.output, args.names),
        Command::Lint(args) => return lint::run(&args, context).await,
    };
    let mut head = context.head().await?;
    let carriers = carrier::Carriers::of(&mut head).await?;
    for refused in carriers.refused() {
        context.note(&refused);
    }
    let mut mutations = head
        .list_mutations(v1::ListMutationsRequest {})
        .await?
        .into_inner()
        .mutations;
    mutations.sort_by(|a, b| (&a.module, &a.name).cmp(&(&b.module, &b.name)));
    if !names.is_empty() {
        mutations = named(mutations, &names)?;
    }
    let shown = &context.shown;
    let views: Vec<MutationView> = mutations
        .iter()
        .map(|mutation| view_of(mutation, shown, &carriers))
        .collect();
    if !names.is_empty() && matches!(output, Format::Table | Format::Wide) {
        let texts: Vec<String> = mutations
            .iter()
            .zip(&views)
            .map(|(mutation, view)| {
                carrier::page(mutation, &texts(mutation, shown), &view.carried_out)
            })
            .collect();
        context.screen.print(&texts.join("\n"))?;
        return Ok(Exit::Ok);
    }
    let name = |view: &MutationView| format!("{}/{}", view.module, view.name);
    context
        .screen
        .list(output, &views, name, || table(&mutations, &views, shown))?;
    Ok(Exit::Ok)
}

/// Those of these names, or of the modules of these names.
fn named(mutations: Vec<v1::Mutation>, names: &[String]) -> Result<Vec<v1::Mutation>, Failure> {
    let id = |mutation: &v1::Mutation| format!("{}/{}", mutation.module, mutation.name);
    let is =
        |mutation: &v1::Mutation, name: &String| id(mutation) == *name || mutation.module == *name;
    if let Some(unknown) = (names.iter()).find(|name| !mutations.iter().any(|one| is(one, name))) {
        let ids: Vec<String> = mutations.iter().map(id).collect();
        let modules = mutations.iter().map(|mutation| mutation.module.as_str());
        let near = nearest(unknown, ids.iter().map(String::as_str).chain(modules));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        return Err(Failure::new(
            Exit::NotFound,
            format!("the head knows no mutation and no module {unknown}{hint}"),
        ));
    }
    let mut mutations = mutations;
    mutations.retain(|mutation| names.iter().any(|name| is(mutation, name)));
    Ok(mutations)
}

fn view_of(mutation: &v1::Mutation, shown: &Shown, carriers: &carrier::Carriers) -> MutationView {
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
        carried_out: carriers.view(mutation),
    }
}

fn bound(url: &str, bound: Option<&v1::Value>, shown: &Shown) -> Option<serde_json::Value> {
    bound.map(|value| shown.json(url, value))
}

/// What a mutation declares, in words.
struct Texts {
    changes: String,
    requires: String,
    excludes: String,
    fail_to: String,
    /// Empty: none.
    timeout: String,
}

fn texts(mutation: &v1::Mutation, shown: &Shown) -> Texts {
    let conditions = |all: &[v1::UrlCondition]| {
        let texts: Vec<String> = all
            .iter()
            .map(|one| explain::condition_text(one, shown))
            .collect();
        texts.join(", ")
    };
    let changes: Vec<String> = mutation
        .mutates
        .iter()
        .map(|change| explain::change_text(change, shown))
        .collect();
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
    Texts {
        changes: changes.join(", "),
        requires: requires.join(", "),
        excludes: conditions(&mutation.excludes),
        fail_to: fail_to.join(", "),
        timeout: match mutation.timeout_ms {
            0 => String::new(),
            ms => value::duration(Duration::from_millis(ms)),
        },
    }
}

fn table(mutations: &[v1::Mutation], views: &[MutationView], shown: &Shown) -> Table {
    let mut table = Table::new([
        "MUTATION",
        "BY",
        "CHANGES",
        "TIMEOUT",
        "COST",
        "",
        "+REQUIRES",
        "+EXCLUDES",
        "+FAILS TO",
        "+CARRIED OUT BY",
        "+COMMAND",
    ]);
    for (mutation, view) in mutations.iter().zip(views) {
        let texts = texts(mutation, shown);
        table.row(vec![
            format!("{}/{}", mutation.module, mutation.name).into(),
            explain::context_word(mutation.context()).into(),
            texts.changes.into(),
            texts.timeout.into(),
            mutation.cost.to_string().into(),
            Cell::new(
                if mutation.disruptive {
                    "disruptive"
                } else {
                    " "
                },
                Tone::Warn,
            ),
            texts.requires.into(),
            texts.excludes.into(),
            texts.fail_to.into(),
            view.carried_out.by.as_str().into(),
            view.carried_out.command.as_str().into(),
        ]);
    }
    table
}

/// The mutations of a head, as the engine has them.
pub(crate) async fn of_head(head: &mut Head) -> Result<MutationSet, Failure> {
    let set = head.list_mutations(v1::ListMutationsRequest {}).await?;
    mutation_set_from_proto(set.into_inner()).map_err(|error| {
        Failure::new(
            Exit::Failure,
            format!("the head's mutations cannot be read: {error}"),
        )
        .hint("is this krakenctl older than the head? see `krakenctl version`")
    })
}
