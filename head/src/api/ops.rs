//! Write requests as the engine's operations: the one way from a request to what is written, or asked about.

use engine::event::{Lift, WriteOp};
use engine::state::{Freezer, NodeId, NodeName};
use proto::v1;
use tonic::Status;

use super::admin::{Admin, check_groups, stopped};
use super::convert;
use crate::nodeset::NodeSet;

impl Admin {
    /// What `SetNodes` does.
    pub(super) async fn set_ops(
        &self,
        request: &v1::SetNodesRequest,
    ) -> Result<Vec<WriteOp>, Status> {
        check_groups(&request.add_groups)?;
        let schema = self.0.extensions.schema();
        let changes = convert::all_written(&schema, request.changes.clone())?;
        let (add, remove) = (&request.add_groups, &request.remove_groups);
        let parent = match &request.parent {
            Some(name) => Some(self.node_called(name).await?),
            None => None,
        };
        let mut ops = Vec::new();
        for (_, node) in self.select_named(&request.nodes).await? {
            ops.extend(parent.map(|parent| WriteOp::Move { node, parent }));
            if !changes.is_empty() {
                ops.push(WriteOp::Set {
                    node,
                    changes: changes.clone(),
                });
            }
            if !add.is_empty() || !remove.is_empty() {
                ops.push(WriteOp::Groups {
                    node,
                    add: add.clone(),
                    remove: remove.clone(),
                });
            }
        }
        Ok(ops)
    }

    /// The changes of a write that was made, as they are in Cfg.
    pub(super) fn kept(&self, changes: Vec<v1::ValueChange>) -> Vec<v1::ValueChange> {
        let schema = self.0.extensions.schema();
        // They were good a moment ago; if the schema is another one since, nothing is said of them.
        let written = convert::all_written(&schema, changes).unwrap_or_default();
        convert::cfg_changes(&schema, &written)
    }

    /// The one node of this name.
    async fn node_called(&self, name: &str) -> Result<NodeId, Status> {
        let wanted: NodeName = name.parse().map_err(convert::invalid)?;
        let asked = self
            .0
            .handle
            .query(move |engine, _| engine.tree().by_name(&wanted).map(|node| node.id));
        asked.await.map_err(stopped)?.ok_or_else(|| {
            Status::not_found(format!(
                "there is no node {name}; `krakenctl node list` shows all"
            ))
        })
    }

    /// What `DeleteNodes` does.
    pub(super) async fn delete_ops(
        &self,
        request: &v1::DeleteNodesRequest,
    ) -> Result<Vec<WriteOp>, Status> {
        let nodes = self.select_named(&request.nodes).await?;
        let asked = self.0.handle.query(move |engine, _| {
            let mut ids: Vec<NodeId> = nodes.into_iter().map(|(_, id)| id).collect();
            // Children go before their parents.
            ids.sort_by_cached_key(|id| std::cmp::Reverse(engine.tree().above(*id).count()));
            ids
        });
        let ids = asked.await.map_err(stopped)?;
        Ok(ids.into_iter().map(WriteOp::Delete).collect())
    }

    /// What `Freeze` does.
    pub(super) async fn freeze_ops(
        &self,
        author: &str,
        request: &v1::FreezeRequest,
    ) -> Result<Vec<WriteOp>, Status> {
        let frozen = request.freeze;
        if request.nodes.trim().is_empty() {
            return Ok(vec![WriteOp::FreezeCluster(frozen)]);
        }
        let set = NodeSet::parse(&request.nodes).map_err(convert::no_nodes)?;
        let (groups, nodes) = set.groups_apart();
        let by = frozen.then(|| Freezer {
            by: author.to_owned(),
            reason: request.options.clone().unwrap_or_default().reason,
        });
        let mut ops = Vec::new();
        for group in groups {
            if !(by.is_none() && self.is_frozen(&group).await?) {
                // A name that is no group is a slip of the pen; but a frozen group that nobody is in any more can be thawed.
                self.select(&format!("@{group}")).await?;
            }
            let by = by.clone();
            ops.push(WriteOp::FreezeGroup { group, by });
        }
        if let Some(nodes) = nodes {
            let freeze = |(_, node)| WriteOp::Freeze { node, frozen };
            ops.extend(self.select_set(nodes).await?.into_iter().map(freeze));
        }
        Ok(ops)
    }

    /// What `Lift` lifts.
    pub(super) async fn lift_of(&self, request: v1::LiftRequest) -> Result<Lift, Status> {
        use v1::lift_request::What;
        match request.what {
            Some(What::Mutation(id)) => {
                let known = self.0.handle.query(move |engine, _| {
                    let all = &engine.graph().set().mutations;
                    let found = all.iter().find(|mutation| mutation.id.as_str() == id);
                    found.map(|mutation| mutation.id.clone()).ok_or(id)
                });
                let known = known.await.map_err(stopped)?;
                known.map(Lift::Breaker).map_err(|id| {
                    Status::not_found(format!(
                        "there is no mutation {id:?}; `krakenctl mutation list` names them"
                    ))
                })
            }
            Some(What::MassFailure(true)) => Ok(Lift::MassFailure),
            _ => Err(Status::invalid_argument("nothing to lift is named")),
        }
    }

    async fn is_frozen(&self, group: &str) -> Result<bool, Status> {
        let group = group.to_owned();
        let asked = self
            .0
            .handle
            .query(move |engine, _| engine.freezes().groups.contains_key(&group));
        asked.await.map_err(stopped)
    }

    /// The groups that `Freeze` takes as such.
    pub(super) fn freezes_groups(request: &v1::FreezeRequest) -> Vec<String> {
        let set = Some(request.nodes.trim()).filter(|nodes| !nodes.is_empty());
        let set = set.and_then(|nodes| NodeSet::parse(nodes).ok());
        set.map(|set| set.groups_apart().0.into_iter().collect())
            .unwrap_or_default()
    }
}
