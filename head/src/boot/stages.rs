//! Turns what the servers see into log lines "boot stage node=n1 stage=kernel", once for each boot; the lab reads them.
//!
//! Firmware and iPXE both do DHCP, files are fetched in pieces, and a node that is not armed fetches its script every few
//! seconds: a stage is reported the first time only. A boot begins anew when the node is armed for another boot, or when its
//! firmware does DHCP after it had got past the loader.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::info;
use uuid::Uuid;

use super::{BootEvent, BootNode, BootStage, EventSender, MacAddr};

/// Least time between two `Seen` of one machine: the tree keeps "last seen" to the second or so, and a storm should not fill the queue.
pub(crate) const SEEN_INTERVAL: Duration = Duration::from_secs(10);

/// Machines whose boots are followed; more than DESIGN's 10,000 nodes, so it limits only mistakes. About 64 bytes each.
const MAX_FOLLOWED: usize = 65_536;

#[derive(Debug)]
struct Progress {
    boot: Option<Uuid>,
    reached: u8,
    seen: Option<Instant>,
}

/// What each machine has reached in its current boot; pure.
#[derive(Debug, Default)]
struct Followed(HashMap<MacAddr, Progress>);

/// What is to be told about one observation.
#[derive(Debug, PartialEq, Eq)]
struct Tell {
    seen: bool,
    stage: bool,
}

impl Followed {
    fn reach(&mut self, node: &BootNode, stage: BootStage, now: Instant) -> Tell {
        if self.0.len() >= MAX_FOLLOWED && !self.0.contains_key(&node.mac) {
            return Tell {
                seen: true,
                stage: true,
            };
        }
        let boot = node.armed.map(|armed| armed.boot_id);
        let progress = self.0.entry(node.mac).or_insert(Progress {
            boot,
            reached: 0,
            seen: None,
        });
        let early = bit(BootStage::Dhcp) | bit(BootStage::Loader);
        let restarted = stage == BootStage::Dhcp && progress.reached & !early != 0;
        if progress.boot != boot || restarted {
            progress.boot = boot;
            progress.reached = 0;
        }
        let first = progress.reached & bit(stage) == 0;
        progress.reached |= bit(stage);
        let seen = progress
            .seen
            .is_none_or(|seen| now.saturating_duration_since(seen) >= SEEN_INTERVAL);
        if seen {
            progress.seen = Some(now);
        }
        Tell { seen, stage: first }
    }
}

fn bit(stage: BootStage) -> u8 {
    1 << stage as u8
}

/// Follows all boots; shared by the servers.
pub(crate) struct StageLog {
    followed: Mutex<Followed>,
    events: EventSender,
}

impl StageLog {
    /// Stages go to the log, machines that were heard to this queue.
    pub(crate) fn new(events: EventSender) -> Self {
        StageLog {
            followed: Mutex::default(),
            events,
        }
    }

    /// A node's machine asked for something of this stage.
    pub(crate) fn reached(&self, node: &BootNode, stage: BootStage, now: Instant) {
        let tell = self
            .followed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .reach(node, stage, now);
        if tell.stage {
            let boot_id = node.armed.map(|armed| armed.boot_id);
            info!(node = %node.name, %stage, boot = boot_id.map(tracing::field::display), "boot stage");
            metrics::counter!("kraken_boot_stages_total", "stage" => stage.name()).increment(1);
        }
        if tell.seen {
            // A lost hint is counted by the queue and comes again.
            let _ = self.events.send(BootEvent::Seen { mac: node.mac });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::table::tests::{armed_node, node};
    use BootStage::{Dhcp, Grant, Initramfs, Kernel, Loader, Script};

    fn told(
        followed: &mut Followed,
        node: &BootNode,
        stages: &[BootStage],
        now: Instant,
    ) -> Vec<BootStage> {
        stages
            .iter()
            .copied()
            .filter(|&stage| followed.reach(node, stage, now).stage)
            .collect()
    }

    #[test]
    fn a_boot_tells_each_stage_once() {
        let (mut followed, now) = (Followed::default(), Instant::now());
        let boot = [Dhcp, Loader, Dhcp, Script, Kernel, Kernel, Initramfs, Grant];
        let expect = [Dhcp, Loader, Script, Kernel, Initramfs, Grant];
        assert_eq!(told(&mut followed, &armed_node(1), &boot, now), expect);
        // The next power-on of the same boot, then of another one.
        assert_eq!(told(&mut followed, &armed_node(1), &boot, now), expect);
        assert_eq!(
            told(&mut followed, &node(1), &[Script, Script, Script], now),
            [Script]
        );
        assert_eq!(
            told(&mut followed, &armed_node(1), &[Script, Kernel], now),
            [Script, Kernel]
        );
    }

    #[test]
    fn seen_is_told_once_in_an_interval() {
        let (mut followed, start) = (Followed::default(), Instant::now());
        let mut seen = |after| followed.reach(&node(1), Script, start + after).seen;
        assert!(seen(Duration::ZERO));
        assert!(!seen(SEEN_INTERVAL - Duration::from_millis(1)));
        assert!(seen(SEEN_INTERVAL));
        assert!(!seen(SEEN_INTERVAL + Duration::from_secs(1)));
    }
}
