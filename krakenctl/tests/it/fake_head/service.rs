//! The calls that the fake head answers.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use proto::v1;
use proto::v1::admin_server::Admin;
use proto::v1::watch_event::Kind;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{World, change, set};

#[derive(Clone)]
pub(super) struct Service {
    pub(super) world: Arc<Mutex<World>>,
    pub(super) changed: watch::Sender<()>,
}

impl Service {
    fn enter<T>(&self, name: &str, request: &Request<T>) -> Result<MutexGuard<'_, World>, Status> {
        let mut world = self.world.lock().expect("no call panicked with the lock");
        world.calls.push(name.to_owned());
        if let Some(token) = &world.token {
            let given = request
                .metadata()
                .get("authorization")
                .and_then(|value| value.to_str().ok());
            if given != Some(&format!("Bearer {token}")) {
                return Err(Status::unauthenticated("a valid token is wanted"));
            }
        }
        match &world.refuse {
            Some(status) => Err(status.clone()),
            None => Ok(world),
        }
    }
}

#[tonic::async_trait]
impl Admin for Service {
    async fn get_version(
        &self,
        request: Request<v1::GetVersionRequest>,
    ) -> Result<Response<v1::GetVersionResponse>, Status> {
        let world = self.enter("get_version", &request)?;
        Ok(Response::new(v1::GetVersionResponse {
            version: "9.9.9".into(),
            cluster: "lab".into(),
            revision: world.revision,
            epoch: world.epoch,
            frozen: world.frozen,
            frozen_groups: world.frozen_groups.clone(),
        }))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let world = self.enter("list_nodes", &request)?;
        let names = world.select(&request.get_ref().nodes)?;
        Ok(Response::new(v1::ListNodesResponse {
            nodes: names.iter().map(|name| world.nodes[name].clone()).collect(),
            revision: world.revision,
            frozen: world.frozen,
            frozen_groups: world.frozen_groups.clone(),
        }))
    }

    async fn add_nodes(
        &self,
        request: Request<v1::AddNodesRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let mut world = self.enter("add_nodes", &request)?;
        let request = request.into_inner();
        world.begin_write(request.options)?;
        if let Some(node) = request
            .nodes
            .iter()
            .find(|node| world.nodes.contains_key(&node.name))
        {
            return Err(Status::already_exists(format!(
                "there is a node {} already",
                node.name
            )));
        }
        let names = request.nodes.iter().map(|node| node.name.clone()).collect();
        for node in request.nodes {
            world.insert(node);
        }
        self.changed.send_replace(());
        world.written(names)
    }

    async fn delete_nodes(
        &self,
        request: Request<v1::DeleteNodesRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let mut world = self.enter("delete_nodes", &request)?;
        let request = request.into_inner();
        world.begin_write(request.options)?;
        let names = world.select(&request.nodes)?;
        for name in &names {
            world.nodes.remove(name);
            world.event(Kind::Deleted(v1::NodeDeleted {
                node_name: name.clone(),
                ..Default::default()
            }));
        }
        self.changed.send_replace(());
        world.written(names)
    }

