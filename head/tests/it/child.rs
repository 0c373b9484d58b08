//! A child for tests: the agent's half of join and sync, on a real TLS connection and a real datagram socket.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use engine::state::NodeId;
use engine::sync::SessionId;
use engine::sync::join::{ChallengeMessage, ChildJoin, GrantFile, Identity, RefuseReason};
use engine::sync::message::Frame;
use engine::wire::convert::{self, AcceptMessage};
use engine::wire::seal::{End, Parties, Sessions};
use hyper_util::rt::TokioIo;
use proto::v1::sync_client::SyncClient;
use proto::v1::{ToParent, to_child, to_parent};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;
use uuid::Uuid;

use crate::rig::WAIT;

/// Who the child is: its key, and the certificate that it got for it.
pub(crate) struct Credentials {
    pub(crate) key: KeyPair,
    pub(crate) certificate: Option<Vec<u8>>,
}

impl Credentials {
    pub(crate) fn new() -> Self {
        Self {
            key: KeyPair::generate().expect("key"),
            certificate: None,
        }
    }
}

/// How to join.
pub(crate) enum By<'a> {
    Grant(&'a GrantFile),
    Certificate(NodeId),
}

/// A child in session.
pub(crate) struct Child {
    pub(crate) accept: AcceptMessage,
    pub(crate) session: SessionId,
    pub(crate) sealed: Sessions,
    pub(crate) udp: UdpSocket,
    out: mpsc::Sender<ToParent>,
    stream: Streaming<proto::v1::ToChild>,
}

/// A TLS connection to the head and its exporter.
async fn connect(
    ca: &CertificateDer<'static>,
    head: SocketAddr,
    credentials: &Credentials,
) -> std::io::Result<(tokio_rustls::client::TlsStream<TcpStream>, [u8; 32])> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.clone()).expect("CA");
    let builder = rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(roots);
    let mut config = match &credentials.certificate {
        Some(certificate) => {
            let key =
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(credentials.key.serialize_der()));
            builder
                .with_client_auth_cert(vec![certificate.clone().into()], key)
                .expect("client certificate")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(head).await?;
    let name = ServerName::try_from("kraken-head").expect("a name");
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await?;
    let exporter = tls
        .get_ref()
        .1
        .export_keying_material([0; 32], b"kraken-join-v1", None)
        .expect("exporter");
    Ok((tls, exporter))
}

impl Child {
    /// Joins; `Err` is the head's refusal.
    pub(crate) async fn join(
        ca: &CertificateDer<'static>,
        head: SocketAddr,
        credentials: &Credentials,
        by: By<'_>,
    ) -> Result<Self, (RefuseReason, String)> {
        let (tls, exporter) = connect(ca, head, credentials).await.expect("TLS");
        let slot = Arc::new(Mutex::new(Some(tls)));
        let connector = tower::service_fn(move |_| {
            let tls = slot.lock().expect("lock").take();
            async move {
                tls.map(TokioIo::new)
                    .ok_or_else(|| std::io::Error::other("one connection only"))
            }
        });
        let channel = Endpoint::from_static("http://kraken-head")
            .connect_with_connector(connector)
            .await
            .expect("HTTP/2");
        let (out, messages) = mpsc::channel(16);
        let identity = Identity {
            agent_version: "test".into(),
            public_key: credentials.key.subject_public_key_info(),
            nonce: [5; 32],
            cfg_version: 0,
        };
        let mut join = match &by {
            By::Grant(file) => ChildJoin::with_grant(file, identity, exporter),
            By::Certificate(node) => {
                ChildJoin::with_certificate(*node, Uuid::from_bytes([9; 16]), identity, exporter)
            }
        };
        let node = join.hello().node;
        say(
            &out,
            to_parent::Kind::JoinHello(convert::join_hello_to_proto(join.hello())),
        )
        .await;
        let mut stream = SyncClient::new(channel)
            .attach(ReceiverStream::new(messages))
            .await
            .expect("attach")
            .into_inner();
        let accept = loop {
            match hear(&mut stream).await {
                Ok(to_child::Kind::JoinChallenge(challenge)) => {
                    let challenge: ChallengeMessage =
                        convert::challenge_from_proto(challenge).expect("challenge");
                    let proof = join.handle_challenge(&challenge).expect("in turn");
                    say(
                        &out,
                        to_parent::Kind::JoinProof(convert::proof_to_proto(&proof)),
                    )
                    .await;
                }
                Ok(to_child::Kind::JoinAccept(accept)) => {
                    break convert::accept_from_proto(accept).expect("accept");
                }
                Ok(to_child::Kind::JoinRefused(refused)) => {
                    let (reason, text, _) = convert::refused_from_proto(refused).expect("refusal");
                    return Err((reason, text));
                }
                other => panic!("{other:?} in a join"),
            }
        };
        let keys = join
            .handle_accept(&accept.mac, accept.session)
            .expect("the head's proof");
        let mut sealed = Sessions::default();
        let parties = Parties {
            parent: accept.parent,
            child: node,
            epoch: accept.epoch,
        };
        sealed.insert(End::Child, accept.session, &keys, parties);
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("socket");
        udp.connect(head).await.expect("socket");
        Ok(Self {
            session: accept.session,
            accept,
            sealed,
            udp,
            out,
            stream,
        })
    }

    /// Sends a frame as a datagram, and gives the datagram back.
    pub(crate) async fn send(&mut self, frame: &Frame) -> Vec<u8> {
        let datagram = self.sealed.seal(self.session, frame).expect("fits");
        self.udp.send(&datagram).await.expect("sent");
        datagram
    }

    /// Sends a frame over the stream.
    pub(crate) async fn send_stream(&self, frame: &Frame) {
        say(
            &self.out,
            to_parent::Kind::Frame(convert::frame_to_proto(frame)),
        )
        .await;
    }

    /// The next frame in a datagram.
    pub(crate) async fn datagram(&mut self) -> Frame {
        let mut buffer = [0; 2048];
        let length = tokio::time::timeout(WAIT, self.udp.recv(&mut buffer))
            .await
            .expect("a datagram")
            .expect("received");
        self.sealed.open(&buffer[..length]).expect("genuine").1
    }

    /// The next frame over the stream, or why there is none.
    pub(crate) async fn stream_frame(&mut self) -> Result<Frame, tonic::Status> {
        match hear(&mut self.stream).await? {
            to_child::Kind::Frame(frame) => Ok(convert::frame_from_proto(frame).expect("frame")),
            other => panic!("{other:?} in a session"),
        }
    }
}

async fn say(out: &mpsc::Sender<ToParent>, kind: to_parent::Kind) {
    out.send(ToParent { kind: Some(kind) })
        .await
        .expect("the stream is open");
}

async fn hear(stream: &mut Streaming<proto::v1::ToChild>) -> Result<to_child::Kind, tonic::Status> {
    let message = tokio::time::timeout(WAIT, stream.message())
        .await
        .expect("a message")?;
    Ok(message
        .ok_or_else(|| tonic::Status::ok("end of stream"))?
        .kind
        .expect("content"))
}
