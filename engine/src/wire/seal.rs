//! Sealed frames: one authenticated, encrypted datagram each (docs/sync-protocol.md; wire rules after WireGuard and RFC 7474).
//!
//! ```text
//!   0        1        2                 4                 8                12                16                20
//!   ┌────────┬────────┬─────────────────┬──────────────────────────────────┬──────────────────────────────────┬───────────┬────────┐
//!   │version │ type   │ flags           │ session id                       │ counter                          │ciphertext │ tag 16 │
//!   └────────┴────────┴─────────────────┴──────────────────────────────────┴──────────────────────────────────┴───────────┴────────┘
//! ```
//!
//! ChaCha20-Poly1305 with one key a direction; nonce: four zero bytes and the counter; associated data: the header, the sender's and the receiver's
//! node id, the head's epoch. Numbers are little endian. A frame is verified before any state is touched, so nobody without the key moves the
//! replay window. What does not fit [`MAX_DATAGRAM`] goes over the session's TLS stream.

mod window;

use std::collections::BTreeMap;
use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::convert::{decode_frame, encode_frame};
use crate::state::NodeId;
use crate::sync::SessionId;
use crate::sync::join::{Secret, SessionKeys};
use crate::sync::message::Frame;

pub use window::{ReplayWindow, WINDOW_BITS};

/// Longest datagram: fits an Ethernet MTU of 1,500 with IPv6, UDP and a tunnel's header to spare, so that it is never fragmented.
pub const MAX_DATAGRAM: usize = 1400;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 20;
/// Bytes that sealing adds.
pub const OVERHEAD: usize = HEADER_BYTES + TAG_BYTES;
/// Longest payload of a datagram.
pub const MAX_PAYLOAD: usize = MAX_DATAGRAM - OVERHEAD;
/// Most frames under one key; a session that gets there ends and its child re-joins.
pub const MAX_FRAMES: u64 = 1 << 48;

const TAG_BYTES: usize = 16;
const VERSION: u8 = 1;
const TYPE_FRAME: u8 = 1;

/// Why a datagram is dropped; each is counted, none is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum DropReason {
    /// Shorter than header and tag.
    #[error("truncated")]
    Short,
    /// Longer than any datagram of ours.
    #[error("oversized")]
    Long,
    /// Another version, type or flags.
    #[error("unknown format")]
    Format,
    /// No such session.
    #[error("unknown session")]
    Session,
    /// Not sealed with this session's key for this direction.
    #[error("forged")]
    Forged,
    /// Its counter came before, or is older than the window.
    #[error("replayed")]
    Replayed,
    /// Authentic, but no acceptable message: the peer is faulty.
    #[error("malformed")]
    Malformed,
}

impl DropReason {
    /// All of them, for counters.
    pub const ALL: [Self; 7] = [
        Self::Short,
        Self::Long,
        Self::Format,
        Self::Session,
        Self::Forged,
        Self::Replayed,
        Self::Malformed,
    ];
}

/// A datagram that was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("datagram dropped: {reason}")]
pub struct Dropped {
    /// Why.
    pub reason: DropReason,
    /// The session whose peer is to blame: set only when the datagram was genuine, so that a stranger can blame nobody.
    pub culprit: Option<SessionId>,
}

impl From<DropReason> for Dropped {
    fn from(reason: DropReason) -> Self {
        Self {
            reason,
            culprit: None,
        }
    }
}

/// Why a frame cannot be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no such session.
    #[error("there is no such session")]
    Session,
    /// Too long for a datagram: use the stream.
    #[error("a frame of {0} bytes does not fit a datagram")]
    TooLong(usize),
    /// The key has sealed all it may: the session must end.
    #[error("the session has sent {MAX_FRAMES} frames and must be renewed")]
    Exhausted,
}

/// Who speaks to whom: part of what is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parties {
    /// The parent.
    pub parent: NodeId,
    /// The child.
    pub child: NodeId,
    /// The head's epoch.
    pub epoch: u64,
}

/// Which end of a session we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// We are the parent: we send under `down`, receive under `up`.
    Parent,
    /// We are the child.
    Child,
}

/// Seals the frames of one direction.
pub struct Sealer {
    key: Key,
    counter: u64,
}

/// Opens the frames of the other direction.
pub struct Opener {
    key: Key,
    window: ReplayWindow,
}

struct Key {
    key: LessSafeKey,
    session: SessionId,
    /// Sender id, receiver id, epoch: the associated data behind the header.
    context: [u8; 40],
}

impl Key {
    fn new(
        secret: &Secret,
        session: SessionId,
        sender: NodeId,
        receiver: NodeId,
        epoch: u64,
    ) -> Self {
        let mut context = [0; 40];
        context[..16].copy_from_slice(sender.as_bytes());
        context[16..32].copy_from_slice(receiver.as_bytes());
        context[32..].copy_from_slice(&epoch.to_le_bytes());
        let Ok(key) = UnboundKey::new(&CHACHA20_POLY1305, &secret.0) else {
            unreachable!("ChaCha20-Poly1305 takes every key of 32 bytes")
        };
        Self {
            key: LessSafeKey::new(key),
            session,
            context,
        }
    }

