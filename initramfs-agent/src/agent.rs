//! The agent: boot as a list of named phases, then the engine, for as long as the process lives.
//!
//! ```text
//!   modules ─▶ network ─▶ clock ─▶ randomness ─▶ identity ─▶ engine ⇄ join, modules, jobs
//! ```
//!
//! Each phase says on the console what it did and how long it took, or what it waits for and what to do about it. All of them can be
//! gone through again by the next agent, which finds most of the work done.

use std::fs;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use engine::Engine;
use engine::driver::{self, Clock, Handle};
use engine::engine::{EngineConfig, Role};
use engine::event::{ConnId, Event, Fire, Input, MutationEvent, Output};
use engine::mutation::progress::Healing;
use engine::sync::SyncConfig;
use tokio::net::UdpSocket;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::cmdline::{self, BootParams};
use crate::drivers::{self, Index};
use crate::identity::{Cluster, Identity};
use crate::image::process::STOP_LIMIT;
use crate::join::{self, Joiner, Links};
use crate::kmsg::Kmsg;
use crate::log::{self, Lines};
use crate::modules::{Attached, Reporter, external, host, image, schema};
use crate::net::{dhcp, netlink::Netlink, plan::Wanted};
use crate::pid1::{BUSY, MODULES, RUN_DIR, agent::HEARTBEAT, signals};
use crate::{busy, clock};

/// Where the initramfs keeps what is the same for every node.
const ETC_DIR: &str = "/etc/kraken";
/// Time that an interface and its carrier have to show up, before it is said and tried again.
const LINK_LIMIT: Duration = Duration::from_secs(15);
/// Wait before a phase that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Time for the image to stop when the machine ends: its own limit, and some for the kernel.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(STOP_LIMIT.as_secs() + 3);

/// How the agent was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Under PID 1, with a machine of its own; else as a plain process for tests.
    pub(crate) owns_machine: bool,
    /// Starts since the machine booted.
    pub(crate) starts: u32,
    /// Directory for what outlives an agent.
    pub(crate) run_dir: PathBuf,
    /// Directory with the cluster's keys and the grant.
    pub(crate) etc_dir: PathBuf,
    /// The command line; `None`: the kernel's.
    pub(crate) cmdline: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            owns_machine: true,
            starts: 1,
            run_dir: PathBuf::from(RUN_DIR),
            etc_dir: PathBuf::from(ETC_DIR),
            cmdline: None,
        }
    }
}

