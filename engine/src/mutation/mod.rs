//! Mutations: what modules declare, how the planner finds a path of them, how a node follows it (DESIGN 3).
//!
//! - [`declaration`](Mutation): what can be changed, under which conditions.
//! - [`graph`]: the declared set compiled for search, the reachable states, dependencies between urls.
//! - [`path`]: the deterministic search and its result.
//! - [`progress`]: one node's path being followed: fire, wait, time out, interrupt, park.
//! - [`report`]: why a node is where it is, as data.
//! - [`measured`], [`estimate`], [`learned`]: how long mutations took, how long a path will take, costs made of it.
//! - `file`: the TOML form (feature `files`).

mod condition;
mod declaration;
mod drain;
pub mod estimate;
#[cfg(feature = "files")]
pub mod file;
pub mod graph;
pub mod learned;
pub mod measured;
pub mod path;
pub mod progress;
pub mod report;
mod reported;

pub use condition::{Allowed, Condition, NumberRange};
#[cfg(feature = "files")]
pub(crate) use drain::may_find_power_on;
pub(crate) use drain::{cuts_power, switches_on};
pub use graph::lint;

pub use declaration::{
    Dependency, MAX_MUTATIONS, Mutation, MutationContext, MutationId, MutationSet, Others,
    OthersCondition, UrlChange,
};