    async fn set_nodes(
        &self,
        request: Request<v1::SetNodesRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let mut world = self.enter("set_nodes", &request)?;
        let request = request.into_inner();
        world.begin_write(request.options)?;
        if let Some(change) = request
            .changes
            .iter()
            .find(|change| change.url.starts_with("/site"))
        {
            return Err(Status::invalid_argument(format!(
                "no extension has {}",
                change.url
            )));
        }
        let names = world.select(&request.nodes)?;
        let kept = request.changes.iter().map(|change| v1::ValueChange {
            url: change.url.clone(),
            value: match world.kept.get(&change.url) {
                Some(kept) => kept.clone(),
                None => change.value.clone(),
            },
        });
        let kept: Vec<v1::ValueChange> = kept.collect();
        for name in &names {
            let node = world.nodes.get_mut(name).expect("selected");
            for change in &kept {
                set(node.cfg.get_or_insert_default(), change);
            }
            node.groups.extend(request.add_groups.iter().cloned());
            node.groups
                .retain(|group| !request.remove_groups.contains(group));
            node.parent_name = request.parent.clone().unwrap_or_default();
            world.event(Kind::Change(v1::NodeChange {
                node_name: name.clone(),
                cfg: kept.clone(),
                ..Default::default()
            }));
        }
        self.changed.send_replace(());
        let mut written = world.written(names)?;
        written.get_mut().kept = kept;
        Ok(written)
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchEvent, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let after = request.get_ref().after;
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        let mut changed = self.changed.subscribe();
        let mut first = Vec::new();
        let mut next = {
            let mut world = self.enter("watch", &request)?;
            let names = world.select(&request.get_ref().nodes)?;
            let last = world.events.len() as u64;
            world.calls.push(format!("watch after {after}"));
            let event = |kind| v1::WatchEvent {
                sequence: last,
                kind: Some(kind),
            };
            if after == 0 {
                first.extend(
                    names
                        .iter()
                        .map(|name| event(Kind::Node(world.nodes[name].clone()))),
                );
                first.push(event(Kind::SnapshotEnd(v1::SnapshotEnd {
                    revision: world.revision,
                })));
                last
            } else if after > last {
                first.push(event(Kind::Resync(v1::Resync {})));
                last
            } else {
                after
            }
        };
        let world = Arc::clone(&self.world);
        tokio::spawn(async move {
            for event in first {
                if sender.send(Ok(event)).await.is_err() {
                    return;
                }
            }
            loop {
                let events: Vec<v1::WatchEvent> = {
                    let world = world.lock().expect("no call panicked with the lock");
                    world.events.iter().skip(next as usize).cloned().collect()
                };
                next += events.len() as u64;
                for event in events {
                    if sender.send(Ok(event)).await.is_err() {
                        return;
                    }
                }
                if changed.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(
            tokio_stream::wrappers::ReceiverStream::new(receiver),
        )))
    }

    async fn freeze(
        &self,
        request: Request<v1::FreezeRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let mut world = self.enter("freeze", &request)?;
        let request = request.into_inner();
        world.begin_write(request.options)?;
        if request.nodes.is_empty() {
            world.frozen = request.freeze;
            return world.written(Vec::new());
        }
        if let Some(group) = request.nodes.strip_prefix('@') {
            world.frozen_groups.retain(|frozen| frozen.group != group);
            if request.freeze {
                let frozen = v1::FrozenGroup {
                    group: group.into(),
                    author: "alice".into(),
                    reason: world.reason.clone(),
                };
                world.frozen_groups.push(frozen);
            }
            let mut written = world.written(Vec::new())?;
            written.get_mut().groups = vec![group.into()];
            return Ok(written);
        }
        let names = world.select(&request.nodes)?;
        for name in &names {
            world.nodes.get_mut(name).expect("selected").frozen = request.freeze;
        }
        world.written(names)
    }

    async fn list_history(
        &self,
        request: Request<v1::ListHistoryRequest>,
    ) -> Result<Response<v1::ListHistoryResponse>, Status> {
        let mut world = self.enter("list_history", &request)?;
        world.asked_history = request.into_inner();
        Ok(Response::new(world.history.clone()))
    }

    async fn diff(
        &self,
        request: Request<v1::DiffRequest>,
    ) -> Result<Response<v1::DiffResponse>, Status> {
        let world = self.enter("diff", &request)?;
        let v1::DiffRequest { from, to, .. } = request.into_inner();
        let to = if to == 0 { world.revision } else { to };
        let changes = world.plan.changes.clone();
        Ok(Response::new(v1::DiffResponse { from, to, changes }))
    }

    async fn undo(
        &self,
        request: Request<v1::UndoRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let mut world = self.enter("undo", &request)?;
        let request = request.into_inner();
        world.begin_write(request.options)?;
        world.written(vec!["n1".into()])
    }

    async fn confirm(
        &self,
        request: Request<v1::ConfirmRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let mut world = self.enter("confirm", &request)?;
        let request = request.into_inner();
        world.begin_write(request.options)?;
        world.written(vec![])
    }

    async fn plan(
        &self,
        request: Request<v1::PlanRequest>,
    ) -> Result<Response<v1::PlanResponse>, Status> {
        let mut world = self.enter("plan", &request)?;
        world.planned = request.into_inner();
        if let Some(v1::plan_request::Write::Set(set)) = &world.planned.write {
            world.select(&set.nodes)?;
        }
        Ok(Response::new(world.plan.clone()))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let answer = {
            let world = self.enter("explain", &request)?;
            let names = world.select(&request.get_ref().nodes)?;
            let reports = names
                .iter()
                .filter_map(|name| world.reports.get(name).cloned())
                .collect();
            (!world.explains_nothing).then_some(v1::ExplainResponse {
                reports,
                revision: 7,
            })
        };
        match answer {
            Some(answer) => Ok(Response::new(answer)),
            None => std::future::pending().await,
        }
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let mut world = self.enter("release", &request)?;
        let names = world.select(&request.get_ref().nodes)?;
        for name in &names {
            world.reports.remove(name);
        }
        world.written(names)
    }

    async fn lift(
        &self,
        request: Request<v1::LiftRequest>,
    ) -> Result<Response<v1::LiftResponse>, Status> {
        let _world = self.enter("lift", &request)?;
        let lifted = request.into_inner().what.is_some();
        Ok(Response::new(v1::LiftResponse { lifted }))
    }

    async fn retry(
        &self,
        request: Request<v1::RetryRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let mut world = self.enter("retry", &request)?;
        let names = world.select(&request.get_ref().nodes)?;
        for name in &names {
            world.reports.remove(name);
        }
        world.written(names)
    }

    async fn list_pending(
        &self,
        request: Request<v1::ListPendingRequest>,
    ) -> Result<Response<v1::ListPendingResponse>, Status> {
        let world = self.enter("list_pending", &request)?;
        Ok(Response::new(v1::ListPendingResponse {
            pending: world.pending.clone(),
        }))
    }

    async fn enrol(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let mut world = self.enter("enrol", &request)?;
        let request = request.into_inner();
        world.begin_write(request.options)?;
        let before = world.pending.len();
        world.pending.retain(|machine| machine.mac != request.mac);
        if world.pending.len() == before {
            return Err(Status::not_found(format!(
                "no machine {} is pending",
                request.mac
            )));
        }
        let mut node = request.node.unwrap_or_default();
        set(
            node.cfg.get_or_insert_default(),
            &change("/ipv4/boot/mac", &request.mac),
        );
        let name = node.name.clone();
        world.insert(node);
        world.written(vec![name])
    }

    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let world = self.enter("list_images", &request)?;
        Ok(Response::new(v1::ListImagesResponse {
            images: world.images.clone(),
        }))
    }

