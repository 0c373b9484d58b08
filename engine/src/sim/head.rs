//! The head's process: its engine, its store, its sessions, and what its shell does with outputs. Its modules are in `modules`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::v1;

use super::World;
use super::check::Cause;
use super::cluster::guards;
use super::happening::Happening;
use super::net::Host;
use super::world::{HEAD, Phase, head_node};
use crate::engine::{EngineConfig, Role};
use crate::event::{
    CommitError, CommitId, ConnId, Event, Input, Output, Record, RequestId, Write, WriteError,
    WriteOp,
};
use crate::state::{Change, LastKnown, NodeId};
use crate::sync::join::{Accepted, ChallengeMessage, Grant, JoinOutcome, RefuseReason};
use crate::sync::message::Frame;
use crate::sync::signature::CfgSigner;
use crate::sync::{SessionId, SyncConfig};
use crate::wire::convert::{
    Issued, accept_to_proto, challenge_to_proto, frame_to_proto, refused_to_proto,
};
use crate::wire::seal::{End, Parties, SealError, Sessions};
use crate::{Engine, event};

/// How often the modules' declarations are declared anew.
const REDECLARE_SECONDS: u64 = 60;

/// A commit under way.
pub(super) struct Pending {
    commit: CommitId,
    records: Vec<Record>,
    own: bool,
}

/// A running head.
pub(super) struct Head {
    pub(super) engine: Engine,
    pub(super) sealed: Sessions,
    pub(super) incarnation: u64,
    /// Where each session's child is, and the connection that carries its stream.
    pub(super) peers: BTreeMap<SessionId, (usize, ConnId)>,
    /// The commit that the store works on.
    pub(super) pending: Option<Pending>,
    /// Who waits for a grant: machine and power cycle.
    pub(super) fetches: BTreeMap<RequestId, (usize, u64)>,
    pub(super) interrupted: BTreeSet<u64>,
    /// What became known since it was last written down.
    news: BTreeMap<NodeId, Vec<Change>>,
}

/// What a write was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WriteKind {
    /// Must succeed, or is tried again.
    Wanted,
    /// Must be refused.
    Bad,
    /// May fail.
    Any,
}

impl World {
    pub(super) fn start_head(&mut self) {
        if self.head.is_some() {
            return;
        }
        let config = EngineConfig {
            me: HEAD,
            // The store lets it rise with every start.
            role: Role::Head {
                epoch: self.head_incarnation + 1,
            },
            sync: SyncConfig::default(),
            healing: self.healing(),
            seed: self.rng.next(),
        };
        let mut engine = Engine::new(config, self.schema.clone(), self.now);
        engine.set_signer(CfgSigner::from_seed(&self.cluster_seed).expect("it was one before"));
        engine.restore_node(head_node());
        for node in self.disk.nodes.values() {
            engine.restore_node(node.clone());
        }
        for grant in self.disk.grants.values() {
            engine.restore_grant(grant.clone());
        }
        engine.restore_counters(
            self.disk.revision,
            self.disk.last_attempt,
            self.disk.frozen.clone(),
        );
        engine.set_guards(guards(self.options.seed));
        for (told, memo) in &self.disk.memos {
            engine.restore_memo(memo.clone().aged(self.now.since(*told)));
        }
        self.check.restarted(&self.disk);
        self.head_incarnation += 1;
        self.head = Some(Head {
            engine,
            sealed: Sessions::default(),
            incarnation: self.head_incarnation,
            peers: BTreeMap::new(),
            pending: None,
            fetches: BTreeMap::new(),
            interrupted: BTreeSet::new(),
            news: BTreeMap::new(),
        });
        let set = self.set.clone();
        self.feed_head(Input::Declare(set), Cause::Other);
        if self.phase == Phase::Healed {
            self.operator_restores();
        }
    }

    /// kill -9: what was not durable is gone; what the disk had taken but not told stays.
    pub(super) fn crash_head(&mut self) {
        let Some(head) = self.head.take() else { return };
        if let Some(Pending { records, .. }) = head.pending
            && self.rng.permille(500)
        {
            self.hit("crash after the commit, before its answer");
            self.store(&records);
        }
        self.check.forget(Host::Head);
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        conns
            .into_iter()
            .for_each(|conn| self.close_conn(conn, Host::Head));
    }

