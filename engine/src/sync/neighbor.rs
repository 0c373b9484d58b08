//! One live session with a neighbor, the same machine for parent and child (docs/sync-protocol.md).
//!
//! Each side sends one stream of values, the local one, and receives the other's, the remote one. A change leaves at once, as a delta from
//! what the neighbor is known to have; it is sent again until a frame of the neighbor acknowledges it. Hellos say where both streams stand, so
//! that a difference shows within one of them, whatever was lost.
//!
//! ```text
//!             frame                 frame
//!            ┌─────┐             ┌────────┐
//!            ▼     │  silence    │        ▼       silence
//!   new ──▶  Alive ─┴──────────▶ Suspect ─┴─────────────────▶ Dead
//!                  3 hellos missed   probes every 250 ms      10 s
//! ```
//!
//! Sealing and transport belong to `wire::seal` and the shells; which urls a neighbor may write is the engine's to judge.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::message::{Delta, Frame, Hello, Signature, Snapshot};
use super::signature::CfgVerifier;
use super::{SessionId, SyncConfig};
use crate::state::{Change, Digest, MAX_VALUES, StateUrl, Value, Values};
use crate::time::Instant;

/// Most probes of a suspect neighbor: one each 250 ms from 6 s of silence to 10 s. At 20 % loss five hellos and all of them, or their answers,
/// get lost with a chance of 0.2^5 x 0.36^16: once in some 2,000 node-years.
pub const MAX_PROBES: u32 = 16;
/// Most deltas sent ahead of an acknowledgement. Each holds all that is not acknowledged, so a flood of changes would grow with its square.
pub const MAX_IN_FLIGHT: u32 = 4;
/// Most bytes of one node's values of one kind (schema: "a node 4,096 values and 1 MiB in all").
pub const MAX_STATE_BYTES: usize = 1 << 20;
/// Least time between two frames of one timer, whatever the configuration says.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// Values with a version that rises with each change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    version: u64,
    values: Values,
    signature: Signature,
    digest: Digest,
}

/// What a neighbor wants done, or has noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NeighborOutput {
    /// Send this.
    Send(Frame),
    /// The remote values changed; [`Neighbor::remote`] shows them all.
    Received {
        /// What really changed.
        changes: Vec<Change>,
        /// Their version.
        version: u64,
        /// The cluster's signature (Cfg only).
        signature: Signature,
    },
    /// A frame was not applied.
    Refused(RefusedFrame),
    /// Three hellos are missing.
    Suspect,
    /// A suspect neighbor was heard.
    Alive,
    /// Silent for too long: the session is over, nothing comes after this.
    Dead,
}

/// Why an authentic frame was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedFrame {
    /// Not signed by the cluster.
    #[error("its Cfg is not signed by the cluster for this node and version")]
    Signature,
    /// The values do not have the digest that comes with them.
    #[error("its values do not have the digest that comes with them")]
    Digest,
    /// Too many values or bytes.
    #[error("it holds more than {MAX_VALUES} values or {MAX_STATE_BYTES} bytes")]
    TooLarge,
    /// It acknowledges what was never sent.
    #[error("it acknowledges a version that was never sent")]
    Acknowledgement,
}

/// One live session.
///
/// After any call that takes `now`, drain [`poll_output`](Self::poll_output), then wait until [`poll_timeout`](Self::poll_timeout). Calls must come
/// in the order of time.
#[derive(Debug)]
pub struct Neighbor {
    session: SessionId,
    config: SyncConfig,
    verifier: Option<CfgVerifier>,

    local: Stream,
    /// Newest local version that the neighbor has said it holds; `None` until it spoke.
    acked: Option<u64>,
    /// Version at which each url last changed, for urls that changed after `acked`; complete from `changes_from` on.
    unacked: BTreeMap<StateUrl, u64>,
    changes_from: u64,
    /// Newest local version that was sent, and how often something was sent since the last acknowledgement.
    sent: u64,
    in_flight: u32,
    resend_at: Option<Instant>,
    resend_after: Duration,
    snapshot_allowed_at: Instant,
    snapshot_owed: bool,

    remote: Stream,
    request_allowed_at: Instant,
    request_after: Duration,

