//! What nodes should be (Cfg) and what they are (Dsc), as values under StateUrls (DESIGN 2).
//!
//! A zero value is never stored: an absent value means unknown in Dsc and "don't care" in Cfg.

mod freeze;
mod id;
mod node;
mod number;
mod tree;
mod url;
mod value;
mod values;

pub use freeze::{Freezer, Frozen, MAX_FROZEN_GROUPS};
pub use id::{NodeId, NodeName, NodeNameError};
pub use node::{LastKnown, Node};
pub use number::Number;
pub use tree::{Tree, TreeError, UniqueKey};
pub use url::{StateUrl, UrlError, core};
pub use value::{Float, MAX_LIST_ITEMS, MAX_VALUE_BYTES, Value};
pub use values::{Change, Digest, MAX_VALUES, MAX_VALUES_BYTES, Values};

#[cfg(test)]
mod tests;
