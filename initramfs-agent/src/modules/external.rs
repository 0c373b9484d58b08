//! Modules on this node that are programs of their own: whoever listens on `modules.d/NAME.sock` is dialed (proto/kraken/v1/module.proto).
//!
//! The directory shows in the image at the same place, so modules run there with all their libraries. What one may say is decided by
//! `engine::wire::module`; here is only the connection. Mutations are planned by what the head declares: a mutation file without command.
//! Nothing is started here; a module that ends is dialed again when it listens again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use engine::driver::{Clock, Handle};
use engine::event::{Fire, Input};
use engine::mutation::MutationId;
use engine::state::{Change, NodeId, StateUrl, Value};
use engine::wire::convert::{mutate_to_proto, values_to_proto};
use engine::wire::module::{ModuleEvent, ModuleHost, Place};
use proto::v1::module_client::ModuleClient;
use proto::v1::{self, FromModule, ToModule};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::{Attached, Reporter};
use crate::join::http2;

/// How often the directory is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Most modules on one node.
const MAX_MODULES: usize = 16;
/// Messages that a module has not read yet; one that reads no more is cut.
const MAX_WAITING: usize = 64;
/// Values that a module may report a second: a node has few, and the link to the head many nodes.
const VALUES_A_SECOND: u32 = 200;
/// Time for a listening module to take the connection and the call.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait after a failure; the first one is a second.
const REST_MAX: Duration = Duration::from_secs(60);
/// Longest name of a module.
const MAX_NAME: usize = 32;

enum Order {
    Fire(Box<Fire>),
    Interrupt(MutationId, u64),
    Configure,
}

/// All modules that are connected. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Hub {
    engine: Handle,
    clock: Clock,
    me: NodeId,
    reporter: Reporter,
    attached: Attached,
    connected: Arc<Mutex<BTreeMap<String, mpsc::Sender<Order>>>>,
}

impl Hub {
    /// No modules yet.
    pub(crate) fn new(
        engine: Handle,
        clock: Clock,
        me: NodeId,
        reporter: Reporter,
        attached: Attached,
    ) -> Self {
        Self {
            engine,
            clock,
            me,
            reporter,
            attached,
            connected: Arc::default(),
        }
    }

    /// Hands a mutation to its module. Why not, if there is none.
    pub(crate) fn fire(&self, fire: Fire) -> Result<(), String> {
        let name = fire.mutation.module().to_owned();
        let Some(module) = self.lock().get(&name).cloned() else {
            return Err(format!(
                "no module {name} on this node: it has to listen on /run/kraken/modules.d/{name}.sock"
            ));
        };
        let sent = module.try_send(Order::Fire(Box::new(fire)));
        sent.map_err(|_| format!("the module {name} is stuck"))
    }

    /// Hands an interrupt to its module.
    pub(crate) fn interrupt(&self, mutation: &MutationId, attempt: u64) {
        if let Some(module) = self.lock().get(mutation.module()) {
            // One that is stuck learns by its timeout.
            let _ = module.try_send(Order::Interrupt(mutation.clone(), attempt));
        }
    }

    /// The node's Cfg has changed, and with it perhaps the modules' configuration.
    pub(crate) fn configure(&self) {
        for module in self.lock().values() {
            let _ = module.try_send(Order::Configure);
        }
    }

    /// Looks for modules for ever.
    pub(crate) async fn run(self, dir: PathBuf) {
        let busy: Arc<Mutex<BTreeMap<String, ()>>> = Arc::default();
        loop {
            for (name, socket) in sockets(&dir) {
                let mut names = busy.lock().unwrap_or_else(PoisonError::into_inner);
                if names.len() >= MAX_MODULES || names.insert(name.clone(), ()).is_some() {
                    continue;
                }
                let (hub, busy) = (self.clone(), Arc::clone(&busy));
                tokio::spawn(async move {
                    hub.keep(&name, &socket).await;
                    busy.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .remove(&name);
                });
            }
            sleep(LOOK).await;
        }
    }

    /// Speaks with a module for as long as its socket is there.
    async fn keep(&self, name: &str, socket: &Path) {
        let mut rest = LOOK;
        while socket.exists() {
            let begun = tokio::time::Instant::now();
            let (sender, orders) = mpsc::channel(MAX_WAITING);
            let ended = self.serve(name, socket, sender, orders).await;
            self.lock().remove(name);
            let Err(why) = ended else { continue };
            warn!(module = name, "module failed: {why:#}");
            if begun.elapsed() > REST_MAX {
                rest = LOOK;
            }
            sleep(rest).await;
            rest = (rest * 2).min(REST_MAX);
        }
        debug!(module = name, "module is gone");
    }

    async fn serve(
        &self,
        name: &str,
        socket: &Path,
        sender: mpsc::Sender<Order>,
        mut orders: mpsc::Receiver<Order>,
    ) -> Result<()> {
        let (place, config) = self.place(name).await?;
        let mut host = ModuleHost::new(place, &config, self.clock.now());
        let (to, messages) = mpsc::channel(MAX_WAITING);
        while let Some(message) = host.poll_transmit() {
            to.try_send(message).ok().context("no room for a hello")?;
        }
        let call = async {
            let stream = UnixStream::connect(socket).await?;
            let owner = stream.peer_cred()?.uid();
            anyhow::ensure!(
                owner == 0 || owner == nix::unistd::geteuid().as_raw(),
                "the program that listens runs as user {owner}, not as root"
            );
            let mut client = ModuleClient::with_origin(
                http2(stream).await?,
                hyper::Uri::from_static("http://module"),
            )
            .max_decoding_message_size(engine::wire::convert::MAX_MESSAGE_BYTES);
            let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
            let answer = client.serve(messages).await;
            answer
                .map(tonic::Response::into_inner)
                .map_err(|status| anyhow::anyhow!("{status}"))
        };
        let mut from = timeout(CALL_LIMIT, call)
            .await
            .context("it does not answer")??;
        let result = self
            .session(name, &mut host, &to, &mut from, (sender, &mut orders))
            .await;
        for (node, mutation, attempt) in host.told() {
            let (mutation, text) = (
                mutation.clone(),
                format!("module {name} failed while at it"),
            );
            let _ = self
                .engine
                .input(Input::MutationFailed {
                    node,
                    mutation,
                    attempt,
                    text,
                })
                .await;
        }
        result
    }

