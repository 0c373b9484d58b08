//! `module`: what carries mutations out for the head, and how it is doing; its configuration read again; scaffolds of new ones (`new`).

mod new;
mod taken;

use proto::v1;
use serde::Serialize;

use crate::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Format, Table};

/// Longest error on a line of a table.
const SHORT_ERROR: usize = 60;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the head's modules: do they run, how often did they fail, what do they report?
    List {
        /// How to print them
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// Have the head read its configuration again and start, stop or tell modules accordingly
    ///
    /// A configuration that is not good changes nothing. Everything in it but modules counts from the head's next start.
    Reload,
    /// Write a small module that works, to start from
    New(new::NewArgs),
}

/// A module for JSON and YAML. Field names are an interface.
#[derive(Clone, Debug, Serialize)]
struct ModuleView {
    name: String,
    kind: &'static str,
    state: String,
    up: bool,
    health: String,
    limited_by: String,
    pid: u32,
    failures: u64,
    last_error: String,
    version: String,
    mutations: u32,
    values: u64,
    values_per_second: f64,
    values_cut: u64,
    refused: u64,
}

impl From<v1::ModuleInfo> for ModuleView {
    fn from(info: v1::ModuleInfo) -> Self {
        use v1::module_info::Kind;
        Self {
            kind: match info.kind() {
                Kind::Unspecified => "?",
                Kind::BuiltIn => "head",
                Kind::Process => "process",
                Kind::Socket => "socket",
                Kind::File => "file",
            },
            name: info.name,
            state: info.state,
            up: info.up,
            health: info.health,
            limited_by: info.limited_by,
            pid: info.pid,
            failures: info.failures,
            last_error: info.last_error,
            version: info.version,
            mutations: info.mutations,
            values: info.values,
            values_per_second: info.values_per_second,
            values_cut: info.values_cut,
            refused: info.refused,
        }
    }
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::List { output } => list(output, context).await,
        Command::Reload => reload(context).await,
        Command::New(args) => new::run(&args, context),
    }
}

async fn list(output: Format, context: &Context) -> Result<Exit, Failure> {
    let mut head = context.head().await?;
    let answer = head.list_modules(v1::ListModulesRequest {}).await?;
    let modules = answer.into_inner().modules;
    let views: Vec<ModuleView> = modules.into_iter().map(ModuleView::from).collect();
    context.screen.list(
        output,
        &views,
        |module| module.name.clone(),
        || table(&views, output),
    )?;
    Ok(Exit::Ok)
}

async fn reload(context: &Context) -> Result<Exit, Failure> {
    let mut head = context.head().await?;
    let done = head.reload_modules(v1::ReloadModulesRequest {}).await?;
    let done = done.into_inner();
    let lists = [
        ("added", done.added),
        ("removed", done.removed),
        ("restarted", done.restarted),
        ("told of another configuration", done.configured),
        ("at the head's next start", done.at_next_start),
    ];
    let mut text: String = lists
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what}: {}\n", names.join(", ")))
        .collect();
    if text.is_empty() {
        text.push_str("nothing has changed\n");
    }
    context.screen.print(&text)?;
    Ok(Exit::Ok)
}

fn table(modules: &[ModuleView], format: Format) -> Table {
    let mut table = Table::new([
        "NAME",
        "KIND",
        "STATE",
        "FAILURES",
        "MUTATIONS",
        "VALUES/S",
        "LAST ERROR",
        "+HEALTH",
        "+LIMITED BY",
        "+PID",
        "+VERSION",
        "+VALUES",
        "+CUT",
        "+REFUSED",
    ]);
    for module in modules {
        let length = if format == Format::Table {
            SHORT_ERROR
        } else {
            usize::MAX
        };
        let error: String = module.last_error.chars().take(length).collect();
        let state = match (module.up, module.state.as_str()) {
            (false, "RUN") if module.health == "not serving" => "NOT SERVING",
            (_, state) => state,
        };
        table.row(vec![
            module.name.as_str().into(),
            module.kind.into(),
            state.into(),
            module.failures.to_string().into(),
            module.mutations.to_string().into(),
            format!("{:.1}", module.values_per_second).into(),
            error.into(),
            module.health.as_str().into(),
            module.limited_by.as_str().into(),
            module.pid.to_string().into(),
            module.version.as_str().into(),
            module.values.to_string().into(),
            module.values_cut.to_string().into(),
            module.refused.to_string().into(),
        ]);
    }
    table
}
