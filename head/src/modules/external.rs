//! Modules out of process: those that the configuration names, which the head starts and keeps running, and those that put a socket into
//! `<run_dir>/modules.d` (DESIGN 3, fault F32).
//!
//! - `programs`: those of the configuration, which may change while the head runs.
//! - `keeper`: one task a module: starts it, speaks with it, starts it again.
//! - `link`, `health`: its socket and what it says of itself; `spawn`, `cgroup`, `processes`: its process, its bounds, and what it uses.
//! - `status`: how it is doing; `told`: the secrets it knows, which are taken out of what it says.
//! - [`Services`]: the mutations that start and stop modules, so that they converge as everything else does: `/services/NAME/state`.
//!
//! What a module may say is `engine::wire::module`'s business.

mod cgroup;
mod health;
mod keeper;
mod link;
mod processes;
mod programs;
mod spawn;
mod status;
mod told;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use engine::driver::{Clock, Handle};
use engine::event::Fire;
use engine::mutation::report::Hold;
use engine::mutation::{MutationContext, MutationId, UrlChange};
use engine::state::{Change, NodeId, NodeName, Value};
use engine::wire::convert::Declared;
use nix::unistd::Uid;
use proto::v1;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::cgroup::{Cgroup, Cgroups};
use self::keeper::{Keeper, Order};
pub(crate) use self::programs::Reloaded;
pub(crate) use self::spawn::Confined;
use self::status::{ERROR, INIT, RESTARTING, RUN, STOP, Status};
use self::told::Told;
use super::{Declaration, DeclareError, Module, Modules, Reports};
use crate::config::{ModuleConfig, is_name};
use crate::extensions::SchemaNow;

/// Orders that may wait for a keeper: a mutation of every node of the largest cluster we promise.
const MAX_ORDERS: usize = 16_384;
/// How often `modules.d` is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Most modules with sockets of their own.
const MAX_SOCKETS: usize = 64;
/// A module that starts has its time to listen and to declare; one that stops, that of SIGTERM.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// What keepers share.
struct Shared {
    modules: Arc<Modules>,
    reports: Reports,
    handle: Handle,
    schema: SchemaNow,
    clock: Clock,
    me: NodeId,
    name: NodeName,
    /// Found when the first module is started.
    cgroups: OnceLock<Option<Cgroups>>,
    stop: CancellationToken,
}

/// What the head gives its modules.
pub(crate) struct Setup {
    /// The registry.
    pub(crate) modules: Arc<Modules>,
    /// To the engine.
    pub(crate) reports: Reports,
    /// The engine.
    pub(crate) handle: Handle,
    /// What values there are.
    pub(crate) schema: SchemaNow,
    /// The engine's clock.
    pub(crate) clock: Clock,
    /// The head's node.
    pub(crate) me: NodeId,
    /// Its name.
    pub(crate) name: NodeName,
    /// For sockets.
    pub(crate) run_dir: PathBuf,
    /// Cancelled when the head stops.
    pub(crate) stop: CancellationToken,
}

/// All modules out of process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct External {
    shared: Arc<Shared>,
    run_dir: PathBuf,
    hosted: Arc<Mutex<BTreeMap<String, Arc<Hosted>>>>,
    /// What the configuration says of them; locked while another one is taken over.
    configured: Arc<tokio::sync::Mutex<Vec<ModuleConfig>>>,
    tasks: TaskTracker,
}

/// One module, as the registry and the API see it.
struct Hosted {
    name: String,
    kind: v1::module_info::Kind,
    orders: mpsc::Sender<Order>,
    declaration: Mutex<Declaration>,
    status: Mutex<Status>,
    told: Arc<Told>,
    reports: Reports,
    /// Cancelled when nothing is left of it.
    gone: CancellationToken,
    me: std::sync::Weak<Self>,
}

