//! An engine whose store answers at once: what scenarios, and tests of the engine, run on.

use crate::engine::{Engine, EngineConfig, Role};
use crate::event::{Input, Output};
use crate::mutation::progress::Healing;
use crate::state::NodeId;
use crate::sync::SyncConfig;
use crate::time::Instant;

/// The head's node.
pub(crate) const HEAD: NodeId = NodeId::from_bytes([0xaa; 16]);

/// The configuration of such a head.
pub(crate) fn config() -> EngineConfig {
    EngineConfig {
        me: HEAD,
        role: Role::Head { epoch: 1 },
        sync: SyncConfig::default(),
        healing: Healing::default(),
        seed: 1,
    }
}

/// The next thing that the engine wants done, besides what it wants to be durable: that is durable from then on.
pub(crate) fn poll(engine: &mut Engine, now: Instant) -> Option<Output> {
    loop {
        match engine.poll_output()? {
            Output::Commit { commit, .. } => {
                let result = Ok(());
                engine.handle_input(Input::Committed { commit, result }, now);
            }
            output => return Some(output),
        }
    }
}

/// Goes on to the next timer, and rings it: there may be something to poll. `false`: none rings up to `end`, and it is `end`.
pub(crate) fn ring(engine: &mut Engine, now: &mut Instant, end: Instant) -> bool {
    let Some(at) = engine.poll_timeout().filter(|at| *at <= end) else {
        *now = end;
        return false;
    };
    *now = at.max(*now);
    engine.handle_timeout(*now);
    true
}
