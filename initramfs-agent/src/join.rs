//! The shell around KJ1 and sync: TLS, the stream, and datagrams (engine/docs/sync-protocol.md).
//!
//! The engine says when to attach; one attempt is one task: [`tls`] connects, [`handshake`](Joiner::session) proves both sides with
//! `engine::sync::join`, then the task carries the session's stream until it ends, and says so. Datagrams of all sessions go through one
//! socket. Nothing here decides when to try again.

mod h2;
mod link;
mod tls;

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use engine::driver::Handle;
use engine::event::{ConnId, Input};
use engine::state::NodeId;
use engine::sync::SessionId;
use engine::sync::join::{ChildJoin, Identity as Introduction};
use engine::wire::convert;
use engine::wire::seal::Parties;
use proto::v1::{self, to_child, to_parent};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

pub(crate) use self::h2::http2;
pub(crate) use self::link::Links;
use crate::busy;
use crate::identity::{Cluster, Identity, Proof};
use crate::log::Lines;

/// Time for one attempt, from the first packet to the session.
const JOIN_LIMIT: Duration = Duration::from_secs(20);
/// Items that wait for the stream; beyond it they are dropped, and the session's resends repair that.
const STREAM_QUEUE: usize = 64;
/// A certificate lives for 24 hours; a session that reaches half of that is made anew, which brings a new one.
const RENEW: Duration = Duration::from_secs(12 * 3600);
/// A clock this far off the head's is set at the first join of a boot, before anything runs that a leap could hurt.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);
/// Failures that are told one by one; after these, every so many-th.
const TOLD: u32 = 4;
const TOLD_EVERY: u32 = 12;
/// Longest message of the schema.
const MAX_MESSAGE: usize = 1 << 20;

/// Everything that an attempt needs.
pub(crate) struct Joiner {
    /// The engine.
    pub(crate) engine: Handle,
    /// What the initramfs trusts.
    pub(crate) cluster: Cluster,
    /// Who we are.
    pub(crate) identity: Mutex<Identity>,
    /// Whom to join, in order.
    pub(crate) parents: Mutex<Vec<SocketAddr>>,
    /// Open sessions.
    pub(crate) links: Arc<Mutex<Links>>,
    /// Counts sessions.
    pub(crate) attached: watch::Sender<u64>,
    /// What the parent shall read.
    pub(crate) lines: Lines,
    /// Where jobs mark the node busy.
    pub(crate) jobs: PathBuf,
    /// Whether the clock is ours to set.
    pub(crate) owns_clock: bool,
    /// Marks the first join of this boot.
    pub(crate) joined_file: PathBuf,
}

/// An open session.
struct Joined {
    session: SessionId,
    stream: tonic::Streaming<v1::ToChild>,
    outbox: mpsc::Sender<v1::ToParent>,
    ended: oneshot::Receiver<()>,
}

/// Carries one attempt, and the session that comes of it, from beginning to end.
pub(crate) async fn attach(joiner: Arc<Joiner>, conn: ConnId, attempt: u32) {
    let parent = joiner.parent(attempt);
    let result = match parent {
        Some(parent) => joiner.session(conn, parent).await,
        None => Err(anyhow::anyhow!(
            "the kernel command line names no parent: kraken.parent=ADDRESS:PORT is missing"
        )),
    };
    match result {
        Ok(why) => warn!("sync is over: {why}; joining again"),
        Err(error) if attempt <= TOLD || attempt.is_multiple_of(TOLD_EVERY) => {
            let parent = parent.map_or("nobody".to_owned(), |parent| parent.to_string());
            warn!(attempt, "cannot join {parent}: {error:#}; trying again");
        }
        Err(error) => debug!(attempt, "cannot join: {error:#}"),
    }
    if joiner.engine.input(Input::Closed { conn }).await.is_err() {
        error!("the engine has stopped");
    }
}