impl External {
    /// Starts the configured modules.
    ///
    /// # Errors
    /// A folder cannot be made; a user or a name does not do.
    pub(crate) async fn start(setup: Setup, configured: &[ModuleConfig]) -> anyhow::Result<Self> {
        let external = Self {
            shared: Arc::new(Shared {
                modules: setup.modules,
                reports: setup.reports,
                handle: setup.handle,
                schema: setup.schema,
                clock: setup.clock,
                me: setup.me,
                name: setup.name,
                cgroups: OnceLock::new(),
                stop: setup.stop,
            }),
            run_dir: setup.run_dir,
            hosted: Arc::default(),
            configured: Arc::default(),
            tasks: TaskTracker::new(),
        };
        external.reload(configured).await?;
        external.declare_services().await;
        Ok(external)
    }

    /// How all modules are doing, the head's own among them.
    pub(crate) fn list(&self) -> Vec<v1::ModuleInfo> {
        let mut list = self.shared.modules.list();
        list.retain(|info| !self.lock().contains_key(&info.name));
        let hosted: Vec<Arc<Hosted>> = self.lock().values().cloned().collect();
        list.extend(
            hosted
                .iter()
                .map(|hosted| hosted.status().info(&hosted.name, hosted.kind)),
        );
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// Why the module of this name changes nothing of its extension.
    pub(crate) fn why_not(&self, name: &str) -> Option<String> {
        if self.shared.modules.is_taken(name) {
            return None;
        }
        let Some(hosted) = self.lock().get(name).cloned() else {
            return Some(format!("there is no module {name} (krakenctl module list)"));
        };
        let status = hosted.status();
        Some(match status.up {
            true => format!("module {name} runs and declares no mutation of it"),
            false => status.trouble_words(name),
        })
    }

    /// The modules that should run and do not.
    pub(crate) fn troubles(&self) -> Vec<Hold> {
        let hosted: Vec<Arc<Hosted>> = self.lock().values().cloned().collect();
        let words = hosted.iter().filter_map(|hosted| {
            let status = hosted.status();
            status.is_in_trouble().then(|| Hold {
                kind: "module",
                text: status.trouble_words(&hosted.name),
                lifted_by:
                    "its program, once it runs again; krakenctl module list, and the head's log"
                        .into(),
            })
        });
        words.collect()
    }

    /// All modules of the head.
    pub(super) fn modules(&self) -> &Modules {
        &self.shared.modules
    }

    /// What those out of process are, by name.
    pub(super) fn kinds(&self) -> BTreeMap<String, v1::module_info::Kind> {
        let hosted = self.lock();
        let kinds = hosted
            .iter()
            .map(|(name, hosted)| (name.clone(), hosted.kind));
        kinds.collect()
    }

    /// The Cfg of the head's own node has changed, and with it perhaps modules' configuration.
    pub(crate) fn configure(&self) {
        for hosted in self.lock().values() {
            // One that is behind asks for its configuration when it is started.
            let _ = hosted.orders.try_send(Order::Configure);
        }
    }

    /// Waits until all modules have ended.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Looks for sockets of modules that somebody else runs, until the head stops.
    pub(crate) async fn look_for_sockets(self) {
        let folder = self.run_dir.join("modules.d");
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            for (name, socket) in sockets(&folder) {
                if self.lock().contains_key(&name) {
                    continue;
                }
                if self.shared.modules.is_taken(&name) {
                    warn!(
                        module = name,
                        "a module's socket has the name of one of this head's own modules and is left alone"
                    );
                    continue;
                }
                info!(module = name, socket = %socket.display(), "module found");
                let allowed = vec![0, Uid::effective().as_raw()];
                let kind = v1::module_info::Kind::Socket;
                self.keep(name, kind, None, socket, allowed);
                self.declare_services().await;
            }
        }
    }

