//! What carries messages: datagrams that may be lost, and connections that deliver in order or break.

use std::collections::VecDeque;
use std::time::Duration;

use prost::Message;
use proto::v1;

use super::World;
use super::check::Cause;
use super::cluster::change;
use super::happening::Happening;
use super::net::Host;
use super::world::{HEAD, Phase};
use crate::event::{ConnId, Input};
use crate::mutation::MutationSet;
use crate::sync::SessionId;
use crate::sync::join::{Channel, ChildJoin, Identity};
use crate::time::Instant;
use crate::wire::convert::{
    accept_from_proto, challenge_from_proto, frame_from_proto, join_hello_from_proto,
    join_hello_to_proto, mutation_set_from_proto, mutation_set_to_proto, proof_from_proto,
    proof_to_proto, refused_from_proto,
};
use crate::wire::seal::{DropReason, End, Parties};

/// A connection that gets nothing through for this long breaks.
const STALL: Duration = Duration::from_secs(15);
/// An agent gives a handshake up after this.
const JOIN_TIMEOUT: Duration = Duration::from_secs(12);

/// A connection of an agent with the head: TCP, TLS, one gRPC stream.
pub(super) struct Conn {
    pub(super) machine: usize,
    /// Incarnations of the processes at its ends.
    pub(super) agent: u64,
    head: u64,
    pub(super) agent_open: bool,
    head_open: bool,
    /// The TLS exporter as the head has it: not the agent's if somebody sits in between.
    head_exporter: [u8; 32],
    certified: bool,
    pub(super) session: Option<SessionId>,
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
    stalled: Option<Instant>,
}

impl Conn {
    /// Who is at the end that is not this one.
    fn other_end(&self, host: Host) -> Host {
        match host {
            Host::Head => Host::Machine(self.machine),
            Host::Machine(_) => Host::Head,
        }
    }
}

impl World {
    pub(super) fn send_datagram(&mut self, from: Host, to: Host, bytes: Vec<u8>) {
        self.check.sealed(&bytes, to);
        self.attacker.record(&mut self.rng, from, &bytes);
        let copies = self.net.fate(&mut self.rng, from, to, self.now);
        match copies.len() {
            0 => self.hit("datagram lost"),
            1 => {}
            _ => self.hit("datagram doubled"),
        }
        for delay in copies {
            let bytes = bytes.clone();
            self.after(delay, Happening::Datagram { from, to, bytes });
        }
    }

    pub(super) fn datagram(&mut self, from: Host, to: Host, bytes: &[u8]) {
        let sealed = match to {
            Host::Head => self.head.as_mut().map(|head| &mut head.sealed),
            Host::Machine(index) => self.machines[index]
                .agent
                .as_mut()
                .map(|agent| &mut agent.sealed),
        };
        let Some(sealed) = sealed else { return };
        match sealed.open(bytes) {
            Ok((session, frame)) => {
                self.check.opened(bytes, to);
                self.frame(to, session, frame);
            }
            Err(dropped) => {
                if dropped.reason == DropReason::Malformed {
                    self.check
                        .fail(format!("a genuine frame from {from:?} cannot be read"));
                }
                self.hit(match dropped.reason {
                    DropReason::Session => "dropped: unknown session",
                    DropReason::Forged => "dropped: forged",
                    DropReason::Replayed => "dropped: replayed",
                    _ => "dropped: no frame",
                });
            }
        }
    }

    fn frame(&mut self, to: Host, session: SessionId, frame: crate::sync::message::Frame) {
        let input = Input::Frame { session, frame };
        match to {
            Host::Machine(index) => self.feed_agent(index, input),
            Host::Head => {
                let peer = self
                    .head
                    .as_ref()
                    .and_then(|head| head.peers.get(&session))
                    .map(|(machine, _)| *machine);
                let cause = peer.map_or(Cause::Other, |machine| {
                    Cause::Session(self.machines[machine].id)
                });
                self.feed_head(input, cause);
            }
        }
    }