    async fn session(
        &self,
        name: &str,
        host: &mut ModuleHost,
        to: &mpsc::Sender<ToModule>,
        from: &mut tonic::Streaming<FromModule>,
        (sender, orders): (mpsc::Sender<Order>, &mut mpsc::Receiver<Order>),
    ) -> Result<()> {
        let mut attached = self.attached.clone();
        let mut known: BTreeMap<StateUrl, Option<Value>> = BTreeMap::new();
        let mut sender = Some(sender);
        loop {
            while let Some(event) = host.poll_event() {
                match event {
                    ModuleEvent::Declared(declared) => {
                        info!(
                            module = name,
                            version = declared.version,
                            "module connected"
                        );
                        // Mutations come to it from now on.
                        if let Some(sender) = sender.take() {
                            self.lock().insert(name.to_owned(), sender);
                        }
                    }
                    ModuleEvent::Discovered { changes, .. } => {
                        known.extend(
                            changes
                                .iter()
                                .map(|change| (change.url.clone(), change.value.clone())),
                        );
                        self.reporter.report(name.to_owned(), changes).await;
                    }
                    ModuleEvent::Failed {
                        mutation,
                        attempt,
                        text,
                        ..
                    } => {
                        self.reporter.failed(mutation, attempt, text).await;
                    }
                    ModuleEvent::Line { text, .. } => info!(module = name, "{text}"),
                    ModuleEvent::Asked { id, urls, .. } => {
                        let result = self.answer(host, id, &urls).await?;
                        host.answer(result);
                    }
                    ModuleEvent::Odd(text) => warn!(module = name, "{text}"),
                    ModuleEvent::End(why) => bail!(why),
                }
            }
            while let Some(message) = host.poll_transmit() {
                to.try_send(message)
                    .ok()
                    .context("it takes no more messages")?;
            }
            let now = self.clock.now();
            let may_read = host.may_read(now);
            let due = host.poll_timeout(now).since(now);
            tokio::select! {
                message = from.message(), if may_read => match message {
                    Ok(Some(message)) => host.handle_message(message, self.clock.now()),
                    Ok(None) => bail!("it ended the call"),
                    Err(status) => bail!("{status}"),
                },
                () = sleep(due) => host.handle_timeout(self.clock.now()),
                () = attached.again() => {
                    let again = known.iter().map(|(url, value)| Change { url: url.clone(), value: value.clone() });
                    self.reporter.report(name.to_owned(), again.collect()).await;
                }
                Some(order) = orders.recv() => match order {
                    Order::Fire(fire) => {
                        let cfg = host.scope().filter(&fire.cfg, &[], |_| false);
                        let dsc = host.scope().filter(&fire.dsc, &[], |_| false);
                        let mutate = mutate_to_proto(&fire, &cfg, &dsc, self.clock.now());
                        host.fire(&fire, mutate);
                    }
                    Order::Interrupt(mutation, attempt) => host.interrupt(self.me, &mutation, attempt),
                    Order::Configure => host.configure(&self.place(name).await?.1),
                },
            }
        }
    }

    /// Where the module is, and what its configuration says: `/services/NAME/config/*` of this node.
    async fn place(&self, name: &str) -> Result<(Place, BTreeMap<String, Value>)> {
        let (me, below) = (self.me, format!("/services/{name}/config/"));
        let read = self.engine.query(move |engine, _| {
            let node = engine.tree().get(me)?;
            let own = node.cfg.iter().filter_map(|(url, value)| {
                let key = url.as_str().strip_prefix(&below)?;
                Some((key.to_owned(), value.clone()))
            });
            Some((node.name.clone(), own.collect()))
        });
        let (host_name, config) = read.await?.context("this node has not joined yet")?;
        let place = Place {
            module: name.to_owned(),
            host: self.me,
            host_name,
            on_node: true,
            values_per_second: VALUES_A_SECOND,
        };
        Ok((place, config))
    }

    async fn answer(
        &self,
        host: &ModuleHost,
        id: u64,
        urls: &[StateUrl],
    ) -> Result<v1::QueryResult> {
        let me = self.me;
        let read = self
            .engine
            .query(move |engine, _| engine.tree().get(me).cloned());
        let node = read.await?.context("this node has not joined yet")?;
        // Secrets of others are not sent to nodes at all.
        let filtered = |values| {
            Some(values_to_proto(
                &host.scope().filter(values, urls, |_| false),
            ))
        };
        let node = v1::QueriedNode {
            node_id: me.as_bytes().to_vec(),
            node_name: node.name.to_string(),
            cfg: filtered(&node.cfg),
            dsc: filtered(&node.dsc),
        };
        Ok(v1::QueryResult {
            id,
            nodes: vec![node],
            error: String::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, mpsc::Sender<Order>>> {
        self.connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sockets of modules, by name.
fn sockets(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let name = entry
            .file_name()
            .to_str()?
            .strip_suffix(".sock")?
            .to_owned();
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        let is_name = (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fits);
        is_name.then(|| (name, entry.path()))
    });
    named.take(MAX_MODULES).collect()
}
