//! A head that keeps nodes in memory and does what the test says: it plans nothing and checks little.
//!
//! Stopping it drops its runtime, as a crash would: every connection breaks at once.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use proto::v1;
use proto::v1::admin_server::AdminServer;
use proto::v1::watch_event::Kind;
use tokio::sync::watch;
use tonic::{Response, Status};

mod service;

use service::Service;

/// What the fake knows.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) nodes: BTreeMap<String, v1::Node>,
    pub(crate) revision: u64,
    pub(crate) epoch: u64,
    pub(crate) frozen: bool,
    pub(crate) frozen_groups: Vec<v1::FrozenGroup>,
    pub(crate) reports: BTreeMap<String, v1::Report>,
    /// Whether `Explain` is never answered.
    pub(crate) explains_nothing: bool,
    /// The answer to every `Plan`, and what was asked last.
    pub(crate) plan: v1::PlanResponse,
    pub(crate) planned: v1::PlanRequest,
    pub(crate) history: v1::ListHistoryResponse,
    pub(crate) asked_history: v1::ListHistoryRequest,
    pub(crate) pending: Vec<v1::Pending>,
    pub(crate) images: Vec<v1::Image>,
    pub(crate) mutations: v1::MutationSet,
    pub(crate) carriers: Vec<v1::Carrier>,
    pub(crate) refused_files: Vec<v1::RefusedFile>,
    pub(crate) lints: v1::LintMutationsResponse,
    pub(crate) extensions: Vec<v1::Extension>,
    /// What becomes of values of these urls, whatever is written; `None`: they are unset, as a zero is.
    pub(crate) kept: BTreeMap<String, Option<v1::Value>>,
    /// Events of this epoch; number 1 comes first.
    events: Vec<v1::WatchEvent>,
    /// Names of the calls, in order.
    pub(crate) calls: Vec<String>,
    /// The last reason that came with a write.
    pub(crate) reason: String,
    pub(crate) options: v1::WriteOptions,
    /// Answer every call with this.
    pub(crate) refuse: Option<Status>,
    /// Token without which a call is refused.
    pub(crate) token: Option<String>,
}

/// The head, and the folder its socket lives in.
pub(crate) struct FakeHead {
    pub(crate) folder: tempfile::TempDir,
    world: Arc<Mutex<World>>,
    changed: watch::Sender<()>,
    runtime: Option<tokio::runtime::Runtime>,
}

pub(crate) fn text(text: &str) -> v1::Value {
    v1::Value {
        kind: Some(v1::value::Kind::TextValue(text.to_owned())),
    }
}

pub(crate) fn change(url: &str, value: &str) -> v1::ValueChange {
    v1::ValueChange {
        url: url.to_owned(),
        value: (!value.is_empty()).then(|| text(value)),
    }
}

impl FakeHead {
    pub(crate) fn start() -> Self {
        let mut head = Self {
            folder: tempfile::tempdir().expect("temporary folder"),
            world: Arc::default(),
            changed: watch::Sender::new(()),
            runtime: None,
        };
        head.world().epoch = 1;
        head.serve();
        head
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    fn serve(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let _ = std::fs::remove_file(self.socket());
        let guard = runtime.enter();
        let listener = tokio::net::UnixListener::bind(self.socket()).expect("socket");
        drop(guard);
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        let service = AdminServer::new(self.service());
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        self.runtime = Some(runtime);
    }

    /// Serves on TCP too; returns the address.
    pub(crate) fn serve_tcp(&self) -> String {
        let runtime = self.runtime.as_ref().expect("it runs");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("port");
        let address = listener.local_addr().expect("address").to_string();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let service = AdminServer::new(self.service());
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        address
    }

    fn service(&self) -> Service {
        Service {
            world: Arc::clone(&self.world),
            changed: self.changed.clone(),
        }
    }

    /// As kill -9 would.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }

    /// Comes back with what was written; events are numbered afresh.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let mut world = self.world();
        world.epoch += 1;
        world.events.clear();
        drop(world);
        self.serve();
    }

    /// Breaks every connection and goes on with the same events.
    pub(crate) fn cut(&mut self) {
        self.stop();
        self.serve();
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no test panicked with the lock")
    }

    pub(crate) fn add(&self, name: &str) {
        let mut world = self.world();
        world.insert(v1::Node {
            name: name.to_owned(),
            ..Default::default()
        });
        drop(world);
        self.changed.send_replace(());
    }

    /// A module reports a value.
    pub(crate) fn discover(&self, name: &str, url: &str, value: &str) {
        self.report(name, change(url, value));
    }

