//! What goes wrong, and what operators do meanwhile.

use super::World;
use super::cluster::{RACK, change};
use super::happening::Happening;
use super::head::WriteKind;
use super::net::Host;
use super::world::{HEAD, Phase};
use crate::event::{Input, WriteOp};
use crate::state::{Freezer, NodeId};

/// Every fault that a long run has to inject, every rare branch it has to take. A run of all seeds that misses one proves less than it says.
pub const FAULTS: &[&str] = &[
    "head crashes",
    "crash after the commit, before its answer",
    "agent killed",
    "machine pauses",
    "partition",
    "one-way partition",
    "loss",
    "delay",
    "disk full",
    "disk slow",
    "clock jumps",
    "connection reset",
    "image dies",
    "job starts",
    "plug pulled",
    "BMC falls silent",
    "next boot hangs",
    "boot hangs",
    "BMC does not answer",
    "module fails",
    "module slow",
    "late reply",
    "accept lost",
    "grant lost on the way",
    "datagram lost",
    "datagram doubled",
    "frame over the stream",
    "probe",
    "silent for too long",
    "the node joined again",
    "re-join by certificate",
    "connection refused",
    "connection breaks",
    "join takes too long",
    "image adopted",
    "head interrupts a mutation",
    "agent interrupts a mutation",
    "mutation fails on the head",
    "mutation fails on an agent",
    "commit on a full disk",
    "commit in the reserve of a full disk",
    "alarm",
    "join refused: bad proof",
    "join refused: certificate",
    "join refused: grant used",
    "join refused: unknown node",
    "attack: replay",
    "attack: reflection",
    "attack: flipped bit",
    "attack: cut frame",
    "attack: other session",
    "attack: stolen grant",
    "attack: man in the middle",
    "attack: lie",
    "dropped: replayed",
    "dropped: forged",
    "dropped: unknown session",
    "dropped: no frame",
    "operator: power off",
    "operator: image off",
    "operator: freeze",
    "operator: group freeze",
    "held by the governor",
    "held for others",
    "side by side",
    "operator: delete",
    "operator: conflict",
    "write refused",
];

impl World {
    pub(super) fn fault(&mut self) {
        if self.phase == Phase::Healed {
            return;
        }
        let next = self.rng.millis(500..8_000);
        self.after(next, Happening::Fault);
        let index = self.rng.below(self.machines.len());
        let host = Host::Machine(index);
        let time = self.now + self.rng.millis(1_000..60_000);
        let kinds = if self.options.calm { 13 } else { 16 };
        match self.rng.below(kinds) {
            0 => {
                if self.head.is_some() {
                    self.hit("head crashes");
                    self.crash_head();
                    let delay = self.rng.millis(200..20_000);
                    self.after(delay, Happening::StartHead);
                }
            }
            1 => {
                self.hit("agent killed");
                self.kill_agent(index);
            }
            2 => {
                self.hit("machine pauses");
                self.machines[index].paused_until = self.now + self.rng.millis(1_000..20_000);
            }
            // One cut at a time, so that no node is silent for longer than the guard rails wait.
            3 | 4
                if self.net.is_cut(host, Host::Head, self.now)
                    || self.net.is_cut(Host::Head, host, self.now) => {}
            3 => {
                self.hit("partition");
                self.net.cut(host, Host::Head, time);
                self.net.cut(Host::Head, host, time);
            }
            4 => {
                self.hit("one-way partition");
                let (from, to) = if self.rng.permille(500) {
                    (host, Host::Head)
                } else {
                    (Host::Head, host)
                };
                self.net.cut(from, to, time);
            }
            5 => {
                self.hit("loss");
                let permille = 100 + self.rng.next() % 400;
                self.net.lose(permille, time);
            }
            6 => {
                self.hit("delay");
                let millis = 10 + self.rng.next() % 30_000;
                self.net.delay(millis, time);
            }
            7 => {
                self.hit("disk full");
                self.disk.full_until = Some(self.now + self.rng.millis(500..10_000));
            }
            8 => {
                self.hit("disk slow");
                self.disk.slow_until = Some(self.now + self.rng.millis(1_000..15_000));
            }
            9 => {
                self.hit("clock jumps");
                let jumps = [
                    -3_600_000,
                    3_600_000,
                    315_360_000_000,
                    -1_600_000_000_000,
                    0,
                ];
                self.wall_offset_ms = *self.rng.pick(&jumps).unwrap_or(&0);
            }
            10 => {
                self.hit("connection reset");
                self.reset_conn(index);
            }
            11 => self.image_dies(index),
            12 => {
                self.hit("job starts");
                let busy = self.rng.permille(700);
                self.set_busy(index, busy);
            }
            13 => {
                self.hit("plug pulled");
                self.set_power(index, false);
            }
            14 => {
                self.hit("BMC falls silent");
                self.machines[index].bmc_dead_until = self.now + self.rng.millis(5_000..60_000);
            }
            _ => {
                self.hit("next boot hangs");
                self.machines[index].hang_next_boot = true;
            }
        }
    }