/// Reads datagrams for ever.
pub(crate) async fn receive(socket: Arc<UdpSocket>, links: Arc<Mutex<Links>>, engine: Handle) {
    let mut buffer = [0; 2048];
    loop {
        let Ok((length, _)) = socket.recv_from(&mut buffer).await else {
            // An ICMP error of an earlier datagram; the parent may be restarting.
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let opened = links
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .open(&buffer[..length]);
        // What the engine has no room for is resent by the parent.
        if let Some((session, frame)) = opened {
            let _ = engine.try_input(Input::Frame { session, frame });
        }
    }
}

impl Joiner {
    fn parent(&self, attempt: u32) -> Option<SocketAddr> {
        let parents = self.parents.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (attempt.saturating_sub(1) as usize).checked_rem(parents.len())?;
        parents.get(turn).copied()
    }

    /// Joins, then carries the stream; says why it ended.
    async fn session(&self, conn: ConnId, parent: SocketAddr) -> Result<String> {
        let joined = timeout(JOIN_LIMIT, self.join(conn, parent)).await;
        let Joined {
            session,
            stream,
            outbox,
            ended,
        } = joined.context("the parent takes too long")??;
        let why = tokio::select! {
            why = self.carry(session, stream) => why,
            () = self.forward_lines(&outbox) => "the stream is closed".to_owned(),
            () = sleep(RENEW) => "the certificate is renewed".to_owned(),
            _ = ended => "the session was ended".to_owned(),
        };
        self.links().remove(session);
        Ok(why)
    }

    fn links(&self) -> std::sync::MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the first packet to an open session.
    async fn join(&self, conn: ConnId, parent: SocketAddr) -> Result<Joined> {
        let config = {
            let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
            tls::config(&self.cluster, &identity)?
        };
        let tls = tls::connect(parent, config).await?;
        let exporter = tls::exporter(&tls)?;
        let mut handshake = self.introduce(exporter).await?;
        let node = handshake.hello().node;

        let (outbox, queue) = mpsc::channel(STREAM_QUEUE);
        let hello = convert::join_hello_to_proto(handshake.hello());
        say(&outbox, to_parent::Kind::JoinHello(hello)).await?;
        let mut client = h2::client(tls)
            .await?
            .max_decoding_message_size(MAX_MESSAGE);
        let answers = client
            .attach(tokio_stream::wrappers::ReceiverStream::new(queue))
            .await;
        let mut stream = answers
            .map_err(|status| anyhow::anyhow!("{}", status_text(&status)))?
            .into_inner();

        let challenge = match hear(&mut stream).await? {
            to_child::Kind::JoinChallenge(challenge) => convert::challenge_from_proto(challenge)?,
            other => return Err(unexpected(other)),
        };
        let proof = handshake.handle_challenge(&challenge)?;
        say(
            &outbox,
            to_parent::Kind::JoinProof(convert::proof_to_proto(&proof)),
        )
        .await?;
        let accept = match hear(&mut stream).await? {
            to_child::Kind::JoinAccept(accept) => convert::accept_from_proto(accept)?,
            other => return Err(unexpected(other)),
        };
        let keys = handshake.handle_accept(&accept.mac, accept.session)?;

        // The parent is genuine from here on.
        self.heed_clock(challenge.head_time_ms);
        {
            let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
            identity
                .keep_certificate(accept.certificate.clone())
                .context("cannot keep the certificate")?;
        }
        if !accept.parent_address.is_empty() {
            self.prefer(&accept.parent_address)?;
            bail!("sent on to {}", accept.parent_address);
        }
        let parties = Parties {
            parent: accept.parent,
            child: node,
            epoch: accept.epoch,
        };
        let session = accept.session;
        let ended = self
            .links()
            .insert(session, &keys, parties, parent, outbox.clone());
        info!(node = %accept.name, parent = %parent, "joined: in sync");
        self.tell_engine(conn, accept).await?;
        Ok(Joined {
            session,
            stream,
            outbox,
            ended,
        })
    }

    /// What we say about ourselves on a new connection.
    async fn introduce(&self, exporter: [u8; 32]) -> Result<ChildJoin> {
        let me = self
            .identity
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .node;
        let cfg_version = self.cfg_version(me).await;
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).context("the kernel gives no random numbers")?;
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        let introduction = Introduction {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            public_key: identity.key.public().to_vec(),
            nonce,
            cfg_version,
        };
        Ok(match &identity.proof {
            Proof::Grant(grant) => ChildJoin::with_grant(grant, introduction, exporter),
            Proof::Certificate(_) => {
                ChildJoin::with_certificate(identity.node, identity.boot, introduction, exporter)
            }
        })
    }

    async fn cfg_version(&self, me: NodeId) -> u64 {
        let read = self
            .engine
            .query(move |engine, _| engine.tree().get(me).map_or(0, |node| node.cfg_revision));
        read.await.unwrap_or_default()
    }

    async fn tell_engine(&self, conn: ConnId, accept: convert::AcceptMessage) -> Result<()> {
        let mut attach = accept.into_attach(conn);
        attach.dsc.extend(busy::found(&self.jobs));
        self.engine.input(Input::Attached(attach)).await?;
        self.attached.send_modify(|count| *count += 1);
        Ok(())
    }

    /// A parent that the head chose for us comes first; the others stay, should it be gone.
    fn prefer(&self, address: &str) -> Result<()> {
        let address: SocketAddr = address
            .parse()
            .with_context(|| format!("the head sends us to {address:?}, which is no address"))?;
        let mut parents = self.parents.lock().unwrap_or_else(PoisonError::into_inner);
        parents.retain(|parent| *parent != address);
        parents.insert(0, address);
        Ok(())
    }

    fn heed_clock(&self, head_time_ms: u64) {
        if !self.owns_clock || self.joined_file.exists() {
            return;
        }
        let _ = std::fs::write(&self.joined_file, "");
        let head = SystemTime::UNIX_EPOCH + Duration::from_millis(head_time_ms);
        let now = SystemTime::now();
        let off = head
            .duration_since(now)
            .or_else(|_| now.duration_since(head))
            .unwrap_or_default();
        if off > CLOCK_TOLERANCE {
            match crate::clock::set(head) {
                Ok(()) => info!("the clock was {off:?} off and is set to the head's"),
                Err(error) => warn!(%error, "the clock is {off:?} off and cannot be set"),
            }
        }
    }

    /// Hands what the parent says to the engine until the stream ends.
    async fn carry(&self, session: SessionId, mut stream: tonic::Streaming<v1::ToChild>) -> String {
        loop {
            let kind = match stream.message().await {
                Ok(Some(message)) => message.kind,
                Ok(None) => return "the parent closed the stream".to_owned(),
                Err(status) => return status_text(&status),
            };
            let input = match kind {
                Some(to_child::Kind::Frame(frame)) => match convert::frame_from_proto(frame) {
                    Ok(frame) => Input::Frame { session, frame },
                    Err(error) => {
                        return format!("the parent sent a frame that makes no sense: {error}");
                    }
                },
                Some(to_child::Kind::Mutations(set)) => match convert::mutation_set_from_proto(set)
                {
                    Ok(set) => Input::Declare(set),
                    Err(error) => {
                        return format!("the parent sent mutations that make no sense: {error}");
                    }
                },
                Some(to_child::Kind::JoinRefused(refused)) => return refusal(refused),
                // Of a later version.
                Some(to_child::Kind::JoinChallenge(_) | to_child::Kind::JoinAccept(_)) | None => {
                    continue;
                }
            };
            if self.engine.input(input).await.is_err() {
                return "the engine has stopped".to_owned();
            }
        }
    }

    /// Sends our log lines for as long as the stream is open.
    async fn forward_lines(&self, outbox: &mpsc::Sender<v1::ToParent>) {
        loop {
            let line = self.lines.next().await;
            let line = v1::LogLine {
                age_ms: u64::try_from(line.age().as_millis()).unwrap_or(u64::MAX),
                level: line.level.as_str().to_owned(),
                text: line.text,
            };
            if say(outbox, to_parent::Kind::Log(line)).await.is_err() {
                return;
            }
        }
    }
}

