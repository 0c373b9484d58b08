//! The pxe module: arms nodes, so that their next boot is served and joins once (DESIGN 4, KJ1).

use std::time::Duration;

use engine::event::{Fire, Input};
use engine::mutation::{MutationContext, MutationId};
use engine::state::NodeId;
use engine::sync::join::{GrantId, NewGrant, Secret};
use uuid::Builder;

use super::declare::mutation;
use super::{Declaration, Module, Reports};

/// Arming is one commit of the store.
const ARM_TIMEOUT: Duration = Duration::from_secs(30);

/// Power-on to the fetch of the grant: firmware, loader, kernel and initramfs.
const BOOT_TIMEOUT: Duration = Duration::from_secs(180);

/// See the module.
pub(crate) struct Pxe {
    reports: Reports,
    window: Duration,
    now_ms: fn() -> u64,
}

impl Pxe {
    /// Grants of this module are valid for `window`.
    pub(crate) fn new(reports: Reports, window: Duration, now_ms: fn() -> u64) -> Self {
        Self {
            reports,
            window,
            now_ms,
        }
    }
}

/// What the module declares, always.
pub(super) fn declared() -> Declaration {
    Declaration {
        mutations: vec![
            mutation("pxe", "NONEtoWAIT", MutationContext::Child)
                .change("/pxe/state", &[""], "WAIT")
                .requires("/PhysState", &["POWER_ON"])
                .within(ARM_TIMEOUT, "/PhysState", "PHYS_HANG")
                .done(),
            mutation("pxe", "WAITtoINIT", MutationContext::Child)
                .change("/pxe/state", &["WAIT"], "INIT")
                .change("/RunState", &[""], "INIT")
                .requires("/PhysState", &["POWER_ON"])
                .within(BOOT_TIMEOUT, "/PhysState", "PHYS_HANG")
                .done(),
            mutation("pxe", "ERRORtoWAIT", MutationContext::Child)
                .change("/RunState", &["ERROR"], "")
                .change("/pxe/state", &["", "WAIT", "INIT"], "WAIT")
                .requires("/PhysState", &["POWER_ON"])
                .within(ARM_TIMEOUT, "/PhysState", "PHYS_HANG")
                .done(),
        ],
        ..Declaration::default()
    }
}

impl Module for Pxe {
    fn name(&self) -> &str {
        "pxe"
    }

    fn declaration(&self) -> Declaration {
        declared()
    }

    fn fire(&self, fire: Fire) {
        if !matches!(fire.mutation.name(), "NONEtoWAIT" | "ERRORtoWAIT") {
            // The node fetches its grant, or does not.
            return;
        }
        let (reports, expires_ms) = (
            self.reports.clone(),
            (self.now_ms)() + self.window.as_millis() as u64,
        );
        tokio::spawn(async move {
            match new_grant(fire.node, expires_ms) {
                Ok(grant) => reports.send(Input::Arm(grant)).await,
                Err(error) => {
                    reports
                        .fail(&fire, format!("no random numbers for a grant: {error}"))
                        .await
                }
            }
        });
    }

    // An armed node that is no longer wanted is disarmed by the engine.
    fn interrupt(&self, _: NodeId, _: &MutationId, _: u64) {}
}

fn new_grant(node: NodeId, expires_ms: u64) -> Result<NewGrant, getrandom::Error> {
    let (mut id, mut boot, mut secret) = ([0; 16], [0; 16], [0; 32]);
    getrandom::fill(&mut id)?;
    getrandom::fill(&mut boot)?;
    getrandom::fill(&mut secret)?;
    Ok(NewGrant {
        node,
        id: GrantId(Builder::from_random_bytes(id).into_uuid()),
        boot: Builder::from_random_bytes(boot).into_uuid(),
        secret: Secret(secret),
        expires_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::state::Values;

    #[tokio::test]
    async fn arming_makes_a_fresh_grant_each_time() {
        let (reports, mut heard) = Reports::channel();
        let pxe = Pxe::new(reports, Duration::from_secs(600), || 1_000);
        let fire = |name: &str| Fire {
            node: NodeId::from_bytes([1; 16]),
            name: "n1".parse().unwrap(),
            mutation: MutationId::new("pxe", name),
            attempt: 1,
            deadline: None,
            cfg: Values::default(),
            dsc: Values::default(),
        };
        let mut grants = Vec::new();
        for name in ["NONEtoWAIT", "WAITtoINIT", "ERRORtoWAIT"] {
            pxe.fire(fire(name));
        }
        for _ in 0..2 {
            let Some(Input::Arm(grant)) = heard.recv().await else {
                panic!("a grant is made")
            };
            assert_eq!(
                (grant.node, grant.expires_ms),
                (NodeId::from_bytes([1; 16]), 601_000)
            );
            grants.push(grant);
        }
        assert_ne!(grants[0].id, grants[1].id);
        assert_ne!(grants[0].boot, grants[1].boot);
        assert!(grants[0].secret != grants[1].secret);
        drop(pxe);
        assert!(
            heard.recv().await.is_none(),
            "waiting for a boot makes no grant"
        );
    }
}
