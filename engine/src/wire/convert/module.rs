//! What modules out of process declare, and what they are told (module.proto).

use proto::v1;

use super::mutation::{dependencies_from_proto, discoverables_from_proto, mutation_from_proto};
use super::{ConvertError, convert_items, url_from_proto, values_to_proto};
use crate::event::Fire;
use crate::mutation::{Dependency, Mutation};
use crate::state::{StateUrl, Values};
use crate::time::Instant;

/// Most nodes, and most urls, in one question of a module; a page of a table.
pub const MAX_QUERY: usize = 256;
/// Most mutations of one module; a set of all of them has ten times as many.
const MAX_DECLARED: usize = 1_000;

/// A module's declaration, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// The module's own version, for people.
    pub version: String,
    /// What it can change.
    pub mutations: Vec<Mutation>,
    /// What must hold for values to be known.
    pub dependencies: Vec<Dependency>,
    /// What it may report besides, with all below.
    pub discoverables: Vec<StateUrl>,
    /// What it wants to see besides, with all below.
    pub reads: Vec<StateUrl>,
}

/// A declaration out of a message. A mutation that names no module gets this one's name.
///
/// # Errors
/// See [`mutation_from_proto`](super::mutation_from_proto); a limit broken.
pub fn declared_from_proto(declaration: v1::Declaration) -> Result<Declared, ConvertError> {
    let own = declaration.module;
    let mutation = |mut mutation: v1::Mutation| {
        if mutation.module.is_empty() {
            mutation.module.clone_from(&own);
        }
        if mutation.cost == 0 {
            mutation.cost = 1;
        }
        mutation_from_proto(mutation)
    };
    Ok(Declared {
        version: declaration.version.chars().take(64).collect(),
        mutations: convert_items("mutations", MAX_DECLARED, declaration.mutations, mutation)?,
        dependencies: dependencies_from_proto(declaration.dependencies)?,
        discoverables: discoverables_from_proto(declaration.discoverables)?,
        reads: convert_items("reads", MAX_QUERY, declaration.reads, |url| {
            url_from_proto(&url)
        })?,
    })
}

/// A mutation for a module, with as much of the node's values as it may see.
pub fn mutate_to_proto(fire: &Fire, cfg: &Values, dsc: &Values, now: Instant) -> v1::Mutate {
    let left = |deadline: Instant| {
        let left = u64::try_from(deadline.since(now).as_millis()).unwrap_or(u64::MAX);
        left.max(1)
    };
    v1::Mutate {
        node_id: fire.node.as_bytes().to_vec(),
        node_name: fire.name.to_string(),
        mutation: fire.mutation.name().to_owned(),
        attempt: fire.attempt,
        timeout_ms: fire.deadline.map_or(0, left),
        cfg: Some(values_to_proto(cfg)),
        dsc: Some(values_to_proto(dsc)),
    }
}