    async fn add_image(
        &self,
        request: Request<v1::AddImageRequest>,
    ) -> Result<Response<v1::AddImageResponse>, Status> {
        let mut world = self.enter("add_image", &request)?;
        let request = request.into_inner();
        let image = v1::Image {
            name: request.path,
            digest: "ab".repeat(32),
            size_bytes: 3 << 20,
            security_version: 1,
            added_ms: 1,
        };
        let mut there = world.images.iter();
        let replaces = there.find(|old| old.name == image.name).cloned();
        let new = u32::from(replaces.is_none());
        if !request.dry_run {
            world.images.retain(|old| old.name != image.name);
            world.images.push(image.clone());
        }
        Ok(Response::new(v1::AddImageResponse {
            image: Some(image),
            replaces,
            new_files: new,
            new_bytes: u64::from(new) * (3 << 20),
        }))
    }

    async fn list_extensions(
        &self,
        request: Request<v1::ListExtensionsRequest>,
    ) -> Result<Response<v1::ListExtensionsResponse>, Status> {
        // Every command asks for this first: it has nothing to do with what a test makes the head say.
        let world = self.world.lock().expect("no call panicked with the lock");
        let name = &request.get_ref().name;
        let mut extensions = world.extensions.clone();
        extensions.retain(|one| name.is_empty() || one.name == *name);
        match extensions.is_empty() && !name.is_empty() {
            true => Err(Status::not_found(format!("there is no extension {name}"))),
            false => Ok(Response::new(v1::ListExtensionsResponse { extensions })),
        }
    }

