//! What a node to be made is like: groups, labels and values, with places that each node fills.

use std::collections::BTreeMap;

use engine::extension::Schema;
use proto::v1;

use crate::Context;
use crate::exit::Failure;
use crate::template::{Filler, Template};
use crate::{complete, sequence, value};

const MAC: &str = "/ipv4/boot/mac";
const ADDRESS: &str = "/ipv4/boot/address";

/// How people give it.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct SpecArgs {
    /// Put the node in this group
    #[arg(short, long = "group", value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    /// Give it this label
    #[arg(short, long = "label", value_name = "KEY=TEXT")]
    pub(crate) labels: Vec<String>,
    /// Address of its boot interface; short for /ipv4/boot/address=...
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    pub(crate) address: Option<String>,
    /// Values to set
    #[arg(value_name = "URL=VALUE", add = complete::assignments())]
    pub(crate) values: Vec<String>,
}

/// A checked description, ready to make nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spec {
    pub(crate) groups: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Url and text, in order; a later one replaces an earlier.
    pub(crate) values: Vec<(engine::state::StateUrl, Template)>,
    /// Per position: values that count up.
    pub(crate) counted: Vec<(engine::state::StateUrl, Vec<String>)>,
}

impl SpecArgs {
    /// # Errors
    /// A url, template or label that does not parse.
    pub(crate) fn spec(&self) -> Result<Spec, Failure> {
        let mut spec = Spec {
            groups: self
                .groups
                .iter()
                .map(|group| group.trim_start_matches('@').to_owned())
                .collect(),
            ..Spec::default()
        };
        for label in &self.labels {
            let (key, text) = label
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| Failure::usage(format!("{label:?} is not KEY=TEXT")))?;
            spec.labels.insert(key.to_owned(), text.to_owned());
        }
        if let Some(address) = &self.address {
            spec.values
                .push((value::parse_url(ADDRESS)?, template(address)?));
        }
        for assignment in &self.values {
            let (url, text) = value::split_assignment(assignment)?;
            spec.values.push((url, template(text)?));
        }
        Ok(spec)
    }

    /// The one node `name`.
    pub(crate) fn node(&self, context: &Context, name: &str) -> Result<v1::Node, Failure> {
        let mut nodes = self
            .spec()?
            .nodes(context.shown.schema(), &[name.to_owned()])?;
        nodes.pop().ok_or_else(|| Failure::usage("no node to make"))
    }
}

/// Reads a template; an error is the operator's.
pub(crate) fn template(text: &str) -> Result<Template, Failure> {
    Template::parse(text).map_err(|error| Failure::usage(error.to_string()))
}

impl Spec {
    /// MACs that count up, one a node.
    pub(crate) fn count_macs(&mut self, start: &str, count: usize) -> Result<(), Failure> {
        let all =
            sequence::macs(start, count).map_err(|error| Failure::usage(error.to_string()))?;
        self.counted.push((value::parse_url(MAC)?, all));
        Ok(())
    }

    /// Addresses that count up, one a node.
    pub(crate) fn count_addresses(&mut self, start: &str, count: usize) -> Result<(), Failure> {
        let all =
            sequence::addresses(start, count).map_err(|error| Failure::usage(error.to_string()))?;
        self.counted.push((value::parse_url(ADDRESS)?, all));
        Ok(())
    }

    /// Sets the MAC of the boot interface by template.
    pub(crate) fn set_mac(&mut self, text: &str) -> Result<(), Failure> {
        self.values.push((value::parse_url(MAC)?, template(text)?));
        Ok(())
    }

    /// Makes the nodes; every value is checked against the schema.
    pub(crate) fn nodes(
        &self,
        schema: &Schema,
        names: &[String],
    ) -> Result<Vec<v1::Node>, Failure> {
        let make = |(position, name): (usize, &String)| {
            let mut values: Vec<v1::ValueChange> = Vec::new();
            let mut set = |change: v1::ValueChange| {
                values.retain(|old| old.url != change.url);
                if change.value.is_some() {
                    values.push(change);
                }
            };
            for (url, all) in &self.counted {
                let text = all.get(position).map_or("", String::as_str);
                set(value::change(schema, url, text).map_err(|failure| at_node(failure, name))?);
            }
            for (url, template) in &self.values {
                let filled = template.fill(Filler { name, position });
                let text = filled.map_err(|error| Failure::usage(error.to_string()))?;
                set(value::change(schema, url, &text).map_err(|failure| at_node(failure, name))?);
            }
            values.sort_by(|a, b| a.url.cmp(&b.url));
            Ok(v1::Node {
                name: name.clone(),
                groups: self.groups.clone(),
                labels: self.labels.clone(),
                cfg: Some(v1::Values { values }),
                ..v1::Node::default()
            })
        };
        names.iter().enumerate().map(make).collect()
    }
}

fn at_node(failure: Failure, name: &str) -> Failure {
    Failure {
        text: format!("{name}: {}", failure.text),
        ..failure
    }
}

#[cfg(test)]
mod tests;