    pub(super) fn operator(&mut self) {
        if self.phase == Phase::Healed {
            return self.operator_restores();
        }
        let next = self.rng.millis(2_000..15_000);
        self.after(next, Happening::Operator);
        if self.head.is_none() {
            return;
        }
        self.write(
            vec![WriteOp::Delete(NodeId::from_bytes([0xee; 16]))],
            0,
            WriteKind::Bad,
        );
        let index = self.rng.below(self.machines.len());
        let node = self.machines[index].id;
        let set = |text: &str| WriteOp::Set {
            node,
            changes: vec![change(text)],
        };
        if self.options.calm {
            // Something that moves no power: half a freeze is worth a try, the other half ends it.
            self.hit("operator: freeze");
            let frozen = self.rng.permille(300);
            return self.write(vec![WriteOp::Freeze { node, frozen }], 0, WriteKind::Any);
        }
        let op = match self.rng.below(10) {
            9 => {
                self.hit("operator: another parent");
                let other = self.rng.below(self.machines.len() + 1);
                let parent = self.machines.get(other).map_or(HEAD, |machine| machine.id);
                WriteOp::Move { node, parent }
            }
            8 => {
                self.hit("operator: group freeze");
                let by = self.rng.permille(500).then(Freezer::default);
                let group = RACK.into();
                WriteOp::FreezeGroup { group, by }
            }
            0 => {
                self.hit("operator: power off");
                set("/PhysState=POWER_OFF")
            }
            1 => {
                self.hit("operator: image off");
                set("/image/state=IDLE")
            }
            2 => set("/RunState="),
            3 => {
                self.hit("operator: freeze");
                WriteOp::Freeze {
                    node,
                    frozen: self.rng.permille(500),
                }
            }
            4 => WriteOp::FreezeCluster(self.rng.permille(300)),
            5 => {
                self.hit("operator: delete");
                let delay = self.rng.millis(1_000..15_000);
                self.after(delay, Happening::ReAdd { machine: index });
                WriteOp::Delete(node)
            }
            6 => {
                self.hit("operator: conflict");
                return self.write(vec![set("/image/name=other")], u64::MAX, WriteKind::Bad);
            }
            _ => {
                self.check.released(node);
                self.feed_head(Input::Release(vec![node]), super::check::Cause::Other);
                return self.restore_one(index);
            }
        };
        self.write(vec![op], 0, WriteKind::Any);
    }

    fn restore_one(&mut self, index: usize) {
        let node = self.machines[index].id;
        let goal = WriteOp::Set {
            node,
            changes: super::cluster::goal(),
        };
        let thaw = WriteOp::Freeze {
            node,
            frozen: false,
        };
        let group = WriteOp::FreezeGroup {
            group: RACK.into(),
            by: None,
        };
        self.write(
            vec![WriteOp::FreezeCluster(false), group, goal, thaw],
            0,
            WriteKind::Any,
        );
    }

    pub(super) fn add_again(&mut self, index: usize) {
        let node = self.machines[index].node(index);
        self.write(vec![WriteOp::Add(Box::new(node))], 0, WriteKind::Any);
    }

    /// The end of trouble: what was wanted at first, and another try for whoever had given up.
    pub(super) fn operator_restores(&mut self) {
        if self.head.is_none() {
            return;
        }
        let ops = self.restore_ops();
        self.write(ops, 0, WriteKind::Wanted);
        if self.options.calm {
            // A release allows a power cycle, which nothing here needs.
            return;
        }
        let nodes: Vec<NodeId> = self.machines.iter().map(|machine| machine.id).collect();
        nodes.iter().for_each(|node| self.check.released(*node));
        self.feed_head(Input::Release(nodes), super::check::Cause::Other);
    }
}