    pub(super) fn feed_head(&mut self, input: Input, cause: Cause) {
        let now = self.now;
        if let Some(head) = &mut self.head {
            head.engine.handle_input(input, now);
        }
        self.drain_head(cause);
    }

    pub(super) fn drain_head(&mut self, cause: Cause) {
        while let Some(output) = self
            .head
            .as_mut()
            .and_then(|head| head.engine.poll_output())
        {
            if self.options.verbose {
                println!("{:?}   head: {}", self.now, cut(&output));
            }
            self.head_output(output, cause);
        }
        self.account();
    }

    /// Nodes that are back where they should be, or go nowhere, take no slot any more.
    pub(super) fn account(&mut self) {
        let Some(head) = &self.head else { return };
        self.check.settle(|node| !head.engine.is_on_its_way(node));
    }

    fn head_output(&mut self, output: Output, cause: Cause) {
        match output {
            Output::Commit {
                commit,
                records,
                own,
            } => self.begin_commit(Pending {
                commit,
                records,
                own,
            }),
            Output::Written { request, result } => {
                self.written(request, result.map(|done| done.revision))
            }
            Output::Fire(fire) => self.head_fires(fire),
            Output::Interrupt { attempt, .. } => {
                self.hit("head interrupts a mutation");
                if let Some(head) = &mut self.head {
                    head.interrupted.insert(attempt);
                }
            }
            Output::Grant { request, result } => self.grant_answer(request, result),
            Output::Join { conn, outcome } => self.join_answer(conn, outcome),
            Output::Send { session, frame } => self.head_sends(session, frame),
            Output::EndSession { session, why, .. } => self.head_ends(session, why),
            Output::Declared { sessions, set } => self.head_declares(&sessions, &set),
            Output::Attach { .. } => self.check.fail("a head attaches to nobody".into()),
            Output::Remember(memo) => self.disk.memos.push((self.now, memo)),
            Output::Event(event) => self.head_event(&event, cause),
        }
    }

    fn head_event(&mut self, event: &Event, cause: Cause) {
        match event {
            Event::Dsc { node, changes } => {
                if let Some(head) = &mut self.head {
                    head.news
                        .entry(*node)
                        .or_default()
                        .extend(LastKnown::to_keep(changes));
                }
            }
            Event::Join {
                text, alarm: true, ..
            } => {
                // No disk of this world is restored from a backup.
                if text.contains("old backup") {
                    self.check.fail(format!("F11: {text}"));
                }
                self.hit("alarm");
            }
            Event::Parked { .. } => self.hit("node parked"),
            Event::Mutation {
                what: event::MutationEvent::Failed { .. },
                ..
            } => self.hit("mutation fails on the head"),
            _ => {}
        }
        self.check.event(Host::Head, event, cause);
    }

    // The store.

    fn begin_commit(&mut self, pending: Pending) {
        let slow = self.disk.slow_until.is_some_and(|until| self.now < until);
        let delay = if slow {
            self.rng.millis(500..8_000)
        } else {
            self.rng.millis(1..6)
        };
        let Some(head) = &mut self.head else { return };
        let commit = pending.commit;
        if head.pending.replace(pending).is_some() {
            self.check.fail("two commits are under way at once".into());
        }
        let incarnation = self.head_incarnation;
        self.after(
            delay,
            Happening::Commit {
                incarnation,
                commit,
            },
        );
    }

    pub(super) fn commit_due(&mut self, incarnation: u64, commit: CommitId) {
        let Some(head) = self
            .head
            .as_mut()
            .filter(|head| head.incarnation == incarnation)
        else {
            return;
        };
        let Some(pending) = head.pending.take_if(|pending| pending.commit == commit) else {
            return;
        };
        let full = self.disk.full_until.is_some_and(|until| self.now < until);
        // The reserve may be used up, too.
        let reserve = full && pending.own && self.rng.permille(700);
        let result = if full && !reserve {
            self.hit("commit on a full disk");
            Err(CommitError::DiskFull)
        } else {
            if reserve {
                self.hit("commit in the reserve of a full disk");
            }
            self.store(&pending.records);
            Ok(())
        };
        self.feed_head(Input::Committed { commit, result }, Cause::Other);
    }

