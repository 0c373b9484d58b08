//! The core's mutations: joining and leaving. The engine itself carries out the head's half.

use std::time::Duration;

use engine::event::Fire;
use engine::mutation::{Condition, Dependency, MutationContext, MutationId};
use engine::state::NodeId;

use super::declare::{mutation, url};
use super::{Declaration, Module};

/// Kernel start to join: 30 times what the lab needs, and enough for servers that train their memory first.
const JOIN_TIMEOUT: Duration = Duration::from_secs(120);

/// Time to leave cleanly; the agent only says so.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct Core;

impl Module for Core {
    fn name(&self) -> &str {
        "core"
    }

    fn declaration(&self) -> Declaration {
        Declaration {
            mutations: vec![
                mutation("core", "INITtoSYNC", MutationContext::All)
                    .change("/RunState", &["INIT"], "SYNC")
                    .requires("/PhysState", &["POWER_ON"])
                    .within(JOIN_TIMEOUT, "/PhysState", "PHYS_HANG")
                    .done(),
                mutation("core", "SYNCtoINIT", MutationContext::SelfNode)
                    .change("/RunState", &["SYNC"], "INIT")
                    .requires("/PhysState", &["POWER_ON"])
                    .requires("/image/state", &["IDLE"])
                    .excludes("/Busy", "BUSY")
                    .within(LEAVE_TIMEOUT, "/RunState", "ERROR")
                    .done(),
            ],
            dependencies: vec![
                // Whether a job runs is the agent's word. Once it is silent the engine remembers the job and holds what would end it.
                Dependency {
                    url: url("/Busy"),
                    conditions: vec![Condition::is(url("/RunState"), "SYNC")],
                },
                // So is what it gave up on.
                Dependency {
                    url: url("/Parked"),
                    conditions: vec![Condition::is(url("/RunState"), "SYNC")],
                },
                // Power is a fact, whether somebody can switch it or not.
                Dependency {
                    url: url("/PhysState"),
                    conditions: Vec::new(),
                },
            ],
            discoverables: Vec::new(),
        }
    }

    // A join is the node's doing: the engine hears of it through the sync port.
    fn fire(&self, _: Fire) {}

    fn interrupt(&self, _: NodeId, _: &MutationId, _: u64) {}
}
