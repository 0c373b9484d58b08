//! The head's end of sync: TLS, datagrams and certificates around the engine's state machines (DESIGN 4, docs/sync-protocol.md).
//!
//! - `pki`: the cluster's keys, the head's own certificate, certificates for nodes.
//! - `attach`: one TLS connection of a child, from hello to the end of its session.
//! - [`SyncHub`]: who is connected and how a session's frames travel: sealed in a datagram if they fit and we know the child's
//!   address, else over its stream. Addresses are learned from genuine datagrams only.
//!
//! Nothing is decided here: who may join is the engine's word.

mod attach;
mod listen;
mod pki;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::driver::Handle;
use engine::event::{ConnId, Input};
use engine::mutation::MutationSet;
use engine::state::NodeId;
use engine::sync::join::JoinOutcome;
use engine::sync::message::Frame;
use engine::sync::{SessionId, SyncConfig};
use engine::wire::convert::mutation_set_to_proto;
use engine::wire::seal::{End, Parties, SealError, Sessions};
use proto::v1;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

pub(crate) use listen::listen;
pub(crate) use pki::{Keys, parse_hex};

/// What may wait for one connection: a burst of deltas that found no datagram. A child that takes no more is cut and joins again.
const MAX_WAITING: usize = 256;

/// What a connection's task is told.
#[derive(Debug)]
enum ToConn {
    Outcome(JoinOutcome),
    Frame(Frame),
    Mutations(Arc<v1::MutationSet>),
    End(&'static str),
}

struct Peer {
    conn: ConnId,
    address: Option<SocketAddr>,
}

#[derive(Default)]
struct Table {
    conns: HashMap<ConnId, mpsc::Sender<ToConn>>,
    sealed: Sessions,
    peers: HashMap<SessionId, Peer>,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct SyncHub(Arc<Inner>);

struct Inner {
    me: NodeId,
    timers: SyncConfig,
    keys: Keys,
    handle: Handle,
    udp: UdpSocket,
    next_conn: AtomicU64,
    table: Mutex<Table>,
}

impl SyncHub {
    fn new(me: NodeId, timers: SyncConfig, keys: Keys, handle: Handle, udp: UdpSocket) -> Self {
        Self(Arc::new(Inner {
            me,
            timers,
            keys,
            handle,
            udp,
            next_conn: AtomicU64::new(1),
            table: Mutex::default(),
        }))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> (ConnId, mpsc::Receiver<ToConn>) {
        let conn = ConnId(self.0.next_conn.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        self.table().conns.insert(conn, sender);
        (conn, receiver)
    }

    /// Forgets a connection and its session, and says so to the engine.
    async fn close(&self, conn: ConnId) {
        {
            let mut table = self.table();
            table.conns.remove(&conn);
            let of_conn =
                |(session, peer): (&SessionId, &Peer)| (peer.conn == conn).then_some(*session);
            if let Some(session) = table.peers.iter().find_map(of_conn) {
                table.peers.remove(&session);
                table.sealed.remove(session);
            }
        }
        // The engine ends only with the process.
        let _ = self.0.handle.input(Input::Closed { conn }).await;
    }

    /// The engine's answer to a child's hello or proof.
    ///
    /// The keys of an accepted session are in place before anything else can be sent in it.
    pub(crate) fn join(&self, conn: ConnId, outcome: JoinOutcome) {
        let mut table = self.table();
        if !table.conns.contains_key(&conn) {
            debug!(?conn, "join outcome for a connection that is gone");
            return;
        }
        if let JoinOutcome::Accept(accepted) = &outcome {
            let parties = Parties {
                parent: self.0.me,
                child: accepted.node,
                epoch: accepted.epoch,
            };
            table
                .sealed
                .insert(End::Parent, accepted.session, &accepted.keys, parties);
            table.peers.insert(
                accepted.session,
                Peer {
                    conn,
                    address: None,
                },
            );
        }
        tell(&mut table, conn, ToConn::Outcome(outcome));
    }

    /// Sends a frame of a session.
    pub(crate) fn send(&self, session: SessionId, frame: Frame) {
        let mut table = self.table();
        let Some(peer) = table.peers.get(&session) else {
            return;
        };
        let (conn, address) = (peer.conn, peer.address);
        if let Some(address) = address {
            match table.sealed.seal(session, &frame) {
                Ok(datagram) => match self.0.udp.try_send_to(&datagram, address) {
                    Ok(_) => return count("sent", "datagram"),
                    // The socket's buffer is full, or the route is gone: the stream knows how to wait.
                    Err(error) => debug!(?session, %error, "datagram not sent"),
                },
                Err(SealError::TooLong(_)) => {}
                Err(error @ (SealError::Session | SealError::Exhausted)) => {
                    warn!(?session, %error, "session cannot send");
                    return tell(&mut table, conn, ToConn::End("its keys are used up"));
                }
            }
        }
        count("sent", "stream");
        tell(&mut table, conn, ToConn::Frame(frame));
    }

    /// Tells children what is declared from now on, over their streams. One that takes no more is cut, and hears it when it joins again.
    pub(crate) fn declared(&self, sessions: &[SessionId], set: &MutationSet) {
        let set = Arc::new(mutation_set_to_proto(set));
        let mut table = self.table();
        for session in sessions {
            if let Some(conn) = table.peers.get(session).map(|peer| peer.conn) {
                tell(&mut table, conn, ToConn::Mutations(Arc::clone(&set)));
            }
        }
    }

    /// A session is over.
    pub(crate) fn end(&self, session: SessionId, why: &'static str) {
        let mut table = self.table();
        table.sealed.remove(session);
        if let Some(peer) = table.peers.remove(&session) {
            tell(&mut table, peer.conn, ToConn::End(why));
        }
    }

    /// A datagram from anybody.
    fn datagram(&self, bytes: &[u8], from: SocketAddr) {
        let mut table = self.table();
        match table.sealed.open(bytes) {
            Ok((session, frame)) => {
                if let Some(peer) = table.peers.get_mut(&session)
                    && peer.address.replace(from) != Some(from)
                {
                    debug!(?session, %from, "child's address");
                }
                drop(table);
                count("received", "datagram");
                // A flooded engine loses frames as a network does; the protocol asks again.
                if !self.0.handle.try_input(Input::Frame { session, frame }) {
                    count("received", "lost");
                }
            }
            Err(dropped) => {
                metrics::counter!("kraken_sync_dropped_total", "reason" => reason(dropped.reason))
                    .increment(1);
                debug!(%from, %dropped, "datagram dropped");
                let conn = dropped
                    .culprit
                    .and_then(|session| table.peers.get(&session))
                    .map(|peer| peer.conn);
                if let Some(conn) = conn {
                    warn!(?conn, %from, "a child sent a genuine frame that makes no sense: its session ends");
                    tell(&mut table, conn, ToConn::End("it sent a malformed frame"));
                }
            }
        }
    }

    /// Receives datagrams until the socket fails for good.
    async fn receive(self) {
        let mut buffer = [0; 2048];
        loop {
            match self.0.udp.recv_from(&mut buffer).await {
                Ok((length, from)) => self.datagram(&buffer[..length], from),
                Err(error) => {
                    // Errors here are about single peers (ICMP); a pause keeps a broken socket from spinning.
                    debug!(%error, "sync socket");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
        }
    }
}

/// Queues something for a connection; one that takes no more is cut.
fn tell(table: &mut Table, conn: ConnId, what: ToConn) {
    let Some(sender) = table.conns.get(&conn) else {
        return;
    };
    if let Err(mpsc::error::TrySendError::Full(_)) = sender.try_send(what) {
        info!(?conn, "a child takes no more messages and is cut");
        // The task sees its queue end, closes the stream and tells the engine.
        table.conns.remove(&conn);
    }
}

fn count(what: &'static str, way: &'static str) {
    metrics::counter!("kraken_sync_frames_total", "direction" => what, "way" => way).increment(1);
}

fn reason(reason: engine::wire::seal::DropReason) -> &'static str {
    use engine::wire::seal::DropReason::{
        Forged, Format, Long, Malformed, Replayed, Session, Short,
    };
    match reason {
        Short => "short",
        Long => "long",
        Format => "format",
        Session => "session",
        Forged => "forged",
        Replayed => "replayed",
        Malformed => "malformed",
    }
}
