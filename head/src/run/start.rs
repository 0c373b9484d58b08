//! Putting a head together, in an order in which nobody meets a part that is not ready: what is stored first, then the engine, then those
//! who talk to it, and the API last, for it says that the head is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use engine::Engine;
use engine::driver::{self, Clock, Handle, Inbox, wall_ms};
use engine::engine::{EngineConfig, Role};
use engine::event::{Discovery, Input, Output, Write, WriteOp};
use engine::extension::Schema;
use engine::mutation::progress::Healing;
use engine::state::{Change, Node, NodeId, Value, Values, core};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::vital::Vital;
use crate::api::{self, Admin, Faces, Feed, Pages, Parts, RailGauges, Token};
use crate::boot::{self, BootPlaneConfig, BootTable, Loaders};
use crate::boot_link::{self, BootBook};
use crate::config::Config;
use crate::extensions::{self, Extensions};
use crate::modules::{
    self, Core, DataFiles, External, ImageStore, Images, Module, Modules, Observed, Power, Pxe,
    Reports, Setup, watch_files,
};
use crate::outputs::{EventQueue, Outputs, follow_events};
use crate::pending::HoldingList;
use crate::reload::Reloader;
use crate::requests::Requests;
use crate::store::{History, Loaded, Sqlite, StoreWorker};
use crate::sync::{self, Keys};

/// Time to write the head's own node at the first start.
const FIRST_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often samples of metrics are folded into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);

/// Bounds for the time of a commit: a flush of a good disk takes a millisecond, of a bad one a second.
const COMMIT_BUCKETS: [f64; 8] = [0.000_5, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5, 2.0];

/// A head that runs.
pub(super) struct Running {
    /// Reads the configuration again.
    pub(super) reloader: Reloader,
    /// Cancelled when it shall stop.
    pub(super) stop: CancellationToken,
    /// Its tasks.
    pub(super) vital: Vital,
    /// The servers of the boot plane.
    pub(super) boot_plane: TaskTracker,
    /// Modules out of process.
    pub(super) modules: External,
    /// Stopped last.
    pub(super) store: StoreWorker,
}

/// What the parts share.
struct Shared {
    handle: Handle,
    extensions: Arc<Extensions>,
    modules: Arc<Modules>,
    requests: Requests,
    feed: Feed,
    pending: HoldingList,
    table: Arc<BootTable>,
    stop: CancellationToken,
}

