//! A head's life: start in order, run until told to stop, end within five seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use engine::Engine;
use engine::driver::{self, Clock, Handle, wall_ms};
use engine::engine::{EngineConfig, Role};
use engine::event::{Discovery, Input, Write, WriteOp};
use engine::extension::Schema;
use engine::mutation::progress::Healing;
use engine::state::{Change, Node, NodeId, Value, core};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

use crate::api::{self, Admin, Faces, Feed, Pages, Parts, Token};
use crate::boot::{self, BootPlaneConfig, BootTable, Loaders};
use crate::boot_link::{self, BootBook};
use crate::config::Config;
use crate::modules::{Core, ImageStore, Images, Modules, Observed, Power, Pxe, Reports};
use crate::outputs::{EventQueue, Outputs, follow_events};
use crate::pending::HoldingList;
use crate::requests::Requests;
use crate::store::{Loaded, Sqlite, StoreWorker};
use crate::sync::{self, Keys};

/// All tasks have this long to end; with the store's last transaction it stays under five seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Time to write the head's own node at the first start.
const FIRST_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a head until SIGTERM or SIGINT.
pub(crate) fn main(config: Config, file: &Path) -> ExitCode {
    start_log(&config);
    log_panics();
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        error!("a TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(config, file));
    runtime.shutdown_timeout(Duration::from_millis(500));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(config: &Config) {
    let filter = EnvFilter::try_new(&config.log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A second subscriber in one process is a test's; its choice stands.
    let _ = match config.log.json {
        true => log.json().flatten_event(true).try_init(),
        false => log
            .with_ansi(is_terminal && std::env::var_os("NO_COLOR").is_none())
            .try_init(),
    };
}

/// A task that panics ends alone; the line names it. The engine's own end stops the process, see `run`.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let payload = panic.payload();
        let text = (payload.downcast_ref::<&str>().copied())
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no text");
        error!(place, text, "panic: this is a bug in kraken-head");
        metrics::counter!("kraken_panics_total").increment(1);
    }));
}