    fn keep(
        &self,
        name: String,
        kind: v1::module_info::Kind,
        program: Option<ModuleConfig>,
        socket: PathBuf,
        allowed: Vec<u32>,
    ) {
        let (sender, orders) = mpsc::channel(MAX_ORDERS);
        let hosted = Arc::new_cyclic(|me| Hosted {
            name: name.clone(),
            kind,
            orders: sender,
            declaration: Mutex::default(),
            status: Mutex::default(),
            told: Arc::default(),
            reports: self.shared.reports.clone(),
            gone: CancellationToken::new(),
            me: me.clone(),
        });
        self.lock().insert(name.clone(), Arc::clone(&hosted));
        let keeper = Keeper::new(
            Arc::clone(&self.shared),
            hosted,
            orders,
            program,
            socket,
            allowed,
        );
        let external = self.clone();
        self.tasks.spawn(async move {
            keeper.run().await;
            if !external.shared.stop.is_cancelled() {
                let hosted = external.lock().remove(&name);
                if let Some(hosted) = &hosted {
                    hosted.forget(&external.shared).await;
                }
                external.shared.modules.remove(&name).await;
                external.declare_services().await;
                if let Some(hosted) = hosted {
                    hosted.gone.cancel();
                }
            }
        });
    }

    /// Declares the mutations that start and stop the modules there are.
    async fn declare_services(&self) {
        let names: Vec<String> = self.lock().keys().cloned().collect();
        let services = Services {
            external: self.clone(),
            names,
        };
        if let Err(error) = self.shared.modules.put(Arc::new(services)).await {
            warn!(%error, "modules cannot be started and stopped by their state");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Hosted>>> {
        self.hosted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Whether an operator wants this module to run; one that nobody speaks of runs, for what it declares is not known before.
    async fn wanted(&self, module: &str) -> bool {
        let url = format!("/services/{module}/state");
        let me = self.me;
        let read = self.handle.query(move |engine, _| {
            let cfg = engine.tree().get(me).map(|node| &node.cfg);
            cfg.and_then(|cfg| cfg.text(&url)) == Some(STOP)
        });
        !read.await.unwrap_or_default()
    }

    /// Where modules get cgroups, if one was delegated to this head; says once which it is.
    fn cgroups(&self) -> Option<&Cgroups> {
        let found = self.cgroups.get_or_init(|| match Cgroups::find() {
            Ok(cgroups) => {
                let path = cgroups.path().display();
                info!(%path, "modules are bounded by cgroups");
                Some(cgroups)
            }
            Err(why) => {
                warn!(
                    why,
                    "modules are bounded by rlimits and a look a second, not by cgroups"
                );
                None
            }
        });
        found.as_ref()
    }

    /// A cgroup for a module that is started.
    fn cgroup(&self, module: &ModuleConfig) -> Option<Cgroup> {
        let made = self.cgroups()?.module(&module.name, &module.limits);
        made.map_err(|error| {
            warn!(module = module.name, %error, "there is no cgroup for this module: rlimits and a look a second bound it");
        })
        .ok()
    }

    async fn config(
        &self,
        module: &str,
        program: Option<&ModuleConfig>,
    ) -> BTreeMap<String, Value> {
        let me = self.me;
        let read = self
            .handle
            .query(move |engine, _| engine.tree().get(me).map(|node| node.cfg.clone()));
        let cfg = read.await.ok().flatten().unwrap_or_default();
        keeper::merged(module, program, &cfg)
    }
}

impl Hosted {
    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the module declares, and tells the engine.
    async fn declare(&self, shared: &Shared, declared: Declared) -> Result<(), DeclareError> {
        let declaration = Declaration {
            mutations: declared.mutations,
            dependencies: declared.dependencies,
            discoverables: declared.discoverables,
        };
        {
            let mut status = self.status();
            status.version = self.told.scrubbed(declared.version);
            status.mutations = declaration.mutations.len();
        }
        let Some(me) = self.me.upgrade() else {
            return Ok(());
        };
        let old = std::mem::replace(
            &mut *self
                .declaration
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
            declaration,
        );
        let result = shared.modules.put(me).await;
        if result.is_err() {
            *self
                .declaration
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = old;
        }
        result
    }

    /// Reports how the module is doing as values of the head's node.
    async fn report(&self, shared: &Shared) {
        let values = self.status().values(&self.name);
        shared.reports.discover(shared.me, "service", values).await;
    }

    /// The module is gone, and nothing is known of it any more.
    async fn forget(&self, shared: &Shared) {
        let mut values = self.status().values(&self.name);
        for change in &mut values {
            change.value = None;
        }
        shared.reports.discover(shared.me, "service", values).await;
    }

    fn order(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }
}

impl Module for Hosted {
    fn name(&self) -> &str {
        &self.name
    }

    fn declaration(&self) -> Declaration {
        self.declaration
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn fire(&self, fire: Fire) {
        if let Err(error) = self.orders.try_send(Order::Fire(Box::new(fire.clone()))) {
            let (reports, name) = (self.reports.clone(), self.name.clone());
            let why = match error {
                mpsc::error::TrySendError::Full(_) => "too many mutations wait for it",
                mpsc::error::TrySendError::Closed(_) => "it is gone",
            };
            tokio::spawn(async move { reports.fail(&fire, format!("module {name}: {why}")).await });
        }
    }

    fn interrupt(&self, node: NodeId, mutation: &MutationId, attempt: u64) {
        // A module that is behind by so much learns by its timeouts.
        self.order(Order::Interrupt(node, mutation.clone(), attempt));
    }
}

/// Starting and stopping modules, as mutations of the head's own node.
struct Services {
    external: External,
    names: Vec<String>,
}

impl Module for Services {
    fn name(&self) -> &str {
        "service"
    }

    fn declaration(&self) -> Declaration {
        let mut declaration = Declaration::default();
        for name in &self.names {
            let Ok(url) = format!("/services/{name}/state").parse() else {
                continue;
            };
            let mut declare = |verb: &str, from: &[&str], to: &str, timeout| {
                let known = |text: &str| (!text.is_empty()).then(|| Value::text(text));
                declaration.mutations.push(engine::mutation::Mutation {
                    id: status::service_mutation(name, verb),
                    mutates: vec![UrlChange {
                        url: engine::state::StateUrl::clone(&url),
                        from: from.iter().map(|text| known(text)).collect(),
                        to: known(to),
                    }],
                    timeout: Some(timeout),
                    fail_to: vec![Change {
                        url: url.clone(),
                        value: known(ERROR),
                    }],
                    ..super::declare::mutation("service", verb, MutationContext::SelfNode).done()
                });
            };
            declare(
                "START",
                &["", STOP, INIT, RESTARTING, ERROR],
                RUN,
                START_TIMEOUT,
            );
            declare(
                "STOP",
                &["", RUN, INIT, RESTARTING, ERROR],
                STOP,
                STOP_TIMEOUT,
            );
        }
        declaration
    }

    fn fire(&self, fire: Fire) {
        let hosted = status::of_service(&fire.mutation).and_then(|(name, start)| {
            let hosted = self.external.lock().get(name).cloned();
            hosted.map(|hosted| (hosted, start))
        });
        let taken = hosted.is_some_and(|(hosted, start)| hosted.order(Order::Want(start)));
        if !taken {
            let reports = self.external.shared.reports.clone();
            tokio::spawn(async move {
                reports
                    .fail(
                        &fire,
                        "there is no such module here, or it is behind".into(),
                    )
                    .await
            });
        }
    }

    // A module that is no longer wanted gets another mutation.
    fn interrupt(&self, _: NodeId, _: &MutationId, _: u64) {}
}

/// The sockets in a folder, by the names of their modules.
fn sockets(folder: &Path) -> Vec<(String, PathBuf)> {
    use std::os::unix::fs::FileTypeExt;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .take(4 * MAX_SOCKETS)
    {
        let name = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_suffix(".sock"))
            .map(str::to_owned);
        let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
        if let Some(name) = name.filter(|name| is_socket && is_name(name)) {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    found.truncate(MAX_SOCKETS);
    found
}