/// Starts everything; when it returns, the head answers.
pub(super) async fn start(config: &Config, file: &Path) -> anyhow::Result<Running> {
    let metrics = start_metrics()?;
    let (mut store, mut loaded) = Sqlite::open(&config.state_dir, Arc::default())?;
    let folder = config.state_dir.join(extensions::FOLDER);
    let extensions = Arc::new(Extensions::load(&folder, &loaded.nodes));
    let schema = extensions.schema();
    store.set_schema(Arc::clone(&schema));
    check_own_name(config, &loaded)?;
    let mut keys = Keys::load(&config.keys_dir)?;
    let table: Arc<BootTable> = Arc::default();
    let shelf = config.state_dir.join("images");
    let images = ImageStore::open(shelf, keys.cluster_key(), Arc::clone(&table))?;
    make_run_dir(&config.run_dir)?;
    let token = Token::open(&config.state_dir.join("admin.token"))?;
    let listening = sync::listen(config.sync.address, config.sync.port)
        .await
        .with_context(|| format!("cannot listen on sync port {}", config.sync.port))?;
    let sync_port = listening.port();

    let (reports, reported) = Reports::channel();
    let power = Power::new(reports.clone(), config.power.command.clone())
        .context("cannot make the power module")?;
    let pxe = Pxe::new(reports.clone(), config.boot.window, wall_ms);
    let built_in: Vec<Arc<dyn Module>> = vec![
        Arc::new(Core),
        Arc::new(power.clone()),
        Arc::new(pxe),
        Arc::new(Images),
    ];
    let files = DataFiles::new(reports.clone(), config.state_dir.clone());
    let modules = Arc::new(Modules::new(built_in, files.clone(), reports.clone()));
    modules.set_one_by_one(!config.engine.parallel);
    let folder = config.state_dir.join(modules::FOLDER);
    // Files are put there while the head runs.
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let declared = modules.declared(&folder, &schema)?;

    let (me, epoch) = (loaded.head, loaded.epoch);
    let is_first_start = !loaded.nodes.iter().any(|node| node.id == me);
    let known = last_known(&loaded);
    let clock = Clock::start();
    let (handle, inbox) = driver::channel();
    let engine = build_engine(config, &schema, &mut loaded, &mut keys, clock)?;
    let shared = Shared {
        handle: handle.clone(),
        extensions,
        modules: Arc::clone(&modules),
        requests: Requests::default(),
        feed: Feed::new(loaded.starts),
        pending: HoldingList::default(),
        table,
        stop: CancellationToken::new(),
    };
    let mut vital = Vital::default();
    let store = start_store(config, store, known, handle.clone(), &mut vital)?;
    // The engine's first input: whoever joins is told the whole set.
    say(&handle, Input::Declare(declared)).await?;
    let (sync, children) = listening.serve(
        me,
        config.sync.timers,
        keys,
        &own_addresses(),
        handle.clone(),
    )?;
    let (events, happened) = EventQueue::new(shared.feed.clone());
    let alarms = events.clone();
    let outputs = Outputs {
        store: store.clone(),
        requests: shared.requests.clone(),
        modules: Arc::clone(&modules),
        sync,
        events,
    };
    start_engine(engine, clock, inbox, outputs, &shared.stop, &mut vital);
    if is_first_start {
        add_own_node(config, me, &shared).await?;
    }
    discover_self(me, &handle).await?;

    let setup = Setup {
        modules: Arc::clone(&modules),
        reports,
        handle: handle.clone(),
        schema: shared.extensions.schema_now(),
        clock,
        me,
        name: config.name.clone(),
        run_dir: config.run_dir.clone(),
        stop: shared.stop.clone(),
    };
    let external = External::start(setup, &config.modules).await?;

    let mut book = BootBook::new(Arc::clone(&shared.table), &config.boot);
    book.fill(&handle).await;
    let (extensions, feed) = (Arc::clone(&shared.extensions), shared.feed.clone());
    vital.spawn(
        "events",
        follow_events(
            happened,
            handle.clone(),
            extensions,
            feed,
            book,
            external.clone(),
        ),
    );
    let health = store.health();
    vital.spawn(
        "store alarms",
        health.watch(move |event| alarms.push(event)),
    );
    vital.spawn("reports", forward(reported, handle.clone()));
    vital.spawn(
        "power",
        look_at_power(power, config.power.poll, handle.clone()),
    );
    files.start(handle.clone());
    let read_files = Arc::new(Notify::new());
    let files = watch_files(modules, folder, handle.clone(), Arc::clone(&read_files));
    vital.spawn("mutation files", files);
    vital.spawn("module sockets", external.clone().look_for_sockets());
    vital.spawn("sync connections", children.connections);
    vital.spawn("sync datagrams", children.datagrams);
    vital.spawn("metrics", upkeep(metrics.clone()));
    let boot_plane = start_boot_plane(config, sync_port, &shared, &mut vital)?;
    let pages = Pages {
        handle,
        store: store.health(),
        metrics,
        shown: RailGauges::default(),
    };
    let reloader = Reloader::new(file.to_path_buf(), config, external.clone(), read_files);
    let admin = start_api(
        config,
        pages,
        (Arc::new(images), external.clone(), reloader.clone()),
        token,
        epoch,
        &shared,
    )
    .await?;
    vital.spawn("trials", api::watch_trials(admin));
    let (cluster, version) = (&config.cluster, env!("CARGO_PKG_VERSION"));
    info!(cluster, name = %config.name, epoch, sync_port, version, "kraken-head is ready");
    Ok(Running {
        reloader,
        stop: shared.stop,
        vital,
        boot_plane,
        modules: external,
        store,
    })
}

