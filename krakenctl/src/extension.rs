//! `extension`: schemas that add values to every node, of the head's and of one's own.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use engine::extension::{Field, Format as Written, Kind, Schema};
use proto::v1;
use proto::v1::extension_field::Kind as Wire;
use serde::Serialize;

use crate::Context;
use crate::exit::{Exit, Failure};
use crate::names;
use crate::output::{Cell, Format, Table, Tone};
use crate::write::{self, WriteArgs};

/// Largest file that is read; the head takes less.
const MAX_FILE_BYTES: u64 = 1 << 20;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the extensions: built-in ones, and those of .proto files
    List {
        /// How to print them
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// Show the values that an extension gives to nodes
    Show(ShowArgs),
    /// Add an extension, or change one, from a .proto file
    Add(AddArgs),
    /// Remove an extension
    Remove(RemoveArgs),
}

/// Arguments of `extension show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  krakenctl extension show site
  krakenctl extension show core                  values of every node: /PhysState, /RunState, ...
  krakenctl extension show site --source > site.proto")]
pub(crate) struct ShowArgs {
    /// Its name, which is the first part of its urls
    name: String,
    /// Print the .proto file instead
    #[arg(long)]
    source: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Arguments of `extension add`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A .proto file with one message that has a name for its urls; each field becomes a value of every node:

  syntax = \"proto3\";
  import \"kraken/v1/options.proto\";
  message Site {
    option (kraken.v1.extension) = \"site\";
    string rack = 1;                                          // /site/rack
    uint32 power_cap = 2 [(kraken.v1.unit) = \"W\"];            // /site/power_cap
    int64 grace = 3 [(kraken.v1.format) = FORMAT_DURATION];   // /site/grace, written 1m30s
    string token = 4 [(kraken.v1.secret) = true];             // never shown
  }

Options: format (FORMAT_IP, _CIDR, _MAC, _DURATION, _SIZE), unit, secret, node_reads (a secret that goes to the node), discoverable (modules
may report it), zero (what 0 or \"\" stands for). Comments become help texts. Only kraken/v1/options.proto and google/protobuf/*.proto can be imported.

The head checks the whole file, keeps it in <state_dir>/extensions, and uses it at once. Adding it again with more fields changes it; a field that
nodes have values of cannot be removed or get another type, and no field can get another number. examples/site.proto is a longer example.

Examples:
  krakenctl extension add site.proto --reason 'rack positions'
  krakenctl extension add site.proto --dry-run   check it, change nothing
  krakenctl node set n1 /site/rack=r07 /site/power_cap=350")]
pub(crate) struct AddArgs {
    /// The file; '-' reads it from standard input
    file: PathBuf,
    /// Unset values that would have no place, and let field numbers change
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    how: HowArgs,
}

/// Arguments of `extension remove`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Refused while nodes have values of it; the message names them.

Examples:
  krakenctl extension show site --source > site.proto    keep a copy
  krakenctl extension remove site
  krakenctl extension remove site --force                unset the values of all nodes, too")]
pub(crate) struct RemoveArgs {
    /// Its name
    name: String,
    /// Unset the values of all nodes
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Debug, clap::Args)]
struct HowArgs {
    /// Check everything, change nothing; exit code 8 if something would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    write: WriteArgs,
}

/// An extension for JSON and YAML. Field names are an interface.
#[derive(Clone, Debug, Serialize)]
struct ExtensionView {
    name: String,
    /// Empty for a built-in one.
    file: String,
    help: String,
    problem: String,
    fields: Vec<FieldView>,
}

#[derive(Clone, Debug, Serialize)]
struct FieldView {
    url: String,
    r#type: String,
    unit: String,
    secret: bool,
    node_reads: bool,
    discoverable: bool,
    zero: String,
    help: String,
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::List { output } => list(output, context).await,
        Command::Show(args) => show(args, context).await,
        Command::Add(args) => add(args, context).await,
        Command::Remove(args) => remove(args, context).await,
    }
}

async fn list(output: Format, context: &Context) -> Result<Exit, Failure> {
    let mut head = context.head().await?;
    let request = v1::ListExtensionsRequest::default();
    let extensions = head.list_extensions(request).await?.into_inner().extensions;
    let views: Vec<ExtensionView> = extensions.iter().map(view_of).collect();
    context.screen.list(
        output,
        &views,
        |view| view.name.clone(),
        || list_table(&views),
    )?;
    Ok(Exit::Ok)
}

fn list_table(views: &[ExtensionView]) -> Table {
    let mut table = Table::new(["NAME", "FILE", "VALUES", "PROBLEM", "+HELP"]);
    for view in views {
        let file = match view.file.as_str() {
            "" => "built in",
            file => file,
        };
        table.row(vec![
            view.name.as_str().into(),
            file.into(),
            view.fields.len().to_string().into(),
            Cell::new(view.problem.as_str(), Tone::Bad),
            view.help.as_str().into(),
        ]);
    }
    table
}

async fn show(args: ShowArgs, context: &Context) -> Result<Exit, Failure> {
    let mut head = context.head().await?;
    let request = v1::ListExtensionsRequest {
        name: args.name.clone(),
        with_source: args.source,
    };
    let found = head.list_extensions(request).await?.into_inner().extensions;
    let Some(extension) = found.into_iter().next() else {
        return Err(Failure::new(
            Exit::NotFound,
            format!("there is no extension {}", args.name),
        ));
    };
    if args.source {
        if extension.source.is_empty() {
            return Err(Failure::usage(format!(
                "{} has no file that can be shown",
                args.name
            )));
        }
        context.screen.print(&extension.source)?;
        return Ok(Exit::Ok);
    }
    let view = view_of(&extension);
    match args.output {
        // Of one extension these are about its values.
        Format::Csv | Format::Name => context.screen.list(
            args.output,
            &view.fields,
            |field| field.url.clone(),
            || field_table(&view),
        )?,
        Format::Table | Format::Wide | Format::Json | Format::Yaml => {
            let wide = args.output == Format::Wide;
            context
                .screen
                .item(args.output, &view, || text_of(&view, wide, context))?;
        }
    }
    Ok(Exit::Ok)
}

fn text_of(view: &ExtensionView, wide: bool, context: &Context) -> String {
    let file = match view.file.as_str() {
        "" => "built in",
        file => file,
    };
    let mut text = format!("{} ({file})\n", view.name);
    for line in [&view.help, &view.problem] {
        if !line.is_empty() {
            text.push_str(&format!("{line}\n"));
        }
    }
    text.push('\n');
    text.push_str(&field_table(view).render(wide, context.screen.paint));
    text
}

fn field_table(view: &ExtensionView) -> Table {
    let mut table = Table::new(["URL", "TYPE", "UNIT", "ACCESS", "ABSENT MEANS", "HELP"]);
    for field in &view.fields {
        table.row(vec![
            field.url.as_str().into(),
            field.r#type.as_str().into(),
            field.unit.as_str().into(),
            marks(field).into(),
            field.zero.as_str().into(),
            field.help.as_str().into(),
        ]);
    }
    table
}

fn marks(field: &FieldView) -> String {
    let marks = [
        (field.discoverable, "reported"),
        (
            field.secret && !field.node_reads,
            "secret, stays on the head",
        ),
        (field.secret && field.node_reads, "secret, goes to the node"),
    ];
    let words: Vec<&str> = marks
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, word)| *word)
        .collect();
    words.join(", ")
}

