//! Who carries a mutation out: a module, a command of a mutation file, or the node itself; and the page of one mutation that says so.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proto::v1;
use proto::v1::MutationContext;
use proto::v1::module_info::Kind;
use serde::Serialize;

use super::Texts;
use crate::connect::Head;
use crate::exit::Failure;
use crate::explain;

/// Who carries a mutation out, for JSON and YAML. Field names are an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct CarrierView {
    /// In words.
    pub(super) by: String,
    /// Where a mutation file declares it.
    file: String,
    /// As the file has it, with fields in braces.
    pub(super) command: String,
    /// Names of its variables.
    env: Vec<String>,
    /// The poll that is asked before and after.
    ask: String,
    ask_command: String,
    trusts_exit: bool,
}

/// All that the head says.
pub(super) struct Carriers {
    by_mutation: BTreeMap<String, v1::Carrier>,
    refused: Vec<v1::RefusedFile>,
}

impl Carriers {
    /// Asks the head.
    pub(super) async fn of(head: &mut Head) -> Result<Self, Failure> {
        let answer = head.list_carriers(v1::ListCarriersRequest {}).await?;
        let v1::ListCarriersResponse {
            carriers,
            refused_files,
        } = answer.into_inner();
        Ok(Self {
            by_mutation: carriers
                .into_iter()
                .map(|carrier| (carrier.mutation.clone(), carrier))
                .collect(),
            refused: refused_files,
        })
    }

    /// The mutation files that the head does not use as they are, in words.
    pub(super) fn refused(&self) -> impl Iterator<Item = String> {
        self.refused.iter().map(|refused| {
            let standing = if refused.earlier_in_force {
                "what it said before stays in force"
            } else {
                "it is left out"
            };
            let problems = refused.problems.join("\n  ");
            format!(
                "mutation file {} is refused, {standing}:\n  {problems}",
                refused.file
            )
        })
    }

    /// Of one mutation.
    pub(super) fn view(&self, mutation: &v1::Mutation) -> CarrierView {
        let id = format!("{}/{}", mutation.module, mutation.name);
        let carrier = self.by_mutation.get(&id).cloned().unwrap_or_default();
        CarrierView {
            by: words(mutation, &carrier),
            file: carrier.file,
            command: carrier.command,
            env: carrier.env,
            ask: carrier.ask,
            ask_command: carrier.ask_command,
            trusts_exit: carrier.trusts_exit,
        }
    }
}

fn words(mutation: &v1::Mutation, carrier: &v1::Carrier) -> String {
    let module = &mutation.module;
    match carrier.kind() {
        Kind::File => format!("file {}", carrier.file),
        _ if mutation.context() == MutationContext::Self_ => {
            format!("module {module} of the node")
        }
        Kind::BuiltIn => format!("module {module} of the head"),
        Kind::Process => format!("program of [modules.{module}]"),
        Kind::Socket => format!("program at modules.d/{module}.sock"),
        Kind::Unspecified => format!("nobody: no module {module} runs here"),
    }
}

/// All of one mutation, for people.
pub(super) fn page(mutation: &v1::Mutation, texts: &Texts, carrier: &CarrierView) -> String {
    let id = format!("{}/{}", mutation.module, mutation.name);
    let env = carrier.env.join(", ");
    let cost = mutation.cost.to_string();
    let done = match carrier {
        CarrierView { command, .. } if command.is_empty() => "",
        CarrierView {
            trusts_exit: true, ..
        } => "when the command ends well",
        CarrierView { ask, .. } if !ask.is_empty() => "when that poll finds it so",
        _ => "when it is discovered",
    };
    let lines = [
        ("changes", texts.changes.as_str()),
        ("by", explain::context_word(mutation.context())),
        ("requires", &texts.requires),
        ("excludes", &texts.excludes),
        ("timeout", &texts.timeout),
        ("fails to", &texts.fail_to),
        ("cost", &cost),
        (
            "disruptive",
            if mutation.disruptive {
                "yes: held while a job runs"
            } else {
                ""
            },
        ),
        ("carried out by", &carrier.by),
        ("declared in", &carrier.file),
        ("command", &carrier.command),
        ("variables", &env),
        ("asks first", &carrier.ask_command),
        ("done", done),
    ];
    lines.iter().filter(|(_, text)| !text.is_empty()).fold(
        format!("{id}\n"),
        |mut page, (what, text)| {
            // Writing to a text cannot fail.
            let _ = writeln!(page, "  {what:<15} {text}");
            page
        },
    )
}