    fn store(&mut self, records: &[Record]) {
        for record in records {
            if let Err(what) = self.disk.apply(record) {
                self.check.fail(what);
            }
        }
    }

    pub(super) fn remember(&mut self) {
        let now_ms = self.wall_ms();
        let report = self.head.as_ref().map(|head| head.engine.rails_report());
        for (kind, what) in [
            ("governor", "held by the governor"),
            ("other_nodes", "held for others"),
        ] {
            let holds = report.as_ref().and_then(|report| report.holds.get(kind));
            if holds.is_some_and(|nodes| *nodes > 0) {
                self.hit(what);
            }
        }
        if let Some(head) = &mut self.head {
            self.disk.remember(&std::mem::take(&mut head.news), now_ms);
        }
        if self.now.since_origin().as_secs() % REDECLARE_SECONDS < 2 {
            self.declare_again();
        }
        self.after(Duration::from_secs(2), Happening::Remember);
    }

    pub(super) fn write(&mut self, ops: Vec<WriteOp>, if_revision: u64, kind: WriteKind) {
        self.last_request += 1;
        let request = RequestId(self.last_request);
        self.writes.insert(request, kind);
        let write = Write {
            request,
            author: "operator".into(),
            reason: "-".into(),
            if_revision,
            key: None,
            now_ms: self.wall_ms(),
            ops,
        };
        self.feed_head(Input::Write(write), Cause::Other);
    }

    fn written(&mut self, request: RequestId, result: Result<u64, WriteError>) {
        let Some(kind) = self.writes.remove(&request) else {
            return self.check.fail(format!("{request:?} is answered twice"));
        };
        match (kind, result) {
            (WriteKind::Bad, Ok(_)) => self.check.fail("a bad write is accepted".into()),
            (_, Ok(revision)) => self.check.acknowledged(revision, self.disk.revision),
            // A full disk, or a node that went or came meanwhile.
            (
                WriteKind::Wanted,
                Err(WriteError::Store(_) | WriteError::NoSuchNode(_) | WriteError::Taken(_)),
            ) => {
                self.after(Duration::from_secs(1), Happening::Operator);
            }
            (WriteKind::Wanted, Err(error)) => {
                self.check.fail(format!("a good write is refused: {error}"))
            }
            (WriteKind::Bad | WriteKind::Any, Err(_)) => self.hit("write refused"),
        }
    }

    // Sessions.

    fn join_answer(&mut self, conn: ConnId, outcome: JoinOutcome) {
        use v1::to_child::Kind;
        if self.stolen_join.take_if(|stolen| *stolen == conn).is_some() {
            return match outcome {
                JoinOutcome::Refuse {
                    reason: RefuseReason::GrantUsed,
                    ..
                } => self.hit("join refused: grant used"),
                JoinOutcome::Refuse { .. } => {}
                _ => self
                    .check
                    .fail("I8: a used grant is good for another key".into()),
            };
        }
        let Some((machine, _)) = self.conns.get(&conn).map(|conn| (conn.machine, conn.agent))
        else {
            return;
        };
        let kind = match outcome {
            JoinOutcome::Challenge {
                nonce,
                head_time_ms,
                version,
            } => Kind::JoinChallenge(challenge_to_proto(&ChallengeMessage {
                nonce,
                head_time_ms,
                version,
            })),
            JoinOutcome::Accept(accepted) => {
                Kind::JoinAccept(self.open_session(conn, machine, &accepted))
            }
            JoinOutcome::Refuse {
                reason,
                text,
                retry_after_ms,
            } => {
                self.hit(match reason {
                    RefuseReason::UnknownNode => "join refused: unknown node",
                    RefuseReason::GrantExpired => "join refused: grant void",
                    RefuseReason::GrantUsed => "join refused: grant used",
                    RefuseReason::BadProof => "join refused: bad proof",
                    RefuseReason::Certificate => "join refused: certificate",
                    RefuseReason::Version | RefuseReason::Busy => "join refused: other",
                });
                Kind::JoinRefused(refused_to_proto(reason, &text, retry_after_ms))
            }
        };
        self.tell_child(conn, kind);
    }