async fn run(config: Config, file: &Path) -> anyhow::Result<()> {
    let metrics = PrometheusBuilder::new()
        .install_recorder()
        .context("cannot set up metrics")?;
    let stop = CancellationToken::new();
    let schema = Arc::new(Schema::built_in());
    let (store, mut loaded) = Sqlite::open(&config.state_dir, Arc::clone(&schema))?;
    check_own_name(&config, &loaded)?;
    let mut keys = Keys::load(&config.keys_dir)?;
    let table: Arc<BootTable> = Arc::default();
    let images = ImageStore::open(
        config.state_dir.join("images"),
        keys.cluster_key(),
        Arc::clone(&table),
    )?;
    let images = Arc::new(images);
    make_run_dir(&config.run_dir)?;
    let token = Token::open(&config.state_dir.join("admin.token"))?;
    let loaders = Loaders::read(
        config
            .boot
            .loaders
            .iter()
            .map(|(arch, path)| (*arch, path.as_path())),
    )
    .context("the first-stage loaders cannot be used")?;
    let listening = sync::listen(config.sync.address, config.sync.port)
        .await
        .with_context(|| format!("cannot listen on sync port {}", config.sync.port))?;
    let sync_port = listening.port();

    let (reports, reported) = Reports::channel();
    let power = Power::new(reports.clone(), config.power.command.clone())
        .context("cannot make the power module")?;
    let pxe = Pxe::new(reports, config.boot.window, wall_ms);
    let modules = Modules::new(vec![
        Arc::new(Core),
        Arc::new(power.clone()),
        Arc::new(pxe),
        Arc::new(Images),
    ]);
    let declared = modules.declared(&config.state_dir.join("mutations"), &schema)?;

    let (head, epoch) = (loaded.head, loaded.epoch);
    let own_node_exists = loaded.nodes.iter().any(|node| node.id == head);
    let clock = Clock::start();
    let (handle, inbox) = driver::channel();
    let known = loaded
        .nodes
        .iter()
        .map(|node| (node.id, node.last_known.dsc.clone()))
        .collect::<BTreeMap<_, _>>();
    let engine = build_engine(&config, &schema, &mut loaded, &mut keys, clock)?;
    let (store, store_thread) = start_store(store, known, handle.clone())?;
    let sync = listening.serve(
        head,
        config.sync.timers,
        keys,
        &own_addresses(),
        handle.clone(),
    )?;
    let requests = Requests::default();
    let feed = Feed::new(epoch);
    let (events, heard) = EventQueue::new(feed.clone());
    let outputs = Outputs {
        store: store.clone(),
        requests: requests.clone(),
        modules: Arc::new(modules),
        sync,
        events,
    };
    let engine = {
        let stop = stop.clone();
        tokio::spawn(async move {
            driver::run(
                engine,
                clock,
                inbox,
                |output| outputs.carry_out(output),
                stop.cancelled(),
            )
            .await;
        })
    };

    // From here on the engine answers; its first inputs are its mutations and what the head knows of itself.
    say(&handle, Input::Declare(declared)).await?;
    if !own_node_exists {
        add_own_node(&config, head, &handle, &requests).await?;
    }
    discover_self(head, &handle).await?;
    let mut book = BootBook::new(
        Arc::clone(&table),
        config.boot.kernel.clone(),
        config.boot.initramfs.clone(),
        config.boot.append.clone(),
    );
    book.fill(&handle).await;
    tokio::spawn(follow_events(
        heard,
        handle.clone(),
        Arc::clone(&schema),
        feed.clone(),
        book,
    ));
    tokio::spawn(forward(reported, handle.clone()));
    tokio::spawn(look_at_power(power, config.power.poll, handle.clone()));
    let pending = HoldingList::default();
    let plane = start_boot_plane(
        &config, loaders, sync_port, table, &stop, &handle, &requests, &pending,
    );

    let pages = Pages {
        handle: handle.clone(),
        store: store.health(),
        metrics,
    };
    let cluster = config.cluster.clone();
    let admin = Admin::new(Parts {
        handle,
        requests,
        schema,
        feed,
        pending,
        images,
        cluster,
        epoch,
    });
    let faces = Faces::new(admin, pages, token, stop.clone()).await?;
    for listener in api::activated()? {
        faces.serve_tcp(listener)?;
    }
    if let Some(address) = config.api.listen {
        faces.serve_tcp(api::bind(address).await?)?;
    }
    faces.serve_unix(&config.run_dir.join("api.sock"))?;
    info!(cluster = config.cluster, name = %config.name, epoch, sync_port, version = env!("CARGO_PKG_VERSION"), "kraken-head is ready");

    let ended = wait(engine, file).await;
    stop.cancel();
    if timeout(STOP_TIMEOUT, plane.wait()).await.is_err() {
        warn!("the boot plane does not end in time");
    }
    store.stop();
    if tokio::task::spawn_blocking(move || store_thread.join())
        .await
        .is_ok_and(|joined| joined.is_err())
    {
        error!("the store's thread panicked");
    }
    // A socket without a server behind it would make clients wait.
    let _ = std::fs::remove_file(config.run_dir.join("api.sock"));
    info!("kraken-head has stopped");
    ended
}

/// Until a signal, or the end of the engine, which only a bug can bring about.
async fn wait(engine: tokio::task::JoinHandle<()>, file: &Path) -> anyhow::Result<()> {
    let watch = |kind| signal(kind).context("cannot watch for signals");
    let (mut term, mut int, mut hup) = (
        watch(SignalKind::terminate())?,
        watch(SignalKind::interrupt())?,
        watch(SignalKind::hangup())?,
    );
    tokio::pin!(engine);
    loop {
        tokio::select! {
            _ = term.recv() => return told("SIGTERM"),
            _ = int.recv() => return told("SIGINT"),
            () = heard(&mut hup) => check_again(file),
            ended = &mut engine => {
                let why = ended.err().map_or_else(|| "its loop ended".to_owned(), |error| error.to_string());
                bail!("the engine has stopped ({why}): this is a bug; restart kraken-head, nodes keep running meanwhile");
            }
        }
    }
}

fn told(signal: &str) -> anyhow::Result<()> {
    info!(signal, "stopping");
    Ok(())
}

