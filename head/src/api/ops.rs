//! Write requests as the engine's operations: the one way from a request to what is written, or asked about.

use engine::event::WriteOp;
use proto::v1;
use tonic::Status;

use super::admin::{Admin, check_groups};
use super::convert;

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
        let mut ops = Vec::new();
        for (_, node) in self.select_named(&request.nodes).await? {
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

    /// What `DeleteNodes` does.
    pub(super) async fn delete_ops(
        &self,
        request: &v1::DeleteNodesRequest,
    ) -> Result<Vec<WriteOp>, Status> {
        let nodes = self.select_named(&request.nodes).await?;
        Ok(nodes
            .into_iter()
            .map(|(_, id)| WriteOp::Delete(id))
            .collect())
    }

    /// What `Freeze` does.
    pub(super) async fn freeze_ops(
        &self,
        request: &v1::FreezeRequest,
    ) -> Result<Vec<WriteOp>, Status> {
        let frozen = request.freeze;
        if request.nodes.trim().is_empty() {
            return Ok(vec![WriteOp::FreezeCluster(frozen)]);
        }
        let nodes = self.select_named(&request.nodes).await?;
        let freeze = |(_, node)| WriteOp::Freeze { node, frozen };
        Ok(nodes.into_iter().map(freeze).collect())
    }
}