fn start_metrics() -> anyhow::Result<PrometheusHandle> {
    let name = Matcher::Full("kraken_store_commit_seconds".into());
    PrometheusBuilder::new()
        .set_buckets_for_metric(name, &COMMIT_BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .context("cannot set up metrics")
}

async fn upkeep(metrics: PrometheusHandle) {
    let mut ticks = interval(UPKEEP);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}

fn check_own_name(config: &Config, loaded: &Loaded) -> anyhow::Result<()> {
    let own = loaded.nodes.iter().find(|node| node.id == loaded.head);
    if let Some(own) = own.filter(|own| own.name != config.name) {
        bail!(
            "this head is node {} in its state directory, but the configuration says name = {:?}: a head keeps its name",
            own.name,
            config.name.as_str()
        );
    }
    let is_namesake = |node: &&Node| node.name == config.name && node.id != loaded.head;
    if let Some(namesake) = loaded.nodes.iter().find(is_namesake) {
        bail!(
            "the name {} of this head belongs to another node (id {}): set `name` in the configuration",
            namesake.name,
            namesake.id
        );
    }
    Ok(())
}

fn make_run_dir(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .with_context(|| format!("cannot make the run directory {}", path.display()))
}

fn last_known(loaded: &Loaded) -> BTreeMap<NodeId, Values> {
    let known = |node: &Node| (node.id, node.last_known.dsc.clone());
    loaded.nodes.iter().map(known).collect()
}

fn build_engine(
    config: &Config,
    schema: &Schema,
    loaded: &mut Loaded,
    keys: &mut Keys,
    clock: Clock,
) -> anyhow::Result<Engine> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).context("no random numbers")?;
    let healing = Healing {
        attempts: config.engine.attempts,
        silent_hold: config.engine.silent_hold,
        settle: config.sync.timers.dead * 3,
        ..Healing::default()
    };
    let engine_config = EngineConfig {
        me: loaded.head,
        role: Role::Head {
            epoch: loaded.epoch,
        },
        sync: config.sync.timers,
        healing,
        seed: u64::from_le_bytes(seed),
    };
    let mut engine = Engine::new(engine_config, schema.clone(), clock.now());
    engine.set_guards(config.guards.clone());
    engine.set_costs(config.engine.costs);
    if let Some(signer) = keys.take_signer() {
        engine.set_signer(signer);
    }
    for node in std::mem::take(&mut loaded.nodes) {
        engine.restore_node(node);
    }
    for grant in std::mem::take(&mut loaded.grants) {
        engine.restore_grant(grant);
    }
    for (revision, trial) in std::mem::take(&mut loaded.trials) {
        engine.restore_trial(revision, trial);
    }
    for (key, revision) in std::mem::take(&mut loaded.keys) {
        engine.restore_key(key, revision);
    }
    for memo in std::mem::take(&mut loaded.memos) {
        engine.restore_memo(memo);
    }
    engine.restore_counters(loaded.revision, loaded.last_attempt, loaded.frozen.clone());
    Ok(engine)
}

fn start_store(
    config: &Config,
    store: Sqlite,
    known: BTreeMap<NodeId, Values>,
    handle: Handle,
    vital: &mut Vital,
) -> anyhow::Result<StoreWorker> {
    let runtime = tokio::runtime::Handle::current();
    let (worker, thread) = StoreWorker::start(
        store,
        known,
        config.history,
        wall_ms,
        move |commit, result| {
            let handle = handle.clone();
            // From a thread of its own: waits for room in the engine's queue without holding a task. A head that is stopping hears no
            // more; what was committed is there at the next start.
            let _ = runtime
                .block_on(async move { handle.input(Input::Committed { commit, result }).await });
        },
    )
    .context("cannot start the store's thread")?;
    vital.watch("store", thread);
    Ok(worker)
}

fn start_engine(
    engine: Engine,
    clock: Clock,
    inbox: Inbox,
    outputs: Outputs,
    stop: &CancellationToken,
    vital: &mut Vital,
) {
    let stop = stop.clone();
    vital.spawn("engine", async move {
        let stopped = stop.cancelled();
        let perform = |output| outputs.carry_out(output);
        let mut engine = driver::run(engine, clock, inbox, perform, stopped).await;
        engine.remember_now(clock.now());
        while let Some(output) = engine.poll_output() {
            if matches!(output, Output::Remember(_)) {
                outputs.carry_out(output);
            }
        }
    });
}

/// Addresses of this machine, for the head's certificate. Agents pin the CA and the name, so one that comes later is no trouble.
fn own_addresses() -> Vec<IpAddr> {
    let mut addresses = BTreeSet::from([IpAddr::from([127, 0, 0, 1])]);
    match nix::ifaddrs::getifaddrs() {
        Ok(found) => {
            for address in found.filter_map(|interface| interface.address) {
                let v4 = address.as_sockaddr_in();
                let v6 = address.as_sockaddr_in6();
                addresses.extend(v4.map(|address| IpAddr::V4(address.ip())));
                addresses.extend(v6.map(|address| IpAddr::V6(address.ip())));
            }
        }
        Err(error) => {
            warn!(%error, "cannot list this machine's addresses for the head's certificate");
        }
    }
    addresses.into_iter().collect()
}

