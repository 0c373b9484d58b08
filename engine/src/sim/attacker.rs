//! Somebody on the wire who records everything and sends it again, turned around or bent, and who has read a grant on its way.

use std::time::Duration;

use super::World;
use super::check::Cause;
use super::cluster::change;
use super::happening::Happening;
use super::net::Host;
use super::rng::Rng;
use super::world::Phase;
use crate::event::{ConnId, Input};
use crate::state::Values;
use crate::sync::join::{Channel, ChildJoin, GrantFile, Identity};
use crate::sync::message::{Frame, Snapshot};

/// Datagrams kept; chance decides which one a new one replaces.
const MAX_RECORDED: usize = 256;

#[derive(Default)]
pub(super) struct Attacker {
    recorded: Vec<(Host, Vec<u8>)>,
    grants: Vec<GrantFile>,
}

impl Attacker {
    pub(super) fn record(&mut self, rng: &mut Rng, from: Host, bytes: &[u8]) {
        let entry = (from, bytes.to_vec());
        if self.recorded.len() < MAX_RECORDED {
            self.recorded.push(entry);
        } else {
            let at = rng.below(MAX_RECORDED);
            self.recorded[at] = entry;
        }
    }

    pub(super) fn steal(&mut self, grant: &GrantFile) {
        self.grants.push(grant.clone());
    }

    pub(super) fn sits_between(&self, rng: &mut Rng, phase: Phase) -> bool {
        phase == Phase::Chaos && rng.permille(30)
    }
}

impl World {
    pub(super) fn attack(&mut self) {
        if self.phase == Phase::Healed {
            return;
        }
        let next = self.rng.millis(50..700);
        self.after(next, Happening::Attack);
        match self.rng.below(40) {
            0 | 1 => return self.join_with_stolen_grant(),
            2 => return self.lie(),
            _ => {}
        }
        let Some((from, mut bytes)) = self.rng.pick(&self.attacker.recorded).cloned() else {
            return;
        };
        let machine = self.rng.below(self.machines.len());
        let forward = match from {
            Host::Head => Host::Machine(machine),
            Host::Machine(_) => Host::Head,
        };
        let to = match self.rng.below(5) {
            0 => {
                self.hit("attack: replay");
                forward
            }
            1 => {
                self.hit("attack: reflection");
                from
            }
            2 => {
                self.hit("attack: flipped bit");
                let at = self.rng.below(bytes.len());
                bytes[at] ^= 1 << self.rng.below(8);
                forward
            }
            3 => {
                self.hit("attack: cut frame");
                let length = self.rng.below(bytes.len());
                bytes.truncate(length);
                forward
            }
            _ => {
                self.hit("attack: other session");
                let other = self
                    .head
                    .as_ref()
                    .and_then(|head| head.peers.keys().next_back().copied());
                if let Some(session) = other {
                    bytes[4..12].copy_from_slice(&session.0.to_le_bytes());
                }
                forward
            }
        };
        self.after(
            Duration::from_micros(300),
            Happening::Datagram { from, to, bytes },
        );
    }

    /// A grant that its owner has used is worth nothing to anybody else.
    fn join_with_stolen_grant(&mut self) {
        let (now_ms, nonce, exporter) = (self.wall_ms(), self.rng.bytes(), self.rng.bytes());
        let Some(grant) = self.rng.pick(&self.attacker.grants).cloned() else {
            return;
        };
        let Some(head) = &self.head else { return };
        let used = self
            .disk
            .grants
            .get(&grant.grant)
            .is_none_or(|stored| stored.consumed_by.is_some());
        if !used || head.pending.is_some() {
            return;
        }
        self.hit("attack: stolen grant");
        let identity = Identity {
            agent_version: "0.1.0".into(),
            public_key: vec![0xbd; 91],
            nonce,
            cfg_version: 0,
        };
        let join = ChildJoin::with_grant(&grant, identity, exporter);
        self.last_conn += 1;
        let input = Input::JoinHello {
            conn: ConnId(self.last_conn),
            hello: join.hello().clone(),
            channel: Channel {
                exporter,
                certified: None,
            },
            chance: self.rng.bytes(),
            now_ms,
        };
        self.stolen_join = Some(ConnId(self.last_conn));
        self.feed_head(input, Cause::Other);
        if self.stolen_join.take().is_some() {
            self.check
                .fail("a stolen grant's join is not answered".into());
        }
    }

    /// A machine that its attacker owns says with its real keys what only its parent may say, and what is Cfg. Then it is cleaned.
    fn lie(&mut self) {
        let index = self.rng.below(self.machines.len());
        let host = Host::Machine(index);
        let machine = &mut self.machines[index];
        let Some(agent) = &mut machine.agent else {
            return;
        };
        let Some(session) = agent.session else { return };
        let values: Values = [
            "/PhysState=PHYS_HANG",
            "/pxe/state=WAIT",
            "/pxe/append=evil",
            "/no/such=x",
            "/RunState=SYNC",
        ]
        .into_iter()
        .map(change)
        .filter_map(|change| Some((change.url, change.value?)))
        .collect();
        let frame = Frame::Snapshot(Snapshot {
            // Above anything that this session has said.
            version: 1 << 40,
            values: values.to_changes(),
            digest: values.digest().short(),
            signature: Vec::new(),
            have: 0,
        });
        let Ok(bytes) = agent.sealed.seal(session, &frame) else {
            return;
        };
        self.hit("attack: lie");
        self.send_datagram(host, Host::Head, bytes);
        self.kill_agent(index);
    }
}