    async fn add_extension(
        &self,
        request: Request<v1::AddExtensionRequest>,
    ) -> Result<Response<v1::ChangeExtensionResponse>, Status> {
        let mut world = self.enter("add_extension", &request)?;
        let request = request.into_inner();
        if !request.source.contains("kraken.v1.extension") {
            return Err(Status::invalid_argument(format!(
                "{}:1: no extension",
                request.file_name
            )));
        }
        let extension = v1::Extension {
            name: "site".into(),
            file: "site.proto".into(),
            source: request.source,
            ..Default::default()
        };
        if !request.dry_run {
            world.revision += 1;
            world.extensions.push(extension.clone());
        }
        Ok(Response::new(v1::ChangeExtensionResponse {
            extension: Some(extension),
            revision: world.revision,
            change: "extension add site".into(),
            nodes: Vec::new(),
        }))
    }

    async fn remove_extension(
        &self,
        request: Request<v1::RemoveExtensionRequest>,
    ) -> Result<Response<v1::ChangeExtensionResponse>, Status> {
        let mut world = self.enter("remove_extension", &request)?;
        let request = request.into_inner();
        if !request.force {
            return Err(Status::failed_precondition(
                "n1 has a value of /site/rack: its field is gone (unset them first, or --force unsets them)",
            ));
        }
        world.extensions.retain(|one| one.name != request.name);
        Ok(Response::new(v1::ChangeExtensionResponse {
            extension: None,
            revision: world.revision,
            change: format!("extension remove {}", request.name),
            nodes: vec!["n1".into()],
        }))
    }

    async fn list_mutations(
        &self,
        request: Request<v1::ListMutationsRequest>,
    ) -> Result<Response<v1::MutationSet>, Status> {
        let world = self.enter("list_mutations", &request)?;
        Ok(Response::new(world.mutations.clone()))
    }

    async fn list_carriers(
        &self,
        request: Request<v1::ListCarriersRequest>,
    ) -> Result<Response<v1::ListCarriersResponse>, Status> {
        let world = self.enter("list_carriers", &request)?;
        Ok(Response::new(v1::ListCarriersResponse {
            carriers: world.carriers.clone(),
            refused_files: world.refused_files.clone(),
        }))
    }

    async fn lint_mutations(
        &self,
        request: Request<v1::LintMutationsRequest>,
    ) -> Result<Response<v1::LintMutationsResponse>, Status> {
        let world = self.enter("lint_mutations", &request)?;
        Ok(Response::new(world.lints.clone()))
    }

    async fn list_modules(
        &self,
        request: Request<v1::ListModulesRequest>,
    ) -> Result<Response<v1::ListModulesResponse>, Status> {
        let _world = self.enter("list_modules", &request)?;
        let wild = v1::ModuleInfo {
            name: "fan".into(),
            kind: v1::module_info::Kind::Process.into(),
            state: "RESTARTING".into(),
            failures: 3,
            last_error: "its process ended (exit status: 1)".into(),
            mutations: 2,
            ..v1::ModuleInfo::default()
        };
        Ok(Response::new(v1::ListModulesResponse {
            modules: vec![wild],
        }))
    }

    async fn reload_modules(
        &self,
        request: Request<v1::ReloadModulesRequest>,
    ) -> Result<Response<v1::ReloadModulesResponse>, Status> {
        let _world = self.enter("reload_modules", &request)?;
        Ok(Response::new(v1::ReloadModulesResponse {
            restarted: vec!["fan".into()],
            at_next_start: vec!["log.level".into()],
            ..v1::ReloadModulesResponse::default()
        }))
    }
}
