//! Open sessions: keys, address and stream of each, and which way a frame goes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use engine::sync::SessionId;
use engine::sync::join::SessionKeys;
use engine::sync::message::Frame;
use engine::wire::convert::frame_to_proto;
use engine::wire::seal::{End, Parties, SealError, Sessions};
use proto::v1::{self, to_parent};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

/// All sessions of this agent: the one with its parent, and for a moment the one before.
pub(crate) struct Links {
    sessions: Sessions,
    peers: BTreeMap<SessionId, Peer>,
    socket: Arc<UdpSocket>,
}

struct Peer {
    address: SocketAddr,
    outbox: mpsc::Sender<v1::ToParent>,
    /// Dropped with the session; its task notices.
    _end: oneshot::Sender<()>,
}

impl Links {
    /// No sessions yet.
    pub(crate) fn new(socket: Arc<UdpSocket>) -> Self {
        Self {
            sessions: Sessions::default(),
            peers: BTreeMap::new(),
            socket,
        }
    }

    /// Opens a session. The receiver ends when the session does.
    pub(super) fn insert(
        &mut self,
        session: SessionId,
        keys: &SessionKeys,
        parties: Parties,
        address: SocketAddr,
        outbox: mpsc::Sender<v1::ToParent>,
    ) -> oneshot::Receiver<()> {
        let (end, ended) = oneshot::channel();
        self.sessions.insert(End::Child, session, keys, parties);
        let peer = Peer {
            address,
            outbox,
            _end: end,
        };
        self.peers.insert(session, peer);
        ended
    }

    /// Forgets a session and its keys, and closes its stream.
    pub(crate) fn remove(&mut self, session: SessionId) {
        self.sessions.remove(session);
        self.peers.remove(&session);
    }

    /// Verifies a datagram. What is not genuine is counted and dropped; a genuine one that makes no sense ends its session.
    pub(super) fn open(&mut self, datagram: &[u8]) -> Option<(SessionId, Frame)> {
        match self.sessions.open(datagram) {
            Ok(opened) => Some(opened),
            Err(dropped) => {
                debug!(%dropped, "datagram");
                if let Some(session) = dropped.culprit {
                    warn!("the parent sends frames that make no sense; its session is ended");
                    self.remove(session);
                }
                None
            }
        }
    }

    /// Sends a frame: sealed in a datagram if it fits, else over the stream. What gets lost is resent by the session.
    pub(crate) fn send(&mut self, session: SessionId, frame: &Frame) {
        let Some(peer) = self.peers.get(&session) else {
            return;
        };
        match self.sessions.seal(session, frame) {
            Ok(datagram) => {
                if let Err(error) = self.socket.try_send_to(&datagram, peer.address) {
                    debug!(%error, "datagram not sent");
                }
            }
            Err(SealError::TooLong(bytes)) => {
                let kind = Some(to_parent::Kind::Frame(frame_to_proto(frame)));
                if peer.outbox.try_send(v1::ToParent { kind }).is_err() {
                    warn!(
                        bytes,
                        "the stream to the parent is stuck; a frame is dropped"
                    );
                }
            }
            Err(error) => {
                warn!(%error, "session ended");
                self.remove(session);
            }
        }
    }
}