async fn heard(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// SIGHUP: says what the next start would make of the file. Nothing is reloaded.
fn check_again(file: &Path) {
    match Config::read(file) {
        Ok(_) => {
            info!(file = %file.display(), "the configuration is good; it is read at the next start")
        }
        Err(error) => {
            error!(file = %file.display(), %error, "the configuration is not good; this head goes on with the one it has")
        }
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
    let namesake = loaded
        .nodes
        .iter()
        .find(|node| node.name == config.name && node.id != loaded.head);
    if let Some(namesake) = namesake {
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
    if let Some(signer) = keys.take_signer() {
        engine.set_signer(signer);
    }
    for node in std::mem::take(&mut loaded.nodes) {
        engine.restore_node(node);
    }
    for grant in std::mem::take(&mut loaded.grants) {
        engine.restore_grant(grant);
    }
    engine.restore_counters(loaded.revision, loaded.last_attempt, loaded.frozen);
    Ok(engine)
}

fn start_store(
    store: Sqlite,
    known: BTreeMap<NodeId, engine::state::Values>,
    handle: Handle,
) -> anyhow::Result<(StoreWorker, std::thread::JoinHandle<()>)> {
    let runtime = tokio::runtime::Handle::current();
    StoreWorker::start(store, known, wall_ms, move |commit, result| {
        let handle = handle.clone();
        // From a thread of its own: waits for room in the engine's queue without holding a task.
        let told = runtime
            .block_on(async move { handle.input(Input::Committed { commit, result }).await });
        if told.is_err() {
            // The head is stopping; what was committed is there at the next start.
        }
    })
    .context("cannot start the store's thread")
}

/// Addresses of this machine, for the head's certificate. Agents pin the CA and the name, so one that comes later is no trouble.
fn own_addresses() -> Vec<IpAddr> {
    let mut addresses = BTreeSet::from([IpAddr::from([127, 0, 0, 1])]);
    match nix::ifaddrs::getifaddrs() {
        Ok(found) => {
            for interface in found {
                let Some(address) = interface.address else {
                    continue;
                };
                addresses.extend(
                    address
                        .as_sockaddr_in()
                        .map(|address| IpAddr::V4(address.ip())),
                );
                addresses.extend(
                    address
                        .as_sockaddr_in6()
                        .map(|address| IpAddr::V6(address.ip())),
                );
            }
        }
        Err(error) => {
            warn!(%error, "cannot list this machine's addresses for the head's certificate")
        }
    }
    addresses.into_iter().collect()
}

async fn say(handle: &Handle, input: Input) -> anyhow::Result<()> {
    handle.input(input).await.context("the engine has stopped")
}

async fn add_own_node(
    config: &Config,
    head: NodeId,
    handle: &Handle,
    requests: &Requests,
) -> anyhow::Result<()> {
    let (request, answer) = requests.write();
    let node = Node::new(head, config.name.clone(), None);
    let write = Write {
        request,
        author: "kraken-head".into(),
        reason: "first start".into(),
        if_revision: 0,
        now_ms: wall_ms(),
        ops: vec![WriteOp::Add(Box::new(node))],
    };
    say(handle, Input::Write(write)).await?;
    let written = timeout(FIRST_WRITE_TIMEOUT, answer)
        .await
        .context("the store does not answer")?;
    written
        .context("the engine has stopped")?
        .context("cannot write the head's own node")?;
    info!(name = %config.name, id = %head, "first start: the head's own node is made");
    Ok(())
}

async fn discover_self(head: NodeId, handle: &Handle) -> anyhow::Result<()> {
    let known = [
        (core::PHYS_STATE, core::POWER_ON),
        (core::RUN_STATE, core::SYNC),
    ];
    let changes = known
        .into_iter()
        .map(|(url, value)| Ok(Change::set(url.parse()?, Value::from(value))))
        .collect::<Result<Vec<_>, engine::state::UrlError>>()?;
    say(
        handle,
        Input::Discover(Discovery {
            node: head,
            source: "head",
            changes,
        }),
    )
    .await
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
            engine
                .tree()
                .iter()
                .filter_map(Observed::of)
                .collect::<Vec<_>>()
        });
        let Ok(nodes) = read.await else { return };
        power.look(nodes, every);
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "wiring of the whole boot plane, called once"
)]
fn start_boot_plane(
    config: &Config,
    loaders: Loaders,
    sync_port: u16,
    table: Arc<BootTable>,
    stop: &CancellationToken,
    handle: &Handle,
    requests: &Requests,
    pending: &HoldingList,
) -> TaskTracker {
    let plane = BootPlaneConfig {
        interfaces: config
            .boot
            .interfaces
            .iter()
            .map(|name| name.as_str().into())
            .collect(),
        http_port: config.boot.http_port,
        sync_port,
        loaders,
    };
    let (events, tasks) = boot::start(&plane, table, stop);
    tokio::spawn(boot_link::listen(
        events,
        handle.clone(),
        requests.clone(),
        pending.clone(),
    ));
    tasks
}