    /// The same, of any type.
    pub(crate) fn report(&self, name: &str, change: v1::ValueChange) {
        let mut world = self.world();
        let node = world.nodes.get_mut(name).expect("node");
        set(node.dsc.get_or_insert_default(), &change);
        world.event(Kind::Change(v1::NodeChange {
            node_name: name.to_owned(),
            dsc: vec![change],
            ..Default::default()
        }));
        drop(world);
        self.changed.send_replace(());
    }

    /// krakenctl, about to talk to this head.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = krakenctl(args);
        command.env("KRAKEN_SOCKET", self.socket());
        command
    }

    /// Runs krakenctl to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::of(self.command(args), "")
    }

    /// Starts krakenctl with pipes.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("krakenctl starts")
    }

    /// Waits until the fake has seen a call.
    pub(crate) fn wait_for_call(&self, name: &str) {
        eventually(&format!("a call of {name}"), || {
            self.world().calls.iter().any(|call| call == name)
        });
    }
}

/// Waits for a condition, at most 20 s.
#[track_caller]
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// krakenctl without anything of the caller's environment that would change what it does.
pub(crate) fn krakenctl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_krakenctl"));
    for name in [
        "KRAKEN_SOCKET",
        "KRAKEN_HEAD",
        "KRAKEN_TOKEN",
        "KRAKEN_TOKEN_FILE",
        "NO_COLOR",
    ] {
        command.env_remove(name);
    }
    command.args(args);
    command
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn of(mut command: Command, input: &str) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("krakenctl starts");
        let mut stdin = child.stdin.take().expect("stdin");
        // A program that does not read its input may be gone already.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        Self::from(child.wait_with_output().expect("krakenctl ends"))
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl World {
    fn insert(&mut self, node: v1::Node) {
        self.revision += 1;
        self.event(Kind::Node(node.clone()));
        self.nodes.insert(node.name.clone(), node);
    }

    fn event(&mut self, kind: Kind) {
        let sequence = self.events.len() as u64 + 1;
        self.events.push(v1::WatchEvent {
            sequence,
            kind: Some(kind),
        });
    }

    /// Understands `n1`, `n[1-4,7]` and commas; names that are not there are an error, as in a real head.
    fn select(&self, set: &str) -> Result<Vec<String>, Status> {
        if set.is_empty() || set == "@*" {
            return Ok(self.nodes.keys().cloned().collect());
        }
        if let Some(group) = set.strip_prefix('@') {
            let nodes = self.nodes.iter();
            let members = nodes.filter(|(_, node)| node.groups.iter().any(|of| of == group));
            return Ok(members.map(|(name, _)| name.clone()).collect());
        }
        let mut names = Vec::new();
        let mut rest = set;
        while !rest.is_empty() {
            let inside = rest
                .find('[')
                .is_some_and(|open| rest.find(',').is_none_or(|comma| open < comma));
            let end = if inside {
                rest.find(']').map(|at| at + 1)
            } else {
                rest.find(',')
            }
            .unwrap_or(rest.len());
            let (item, tail) = rest.split_at(end);
            rest = tail.trim_start_matches(',');
            match item.split_once('[') {
                None => names.push(item.to_owned()),
                Some((prefix, ranges)) => {
                    for range in ranges.trim_end_matches(']').split(',') {
                        let (first, last) = range.split_once('-').unwrap_or((range, range));
                        let number = |text: &str| {
                            text.parse::<u32>()
                                .map_err(|_| Status::invalid_argument("not a node set"))
                        };
                        names.extend(
                            (number(first)?..=number(last)?).map(|n| format!("{prefix}{n}")),
                        );
                    }
                }
            }
        }
        match names.iter().find(|name| !self.nodes.contains_key(*name)) {
            Some(name) => Err(Status::not_found(format!("there is no node {name}"))),
            None => Ok(names),
        }
    }

    fn begin_write(&mut self, options: Option<v1::WriteOptions>) -> Result<(), Status> {
        let options = options.unwrap_or_default();
        if options.if_revision != 0 && options.if_revision != self.revision {
            return Err(Status::aborted(format!(
                "the cluster is at revision {}",
                self.revision
            )));
        }
        self.reason = options.reason.clone();
        self.options = options;
        Ok(())
    }

    fn written(&mut self, nodes: Vec<String>) -> Result<Response<v1::WriteResponse>, Status> {
        self.revision += 1;
        let try_ms = self.options.try_ms;
        Ok(Response::new(v1::WriteResponse {
            revision: self.revision,
            nodes,
            trial_until_ms: if try_ms == 0 { 0 } else { 1_000_000 + try_ms },
            ..v1::WriteResponse::default()
        }))
    }
}

fn set(values: &mut v1::Values, change: &v1::ValueChange) {
    values.values.retain(|old| old.url != change.url);
    if change.value.is_some() {
        values.values.push(change.clone());
        values.values.sort_by(|a, b| a.url.cmp(&b.url));
    }
}