    fn aad(&self, header: &[u8]) -> Aad<[u8; HEADER_BYTES + 40]> {
        let mut aad = [0; HEADER_BYTES + 40];
        aad[..HEADER_BYTES].copy_from_slice(header);
        aad[HEADER_BYTES..].copy_from_slice(&self.context);
        Aad::from(aad)
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Sealer and opener of one end of a session.
pub fn session_ends(
    end: End,
    session: SessionId,
    keys: &SessionKeys,
    parties: Parties,
) -> (Sealer, Opener) {
    let Parties {
        parent,
        child,
        epoch,
    } = parties;
    let up = Key::new(&keys.up, session, child, parent, epoch);
    let down = Key::new(&keys.down, session, parent, child, epoch);
    let (send, receive) = match end {
        End::Parent => (down, up),
        End::Child => (up, down),
    };
    (
        Sealer {
            key: send,
            counter: 0,
        },
        Opener {
            key: receive,
            window: ReplayWindow::default(),
        },
    )
}

impl Sealer {
    /// Seals a payload.
    ///
    /// # Errors
    /// Too long; key used up.
    pub fn seal(&mut self, payload: &[u8]) -> Result<Vec<u8>, SealError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(SealError::TooLong(payload.len()));
        }
        if self.counter >= MAX_FRAMES {
            return Err(SealError::Exhausted);
        }
        let mut out = Vec::with_capacity(payload.len() + OVERHEAD);
        out.extend_from_slice(&[VERSION, TYPE_FRAME, 0, 0]);
        out.extend_from_slice(&self.key.session.0.to_le_bytes());
        out.extend_from_slice(&self.counter.to_le_bytes());
        out.extend_from_slice(payload);
        let (header, body) = out.split_at_mut(HEADER_BYTES);
        let tag = self
            .key
            .key
            .seal_in_place_separate_tag(nonce(self.counter), self.key.aad(header), body)
            .map_err(|_| SealError::TooLong(payload.len()))?;
        out.extend_from_slice(tag.as_ref());
        self.counter += 1;
        Ok(out)
    }
}

impl Opener {
    /// Verifies a datagram of this session and gives its payload. State changes only if it is genuine and came for the first time.
    ///
    /// # Errors
    /// Why it is dropped.
    pub fn open(&mut self, datagram: &[u8]) -> Result<Vec<u8>, DropReason> {
        let (session, counter) = parse_header(datagram)?;
        if session != self.key.session {
            return Err(DropReason::Session);
        }
        let (header, body) = datagram.split_at(HEADER_BYTES);
        let mut payload = body.to_vec();
        let length = self
            .key
            .key
            .open_in_place(nonce(counter), self.key.aad(header), &mut payload)
            .map_err(|_| DropReason::Forged)?
            .len();
        if !self.window.accept(counter) {
            return Err(DropReason::Replayed);
        }
        payload.truncate(length);
        Ok(payload)
    }
}

fn parse_header(datagram: &[u8]) -> Result<(SessionId, u64), DropReason> {
    if datagram.len() < OVERHEAD {
        return Err(DropReason::Short);
    }
    if datagram.len() > MAX_DATAGRAM {
        return Err(DropReason::Long);
    }
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&datagram[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let (session, counter) = (number(4), number(12));
    if datagram[..4] != [VERSION, TYPE_FRAME, 0, 0] || counter >= MAX_FRAMES {
        return Err(DropReason::Format);
    }
    Ok((SessionId(session), counter))
}

/// The sessions of a process by id, and counts of what they dropped. A shell keeps the peers' addresses itself.
#[derive(Default)]
pub struct Sessions {
    sessions: BTreeMap<SessionId, (Sealer, Opener)>,
    drops: BTreeMap<DropReason, u64>,
}

impl Sessions {
    /// Adds a session.
    pub fn insert(&mut self, end: End, session: SessionId, keys: &SessionKeys, parties: Parties) {
        self.sessions
            .insert(session, session_ends(end, session, keys, parties));
    }

    /// Forgets a session and its keys.
    pub fn remove(&mut self, session: SessionId) -> bool {
        self.sessions.remove(&session).is_some()
    }

    /// Whether there is this session.
    pub fn contains(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Seals a frame as a datagram.
    ///
    /// # Errors
    /// [`SealError::TooLong`]: send it over the stream; the others end the session.
    pub fn seal(&mut self, session: SessionId, frame: &Frame) -> Result<Vec<u8>, SealError> {
        let (sealer, _) = self.sessions.get_mut(&session).ok_or(SealError::Session)?;
        sealer.seal(&encode_frame(frame))
    }

    /// Opens a datagram from anybody. A genuine one tells its session: its source address is the peer's from then on.
    ///
    /// # Errors
    /// Why it is dropped; counted.
    pub fn open(&mut self, datagram: &[u8]) -> Result<(SessionId, Frame), Dropped> {
        let opened = self.try_open(datagram);
        if let Err(dropped) = &opened {
            *self.drops.entry(dropped.reason).or_default() += 1;
        }
        opened
    }

    fn try_open(&mut self, datagram: &[u8]) -> Result<(SessionId, Frame), Dropped> {
        let (session, _) = parse_header(datagram)?;
        let (_, opener) = self.sessions.get_mut(&session).ok_or(DropReason::Session)?;
        let payload = opener.open(datagram)?;
        let frame = decode_frame(&payload).map_err(|_| Dropped {
            reason: DropReason::Malformed,
            culprit: Some(session),
        })?;
        Ok((session, frame))
    }

    /// How many datagrams were dropped for each reason.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL
            .into_iter()
            .map(|reason| (reason, self.drops.get(&reason).copied().unwrap_or_default()))
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("sessions", &self.sessions.keys())
            .field("drops", &self.drops)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
