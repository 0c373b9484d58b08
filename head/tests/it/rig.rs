//! A head in a temporary folder, and clients for it. Everything is on loopback, on ports that the kernel chooses.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use proto::v1::admin_client::AdminClient;
use proto::v1::{self, Value, ValueChange, value};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// A head that does not answer by then has not started; debug builds on a busy machine take two seconds.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What a test waits for happens long before.
pub(crate) const WAIT: Duration = Duration::from_secs(30);

/// Client of the Admin service.
pub(crate) type Client = AdminClient<Channel>;

/// A folder with keys and configuration, in which heads can be started one after the other.
pub(crate) struct Rig {
    dir: TempDir,
    pub(crate) ca: rustls::pki_types::CertificateDer<'static>,
}

/// A running head; killed when dropped.
pub(crate) struct Head {
    child: Child,
    log: PathBuf,
    socket: PathBuf,
}

impl Rig {
    /// `more` is appended to the configuration.
    pub(crate) fn new(more: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().expect("temporary folder");
        let ca = make_keys(&dir.path().join("keys"));
        let rig = Self { dir, ca };
        rig.configure(more);
        rig
    }

    /// Writes another configuration.
    pub(crate) fn configure(&self, more: &str) {
        let path = |name: &str| self.path(name).display().to_string();
        let mut text = format!(
            "cluster = \"test\"\nstate_dir = {:?}\nrun_dir = {:?}\nkeys_dir = {:?}\n",
            path("state"),
            path("run"),
            path("keys")
        );
        if !more.contains("[sync]") {
            text.push_str(
                "[sync]\naddress = \"127.0.0.1\"\nport = 0\nhello = \"100ms\"\ndead = \"1s\"\n",
            );
        }
        text.push_str(more);
        fs::write(self.path("head.toml"), text).expect("configuration");
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command that starts a head here.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kraken-head"));
        command
            .arg("--config")
            .arg(self.path("head.toml"))
            .stdin(Stdio::null())
            .env("NO_COLOR", "1");
        command
    }

    /// Starts a head and waits until it answers.
    pub(crate) async fn start(&self) -> (Head, Client) {
        self.start_with(self.command()).await
    }

    /// As [`start`](Self::start), by another command.
    pub(crate) async fn start_with(&self, mut command: Command) -> (Head, Client) {
        let log = self.path("head.log");
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .expect("log file");
        command.env("NO_COLOR", "1");
        let child = command.stderr(file).spawn().expect("kraken-head starts");
        let mut head = Head {
            child,
            log,
            socket: self.path("run/api.sock"),
        };
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Ok(mut client) = connect(&head.socket).await
                && client.get_version(v1::GetVersionRequest {}).await.is_ok()
            {
                return (head, client);
            }
            if let Some(status) = head.child.try_wait().expect("wait") {
                panic!("kraken-head ended with {status}:\n{}", head.log());
            }
            assert!(
                Instant::now() < deadline,
                "kraken-head does not answer:\n{}",
                head.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs a head that must end by itself: its status and what it said.
    pub(crate) fn run(&self) -> (ExitStatus, String) {
        let output = self.command().output().expect("kraken-head starts");
        (
            output.status,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

impl Head {
    /// What it has logged so far, all runs together.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id() as i32)
    }

    /// kill -9, and gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).expect("signal");
    }

    /// SIGTERM, and how long it took to end.
    pub(crate) fn terminate(mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        self.signal(nix::sys::signal::Signal::SIGTERM);
        while start.elapsed() < WAIT {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return (status, start.elapsed());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("kraken-head does not end:\n{}", self.log());
    }

    /// Waits until the log says something, and returns the rest of that line.
    pub(crate) async fn logged(&self, text: &str) -> String {
        let log = self.log.clone();
        eventually(&format!("log line {text:?}"), || {
            let log = fs::read_to_string(&log).unwrap_or_default();
            let found = log
                .lines()
                .find_map(|line| line.split_once(text).map(|(_, rest)| rest.to_owned()));
            std::future::ready(found)
        })
        .await
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of kraken-head\n{}", self.log());
        }
    }
}

/// A client of the unix socket.
pub(crate) async fn connect(socket: &Path) -> Result<Client, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display()))?;
    Ok(AdminClient::new(endpoint.connect().await?).max_decoding_message_size(64 << 20))
}