/// Runs until told to end, or until something makes it impossible.
pub(crate) fn run(options: &Options) -> Result<()> {
    signals::unblock_all();
    // What `ps` shows; the program itself is called init.
    let _ = nix::sys::prctl::set_name(c"kraken-agent");
    // Asking makes the kernel gather randomness, which takes a second on a machine without a generator: while drivers load, nobody waits.
    let random = std::thread::spawn(|| getrandom::u32().is_ok());
    let line = match &options.cmdline {
        Some(line) => line.clone(),
        None => fs::read_to_string("/proc/cmdline").context("cannot read the command line")?,
    };
    let (params, ignored) = cmdline::parse(&line);
    let kmsg = if options.owns_machine {
        Kmsg::open()
    } else {
        Kmsg::stderr()
    };
    let lines = log::install(kmsg, params.debug);
    report_panics(options.owns_machine);
    ignored
        .iter()
        .for_each(|word| warn!("command line: {word}"));
    if options.owns_machine {
        // The kernel shall look elsewhere first when memory runs out, but not at PID 1.
        let _ = fs::write("/proc/self/oom_score_adj", "-900");
        // Keys in this memory are nobody else's to read (threat S4).
        let _ = nix::sys::prctl::set_dumpable(false);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let agent = Agent {
        options: options.clone(),
        params,
        lines,
    };
    runtime.block_on(agent.live(random))
}

/// The next agent starts in a moment; the reason goes where people look.
fn report_panics(owns_machine: bool) {
    std::panic::set_hook(Box::new(move |panic| {
        let kmsg = if owns_machine {
            Kmsg::open()
        } else {
            Kmsg::stderr()
        };
        kmsg.line(
            crate::kmsg::Level::Error,
            &format!("the agent panics: {panic}"),
        );
    }));
}

struct Agent {
    options: Options,
    params: BootParams,
    lines: Lines,
}

impl Agent {
    async fn live(self, random: JoinHandle<bool>) -> Result<()> {
        let node = self.params.node.as_deref().unwrap_or("?");
        let starts = self.options.starts;
        info!(node, starts, "agent {} starts", env!("CARGO_PKG_VERSION"));
        if self.options.owns_machine {
            tokio::spawn(beat());
            self.phase("modules", self.load_modules()).await?;
            self.phase("network", self.configure_network()).await?;
        }
        let cluster = self.phase("clock", self.check_clock()).await?;
        self.phase("randomness", wait_for_randomness(random))
            .await?;
        let identity = self.phase("identity", self.establish_identity()).await?;
        self.follow(cluster, identity).await
    }

    /// Runs one phase of the boot and says how it went.
    async fn phase<T>(&self, name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let begun = Instant::now();
        let result = work.await;
        let ms = begun.elapsed().as_millis();
        match &result {
            Ok(_) => info!("phase {name}: done in {ms} ms"),
            Err(error) => error!("phase {name}: failed after {ms} ms: {error:#}"),
        }
        result
    }

    /// Drivers for what the machine has. An agent that comes second finds them loaded.
    async fn load_modules(&self) -> Result<()> {
        let done = self.options.run_dir.join("modules.done");
        if done.exists() {
            return Ok(());
        }
        let load = || {
            let dir = drivers::kernel_dir()?;
            let index = Index::read(&dir)?;
            std::io::Result::Ok(drivers::load_for_hardware(&index, &dir))
        };
        match tokio::task::spawn_blocking(load).await? {
            Ok(loaded) => {
                if !loaded.names.is_empty() {
                    info!("kernel modules: {}", loaded.names.join(" "));
                }
                loaded.failed.iter().for_each(|why| warn!("{why}"));
            }
            // A kernel with everything built in has none.
            Err(error) => warn!("no kernel modules: {error}"),
        }
        fs::write(done, "").context("cannot write to the agent's directory")
    }

    /// Waits until the node has its address, however long that takes: without it nothing else can be done.
    async fn configure_network(&self) -> Result<()> {
        let netlink = Netlink::open()?;
        loop {
            match self.try_network(&netlink).await {
                Ok(()) => return Ok(()),
                Err(error) => warn!("network: {error:#}; trying again in {AGAIN:?}"),
            }
            sleep(AGAIN).await;
        }
    }

    async fn try_network(&self, netlink: &Netlink) -> Result<()> {
        let (present, link) = netlink.wait_for(self.params.mac, LINK_LIMIT).await?;
        debug!("network: {} is there", link.name);
        netlink.carry_out(&present.steps_up(link.index)).await?;
        if !netlink.wait_for_carrier(link.index, LINK_LIMIT).await? {
            warn!(
                "network: {} has no carrier; is its cable plugged in?",
                link.name
            );
        }
        debug!("network: {} is up", link.name);
        let (address, gateway) = match self.params.address {
            Some(address) => (address, self.params.gateway),
            None => {
                let mac = link
                    .mac
                    .context("the interface has no link-layer address")?;
                info!("network: asking DHCP on {} ({mac})", link.name);
                let (client, lease) = dhcp::obtain(&link.name, mac, chance() as u32).await?;
                tokio::spawn(keep_lease(netlink.clone(), link.index, client));
                (lease.address, lease.gateway)
            }
        };
        let wanted = Wanted {
            link: link.index,
            address,
            gateway,
        };
        netlink.bring_to(&wanted).await?;
        info!("network: {} has {address}", link.name);
        Ok(())
    }

    /// Reads the cluster's keys, and sets a clock that stands before the initramfs was built.
    async fn check_clock(&self) -> Result<Cluster> {
        let cluster = Cluster::read(&self.options.etc_dir)?;
        if self.options.owns_machine && SystemTime::now() < cluster.built {
            warn!(
                "clock: it is behind the time when this initramfs was built; is the battery empty? It is set to that time"
            );
            if let Err(error) = clock::set(cluster.now()) {
                warn!(%error, "clock: it cannot be set");
            }
        }
        Ok(cluster)
    }

    async fn establish_identity(&self) -> Result<Identity> {
        use std::os::unix::fs::DirBuilderExt;
        let run = &self.options.run_dir;
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(run);
        made.with_context(|| format!("cannot make {}", run.display()))?;
        let identity = Identity::establish(&self.options.etc_dir, run)?;
        if self.params.id.is_some_and(|id| identity.node != id.into()) {
            warn!(
                "the grant is for node {}, the command line says otherwise; the grant is right",
                identity.node
            );
        }
        Ok(identity)
    }

    /// The engine and all that serves it, until a signal ends the process.
    async fn follow(self, cluster: Cluster, identity: Identity) -> Result<()> {
        let (engine, inbox) = driver::channel();
        let clock = Clock::start();
        let me = identity.node;
        let config = EngineConfig {
            me,
            role: Role::Agent,
            sync: SyncConfig::default(),
            healing: Healing::default(),
            seed: chance(),
        };
        let mut machine = Engine::new(config, schema::schema(), clock.now());
        machine.set_cluster_key(cluster.key);

        let (sessions, attached) = Attached::channel();
        let reporter = Reporter::new(engine.clone(), me);
        let facts = host::Facts {
            boot: identity.boot.to_string(),
            starts: self.options.starts,
        };
        let setup = image::Setup {
            http: self.params.http,
            run_dir: self.options.run_dir.clone(),
            cluster_key: cluster.key,
        };
        let (images, mailbox) = mpsc::channel(image::MAILBOX);
        let module = image::ImageModule::new(setup, reporter.clone()).await;
        tokio::spawn(module.run(mailbox, attached.clone()));
        tokio::spawn(host::run(facts, reporter.clone(), attached.clone()));
        tokio::spawn(watch_jobs(
            self.options.run_dir.join(BUSY),
            reporter.clone(),
            attached.clone(),
        ));

        let hub = external::Hub::new(
            engine.clone(),
            clock,
            me,
            reporter.clone(),
            attached.clone(),
        );
        tokio::spawn(hub.clone().run(self.options.run_dir.join(MODULES)));

        let socket = Arc::new(udp_socket(&self.params.parents).await?);
        let links = Arc::new(Mutex::new(Links::new(Arc::clone(&socket))));
        tokio::spawn(join::receive(socket, Arc::clone(&links), engine.clone()));
        let joiner = Arc::new(Joiner {
            engine: engine.clone(),
            cluster,
            identity: Mutex::new(identity),
            parents: Mutex::new(self.params.parents.clone()),
            links: Arc::clone(&links),
            attached: sessions,
            lines: self.lines.clone(),
            jobs: self.options.run_dir.join(BUSY),
            owns_clock: self.options.owns_machine,
            joined_file: self.options.run_dir.join("joined"),
        });
        let performer = Performer {
            engine,
            joiner,
            links,
            images: images.clone(),
            hub,
            connections: AtomicU64::new(1),
        };
        let stop_images = self.options.owns_machine;
        driver::run(
            machine,
            clock,
            inbox,
            |output| performer.perform(output),
            told_to_end(images, stop_images),
        )
        .await;
        Ok(())
    }
}

/// Passes the engine's outputs on. Nothing in here waits.
struct Performer {
    engine: Handle,
    joiner: Arc<Joiner>,
    links: Arc<Mutex<Links>>,
    images: mpsc::Sender<image::Message>,
    hub: external::Hub,
    connections: AtomicU64,
}

impl Performer {
    fn perform(&self, output: Output) {
        match output {
            Output::Send { session, frame } => self.links().send(session, &frame),
            Output::EndSession { session, why, .. } => {
                debug!("session ended: {why}");
                self.links().remove(session);
            }
            Output::Attach { attempt } => {
                let conn = ConnId(self.connections.fetch_add(1, Ordering::Relaxed));
                tokio::spawn(join::attach(Arc::clone(&self.joiner), conn, attempt));
            }
            Output::Fire(fire) => self.fire(fire),
            Output::Interrupt {
                mutation, attempt, ..
            } => {
                if mutation.module() != "image" {
                    return self.hub.interrupt(&mutation, attempt);
                }
                let message = image::Message::Interrupt(mutation, attempt);
                if self.images.try_send(message).is_err() {
                    warn!("the image module is stuck");
                }
            }
            Output::Event(event) => {
                if matches!(event, Event::Cfg { .. }) {
                    self.hub.configure();
                }
                tell(&event);
            }
            // A head's work.
            Output::Commit { .. }
            | Output::Written { .. }
            | Output::Grant { .. }
            | Output::Declared { .. }
            | Output::Remember(_)
            | Output::Join { .. } => {}
        }
    }

    fn links(&self) -> std::sync::MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fire(&self, fire: Fire) {
        let (node, mutation, attempt) = (fire.node, fire.mutation.clone(), fire.attempt);
        let refused = match mutation.module() {
            "image" => match self.images.try_send(image::Message::Fire(Box::new(fire))) {
                Ok(()) => return,
                Err(_) => "the image module is stuck".to_owned(),
            },
            _ => match self.hub.fire(fire) {
                Ok(()) => return,
                Err(why) => why,
            },
        };
        let input = Input::MutationFailed {
            node,
            mutation,
            attempt,
            text: refused,
        };
        if !self.engine.try_input(input) {
            warn!("the engine is flooded");
        }
    }
}

fn tell(event: &Event) {
    match event {
        Event::Mutation { mutation, what, .. } => match what {
            MutationEvent::Fired { ours: true } => debug!(%mutation, "fired"),
            MutationEvent::Fired { ours: false } => debug!(%mutation, "awaited"),
            MutationEvent::Done { elapsed_ms } => info!(%mutation, elapsed_ms, "done"),
            MutationEvent::Failed { text } => warn!(%mutation, "failed: {text}"),
            MutationEvent::Interrupted => info!(%mutation, "interrupted"),
        },
        Event::Parked { reason, .. } => error!("this node cannot go on: {reason}"),
        Event::Unparked { .. } => info!("this node goes on"),
        Event::Alarm { text, .. } => warn!("{text}"),
        Event::Refused { why, .. } => warn!("refused: {why}"),
        Event::Join {
            text, alarm: true, ..
        } => warn!("{text}"),
        Event::Join { text, .. } => info!("{text}"),
        Event::Node { .. } | Event::Deleted { .. } | Event::Cfg { .. } | Event::Dsc { .. } => {
            debug!(?event, "event")
        }
    }
}

/// Tells PID 1 that this process is not stuck. A pipe that is full or gone is no reason to die.
async fn beat() {
    loop {
        let mut pipe = std::io::stdout();
        let _ = pipe.write_all(b".").and_then(|()| pipe.flush());
        sleep(HEARTBEAT).await;
    }
}

async fn watch_jobs(dir: PathBuf, reporter: Reporter, attached: Attached) {
    busy::run(Path::new(&dir), reporter, attached).await;
}

async fn keep_lease(netlink: Netlink, link: u32, mut client: dhcp::Running) {
    loop {
        let Some(lease) = client.changed().await else {
            warn!(
                "network: DHCP takes our address back; it stays until there is another, for jobs may use it"
            );
            continue;
        };
        info!("network: DHCP gives {}", lease.address);
        let wanted = Wanted {
            link,
            address: lease.address,
            gateway: lease.gateway,
        };
        if let Err(error) = netlink.bring_to(&wanted).await {
            error!("network: {error:#}");
        }
    }
}

async fn udp_socket(parents: &[SocketAddr]) -> Result<UdpSocket> {
    let any = if parents.first().is_some_and(SocketAddr::is_ipv6) {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    UdpSocket::bind(any).await.context("no UDP socket")
}

/// SIGTERM of PID 1 means that the machine ends: the image goes first. A plain process just ends.
async fn told_to_end(images: mpsc::Sender<image::Message>, stop_images: bool) {
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        error!("no signals: this agent ends only by force");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    info!("told to end");
    if stop_images {
        let (done, stopped) = oneshot::channel();
        if images.send(image::Message::Shutdown(done)).await.is_ok()
            && timeout(SHUTDOWN_LIMIT, stopped).await.is_err()
        {
            error!("the image does not stop in time");
        }
    }
}

/// Keys must not be guessed, so they wait for the kernel (fault F61); the heart beats meanwhile.
async fn wait_for_randomness(ready: JoinHandle<bool>) -> Result<()> {
    let mut told = Instant::now();
    while !ready.is_finished() {
        if told.elapsed() > AGAIN {
            warn!(
                "waiting for random numbers; a virtual machine gets them at once with a virtio-rng device or a CPU that has RDRAND"
            );
            told = Instant::now();
        }
        sleep(Duration::from_millis(5)).await;
    }
    anyhow::ensure!(
        ready.join().unwrap_or(false),
        "the kernel gives no random numbers"
    );
    Ok(())
}

/// A number that differs from node to node and from boot to boot, for jitter and transaction ids. Never blocks, keeps no secret.
fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}
