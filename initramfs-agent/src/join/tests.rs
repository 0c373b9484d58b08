//! The shell against a parent made here: real TLS, real HTTP/2, the engine's own proofs; only the parent's decisions are played.

use std::pin::Pin;

use engine::Engine;
use engine::driver::{self, Clock};
use engine::engine::{EngineConfig, Role};
use engine::event::Output;
use engine::mutation::MutationSet;
use engine::mutation::progress::Healing;
use engine::state::{Value, Values, core};
use engine::sync::SyncConfig;
use engine::sync::join::proof::{Side, Transcript, join_key, prove};
use engine::sync::join::{
    Accepted, ChallengeMessage, GrantFile, RefuseReason, Secret, SessionKeys,
};
use engine::sync::signature::CfgSigner;
use engine::wire::convert::Issued;
use futures::Stream;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use proto::v1::sync_server::{Sync, SyncServer};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SubjectPublicKeyInfo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status, Streaming};

use std::path::Path;

use super::*;

const SECRET: [u8; 32] = [9; 32];

/// A cluster's CA.
struct Ca {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            der,
        }
    }

    fn server_config(&self) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["kraken-head".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    fn node_certificate(&self, public_key: &[u8]) -> Vec<u8> {
        let key = SubjectPublicKeyInfo::from_der(public_key).unwrap();
        let params = CertificateParams::new(vec!["node".to_owned()]).unwrap();
        params.signed_by(&key, &self.issuer).unwrap().der().to_vec()
    }
}

/// How the parent behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Honest,
    /// It answers without knowing the grant's secret.
    WithoutSecret,
    Refusing,
}

struct FakeParent {
    ca: Ca,
    signer: CfgSigner,
    manner: Manner,
    exporter: Mutex<[u8; 32]>,
    /// Whether each connection came with a client certificate.
    certified: Mutex<Vec<bool>>,
}

impl FakeParent {
    fn new(manner: Manner) -> Arc<Self> {
        Arc::new(Self {
            ca: Ca::new(),
            signer: CfgSigner::from_seed(&[7; 32]).unwrap(),
            manner,
            exporter: Mutex::new([0; 32]),
            certified: Mutex::new(Vec::new()),
        })
    }