    /// An agent opens a connection and says hello.
    pub(super) fn connect(&mut self, index: usize) {
        self.last_conn += 1;
        let conn = ConnId(self.last_conn);
        let here = Host::Machine(index);
        let exporter = self.rng.bytes();
        let nonce = self.rng.bytes();
        let between = self.attacker.sits_between(&mut self.rng, self.phase);
        let head_exporter = if between { self.rng.bytes() } else { exporter };
        let machine = &mut self.machines[index];
        let (Some(agent), Some(ram)) = (&mut machine.agent, &machine.ram) else {
            return;
        };
        let identity = Identity {
            agent_version: "0.1.0".into(),
            public_key: ram.public_key.clone(),
            nonce,
            cfg_version: agent.obeyed.1,
        };
        let join = match (&ram.grant, ram.certificate) {
            (Some(grant), false) => ChildJoin::with_grant(grant, identity, exporter),
            _ => ChildJoin::with_certificate(machine.id, ram.boot, identity, exporter),
        };
        // Nobody relays a client certificate.
        let certified = ram.certificate && !between;
        let hello = join_hello_to_proto(join.hello());
        let old = agent.conn.replace(conn);
        agent.join = Some((conn, join));
        let entry = Conn {
            machine: index,
            agent: agent.incarnation,
            head: self.head_incarnation,
            agent_open: true,
            head_open: self.head.is_some(),
            head_exporter,
            certified,
            session: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            stalled: None,
        };
        self.conns.insert(conn, entry);
        if let Some(old) = old {
            self.close_conn(old, here);
        }
        if between {
            self.hit("attack: man in the middle");
        }
        if self.head.is_none() {
            self.hit("connection refused");
            return self.after(
                Duration::from_millis(50),
                Happening::Closed { conn, at: here },
            );
        }
        self.tell_parent(conn, v1::to_parent::Kind::JoinHello(hello));
        self.after(
            JOIN_TIMEOUT,
            Happening::JoinTimeout {
                conn,
                machine: index,
            },
        );
    }

    pub(super) fn join_timeout(&mut self, conn: ConnId, index: usize) {
        let Some(agent) = &mut self.machines[index].agent else {
            return;
        };
        if agent
            .join
            .as_ref()
            .is_some_and(|(waiting, _)| *waiting == conn)
        {
            self.hit("join takes too long");
            self.hang_up(index, conn);
        }
    }

    /// The agent closes its connection and its engine hears of it.
    fn hang_up(&mut self, index: usize, conn: ConnId) {
        if let Some(agent) = &mut self.machines[index].agent {
            agent.join.take_if(|(waiting, _)| *waiting == conn);
            agent.conn.take_if(|open| *open == conn);
        }
        self.close_conn(conn, Host::Machine(index));
        self.feed_agent(index, Input::Closed { conn });
    }

    pub(super) fn tell_parent(&mut self, conn: ConnId, kind: v1::to_parent::Kind) {
        let bytes = v1::ToParent { kind: Some(kind) }.encode_to_vec();
        self.send_stream(conn, Host::Head, bytes);
    }

    pub(super) fn tell_child(&mut self, conn: ConnId, kind: v1::to_child::Kind) {
        let Some(machine) = self.conns.get(&conn).map(|conn| conn.machine) else {
            return;
        };
        let bytes = v1::ToChild { kind: Some(kind) }.encode_to_vec();
        self.send_stream(conn, Host::Machine(machine), bytes);
    }

    fn send_stream(&mut self, id: ConnId, to: Host, bytes: Vec<u8>) {
        let delay = self.rng.millis(1..3);
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let open = if to == Host::Head {
            conn.agent_open
        } else {
            conn.head_open
        };
        if !open {
            return;
        }
        let queue = if to == Host::Head {
            &mut conn.up
        } else {
            &mut conn.down
        };
        queue.push_back(bytes);
        if queue.len() == 1 {
            self.after(delay, Happening::Stream { conn: id, to });
        }
    }