async fn add(args: AddArgs, context: &Context) -> Result<Exit, Failure> {
    let source = read(&args.file)?;
    let request = v1::AddExtensionRequest {
        file_name: args.file.display().to_string(),
        source,
        force: args.force,
        dry_run: args.how.dry_run,
        options: args.how.write.options(),
    };
    write::check_size(&request)?;
    let mut head = context.head().await?;
    let answer = head.add_extension(request).await?.into_inner();
    said(&answer, &args.how, context)
}

async fn remove(args: RemoveArgs, context: &Context) -> Result<Exit, Failure> {
    let request = v1::RemoveExtensionRequest {
        name: args.name,
        force: args.force,
        dry_run: args.how.dry_run,
        options: args.how.write.options(),
    };
    let mut head = context.head().await?;
    let answer = head.remove_extension(request).await?.into_inner();
    said(&answer, &args.how, context)
}

/// What a change did, for JSON and YAML. Field names are an interface.
#[derive(Clone, Debug, Serialize)]
struct ChangeView {
    change: String,
    revision: u64,
    dry_run: bool,
    /// Nodes whose values were unset.
    nodes: Vec<String>,
}

fn said(
    answer: &v1::ChangeExtensionResponse,
    how: &HowArgs,
    context: &Context,
) -> Result<Exit, Failure> {
    let (dry_run, output) = (how.dry_run, how.write.output);
    let view = ChangeView {
        change: answer.change.clone(),
        revision: answer.revision,
        dry_run,
        nodes: answer.nodes.clone(),
    };
    let has_changed = !answer.change.is_empty();
    if !has_changed && !matches!(output, Format::Json | Format::Yaml) {
        context.note("nothing changed: the head has this file already");
        return Ok(Exit::Ok);
    }
    context
        .screen
        .item(output, &view, || words(answer, dry_run))?;
    Ok(match dry_run && has_changed {
        true => Exit::Pending,
        false => Exit::Ok,
    })
}

