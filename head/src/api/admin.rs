//! The Admin service of the schema: translates, decides nothing.

use std::path::PathBuf;
use std::sync::Arc;

use engine::driver::Handle;
use engine::event::{Input, WriteOp};
use engine::state::{NodeId, NodeName, Value};
use engine::wire::convert as wire;
use proto::v1::admin_server::Admin as AdminService;
use proto::v1::{self, WriteResponse};
use tonic::{Request, Response, Status};

use super::auth::Caller;
use super::select::TreeInventory;
use super::snapshot::Snapshot;
use super::watch::{self, Feed};
use super::write::By;
use super::{convert, explain, extension, image, plan};
use crate::boot::MacAddr;
use crate::extensions::Extensions;
use crate::modules::{External, ImageStore, Modules};
use crate::nodeset::{NodeSet, is_group_name};
use crate::pending::HoldingList;
use crate::reload::Reloader;
use crate::requests::Requests;
use crate::store::History;

/// What the service works with.
pub(crate) struct Parts {
    /// The engine.
    pub(crate) handle: Handle,
    /// Answers to writes.
    pub(crate) requests: Requests,
    /// Extensions.
    pub(crate) extensions: Arc<Extensions>,
    /// Modules, whose mutation files are read by the extensions' words.
    pub(crate) modules: Arc<Modules>,
    /// Folder of those files.
    pub(crate) mutation_files: PathBuf,
    /// Events.
    pub(crate) feed: Feed,
    /// Machines without a node.
    pub(crate) pending: HoldingList,
    /// System images.
    pub(crate) images: Arc<ImageStore>,
    /// Modules out of process.
    pub(crate) external: External,
    /// Reads the configuration again.
    pub(crate) reloader: Reloader,
    /// What was written.
    pub(crate) history: History,
    /// Name of the cluster.
    pub(crate) cluster: String,
    /// This start's number.
    pub(crate) epoch: u64,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Admin(pub(super) Arc<Parts>);

pub(super) type Answer<T> = Result<Response<T>, Status>;

pub(super) fn stopped<T>(_: T) -> Status {
    Status::unavailable("the head is stopping")
}

impl Admin {
    /// A service over these parts.
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    pub(super) async fn select(&self, nodes: &str) -> Result<Vec<(NodeName, NodeId)>, Status> {
        let set = NodeSet::parse(nodes).map_err(convert::no_nodes)?;
        self.select_set(set).await
    }

    /// The nodes of a set, by name.
    pub(super) async fn select_set(&self, set: NodeSet) -> Result<Vec<(NodeName, NodeId)>, Status> {
        let found = self
            .0
            .handle
            .query(move |engine, _| TreeInventory(engine).select(&set))
            .await;
        Ok(found
            .map_err(stopped)?
            .map_err(convert::no_nodes)?
            .into_iter()
            .collect())
    }

    /// As [`select`](Self::select), for changes: no node set must not mean all nodes.
    pub(super) async fn select_named(
        &self,
        nodes: &str,
    ) -> Result<Vec<(NodeName, NodeId)>, Status> {
        if nodes.trim().is_empty() {
            return Err(Status::invalid_argument(
                "no node is named; all nodes are @*",
            ));
        }
        self.select(nodes).await
    }

    /// Tells the engine something about these nodes that changes no revision.
    async fn tell(&self, nodes: &str, what: fn(Vec<NodeId>) -> Input) -> Answer<WriteResponse> {
        let (names, ids): (Vec<_>, Vec<_>) = self.select_named(nodes).await?.into_iter().unzip();
        self.0.handle.input(what(ids)).await.map_err(stopped)?;
        let nodes = names.iter().map(ToString::to_string).collect();
        Ok(Response::new(WriteResponse {
            revision: self.revision().await?,
            nodes,
            ..WriteResponse::default()
        }))
    }

    pub(super) async fn revision(&self) -> Result<u64, Status> {
        self.0
            .handle
            .query(|engine, _| engine.revision())
            .await
            .map_err(stopped)
    }

    /// What adding nodes has to do.
    pub(super) fn add_ops(&self, request: &v1::AddNodesRequest) -> Result<Vec<WriteOp>, Status> {
        if request.nodes.is_empty() {
            return Err(Status::invalid_argument("no node is named"));
        }
        let nodes = request.nodes.iter().cloned();
        let add = |node| self.new_node(node).map(|node| WriteOp::Add(Box::new(node)));
        nodes.map(add).collect()
    }

    /// What making a machine a node has to do, and the machine.
    pub(super) fn enrol_ops(
        &self,
        request: &v1::EnrolRequest,
    ) -> Result<(MacAddr, Vec<WriteOp>), Status> {
        let mac: MacAddr = request.mac.parse().map_err(convert::invalid)?;
        let node = request
            .node
            .clone()
            .ok_or_else(|| Status::invalid_argument("the node to create is missing"))?;
        let mut node = self.new_node(node)?;
        node.cfg.set(
            convert::boot_mac_url(),
            Some(Value::from(mac.to_string().as_str())),
        );
        Ok((mac, vec![WriteOp::Add(Box::new(node))]))
    }