    async fn listen(self: &Arc<Self>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(self.ca.server_config()));
        let parent = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(tls) = acceptor.accept(stream).await else {
                    continue;
                };
                let (_, connection) = tls.get_ref();
                let exporter = connection
                    .export_keying_material([0; 32], b"kraken-join-v1", None)
                    .unwrap();
                *parent.exporter.lock().unwrap() = exporter;
                parent
                    .certified
                    .lock()
                    .unwrap()
                    .push(connection.peer_certificates().is_some());
                let service = TowerToHyperService::new(SyncServer::from_arc(Arc::clone(&parent)));
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(tls), service));
            }
        });
        address
    }

    fn accept(
        &self,
        hello: &engine::sync::join::HelloMessage,
        transcript: &Transcript,
    ) -> v1::JoinAccept {
        let exporter = *self.exporter.lock().unwrap();
        let secret = if self.manner == Manner::WithoutSecret {
            [0; 32]
        } else {
            SECRET
        };
        let mac = hello.grant.map_or_else(Vec::new, |grant| {
            prove(
                &join_key(&Secret(secret), grant),
                Side::Parent,
                transcript,
                &exporter,
            )
        });
        let cfg: Values = [("/Arch".parse().unwrap(), Value::from("x86_64"))]
            .into_iter()
            .collect();
        let accepted = Accepted {
            node: hello.node,
            name: "n1".parse().unwrap(),
            session: SessionId(self.certified.lock().unwrap().len() as u64),
            keys: SessionKeys {
                up: Secret([0; 32]),
                down: Secret([0; 32]),
            },
            mac,
            public_key: hello.public_key.clone(),
            parent: NodeId::from_bytes([2; 16]),
            epoch: 3,
            cfg: (5, cfg.to_changes()),
            cfg_signature: self.signer.sign(hello.node, 3, 5, &cfg.digest()),
            dsc: Vec::new(),
            mutations: MutationSet::default(),
        };
        let issued = Issued {
            certificate: self.ca.node_certificate(&hello.public_key),
            parent_address: String::new(),
            sync: SyncConfig::default(),
        };
        convert::accept_to_proto(&accepted, issued)
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<v1::ToChild, Status>> + Send>>;

#[tonic::async_trait]
impl Sync for FakeParent {
    type AttachStream = Answers;

    async fn attach(
        &self,
        request: Request<Streaming<v1::ToParent>>,
    ) -> Result<Response<Answers>, Status> {
        let mut messages = request.into_inner();
        let Some(to_parent::Kind::JoinHello(hello)) =
            messages.message().await?.and_then(|message| message.kind)
        else {
            return Err(Status::invalid_argument("no hello"));
        };
        let hello = convert::join_hello_from_proto(hello)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (answers, stream) = mpsc::channel(8);
        let say = |kind| {
            answers
                .try_send(Ok(v1::ToChild { kind: Some(kind) }))
                .unwrap()
        };
        if self.manner == Manner::Refusing {
            let refused =
                convert::refused_to_proto(RefuseReason::GrantUsed, "arm the node again", 0);
            say(to_child::Kind::JoinRefused(refused));
            return Ok(Response::new(Box::pin(
                tokio_stream::wrappers::ReceiverStream::new(stream),
            )));
        }
        let challenge = ChallengeMessage {
            nonce: [1; 32],
            head_time_ms: 1,
            version: 1,
        };
        let transcript = Transcript::new(&hello, &challenge);
        say(to_child::Kind::JoinChallenge(convert::challenge_to_proto(
            &challenge,
        )));
        // The child proves itself in its second message, which comes after these answers; this parent believes it.
        say(to_child::Kind::JoinAccept(self.accept(&hello, &transcript)));
        tokio::spawn(async move {
            while let Ok(Some(_)) = messages.message().await {}
            drop(answers);
        });
        Ok(Response::new(Box::pin(
            tokio_stream::wrappers::ReceiverStream::new(stream),
        )))
    }
}

struct Child {
    joiner: Arc<Joiner>,
    run: tempfile::TempDir,
    links: Arc<Mutex<Links>>,
}

/// A child with a grant that trusts `ca`, and its engine, which never attaches by itself.
async fn child(ca: &Ca, cluster_key: [u8; 32]) -> Child {
    let run = tempfile::tempdir().unwrap();
    let grant: GrantFile = GrantFile {
        grant: engine::sync::join::GrantId("0191d2a0-0000-7000-8000-00000000000a".parse().unwrap()),
        node: NodeId::from_bytes([1; 16]),
        boot: "0191d2a0-0000-7000-8000-0000000000b0".parse().unwrap(),
        secret: Secret(SECRET),
    };
    std::fs::write(run.path().join("grant"), grant.to_string()).unwrap();
    let identity = Identity::establish(Path::new("/nonexistent"), run.path()).unwrap();
    let (engine, inbox) = driver::channel();
    let clock = Clock::start();
    let config = EngineConfig {
        me: identity.node,
        role: Role::Agent,
        sync: SyncConfig::default(),
        healing: Healing::default(),
        seed: 1,
    };
    let mut machine = Engine::new(config, crate::modules::schema::schema(), clock.now());
    machine.set_cluster_key(cluster_key);
    let links = Arc::new(Mutex::new(Links::new(Arc::new(
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
    ))));
    let ending = Arc::clone(&links);
    let perform = move |output| {
        if let Output::EndSession { session, .. } = output {
            ending.lock().unwrap().remove(session);
        }
    };
    tokio::spawn(driver::run(
        machine,
        clock,
        inbox,
        perform,
        std::future::pending(),
    ));
    let joiner = Joiner {
        engine,
        cluster: Cluster {
            ca: vec![ca.der.clone()],
            key: cluster_key,
            built: SystemTime::UNIX_EPOCH,
        },
        identity: Mutex::new(identity),
        parents: Mutex::new(Vec::new()),
        links: Arc::clone(&links),
        attached: watch::channel(0).0,
        lines: Lines::default(),
        jobs: run.path().join("busy.d"),
        owns_clock: false,
        joined_file: run.path().join("joined"),
    };
    Child {
        joiner: Arc::new(joiner),
        run,
        links,
    }
}

impl Child {
    async fn attach(&self, conn: u64, parent: SocketAddr) -> Result<String> {
        self.joiner.session(ConnId(conn), parent).await
    }

    async fn is_in_sync(&self) -> bool {
        let read = self.joiner.engine.query(|engine, _| {
            let node = engine.tree().get(engine.me())?;
            Some((
                node.dsc.text(core::RUN_STATE)?.to_owned(),
                node.cfg.text("/Arch")?.to_owned(),
            ))
        });
        read.await.unwrap() == Some(("SYNC".to_owned(), "x86_64".to_owned()))
    }

    async fn until_in_sync(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.is_in_sync().await {
            assert!(Instant::now() < deadline, "not in sync");
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_attached(&self, times: u64) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while *self.joiner.attached.borrow() < times {
            assert!(Instant::now() < deadline, "not attached");
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn has_certificate(&self) -> bool {
        self.run.path().join("node.crt").exists()
    }
}

fn run<T>(test: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test())
}

#[test]
fn a_grant_becomes_a_session_and_a_certificate_the_next_one() {
    run(async || {
        let parent = FakeParent::new(Manner::Honest);
        let address = parent.listen().await;
        let child = child(&parent.ca, parent.signer.public_key()).await;
        for conn in 1..=2 {
            let session = child.attach(conn, address);
            tokio::select! {
                ended = session => panic!("{ended:?}"),
                () = child.until_attached(conn) => {}
            }
            assert!(child.is_in_sync().await);
            assert!(child.has_certificate() && !child.run.path().join("grant").exists());
        }
        assert_eq!(*parent.certified.lock().unwrap(), [false, true]);
    });
}

#[test]
fn a_job_is_known_as_soon_as_the_node_is_in_sync() {
    run(async || {
        let parent = FakeParent::new(Manner::Honest);
        let address = parent.listen().await;
        let child = child(&parent.ca, parent.signer.public_key()).await;
        let jobs = &child.joiner.jobs;
        std::fs::create_dir(jobs).unwrap();
        std::fs::write(jobs.join("job"), "").unwrap();
        tokio::select! {
            ended = child.attach(1, address) => panic!("{ended:?}"),
            () = child.until_in_sync() => {}
        }
        let read = child.joiner.engine.query(|engine, _| {
            let node = engine.tree().get(engine.me())?;
            node.dsc.text(core::BUSY).map(str::to_owned)
        });
        assert_eq!(read.await.unwrap().as_deref(), Some(core::BUSY_BUSY));
    });
}

#[test]
fn a_session_that_the_engine_ends_is_over() {
    run(async || {
        let parent = FakeParent::new(Manner::Honest);
        let address = parent.listen().await;
        let child = child(&parent.ca, parent.signer.public_key()).await;
        let end = async {
            child.until_in_sync().await;
            child.links.lock().unwrap().remove(SessionId(1));
        };
        let (why, ()) = tokio::join!(child.attach(1, address), end);
        assert_eq!(why.unwrap(), "the session was ended");
    });
}

#[test]
fn a_parent_of_another_cluster_learns_nothing() {
    run(async || {
        let parent = FakeParent::new(Manner::Honest);
        let address = parent.listen().await;
        let child = child(&Ca::new(), parent.signer.public_key()).await;
        let why = format!("{:#}", child.attach(1, address).await.unwrap_err());
        assert!(
            why.contains("does not prove to be of this cluster"),
            "{why}"
        );
        assert!(
            parent.certified.lock().unwrap().is_empty(),
            "no handshake was completed"
        );
    });
}

#[test]
fn a_parent_without_the_secret_is_not_obeyed() {
    run(async || {
        let parent = FakeParent::new(Manner::WithoutSecret);
        let address = parent.listen().await;
        let child = child(&parent.ca, parent.signer.public_key()).await;
        let why = format!("{:#}", child.attach(1, address).await.unwrap_err());
        assert!(why.contains("proof is wrong"), "{why}");
        assert!(!child.is_in_sync().await && !child.has_certificate());
    });
}

#[test]
fn a_cfg_that_the_cluster_did_not_sign_ends_the_session() {
    run(async || {
        let parent = FakeParent::new(Manner::Honest);
        let address = parent.listen().await;
        let child = child(&parent.ca, [1; 32]).await;
        assert_eq!(
            child.attach(1, address).await.unwrap(),
            "the session was ended"
        );
        assert!(!child.is_in_sync().await);
    });
}

#[test]
fn a_refusal_comes_with_the_heads_own_words() {
    run(async || {
        let parent = FakeParent::new(Manner::Refusing);
        let address = parent.listen().await;
        let child = child(&parent.ca, parent.signer.public_key()).await;
        let why = format!("{:#}", child.attach(1, address).await.unwrap_err());
        assert_eq!(
            why,
            "the parent refuses: the grant was used by another key: arm the node again"
        );
    });
}

#[test]
fn nobody_there_is_said_with_what_to_check() {
    run(async || {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let child = child(&Ca::new(), [1; 32]).await;
        let why = format!("{:#}", child.attach(1, address).await.unwrap_err());
        assert!(why.contains("is kraken-head running there"), "{why}");
    });
}

#[test]
fn parents_take_turns() {
    run(async || {
        let child = child(&Ca::new(), [1; 32]).await;
        assert_eq!(child.joiner.parent(1), None);
        let parents: Vec<SocketAddr> =
            vec!["10.0.0.1:1".parse().unwrap(), "10.0.0.2:1".parse().unwrap()];
        *child.joiner.parents.lock().unwrap() = parents.clone();
        let turns: Vec<_> = (1..=4)
            .map(|attempt| child.joiner.parent(attempt).unwrap())
            .collect();
        assert_eq!(turns, [parents[0], parents[1], parents[0], parents[1]]);
        child.joiner.prefer("10.0.0.3:1").unwrap();
        assert_eq!(child.joiner.parent(1), Some("10.0.0.3:1".parse().unwrap()));
        assert!(child.joiner.prefer("head:1").is_err());
    });
}
