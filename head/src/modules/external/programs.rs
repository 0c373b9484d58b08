//! Modules that the configuration names: started with the head, and brought to what a changed configuration says while it runs.
//!
//! What differs only in `config` or `secrets` reaches a module that runs; any other difference starts it again. All of a configuration is
//! checked before anything is done by it.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::unistd::{Uid, User};
use proto::v1;
use tracing::info;

use super::External;
use super::keeper::Order;
use crate::config::ModuleConfig;

/// A module as its keeper runs it.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// What the configuration says.
    pub(super) module: ModuleConfig,
    /// Where it listens.
    pub(super) socket: PathBuf,
    /// The users who may speak for it.
    pub(super) allowed: Vec<u32>,
}

/// What a changed configuration did to modules, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reloaded {
    /// They were not there before.
    pub(crate) added: Vec<String>,
    /// They are not there any more.
    pub(crate) removed: Vec<String>,
    /// They run otherwise now.
    pub(crate) restarted: Vec<String>,
    /// They were told while they run.
    pub(crate) configured: Vec<String>,
}

impl External {
    /// Brings modules to what the configuration says now.
    ///
    /// # Errors
    /// Something in it does not do; everything stays as it was then.
    pub(crate) async fn reload(&self, wanted: &[ModuleConfig]) -> anyhow::Result<Reloaded> {
        let mut configured = self.configured.lock().await;
        for module in wanted {
            self.check(module)?;
        }
        let mut programs = Vec::new();
        for module in wanted {
            programs.push(self.prepare(module)?);
        }
        let mut reloaded = Reloaded::default();
        for gone in configured
            .iter()
            .filter(|old| !wanted.iter().any(|new| new.name == old.name))
        {
            reloaded.removed.push(gone.name.clone());
            let hosted = self.lock().get(&gone.name).cloned();
            if let Some(hosted) = hosted {
                let _ = hosted.orders.send(Order::Leave).await;
                // One of the same name may come next.
                hosted.gone.cancelled().await;
            }
        }
        for program in programs {
            let name = program.module.name.clone();
            match configured.iter().find(|old| old.name == name) {
                None => {
                    reloaded.added.push(name);
                    self.keep_program(program);
                }
                Some(old) if *old == program.module => {}
                Some(old) => {
                    let is_live = is_live_change(old, &program.module);
                    let list = if is_live {
                        &mut reloaded.configured
                    } else {
                        &mut reloaded.restarted
                    };
                    list.push(name.clone());
                    self.tell(&name, Order::Program(Box::new(program))).await;
                }
            }
        }
        *configured = wanted.to_vec();
        if !reloaded.added.is_empty() {
            self.declare_services().await;
        }
        Ok(reloaded)
    }

    /// Whether a module of the configuration could be run.
    fn check(&self, module: &ModuleConfig) -> anyhow::Result<()> {
        let name = &module.name;
        anyhow::ensure!(
            !self.shared.modules.is_taken(name),
            "[modules.{name}]: the head has a module of its own of that name; choose another one"
        );
        let is_socket = (self.lock().get(name))
            .is_some_and(|hosted| hosted.kind == v1::module_info::Kind::Socket);
        anyhow::ensure!(
            !is_socket,
            "[modules.{name}]: a module of that name listens in {}; choose another one, or end that one and remove its socket",
            self.run_dir.join("modules.d").display()
        );
        user_of(module).map(drop)
    }

    /// Makes the folder of a module's socket.
    fn prepare(&self, module: &ModuleConfig) -> anyhow::Result<Program> {
        let name = &module.name;
        let user = user_of(module)?;
        let all = self.run_dir.join("modules");
        make_dir(&all, 0o711)?;
        let own = all.join(name);
        make_dir(&own, 0o700)?;
        let mut allowed = vec![0, Uid::effective().as_raw()];
        if let Some(user) = &user {
            allowed.push(user.uid.as_raw());
            std::os::unix::fs::chown(&own, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                .with_context(|| format!("cannot give {} to user {}", own.display(), user.name))?;
        }
        let is_root = user
            .as_ref()
            .map_or(Uid::effective(), |user| user.uid)
            .is_root();
        let limits = &module.limits;
        info!(
            module = name,
            memory_mib = limits.memory >> 20,
            pids = limits.pids,
            discoveries_per_second = limits.discoveries_per_second,
            held_by = if self.shared.cgroups().is_some() {
                "a cgroup"
            } else if is_root {
                "rlimits (memory) and a look a second (memory, pids): set `user` so that the kernel bounds pids"
            } else {
                "rlimits and a look a second"
            },
            "module limits"
        );
        Ok(Program {
            module: module.clone(),
            socket: own.join("sock"),
            allowed,
        })
    }

    fn keep_program(&self, program: Program) {
        let kind = v1::module_info::Kind::Process;
        let (socket, allowed) = (program.socket, program.allowed);
        self.keep(
            program.module.name.clone(),
            kind,
            Some(program.module),
            socket,
            allowed,
        );
    }

    /// Tells a keeper, and waits while it is behind.
    async fn tell(&self, name: &str, order: Order) {
        let orders = self.lock().get(name).map(|hosted| hosted.orders.clone());
        if let Some(orders) = orders {
            // One that is gone already has nothing to do.
            let _ = orders.send(order).await;
        }
    }
}

/// Whether a module that runs can be told of the difference.
pub(super) fn is_live_change(old: &ModuleConfig, new: &ModuleConfig) -> bool {
    let as_old = ModuleConfig {
        config: old.config.clone(),
        secrets: old.secrets.clone(),
        ..new.clone()
    };
    as_old == *old
}

fn user_of(module: &ModuleConfig) -> anyhow::Result<Option<User>> {
    let Some(name) = &module.user else {
        return Ok(None);
    };
    let user = User::from_name(name).ok().flatten();
    let module = &module.name;
    let user = user.with_context(|| format!("[modules.{module}] user = {name:?}: there is no such user; make one with `useradd --system {name}`"))?;
    Ok(Some(user))
}

fn make_dir(path: &Path, mode: u32) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
        .with_context(|| format!("cannot make {}", path.display()))
}
