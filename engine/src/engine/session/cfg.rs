//! Cfg on its way to children: without secrets that are none of their business, signed, one set of values a version.

use crate::engine::Engine;
use crate::engine::discover::FROZEN;
use crate::mutation::MutationContext;
use crate::state::{Node, NodeId, StateUrl, Value, Values};
use crate::sync::message::Signature;

/// The low bits of a version count what changed in a child's Cfg without a write, such as what the governor lets through; above them stands the
/// revision of the last write that concerns it. A change a second for half a year, without any write, fits.
const STEP_BITS: u32 = 24;

/// The first version of a child's Cfg at this revision.
pub(in crate::engine) fn version_at(revision: u64) -> u64 {
    revision << STEP_BITS
}

/// The revision that a version of a child's Cfg comes from.
pub(super) fn revision_of(version: u64) -> u64 {
    version >> STEP_BITS
}

/// Cfg on its way down.
impl Engine {
    /// The last revision that changed what this child is told.
    pub(super) fn revision_for(&self, node: &Node) -> u64 {
        let all = self.frozen_revision.max(self.schema_revision);
        node.cfg_revision.max(all)
    }

    /// A child's Cfg as it is sent: its values without the secrets that are none of its business, and whether mutations are held.
    ///
    /// A version names one set of values within an epoch: what changes without a write counts on from the last one. A head that starts begins
    /// anew, in a higher epoch.
    pub(in crate::engine) fn child_cfg(&mut self, id: NodeId) -> Option<(u64, Values, Signature)> {
        let node = self.tree.get(id)?;
        let mut cfg = self.told(node);
        for url in self.withheld(&node.cfg) {
            cfg.set(url, None);
        }
        if let Ok(url) = FROZEN.parse() {
            cfg.set(url, Some(Value::Bool(self.frozen.holds(node))));
        }
        let written = version_at(self.revision_for(node));
        let digest = cfg.digest();
        let version = match self.sessions.told.get(&id) {
            Some((version, told)) if *told == digest => written.max(*version),
            Some((version, _)) => written.max(version + 1),
            None => written,
        };
        self.sessions.told.insert(id, (version, digest));
        let signature = match &self.signer {
            Some(signer) => signer.sign(id, self.epoch(), version, &digest),
            None => Signature::new(),
        };
        Some((version, cfg, signature))
    }

    /// Sends a child what changed in its Cfg.
    pub(in crate::engine) fn push_cfg(&mut self, id: NodeId) {
        if !self.sessions.has(id) {
            return;
        }
        let Some((version, cfg, signature)) = self.child_cfg(id) else {
            return;
        };
        if let Some(link) = self.sessions.links.get_mut(&id) {
            let changes = link.neighbor.local().values().diff(&cfg);
            if version > link.neighbor.local().version() && !changes.is_empty() {
                link.neighbor.update(version, &changes, signature, self.now);
            }
        }
        self.pump(id);
    }

    /// The secrets that stay here: a node gets those that its schema lets it read, and those that mutations of its own look at (threat S10's
    /// neighbor: a node that is broken into must not yield the password of its BMC).
    fn withheld(&self, cfg: &Values) -> Vec<StateUrl> {
        let secrets = self.schema.secrets_of(cfg).map(|(url, _)| url);
        let stays = |url: &&StateUrl| {
            let reads = self.schema.field(url).is_some_and(|field| field.node_reads);
            !reads && !self.nodes_look_at(url)
        };
        secrets.filter(stays).cloned().collect()
    }

    /// Whether a mutation that nodes carry out names this url.
    fn nodes_look_at(&self, url: &StateUrl) -> bool {
        let mutations = &self.graph().set().mutations;
        let of_nodes = mutations
            .iter()
            .filter(|mutation| mutation.context != MutationContext::Child);
        of_nodes.into_iter().any(|mutation| {
            let conditions = mutation.requires.iter().chain(&mutation.excludes);
            mutation.mutates.iter().any(|change| change.url == *url)
                || conditions
                    .into_iter()
                    .any(|condition| condition.url == *url)
        })
    }

    /// The cluster was frozen or thawed, or the schema is another: every child has to know.
    pub(in crate::engine) fn push_all(&mut self) {
        let children: Vec<NodeId> = self.sessions.links.keys().copied().collect();
        children.into_iter().for_each(|child| self.push_cfg(child));
    }
}