    hello_at: Instant,
    last_heard: Instant,
    liveness: Liveness,
    output: VecDeque<NeighborOutput>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Liveness {
    Alive,
    Suspect { probes: u32, probe_at: Instant },
    Dead,
}

impl Stream {
    /// These values at this version.
    pub fn new(version: u64, values: Values) -> Self {
        Self {
            digest: values.digest(),
            version,
            values,
            signature: Signature::new(),
        }
    }

    /// The same with the cluster's signature.
    pub fn signed(mut self, signature: Signature) -> Self {
        self.signature = signature;
        self
    }

    /// Their version.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The values.
    pub const fn values(&self) -> &Values {
        &self.values
    }

    /// Digest of all values.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The signature that came with them.
    pub const fn signature(&self) -> &Signature {
        &self.signature
    }
}

impl Neighbor {
    /// A session that starts now. `local` is what we send (parent: the child's Cfg; child: its own Dsc), `remote` what we hold of the neighbor's
    /// stream already. A first exchange of hellos tells how much of `local` the neighbor has.
    pub fn new(
        session: SessionId,
        config: SyncConfig,
        now: Instant,
        local: Stream,
        remote: Stream,
    ) -> Self {
        let resend = config.resend.max(MIN_INTERVAL);
        let mut neighbor = Self {
            session,
            config,
            verifier: None,
            changes_from: local.version,
            sent: 0,
            local,
            acked: None,
            unacked: BTreeMap::new(),
            in_flight: 0,
            resend_at: Some(now + resend),
            resend_after: resend,
            snapshot_allowed_at: now,
            snapshot_owed: false,
            remote,
            request_allowed_at: now,
            request_after: resend,
            hello_at: now,
            last_heard: now,
            liveness: Liveness::Alive,
            output: VecDeque::new(),
        };
        neighbor.send_hello(true, now);
        neighbor
    }

    /// Applies remote values only if the cluster signed them (a child, for its Cfg).
    pub fn verify_with(mut self, verifier: CfgVerifier) -> Self {
        self.verifier = Some(verifier);
        self
    }

    /// The local values changed.
    ///
    /// # Panics
    /// When `version` does not rise.
    pub fn update(&mut self, version: u64, changes: &[Change], signature: Signature, now: Instant) {
        assert!(
            version > self.local.version,
            "versions of a stream rise: {version} after {}",
            self.local.version
        );
        let real = self.local.values.apply(changes.iter().cloned());
        self.unacked
            .extend(real.into_iter().map(|change| (change.url, version)));
        self.local.version = version;
        self.local.digest = self.local.values.digest();
        self.local.signature = signature;
        if self.is_dead() {
            return;
        }
        if self.acked.is_some() && self.in_flight < MAX_IN_FLIGHT {
            self.transmit(now);
        }
    }

