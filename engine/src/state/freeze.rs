//! What is frozen beyond single nodes: the cluster, and groups with whoever is in them.
//!
//! Each is frozen and thawed apart: no thaw of one lifts another.

use std::collections::BTreeMap;
use std::fmt;

use super::Node;

/// Most groups that are frozen at once: each is a word in every explanation, and nobody reads a thousand.
pub const MAX_FROZEN_GROUPS: usize = 1_024;

/// Who froze a group, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freezer {
    /// Who.
    pub by: String,
    /// Why; may be empty.
    pub reason: String,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    /// Everything is.
    pub cluster: bool,
    /// Groups that are, by name.
    pub groups: BTreeMap<String, Freezer>,
}

impl Frozen {
    /// The groups of `node` that are frozen.
    pub fn groups_of<'a>(
        &'a self,
        node: &'a Node,
    ) -> impl Iterator<Item = (&'a String, &'a Freezer)> {
        let groups = node.groups.iter();
        groups.filter_map(|group| self.groups.get_key_value(group))
    }

    /// Whether anything freezes `node`: by name, a group, or the cluster.
    pub fn holds(&self, node: &Node) -> bool {
        self.cluster || node.frozen || self.groups_of(node).next().is_some()
    }
}

/// `alice: cooling failed`.
impl fmt::Display for Freezer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = if self.by.is_empty() {
            "somebody"
        } else {
            &self.by
        };
        match self.reason.is_empty() {
            true => f.write_str(by),
            false => write!(f, "{by}: {}", self.reason),
        }
    }
}
