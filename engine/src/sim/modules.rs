//! The head's power and pxe modules: what becomes of a fired mutation, and what they find out by themselves.

use std::time::Duration;

use uuid::Uuid;

use super::World;
use super::check::Cause;
use super::cluster::{change, groups};
use super::happening::Happening;
use super::machine::Boot;
use super::net::Host;
use crate::event::{Discovery, Fire, Input, RequestId};
use crate::state::{NodeId, core};
use crate::sync::join::{GrantId, NewGrant, Secret};

/// How often the power module looks.
const POLL: Duration = Duration::from_secs(5);

impl World {
    pub(super) fn head_fires(&mut self, fire: Fire) {
        let frozen = self.head.as_ref().is_some_and(|head| {
            let node = head.engine.tree().get(fire.node);
            node.is_some_and(|node| head.engine.freezes().holds(node))
        });
        self.check.fired(Host::Head, &fire, frozen);
        self.account();
        let index = self.machine_of(fire.node).unwrap_or_default();
        self.check
            .disrupts(&fire, &groups(index).collect(), self.now);
        let incarnation = self.head_incarnation;
        let on = match fire.mutation.name() {
            _ if fire.mutation.module() == "pxe" && fire.mutation.name() != "WAITtoINIT" => {
                let delay = self.rng.millis(1..20);
                let fire = Box::new(fire);
                return self.after(delay, Happening::Arm { incarnation, fire });
            }
            "UKtoOFF" => None,
            "OFFtoON" => Some(true),
            "ONtoOFF" | "HANGtoOFF" | "ERRORtoOFF" => Some(false),
            // Waits for the node itself.
            _ => return,
        };
        if on.is_some() {
            self.hit("power action");
            self.check.power_action(fire.node, &fire.mutation);
        }
        let delay = self.rng.millis(50..500);
        let fire = Box::new(fire);
        self.after(
            delay,
            Happening::Bmc {
                incarnation,
                fire,
                on,
            },
        );
    }

    /// A command has reached the machine's BMC, or not. It acts even if the head has died since.
    pub(super) fn bmc(&mut self, incarnation: u64, fire: Box<Fire>, on: Option<bool>) {
        let Some(index) = self.machine_of(fire.node) else {
            return;
        };
        if self.machines[index].bmc_dead_until > self.now {
            return self.hit("BMC does not answer");
        }
        if let Some(on) = on {
            self.set_power(index, on);
        }
        let delay = self.rng.millis(200..1_500);
        self.after(
            delay,
            Happening::PowerSeen {
                incarnation,
                fire,
                on,
            },
        );
    }

    /// Whether the head that fired lives, and has not interrupted it.
    fn is_wanted(&self, incarnation: u64, fire: &Fire) -> bool {
        let head = self.head.as_ref();
        head.is_some_and(|head| {
            head.incarnation == incarnation && !head.interrupted.contains(&fire.attempt)
        })
    }

    /// The power module reads the state until it is what was asked.
    pub(super) fn power_seen(&mut self, incarnation: u64, fire: &Fire, on: Option<bool>) {
        if !self.is_wanted(incarnation, fire) {
            return;
        }
        let Some(index) = self.machine_of(fire.node) else {
            return;
        };
        if on.is_none_or(|on| on == self.machines[index].powered) {
            self.report_power(index);
        }
    }

    pub(super) fn poll_power(&mut self, index: usize) {
        let delay = POLL + self.rng.millis(0..200);
        self.after(delay, Happening::Poll { machine: index });
        let machine = &self.machines[index];
        let Some(head) = &self.head else { return };
        let Some(node) = head.engine.tree().get(machine.id) else {
            return;
        };
        let known = node.dsc.text(core::PHYS_STATE);
        let news = match known {
            Some(core::POWER_ON) => !machine.powered,
            Some(core::POWER_OFF) => machine.powered,
            // Why it hangs is the mutation's business; that it is off is news.
            Some(_) => !machine.powered,
            None => false,
        };
        if news && machine.bmc_dead_until <= self.now {
            self.report_power(index);
        }
    }

    fn report_power(&mut self, index: usize) {
        let machine = &self.machines[index];
        let state = if machine.powered {
            core::POWER_ON
        } else {
            core::POWER_OFF
        };
        let id = machine.id;
        self.discover_at_head(id, "power", &[&format!("/PhysState={state}")]);
    }

    pub(super) fn discover_at_head(
        &mut self,
        node: NodeId,
        source: &'static str,
        changes: &[&str],
    ) {
        let discovery = Discovery {
            node,
            source: source.into(),
            changes: changes.iter().map(|text| change(text)).collect(),
        };
        self.feed_head(Input::Discover(discovery), Cause::Module(node));
    }

    pub(super) fn arm(&mut self, incarnation: u64, fire: &Fire) {
        if !self.is_wanted(incarnation, fire) {
            return;
        }
        let grant = NewGrant {
            node: fire.node,
            id: GrantId(Uuid::from_bytes(self.rng.bytes())),
            boot: Uuid::from_bytes(self.rng.bytes()),
            secret: Secret(self.rng.bytes()),
            expires_ms: self.wall_ms() + 600_000,
        };
        self.feed_head(Input::Arm(grant), Cause::Other);
    }

    pub(super) fn grant_answer(&mut self, request: RequestId, result: Result<String, String>) {
        let Some(head) = &mut self.head else { return };
        let Some((machine, cycle)) = head.fetches.remove(&request) else {
            return;
        };
        let Ok(text) = result else {
            // The loader asks again by itself.
            return self.hit("grant not delivered");
        };
        if self
            .net
            .is_cut(Host::Head, Host::Machine(machine), self.now)
            || self.rng.permille(10)
        {
            return self.hit("grant lost on the way");
        }
        let delay = self.rng.millis(1..10);
        let step = Boot::Granted(text);
        self.after(
            delay,
            Happening::Boot {
                machine,
                cycle,
                step,
            },
        );
    }
}