/// Gets a page over plain HTTP. Unlike `reqwest::get` this needs no CA certificates on the machine.
pub(crate) async fn get(
    url: impl reqwest::IntoUrl,
    token: Option<&str>,
) -> reqwest::Result<reqwest::Response> {
    let client = reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .build()?;
    let request = client.get(url);
    match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    }
    .send()
    .await
}

/// Asks until there is an answer.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + WAIT;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A change to a text.
pub(crate) fn set(url: &str, text: &str) -> ValueChange {
    ValueChange {
        url: url.into(),
        value: Some(Value {
            kind: Some(value::Kind::TextValue(text.into())),
        }),
    }
}

/// A node to add.
pub(crate) fn node(name: &str, cfg: &[(&str, &str)]) -> v1::Node {
    let values = cfg.iter().map(|(url, text)| set(url, text)).collect();
    v1::Node {
        name: name.into(),
        cfg: Some(v1::Values { values }),
        ..v1::Node::default()
    }
}

/// Adds nodes.
pub(crate) async fn add(
    client: &mut Client,
    nodes: Vec<v1::Node>,
) -> Result<v1::WriteResponse, tonic::Status> {
    client
        .add_nodes(v1::AddNodesRequest {
            nodes,
            options: None,
        })
        .await
        .map(tonic::Response::into_inner)
}

/// Sets values.
pub(crate) async fn change(
    client: &mut Client,
    nodes: &str,
    changes: Vec<ValueChange>,
) -> Result<v1::WriteResponse, tonic::Status> {
    let request = v1::SetNodesRequest {
        nodes: nodes.into(),
        changes,
        ..v1::SetNodesRequest::default()
    };
    client
        .set_nodes(request)
        .await
        .map(tonic::Response::into_inner)
}

/// Deletes nodes.
pub(crate) async fn delete(
    client: &mut Client,
    nodes: &str,
) -> Result<v1::WriteResponse, tonic::Status> {
    let request = v1::DeleteNodesRequest {
        nodes: nodes.into(),
        options: None,
    };
    let written = client.delete_nodes(request).await;
    written.map(tonic::Response::into_inner)
}

/// What the head says of itself.
pub(crate) async fn version(client: &mut Client) -> v1::GetVersionResponse {
    let version = client.get_version(v1::GetVersionRequest {}).await;
    version.expect("the head answers").into_inner()
}

/// Lists nodes.
pub(crate) async fn list(client: &mut Client, nodes: &str) -> Result<Vec<v1::Node>, tonic::Status> {
    let request = v1::ListNodesRequest {
        nodes: nodes.into(),
    };
    client
        .list_nodes(request)
        .await
        .map(|response| response.into_inner().nodes)
}

/// A value as text.
pub(crate) fn text(values: Option<&v1::Values>, url: &str) -> Option<String> {
    let change = values?.values.iter().find(|change| change.url == url)?;
    match &change.value.as_ref()?.kind {
        Some(value::Kind::TextValue(text)) => Some(text.clone()),
        other => Some(format!("{other:?}")),
    }
}

/// Waits until a node's Dsc says so.
pub(crate) async fn wait_dsc(client: &Client, name: &str, url: &str, expect: Option<&str>) {
    eventually(&format!("{name} {url}={expect:?}"), || {
        let mut client = client.clone();
        async move {
            let nodes = list(&mut client, name).await.ok()?;
            (text(nodes[0].dsc.as_ref(), url).as_deref() == expect).then_some(())
        }
    })
    .await;
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// What `kraken-image keys` makes.
fn make_keys(folder: &Path) -> rustls::pki_types::CertificateDer<'static> {
    fs::create_dir_all(folder).expect("keys folder");
    let write = |name: &str, text: &str| {
        use std::io::Write as _;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(folder.join(name))
            .expect("key file");
        file.write_all(text.as_bytes()).expect("key file");
    };
    let key = KeyPair::generate().expect("CA key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = params.self_signed(&key).expect("CA");
    write("ca.pem", &ca.pem());
    write("ca.key", &key.serialize_pem());
    let cluster = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("cluster key");
    write("cluster.key", &cluster.serialize_pem());
    let pair =
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&cluster.serialize_der()).expect("Ed25519");
    write("cluster.pub", &(hex(pair.public_key().as_ref()) + "\n"));
    ca.der().clone()
}