    /// A frame that the neighbor sealed for this session.
    pub fn handle_frame(&mut self, frame: Frame, now: Instant) {
        match self.liveness {
            Liveness::Dead => return,
            Liveness::Suspect { .. } => {
                self.liveness = Liveness::Alive;
                self.output.push_back(NeighborOutput::Alive);
            }
            Liveness::Alive => {}
        }
        self.last_heard = now;
        match frame {
            Frame::Hello(hello) => self.handle_hello(hello, now),
            Frame::Delta(delta) => self.handle_delta(delta, now),
            Frame::Snapshot(snapshot) => self.handle_snapshot(snapshot, now),
            Frame::SnapshotRequest { have } => {
                self.handle_acknowledgement(have, now);
                self.snapshot_owed = true;
                self.send_owed_snapshot(now);
            }
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.check_liveness(now);
        if self.is_dead() {
            return;
        }
        self.send_owed_snapshot(now);
        if self.resend_at.is_some_and(|at| at <= now) {
            self.resend_after = (self.resend_after * 2).min(self.hello_interval());
            match self.acked {
                Some(_) => self.transmit(now),
                None => {
                    self.resend_at = Some(now + self.resend_after);
                    self.send_hello(true, now);
                }
            }
        }
        if self.hello_at <= now {
            self.send_hello(false, now);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None` once dead.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let liveness = match self.liveness {
            Liveness::Dead => return None,
            Liveness::Alive => self.last_heard + self.config.suspect.min(self.config.dead),
            Liveness::Suspect { probes, probe_at } if probes < MAX_PROBES => {
                probe_at.min(self.last_heard + self.config.dead)
            }
            Liveness::Suspect { .. } => self.last_heard + self.config.dead,
        };
        let owed = self.snapshot_owed.then_some(self.snapshot_allowed_at);
        [Some(liveness), Some(self.hello_at), self.resend_at, owed]
            .into_iter()
            .flatten()
            .min()
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<NeighborOutput> {
        self.output.pop_front()
    }

    /// Which session.
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// What the neighbor has sent us, as far as it was applied.
    pub const fn remote(&self) -> &Values {
        &self.remote.values
    }

    /// Version of [`remote`](Self::remote).
    pub const fn remote_version(&self) -> u64 {
        self.remote.version
    }

    /// What we send.
    pub const fn local(&self) -> &Stream {
        &self.local
    }

    /// Whether the neighbor holds all of our values.
    pub fn is_acknowledged(&self) -> bool {
        self.acked == Some(self.local.version)
    }

    /// Whether three hellos are missing.
    pub const fn is_suspect(&self) -> bool {
        matches!(self.liveness, Liveness::Suspect { .. })
    }

    /// Whether the session is over.
    pub const fn is_dead(&self) -> bool {
        matches!(self.liveness, Liveness::Dead)
    }

    /// When the last authentic frame came.
    pub const fn last_heard(&self) -> Instant {
        self.last_heard
    }

    fn handle_hello(&mut self, hello: Hello, now: Instant) {
        self.handle_acknowledgement(hello.have, now);
        if hello.version == self.remote.version && hello.digest != self.remote.digest.short() {
            self.request_snapshot(now);
        }
        if hello.probe {
            self.send_hello(false, now);
        }
    }

    /// A delta leads from `base`, or any version after it, to `version`: it holds the last value of every url that changed in between.
    fn handle_delta(&mut self, delta: Delta, now: Instant) {
        self.handle_acknowledgement(delta.have, now);
        if delta.version <= self.remote.version {
            return self.send_hello(false, now);
        }
        if delta.base > self.remote.version {
            return self.request_snapshot(now);
        }
        let mut values = self.remote.values.clone();
        let changes = values.apply(delta.changes);
        let next = Stream::new(delta.version, values).signed(delta.signature);
        if next.digest.short() != delta.digest {
            return self.request_snapshot(now);
        }
        self.receive(next, changes, now);
    }

    fn handle_snapshot(&mut self, snapshot: Snapshot, now: Instant) {
        self.handle_acknowledgement(snapshot.have, now);
        let repairs = snapshot.version == self.remote.version
            && snapshot.digest != self.remote.digest.short();
        if snapshot.version <= self.remote.version && !repairs {
            return self.send_hello(false, now);
        }
        let mut values = Values::default();
        values.apply(snapshot.values);
        let next = Stream::new(snapshot.version, values).signed(snapshot.signature);
        if next.digest.short() != snapshot.digest {
            return self.refuse(RefusedFrame::Digest);
        }
        let changes = self.remote.values.diff(&next.values);
        self.receive(next, changes, now);
    }

    fn receive(&mut self, next: Stream, changes: Vec<Change>, now: Instant) {
        if !fits(&next.values) {
            return self.refuse(RefusedFrame::TooLarge);
        }
        if let Some(verifier) = &self.verifier
            && !verifier.verify(next.version, &next.digest, &next.signature)
        {
            return self.refuse(RefusedFrame::Signature);
        }
        self.remote = next;
        self.request_allowed_at = now;
        self.request_after = self.config.resend.max(MIN_INTERVAL);
        self.output.push_back(NeighborOutput::Received {
            changes,
            version: self.remote.version,
            signature: self.remote.signature.clone(),
        });
        self.send_hello(false, now);
    }

    fn handle_acknowledgement(&mut self, have: u64, now: Instant) {
        if have > self.local.version {
            return self.refuse(RefusedFrame::Acknowledgement);
        }
        if self.acked.is_some_and(|acked| have <= acked) {
            return;
        }
        self.acked = Some(have);
        self.unacked.retain(|_, changed_at| *changed_at > have);
        self.in_flight = 0;
        self.resend_after = self.config.resend.max(MIN_INTERVAL);
        if have == self.local.version {
            self.resend_at = None;
        } else if self.sent < self.local.version {
            self.transmit(now);
        }
    }

    /// Sends all that the neighbor has not acknowledged, and again after `resend_after`.
    fn transmit(&mut self, now: Instant) {
        self.in_flight += 1;
        self.sent = self.local.version;
        self.resend_at = Some(now + self.resend_after);
        match self.acked {
            Some(base)
                if base >= self.changes_from && self.unacked.len() <= self.local.values.len() =>
            {
                let changes = self.unacked.keys().map(|url| Change {
                    url: url.clone(),
                    value: self.local.values.get(url.as_str()).cloned(),
                });
                let delta = Delta {
                    base,
                    version: self.local.version,
                    changes: changes.collect(),
                    digest: self.local.digest.short(),
                    signature: self.local.signature.clone(),
                    have: self.remote.version,
                };
                self.send(Frame::Delta(delta), now);
            }
            _ => self.send_snapshot(now),
        }
    }

    fn send_snapshot(&mut self, now: Instant) {
        let snapshot = Snapshot {
            version: self.local.version,
            values: self.local.values.to_changes(),
            digest: self.local.digest.short(),
            signature: self.local.signature.clone(),
            have: self.remote.version,
        };
        self.snapshot_owed = false;
        self.snapshot_allowed_at = now + self.config.resend.max(MIN_INTERVAL);
        self.send(Frame::Snapshot(snapshot), now);
    }

    /// A neighbor that asks faster than we resend waits, so that it cannot make us send at line rate.
    fn send_owed_snapshot(&mut self, now: Instant) {
        if self.snapshot_owed && self.snapshot_allowed_at <= now {
            self.send_snapshot(now);
        }
    }

    fn request_snapshot(&mut self, now: Instant) {
        if self.request_allowed_at <= now {
            self.request_allowed_at = now + self.request_after;
            self.request_after = (self.request_after * 2).min(self.hello_interval());
            let have = self.remote.version;
            self.output
                .push_back(NeighborOutput::Send(Frame::SnapshotRequest { have }));
        }
    }

    fn send_hello(&mut self, probe: bool, now: Instant) {
        let hello = Hello {
            version: self.local.version,
            digest: self.local.digest.short(),
            have: self.remote.version,
            probe,
        };
        self.send(Frame::Hello(hello), now);
    }

    /// Every one of these frames says where both streams stand, so the next hello can wait.
    fn send(&mut self, frame: Frame, now: Instant) {
        self.hello_at = now + self.hello_interval();
        self.output.push_back(NeighborOutput::Send(frame));
    }

    fn check_liveness(&mut self, now: Instant) {
        let silence = now.since(self.last_heard);
        if self.is_dead() {
            return;
        }
        if silence >= self.config.dead {
            self.liveness = Liveness::Dead;
            self.output.push_back(NeighborOutput::Dead);
            return;
        }
        if self.liveness == Liveness::Alive && silence >= self.config.suspect {
            self.output.push_back(NeighborOutput::Suspect);
            self.liveness = Liveness::Suspect {
                probes: 0,
                probe_at: now,
            };
        }
        if let Liveness::Suspect { probes, probe_at } = self.liveness
            && probes < MAX_PROBES
            && probe_at <= now
        {
            self.liveness = Liveness::Suspect {
                probes: probes + 1,
                probe_at: now + self.config.probe.max(MIN_INTERVAL),
            };
            self.send_hello(true, now);
        }
    }

    fn refuse(&mut self, why: RefusedFrame) {
        self.output.push_back(NeighborOutput::Refused(why));
    }

    fn hello_interval(&self) -> Duration {
        self.config.hello.max(MIN_INTERVAL)
    }
}

fn fits(values: &Values) -> bool {
    fn size(value: &Value) -> usize {
        match value {
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => 8,
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::List(items) => items.iter().map(|item| size(item) + 4).sum(),
        }
    }
    let bytes: usize = values
        .iter()
        .map(|(url, value)| url.as_str().len() + size(value))
        .sum();
    values.len() <= MAX_VALUES && bytes <= MAX_STATE_BYTES
}

#[cfg(test)]
mod tests;