    fn open_session(
        &mut self,
        conn: ConnId,
        machine: usize,
        accepted: &Accepted,
    ) -> v1::JoinAccept {
        let parties = Parties {
            parent: HEAD,
            child: accepted.node,
            epoch: accepted.epoch,
        };
        let issued = Issued {
            certificate: b"certificate".to_vec(),
            parent_address: String::new(),
            sync: SyncConfig::default(),
        };
        let ram = self.machines[machine].ram.as_ref();
        let by_grant = ram
            .filter(|ram| !ram.certificate)
            .and_then(|ram| ram.grant.as_ref());
        if let Some(grant) = by_grant.map(|file| file.grant) {
            let used = |grant: &Grant| grant.consumed_by.is_some();
            if !self.disk.grants.get(&grant).is_some_and(used) {
                self.check.fail(format!(
                    "I8: grant {grant} lets a node in and is not used on the disk"
                ));
            }
        }
        let message = accept_to_proto(accepted, issued);
        if let Some(v1::frame::Kind::Snapshot(cfg)) =
            message.cfg.as_ref().and_then(|frame| frame.kind.as_ref())
        {
            let version = (accepted.epoch, cfg.version);
            self.check.cfg_sent(accepted.node, version, cfg.digest);
        }
        if let Some(head) = &mut self.head {
            head.sealed
                .insert(End::Parent, accepted.session, &accepted.keys, parties);
            head.peers.insert(accepted.session, (machine, conn));
        }
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.session = Some(accepted.session);
        }
        message
    }

    fn head_sends(&mut self, session: SessionId, frame: Frame) {
        let Some(head) = &mut self.head else { return };
        let Some((machine, conn)) = head.peers.get(&session).copied() else {
            return;
        };
        let said = match &frame {
            Frame::Hello(hello) => Some((hello.version, hello.digest)),
            Frame::Delta(delta) => Some((delta.version, delta.digest)),
            Frame::Snapshot(snapshot) => Some((snapshot.version, snapshot.digest)),
            Frame::SnapshotRequest { .. } => None,
        };
        let sealed = head.sealed.seal(session, &frame);
        if let Some((version, digest)) = said {
            let id = self.machines[machine].id;
            self.check
                .cfg_sent(id, (self.head_incarnation, version), digest);
        }
        self.count_frame(&frame);
        match sealed {
            Ok(bytes) => self.send_datagram(Host::Head, Host::Machine(machine), bytes),
            Err(SealError::TooLong(_)) => {
                self.hit("frame over the stream");
                self.tell_child(conn, v1::to_child::Kind::Frame(frame_to_proto(&frame)));
            }
            Err(SealError::Session | SealError::Exhausted) => {}
        }
    }

    pub(super) fn count_frame(&mut self, frame: &Frame) {
        match frame {
            Frame::SnapshotRequest { .. } => self.hit("snapshot asked for"),
            Frame::Hello(hello) if hello.probe => self.hit("probe"),
            _ => {}
        }
    }

    fn head_ends(&mut self, session: SessionId, why: &'static str) {
        self.hit(why);
        let Some(head) = &mut self.head else { return };
        head.sealed.remove(session);
        if let Some((_, conn)) = head.peers.remove(&session) {
            self.close_conn(conn, Host::Head);
        }
    }

    pub(super) fn machine_of(&self, node: NodeId) -> Option<usize> {
        self.machines.iter().position(|machine| machine.id == node)
    }
}

/// An output for a person who follows a run.
pub(super) fn cut(output: &Output) -> String {
    let text = format!("{output:?}");
    text.chars().take(400).collect()
}