async fn say(outbox: &mpsc::Sender<v1::ToParent>, kind: to_parent::Kind) -> Result<()> {
    let message = v1::ToParent { kind: Some(kind) };
    outbox
        .send(message)
        .await
        .ok()
        .context("the stream is closed")
}

async fn hear(stream: &mut tonic::Streaming<v1::ToChild>) -> Result<to_child::Kind> {
    let message = stream
        .message()
        .await
        .map_err(|status| anyhow::anyhow!("{}", status_text(&status)))?;
    message
        .and_then(|message| message.kind)
        .context("the parent closed the stream")
}

fn unexpected(kind: to_child::Kind) -> anyhow::Error {
    match kind {
        to_child::Kind::JoinRefused(refused) => anyhow::anyhow!("{}", refusal(refused)),
        _ => anyhow::anyhow!("the parent speaks out of turn"),
    }
}

/// The head's own words come first: it knows what to do.
fn refusal(refused: v1::JoinRefused) -> String {
    match convert::refused_from_proto(refused) {
        Ok((reason, text, _)) if text.is_empty() => format!("the parent refuses: {reason}"),
        Ok((reason, text, _)) => format!("the parent refuses: {reason}: {text}"),
        Err(error) => format!("the parent refuses, in words that make no sense: {error}"),
    }
}

fn status_text(status: &tonic::Status) -> String {
    let mut text = format!("{:?}", status.code());
    if !status.message().is_empty() {
        let _ = write!(text, ": {}", status.message());
    }
    text
}

#[cfg(test)]
mod tests;