    pub(super) fn stream_due(&mut self, id: ConnId, to: Host) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let from = conn.other_end(to);
        if self.net.is_cut(from, to, self.now) || self.net.is_cut(to, from, self.now) {
            let since = *conn.stalled.get_or_insert(self.now);
            if self.now.since(since) > STALL {
                let machine = conn.machine;
                self.hit("connection breaks");
                self.conn_closed(id, Host::Head);
                return self.conn_closed(id, Host::Machine(machine));
            }
            return self.after(
                Duration::from_millis(300),
                Happening::Stream { conn: id, to },
            );
        }
        conn.stalled = None;
        let queue = if to == Host::Head {
            &mut conn.up
        } else {
            &mut conn.down
        };
        let Some(bytes) = queue.pop_front() else {
            return;
        };
        if !queue.is_empty() {
            self.after(
                Duration::from_micros(200),
                Happening::Stream { conn: id, to },
            );
        }
        match to {
            Host::Head => self.child_says(id, &bytes),
            Host::Machine(index) => self.parent_says(id, index, &bytes),
        }
    }

    fn child_says(&mut self, id: ConnId, bytes: &[u8]) {
        use v1::to_parent::Kind;
        let Some(conn) = self.conns.get(&id) else {
            return;
        };
        let (session, node) = (conn.session, self.machines[conn.machine].id);
        let channel = Channel {
            exporter: conn.head_exporter,
            certified: conn.certified.then_some(node),
        };
        let alive = conn.head_open
            && self
                .head
                .as_ref()
                .is_some_and(|head| head.incarnation == conn.head);
        if !alive {
            return;
        }
        let now_ms = self.wall_ms();
        let message = v1::ToParent::decode(bytes)
            .ok()
            .and_then(|message| message.kind);
        let input = match message {
            Some(Kind::JoinHello(hello)) => {
                join_hello_from_proto(hello).map(|hello| Input::JoinHello {
                    conn: id,
                    hello,
                    channel,
                    chance: self.rng.bytes(),
                    now_ms,
                })
            }
            Some(Kind::JoinProof(proof)) => proof_from_proto(proof).map(|proof| Input::JoinProof {
                conn: id,
                proof,
                now_ms,
            }),
            Some(Kind::Frame(frame)) => match session {
                Some(session) => return self.stream_frame(Host::Head, session, frame),
                None => return,
            },
            Some(Kind::Log(_)) | None => {
                return self
                    .check
                    .fail("a message of a child cannot be read".into());
            }
        };
        match input {
            Ok(input) => self.feed_head(input, Cause::Other),
            Err(error) => self
                .check
                .fail(format!("a genuine message is refused: {error}")),
        }
    }

    fn stream_frame(&mut self, to: Host, session: SessionId, frame: v1::Frame) {
        match frame_from_proto(frame) {
            Ok(frame) => self.frame(to, session, frame),
            Err(error) => self
                .check
                .fail(format!("a genuine frame is refused: {error}")),
        }
    }

    fn parent_says(&mut self, id: ConnId, index: usize, bytes: &[u8]) {
        use v1::to_child::Kind;
        let Some(conn) = self.conns.get(&id) else {
            return;
        };
        let (session, incarnation) = (conn.session, conn.agent);
        let Some(agent) = self.machines[index]
            .agent
            .as_mut()
            .filter(|agent| agent.incarnation == incarnation)
        else {
            return;
        };
        match v1::ToChild::decode(bytes)
            .ok()
            .and_then(|message| message.kind)
        {
            Some(Kind::JoinChallenge(challenge)) => {
                let Some((_, join)) = agent.join.as_mut().filter(|(waiting, _)| *waiting == id)
                else {
                    return;
                };
                let Ok(challenge) = challenge_from_proto(challenge) else {
                    return self.check.fail("a genuine challenge is refused".into());
                };
                match join.handle_challenge(&challenge) {
                    Ok(proof) => {
                        self.tell_parent(id, v1::to_parent::Kind::JoinProof(proof_to_proto(&proof)))
                    }
                    Err(error) => self
                        .check
                        .fail(format!("a genuine challenge is refused: {error}")),
                }
            }
            Some(Kind::JoinAccept(accept)) => self.accepted(id, index, accept),
            Some(Kind::JoinRefused(refused)) => {
                if let Err(error) = refused_from_proto(refused) {
                    self.check
                        .fail(format!("a genuine refusal is refused: {error}"));
                }
                self.hang_up(index, id);
            }
            Some(Kind::Frame(frame)) => {
                if let Some(session) = session {
                    self.stream_frame(Host::Machine(index), session, frame);
                }
            }
            Some(Kind::Mutations(set)) => match mutation_set_from_proto(set) {
                Ok(set) => self.feed_agent(index, Input::Declare(set)),
                Err(error) => self
                    .check
                    .fail(format!("a genuine set is refused: {error}")),
            },
            None => self
                .check
                .fail("a message of the head cannot be read".into()),
        }
    }

    fn accepted(&mut self, id: ConnId, index: usize, accept: v1::JoinAccept) {
        let accept = match accept_from_proto(accept) {
            Ok(accept) => accept,
            Err(error) => {
                return self
                    .check
                    .fail(format!("a genuine accept is refused: {error}"));
            }
        };
        if self.phase == Phase::Chaos && self.rng.permille(20) {
            self.hit("accept lost");
            return self.hang_up(index, id);
        }
        let machine = &mut self.machines[index];
        let (Some(agent), Some(ram)) = (&mut machine.agent, &mut machine.ram) else {
            return;
        };
        let Some((_, join)) = agent.join.take_if(|(waiting, _)| *waiting == id) else {
            return;
        };
        let keys = match join.handle_accept(&accept.mac, accept.session) {
            Ok(keys) => keys,
            Err(error) => {
                return self
                    .check
                    .fail(format!("a genuine accept is refused: {error}"));
            }
        };
        let parties = Parties {
            parent: HEAD,
            child: machine.id,
            epoch: accept.epoch,
        };
        agent
            .sealed
            .insert(End::Child, accept.session, &keys, parties);
        agent.session = Some(accept.session);
        if ram.certificate {
            self.hit("re-join by certificate");
        }
        let machine = &mut self.machines[index];
        let mut mark = "/Busy=";
        if let Some(ram) = &mut machine.ram {
            ram.certificate = true;
            ram.grant = None;
            mark = ram.mark();
        }
        let mut attach = accept.into_attach(id);
        // As the real agent does, whose modules speak in any order.
        attach.dsc.push(change(mark));
        self.feed_agent(index, Input::Attached(attach));
        self.announce(index);
    }

    /// Modules declare something else from time to time; nothing may come of it but that children hear it.
    pub(super) fn declare_again(&mut self) {
        self.set.generation += 1;
        let set = self.set.clone();
        self.feed_head(Input::Declare(set), Cause::Other);
    }

    pub(super) fn head_declares(&mut self, sessions: &[SessionId], set: &MutationSet) {
        self.hit("children hear a changed set");
        let Some(head) = &self.head else { return };
        let conns: Vec<ConnId> = sessions
            .iter()
            .filter_map(|session| head.peers.get(session).map(|(_, conn)| *conn))
            .collect();
        for conn in conns {
            let set = mutation_set_to_proto(set);
            self.tell_child(conn, v1::to_child::Kind::Mutations(set));
        }
    }

    /// One end closes; the other one hears of it as soon as it can be reached.
    pub(super) fn close_conn(&mut self, id: ConnId, by: Host) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let (open, other, other_open) = match by {
            Host::Head => (
                &mut conn.head_open,
                Host::Machine(conn.machine),
                conn.agent_open,
            ),
            Host::Machine(_) => (&mut conn.agent_open, Host::Head, conn.head_open),
        };
        if std::mem::replace(open, false) && other_open {
            let delay = self.rng.millis(1..5);
            self.after(
                delay,
                Happening::Closed {
                    conn: id,
                    at: other,
                },
            );
        }
        self.drop_conn(id);
    }

    pub(super) fn conn_closed(&mut self, id: ConnId, at: Host) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let other = conn.other_end(at);
        if self.net.is_cut(other, at, self.now) && conn.stalled.is_none() {
            return self.after(Duration::from_secs(1), Happening::Closed { conn: id, at });
        }
        let (open, incarnation) = match at {
            Host::Head => (&mut conn.head_open, conn.head),
            Host::Machine(_) => (&mut conn.agent_open, conn.agent),
        };
        let was_open = std::mem::replace(open, false);
        self.drop_conn(id);
        if !was_open {
            return;
        }
        match at {
            Host::Head
                if self
                    .head
                    .as_ref()
                    .is_some_and(|head| head.incarnation == incarnation) =>
            {
                self.feed_head(Input::Closed { conn: id }, Cause::Other);
            }
            Host::Machine(index) => {
                let Some(agent) = self.machines[index]
                    .agent
                    .as_mut()
                    .filter(|agent| agent.incarnation == incarnation)
                else {
                    return;
                };
                agent.conn.take_if(|open| *open == id);
                agent.join.take_if(|(waiting, _)| *waiting == id);
                self.feed_agent(index, Input::Closed { conn: id });
            }
            Host::Head => {}
        }
    }

    fn drop_conn(&mut self, id: ConnId) {
        if self
            .conns
            .get(&id)
            .is_some_and(|conn| !conn.agent_open && !conn.head_open)
        {
            self.conns.remove(&id);
        }
    }

    /// A middlebox forgets a connection: both ends get a reset.
    pub(super) fn reset_conn(&mut self, index: usize) {
        let conn = self
            .conns
            .iter()
            .find(|(_, conn)| conn.machine == index && conn.agent_open);
        let Some(id) = conn.map(|(id, _)| *id) else {
            return;
        };
        self.after(
            Duration::ZERO,
            Happening::Closed {
                conn: id,
                at: Host::Head,
            },
        );
        self.after(
            Duration::ZERO,
            Happening::Closed {
                conn: id,
                at: Host::Machine(index),
            },
        );
    }
}