async fn say(handle: &Handle, input: Input) -> anyhow::Result<()> {
    handle.input(input).await.context("the engine has stopped")
}

async fn add_own_node(config: &Config, me: NodeId, shared: &Shared) -> anyhow::Result<()> {
    let (request, answer) = shared.requests.write();
    let node = Node::new(me, config.name.clone(), None);
    let write = Write {
        request,
        author: "kraken-head".into(),
        reason: "first start".into(),
        if_revision: 0,
        key: None,
        now_ms: wall_ms(),
        ops: vec![WriteOp::Add(Box::new(node))],
    };
    say(&shared.handle, Input::Write(write)).await?;
    timeout(FIRST_WRITE_TIMEOUT, answer)
        .await
        .context("the store does not answer")?
        .context("the engine has stopped")?
        .context("cannot write the head's own node")?;
    info!(name = %config.name, id = %me, "first start: the head's own node is made");
    Ok(())
}

async fn discover_self(me: NodeId, handle: &Handle) -> anyhow::Result<()> {
    let known = [
        (core::PHYS_STATE, core::POWER_ON),
        (core::RUN_STATE, core::SYNC),
    ];
    let changes = known
        .into_iter()
        .map(|(url, value)| Ok(Change::set(url.parse()?, Value::from(value))))
        .collect::<Result<Vec<_>, engine::state::UrlError>>()?;
    let discovery = Discovery {
        node: me,
        source: "head".into(),
        changes,
    };
    say(handle, Input::Discover(discovery)).await
}

/// Carries what modules report to the engine.
async fn forward(mut reported: mpsc::Receiver<Input>, handle: Handle) {
    while let Some(input) = reported.recv().await {
        if handle.input(input).await.is_err() {
            return;
        }
    }
}

/// Looks at every node with power control, again and again.
async fn look_at_power(power: Power, every: Duration, handle: Handle) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let read = handle.query(|engine, _| {
            let nodes = engine.tree().iter();
            nodes.filter_map(Observed::of).collect::<Vec<_>>()
        });
        let Ok(nodes) = read.await else { return };
        power.look(nodes, every);
    }
}

fn start_boot_plane(
    config: &Config,
    sync_port: u16,
    shared: &Shared,
    vital: &mut Vital,
) -> anyhow::Result<TaskTracker> {
    let files = config.boot.loaders.iter();
    let loaders = Loaders::read(files.map(|(arch, path)| (*arch, path.as_path())))
        .context("the first-stage loaders cannot be used")?;
    let is_used = !config.boot.interfaces.is_empty();
    for path in [&config.boot.kernel, &config.boot.initramfs] {
        if is_used && !path.is_file() {
            warn!(path = %path.display(), "this file is not there: nodes cannot boot");
        }
    }
    let names = config.boot.interfaces.iter();
    let plane = BootPlaneConfig {
        interfaces: names.map(|name| name.as_str().into()).collect(),
        http_port: config.boot.http_port,
        sync_port,
        loaders,
    };
    let table = Arc::clone(&shared.table);
    let (events, tasks) = boot::start(&plane, Arc::clone(&table), &shared.stop);
    let (handle, requests) = (shared.handle.clone(), shared.requests.clone());
    let listening = boot_link::listen(events, table, handle, requests, shared.pending.clone());
    if is_used {
        vital.spawn("boot events", listening);
    }
    Ok(tasks)
}

async fn start_api(
    config: &Config,
    pages: Pages,
    (images, external, reloader): (Arc<ImageStore>, External, Reloader),
    token: Token,
    epoch: u64,
    shared: &Shared,
) -> anyhow::Result<Admin> {
    let admin = Admin::new(Parts {
        handle: shared.handle.clone(),
        requests: shared.requests.clone(),
        extensions: Arc::clone(&shared.extensions),
        modules: Arc::clone(&shared.modules),
        mutation_files: config.state_dir.join(modules::FOLDER),
        feed: shared.feed.clone(),
        pending: shared.pending.clone(),
        images,
        external,
        reloader,
        history: History::of(&config.state_dir),
        cluster: config.cluster.clone(),
        epoch,
    });
    let faces = Faces::new(admin.clone(), pages, token, shared.stop.clone()).await?;
    for listener in api::activated()? {
        faces.serve_tcp(listener)?;
    }
    if let Some(address) = config.api.listen {
        faces.serve_tcp(api::bind(address).await?)?;
    }
    faces.serve_unix(&config.run_dir.join("api.sock"))?;
    Ok(admin)
}