fn words(answer: &v1::ChangeExtensionResponse, dry_run: bool) -> String {
    let revision = answer.revision;
    let mut text = match dry_run {
        true => format!("would be done: {}\n", answer.change),
        false => format!("{}, revision {revision}\n", answer.change),
    };
    if !answer.nodes.is_empty() {
        let nodes = names::fold(&answer.nodes);
        text.push_str(&match dry_run {
            true => format!("values of {nodes} would be unset\n"),
            false => format!("values of {nodes} were unset\n"),
        });
    }
    if let Some(extension) = &answer.extension {
        let urls: Vec<&str> = extension
            .fields
            .iter()
            .map(|field| field.url.as_str())
            .collect();
        if !urls.is_empty() {
            text.push_str(&format!("values: {}\n", urls.join(" ")));
        }
    }
    text
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::usage(format!("{}: {error}", path.display()));
    let mut text = String::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin()
            .take(MAX_FILE_BYTES)
            .read_to_string(&mut text),
        _ => std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text)),
    };
    read.map_err(failed)?;
    Ok(text)
}

fn view_of(extension: &v1::Extension) -> ExtensionView {
    ExtensionView {
        name: match extension.name.as_str() {
            "" => "core".into(),
            name => name.into(),
        },
        file: extension.file.clone(),
        help: extension.help.clone(),
        problem: extension.problem.clone(),
        fields: extension.fields.iter().map(field_view).collect(),
    }
}

fn field_view(field: &v1::ExtensionField) -> FieldView {
    FieldView {
        url: field.url.clone(),
        r#type: type_word(field),
        unit: field.unit.clone(),
        secret: field.secret,
        node_reads: field.node_reads,
        discoverable: field.discoverable,
        zero: match (field.zero.as_str(), field.discoverable) {
            ("", true) => "unknown, or don't care".into(),
            ("", false) => "don't care".into(),
            (zero, _) => zero.into(),
        },
        help: field.help.clone(),
    }
}

/// How people would call the type: what they may write.
fn type_word(field: &v1::ExtensionField) -> String {
    let one = match (field.kind(), field.format()) {
        (_, v1::Format::Ip) => "address".into(),
        (_, v1::Format::Cidr) => "address/prefix".into(),
        (_, v1::Format::Mac) => "mac".into(),
        (_, v1::Format::Duration) => "duration".into(),
        (_, v1::Format::Size) => "size".into(),
        (Wire::Bool, _) => "true|false".into(),
        (Wire::Int, _) => match (field.min, field.max) {
            (0, _) => "whole number from 0".into(),
            _ => "whole number".into(),
        },
        (Wire::Float, _) => "number".into(),
        (Wire::Text | Wire::Unspecified, _) => "text".into(),
        (Wire::Bytes, _) => "hex".into(),
        (Wire::Enum, _) => field.names.join("|"),
    };
    match field.repeated {
        true => format!("list of {one}"),
        false => one,
    }
}

/// The schema that the head told, with the built-in one for what it did not tell: a secret stays one, whatever the head says.
pub(crate) fn schema(extensions: &[v1::Extension]) -> Schema {
    let mut schema = Schema::default();
    for field in extensions.iter().flat_map(|extension| &extension.fields) {
        let kind = match field.kind() {
            Wire::Bool => Kind::Bool,
            Wire::Int => Kind::Int {
                min: field.min,
                max: field.max,
            },
            Wire::Float => Kind::Float,
            Wire::Text => Kind::Text,
            Wire::Bytes => Kind::Bytes,
            Wire::Enum => Kind::Enum(field.names.clone()),
            // Of a later version: the head reads it from its text.
            Wire::Unspecified => continue,
        };
        let format = match field.format() {
            v1::Format::Plain => Written::Plain,
            v1::Format::Ip => Written::Ip,
            v1::Format::Cidr => Written::Cidr,
            v1::Format::Mac => Written::Mac,
            v1::Format::Duration => Written::Duration,
            v1::Format::Size => Written::Size,
        };
        let known = Field {
            repeated: field.repeated,
            format,
            secret: field.secret,
            discoverable: field.discoverable,
            unit: field.unit.clone(),
            doc: field.help.clone(),
            zero: field.zero.clone(),
            node_reads: field.node_reads,
            ..Field::new(kind)
        };
        schema.add(field.url.clone(), known);
    }
    for (pattern, field) in Schema::built_in().iter() {
        schema.add(pattern.to_owned(), field.clone());
    }
    schema
}
