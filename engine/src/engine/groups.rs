//! Who is in which group, and how large each is: kept beside the tree so that nobody has to count.

use std::collections::{BTreeMap, BTreeSet};

use crate::state::{Frozen, NodeId};

/// Members of all groups.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    members: BTreeMap<String, BTreeSet<NodeId>>,
}

impl Groups {
    /// A node's groups went from `old` to `new`.
    pub(super) fn changed(&mut self, node: NodeId, old: &BTreeSet<String>, new: &BTreeSet<String>) {
        for left in old.difference(new) {
            if let Some(members) = self.members.get_mut(left) {
                members.remove(&node);
                if members.is_empty() {
                    self.members.remove(left);
                }
            }
        }
        for entered in new.difference(old) {
            let members = self.members.entry(entered.clone()).or_default();
            members.insert(node);
        }
    }

    /// The members of `group`, ordered by id.
    pub(super) fn members(&self, group: &str) -> impl Iterator<Item = NodeId> {
        self.members.get(group).into_iter().flatten().copied()
    }

    /// The members of groups that were frozen or thawed.
    pub(super) fn concerned(&self, before: &Frozen, after: &Frozen) -> BTreeSet<NodeId> {
        let (old, new) = (&before.groups, &after.groups);
        let turned = old.keys().chain(new.keys());
        let turned = turned.filter(|group| old.contains_key(*group) != new.contains_key(*group));
        turned.flat_map(|group| self.members(group)).collect()
    }

    /// How many nodes `group` has.
    pub(super) fn len(&self, group: &str) -> usize {
        self.members.get(group).map_or(0, BTreeSet::len)
    }
}
