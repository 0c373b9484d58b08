//! The holding list: machines that asked for a boot and belong to no node (DESIGN 5).
//!
//! Kept in memory: a machine that is still there asks again. Bounded, for anybody on the boot network can fill it; the one that was silent
//! longest makes room.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::info;

use crate::boot::{MacAddr, PendingMachine};

/// Most machines on the list: more racks than are delivered in a day, and under 1 MiB.
const MAX_PENDING: usize = 1024;

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// What its last packet said.
    pub(crate) machine: PendingMachine,
    /// Milliseconds since the Unix epoch.
    pub(crate) first_seen_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub(crate) last_seen_ms: u64,
    /// Packets so far.
    pub(crate) count: u64,
}

/// The list; shared by the boot plane's listener and the API.
#[derive(Clone, Default)]
pub(crate) struct HoldingList(Arc<Mutex<BTreeMap<MacAddr, Pending>>>);

impl HoldingList {
    /// A machine asked for a boot.
    pub(crate) fn heard(&self, machine: PendingMachine, now_ms: u64) {
        let mut list = self.lock();
        if let Some(pending) = list.get_mut(&machine.mac) {
            pending.machine = machine;
            pending.last_seen_ms = now_ms;
            pending.count += 1;
            return;
        }
        if list.len() >= MAX_PENDING {
            let oldest = list
                .values()
                .min_by_key(|pending| pending.last_seen_ms)
                .map(|pending| pending.machine.mac);
            if let Some(oldest) = oldest {
                list.remove(&oldest);
                metrics::counter!("kraken_pending_dropped_total").increment(1);
            }
        }
        info!(mac = %machine.mac, interface = %machine.interface, "unknown machine held: `krakenctl pending list`");
        list.insert(
            machine.mac,
            Pending {
                machine,
                first_seen_ms: now_ms,
                last_seen_ms: now_ms,
                count: 1,
            },
        );
    }

    /// All machines, ordered by address.
    pub(crate) fn list(&self) -> Vec<Pending> {
        self.lock().values().cloned().collect()
    }

    /// A machine belongs to a node from here on.
    pub(crate) fn enrolled(&self, mac: MacAddr) {
        self.lock().remove(&mac);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MacAddr, Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(n: u32) -> PendingMachine {
        let [a, b, c, d] = n.to_be_bytes();
        PendingMachine {
            mac: MacAddr([2, 0, a, b, c, d]),
            uuid: None,
            arch: None,
            vendor_class: None,
            interface: "br0".into(),
            giaddr: None,
            circuit: None,
            hostname: None,
        }
    }

    #[test]
    fn a_machine_is_listed_once_with_its_count() {
        let list = HoldingList::default();
        for now in [10, 20, 30] {
            list.heard(machine(1), now);
        }
        let all = list.list();
        assert_eq!(all.len(), 1);
        assert_eq!(
            (all[0].first_seen_ms, all[0].last_seen_ms, all[0].count),
            (10, 30, 3)
        );
        list.enrolled(machine(1).mac);
        assert!(list.list().is_empty());
    }

    #[test]
    fn the_longest_silent_makes_room() {
        let list = HoldingList::default();
        for n in 0..MAX_PENDING as u32 {
            list.heard(machine(n), u64::from(n));
        }
        list.heard(machine(0), 10_000);
        list.heard(machine(99_999), 10_001);
        let macs: Vec<MacAddr> = list
            .list()
            .into_iter()
            .map(|pending| pending.machine.mac)
            .collect();
        assert_eq!(macs.len(), MAX_PENDING);
        assert!(macs.contains(&machine(0).mac) && macs.contains(&machine(99_999).mac));
        assert!(!macs.contains(&machine(1).mac));
    }
}