    fn new_node(&self, node: v1::Node) -> Result<engine::state::Node, Status> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| Status::unavailable("no random numbers"))?;
        let id = NodeId::from(uuid::Builder::from_random_bytes(id).into_uuid());
        let mut node = wire::node_from_proto(node, id).map_err(convert::invalid)?;
        node.cfg = convert::typed_cfg(&self.0.extensions.schema(), &node.cfg)?;
        Ok(node)
    }
}

fn author<T>(request: &Request<T>) -> String {
    request
        .extensions()
        .get::<Caller>()
        .map(|caller| caller.0.clone())
        .unwrap_or_default()
}

pub(super) fn check_groups(groups: &[String]) -> Result<(), Status> {
    match groups.iter().find(|group| !is_group_name(group)) {
        Some(bad) => Err(Status::invalid_argument(format!(
            "{bad:?} is no group name: use letters, digits and ._-"
        ))),
        None => Ok(()),
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    type WatchStream = watch::Stream;

    async fn get_version(
        &self,
        _: Request<v1::GetVersionRequest>,
    ) -> Answer<v1::GetVersionResponse> {
        let read = self
            .0
            .handle
            .query(|engine, _| (engine.revision(), engine.freezes().clone()));
        let (revision, frozen) = read.await.map_err(stopped)?;
        Ok(Response::new(v1::GetVersionResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: self.0.cluster.clone(),
            revision,
            epoch: self.0.epoch,
            frozen: frozen.cluster,
            frozen_groups: convert::frozen_groups(frozen),
        }))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Answer<v1::ListNodesResponse> {
        let set = NodeSet::parse(&request.into_inner().nodes).map_err(convert::no_nodes)?;
        let taken = Snapshot::take(&self.0.handle, set).await.map_err(stopped)?;
        let snapshot = taken.map_err(convert::no_nodes)?;
        let (revision, frozen) = (snapshot.revision, snapshot.frozen.clone());
        let nodes = snapshot.messages().await.map_err(stopped)?;
        Ok(Response::new(v1::ListNodesResponse {
            nodes,
            revision,
            frozen: frozen.cluster,
            frozen_groups: convert::frozen_groups(frozen),
        }))
    }

    async fn add_nodes(&self, request: Request<v1::AddNodesRequest>) -> Answer<WriteResponse> {
        let (author, request) = (author(&request), request.into_inner());
        let by = By::new(author, &request, &request.options)?.not_on_trial()?;
        let ops = self.add_ops(&request);
        self.write_once(by, std::future::ready(ops)).await
    }

    async fn delete_nodes(
        &self,
        request: Request<v1::DeleteNodesRequest>,
    ) -> Answer<WriteResponse> {
        let (author, request) = (author(&request), request.into_inner());
        let by = By::new(author, &request, &request.options)?.not_on_trial()?;
        self.write_once(by, self.delete_ops(&request)).await
    }

    async fn set_nodes(&self, request: Request<v1::SetNodesRequest>) -> Answer<WriteResponse> {
        let (author, request) = (author(&request), request.into_inner());
        let by = By::new(author, &request, &request.options)?;
        let mut written = self.write_once(by, self.set_ops(&request)).await?;
        written.get_mut().kept = self.kept(request.changes);
        Ok(written)
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Answer<Self::WatchStream> {
        let request = request.into_inner();
        watch::follow(
            self.0.feed.clone(),
            self.0.handle.clone(),
            &request.nodes,
            request.after,
        )
        .map(Response::new)
    }

    async fn freeze(&self, request: Request<v1::FreezeRequest>) -> Answer<WriteResponse> {
        let (author, request) = (author(&request), request.into_inner());
        let by = By::new(author.clone(), &request, &request.options)?;
        let ops = self.freeze_ops(&author, &request);
        let mut written = self.write_once(by, ops).await?;
        written.get_mut().groups = Self::freezes_groups(&request);
        Ok(written)
    }

    async fn list_history(
        &self,
        request: Request<v1::ListHistoryRequest>,
    ) -> Answer<v1::ListHistoryResponse> {
        Self::list_history(self, request.into_inner()).await
    }

    async fn diff(&self, request: Request<v1::DiffRequest>) -> Answer<v1::DiffResponse> {
        Self::diff(self, request.into_inner()).await
    }

    async fn undo(&self, request: Request<v1::UndoRequest>) -> Answer<WriteResponse> {
        let author = author(&request);
        let admin = self.clone();
        let request = request.into_inner();
        extension::to_the_end(async move { Self::undo(&admin, author, request).await }).await
    }

    async fn confirm(&self, request: Request<v1::ConfirmRequest>) -> Answer<WriteResponse> {
        let author = author(&request);
        Self::confirm(self, author, request.into_inner()).await
    }

    async fn plan(&self, request: Request<v1::PlanRequest>) -> Answer<v1::PlanResponse> {
        let author = author(&request);
        plan::plan(self, &author, request.into_inner()).await
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Answer<v1::ExplainResponse> {
        explain::explain(self, request.into_inner()).await
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Answer<WriteResponse> {
        self.tell(&request.into_inner().nodes, Input::Release).await
    }

    async fn retry(&self, request: Request<v1::RetryRequest>) -> Answer<WriteResponse> {
        self.tell(&request.into_inner().nodes, Input::Retry).await
    }

    async fn lift(&self, request: Request<v1::LiftRequest>) -> Answer<v1::LiftResponse> {
        let lift = self.lift_of(request.into_inner()).await?;
        let asked = lift.clone();
        let holds = self
            .0
            .handle
            .query(move |engine, _| engine.is_lifted(&asked));
        let lifted = !holds.await.map_err(stopped)?;
        let input = Input::Lift(lift);
        self.0.handle.input(input).await.map_err(stopped)?;
        Ok(Response::new(v1::LiftResponse { lifted }))
    }

    async fn list_pending(
        &self,
        _: Request<v1::ListPendingRequest>,
    ) -> Answer<v1::ListPendingResponse> {
        let pending = self.0.pending.list().iter().map(convert::pending).collect();
        Ok(Response::new(v1::ListPendingResponse { pending }))
    }

    async fn enrol(&self, request: Request<v1::EnrolRequest>) -> Answer<WriteResponse> {
        let (author, request) = (author(&request), request.into_inner());
        let by = By::new(author, &request, &request.options)?.not_on_trial()?;
        let (mac, ops) = self.enrol_ops(&request)?;
        let written = self.write_once(by, std::future::ready(Ok(ops))).await?;
        self.0.pending.enrolled(mac);
        Ok(written)
    }

    async fn list_images(
        &self,
        _: Request<v1::ListImagesRequest>,
    ) -> Answer<v1::ListImagesResponse> {
        let images = self
            .0
            .images
            .list()
            .into_iter()
            .map(image::message)
            .collect();
        Ok(Response::new(v1::ListImagesResponse { images }))
    }

    async fn add_image(
        &self,
        request: Request<v1::AddImageRequest>,
    ) -> Answer<v1::AddImageResponse> {
        image::add(&self.0.images, request.into_inner()).await
    }

    async fn list_extensions(
        &self,
        request: Request<v1::ListExtensionsRequest>,
    ) -> Answer<v1::ListExtensionsResponse> {
        extension::list(&self.0.extensions, &request.into_inner()).map(Response::new)
    }

    async fn add_extension(
        &self,
        request: Request<v1::AddExtensionRequest>,
    ) -> Answer<v1::ChangeExtensionResponse> {
        let author = author(&request);
        extension::add(self, author, request.into_inner()).await
    }

    async fn remove_extension(
        &self,
        request: Request<v1::RemoveExtensionRequest>,
    ) -> Answer<v1::ChangeExtensionResponse> {
        let author = author(&request);
        extension::remove(self, author, request.into_inner()).await
    }

    async fn list_mutations(
        &self,
        _: Request<v1::ListMutationsRequest>,
    ) -> Answer<v1::MutationSet> {
        let read = self
            .0
            .handle
            .query(|engine, _| wire::mutation_set_to_proto(engine.graph().set()));
        read.await.map(Response::new).map_err(stopped)
    }

    async fn list_carriers(
        &self,
        _: Request<v1::ListCarriersRequest>,
    ) -> Answer<v1::ListCarriersResponse> {
        Ok(Response::new(v1::ListCarriersResponse {
            carriers: self.0.external.carriers(),
            refused_files: self.0.modules.refused_files(),
        }))
    }

    async fn lint_mutations(
        &self,
        _: Request<v1::LintMutationsRequest>,
    ) -> Answer<v1::LintMutationsResponse> {
        Ok(Response::new(self.0.modules.lints()))
    }

    async fn list_modules(
        &self,
        _: Request<v1::ListModulesRequest>,
    ) -> Answer<v1::ListModulesResponse> {
        let modules = self.0.external.list();
        Ok(Response::new(v1::ListModulesResponse { modules }))
    }

    async fn reload_modules(
        &self,
        _: Request<v1::ReloadModulesRequest>,
    ) -> Answer<v1::ReloadModulesResponse> {
        let done = self.0.reloader.reload().await;
        let done = done.map_err(Status::invalid_argument)?;
        Ok(Response::new(v1::ReloadModulesResponse {
            added: done.modules.added,
            removed: done.modules.removed,
            restarted: done.modules.restarted,
            configured: done.modules.configured,
            at_next_start: done.at_next_start,
        }))
    }
}
