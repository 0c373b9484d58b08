//! What DHCP remembers between packets: declined addresses and the machines that nobody enrolled.
//!
//! Addresses themselves are reservations in [`crate::boot::BootTable`]; there is no pool and so nothing that strangers could
//! use up (threat S16). Everything here is lost with the head and comes back with the next packets.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::boot::{MacAddr, PendingMachine};

/// How long a declined address is not offered: time to see the log line, short enough not to need an operator (RFC 2131
/// section 3.1 step 5 makes the client itself wait ten seconds).
pub(crate) const DECLINE_HOLD: Duration = Duration::from_secs(60);

/// Declined addresses that are remembered. Only enrolled nodes can decline, so this is DESIGN's 10,000 nodes, rounded up.
pub(crate) const MAX_DECLINED: usize = 16_384;

/// Unknown machines that are held: several racks delivered at once. About 300 bytes each, so a flood of made-up MACs costs under 1 MiB.
pub(crate) const MAX_HELD: usize = 1_024;

/// A machine that was heard only once leaves the list after this: firmware sends its DISCOVER at least four times within a minute.
const HOLD_ONCE: Duration = Duration::from_secs(60);

/// A machine that was heard several times leaves the list after this silence.
const HOLD: Duration = Duration::from_secs(600);

/// Least time between two reports of a machine whose evidence did not change.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Least time between two searches for machines to drop from a full list, so that a flood does not cost a scan per packet.
const PURGE_INTERVAL: Duration = Duration::from_secs(1);

/// Addresses that their own clients found in use.
#[derive(Debug, Default)]
pub(crate) struct Declined(HashMap<MacAddr, Instant>);

impl Declined {
    /// A node declined its address; false if the marks are used up.
    pub(crate) fn mark(&mut self, mac: MacAddr, now: Instant) -> bool {
        if self.0.len() >= MAX_DECLINED {
            self.0.retain(|_, until| *until > now);
        }
        let room = self.0.len() < MAX_DECLINED || self.0.contains_key(&mac);
        if room {
            self.0.insert(mac, now + DECLINE_HOLD);
        }
        room
    }

    /// Whether the node's address is held back.
    pub(crate) fn holds(&mut self, mac: MacAddr, now: Instant) -> bool {
        match self.0.get(&mac) {
            Some(until) if *until > now => true,
            Some(_) => {
                self.0.remove(&mac);
                false
            }
            None => false,
        }
    }
}

/// What became of a packet of an unknown machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// On the list and worth a report: new, changed, or not reported for a while.
    Report,
    /// On the list, reported lately.
    Quiet,
    /// The list is full.
    Full,
}

#[derive(Debug)]
struct Machine {
    evidence: PendingMachine,
    packets: u64,
    last: Instant,
    reported: Instant,
}

/// Machines that asked for an address and that no node is enrolled for.
#[derive(Debug, Default)]
pub(crate) struct HoldingList {
    machines: BTreeMap<MacAddr, Machine>,
    purged: Option<Instant>,
}

impl HoldingList {
    /// Takes note of a packet.
    pub(crate) fn note(&mut self, evidence: &PendingMachine, now: Instant) -> Held {
        if let Some(machine) = self.machines.get_mut(&evidence.mac) {
            machine.packets += 1;
            machine.last = now;
            let changed = machine.evidence != *evidence;
            if changed {
                machine.evidence = evidence.clone();
            }
            if changed || now.saturating_duration_since(machine.reported) >= REPORT_INTERVAL {
                machine.reported = now;
                return Held::Report;
            }
            return Held::Quiet;
        }
        if self.machines.len() >= MAX_HELD {
            self.purge(now);
        }
        if self.machines.len() >= MAX_HELD {
            return Held::Full;
        }
        let machine = Machine {
            evidence: evidence.clone(),
            packets: 1,
            last: now,
            reported: now,
        };
        self.machines.insert(evidence.mac, machine);
        Held::Report
    }

    /// The machine was enrolled.
    pub(crate) fn forget(&mut self, mac: MacAddr) {
        self.machines.remove(&mac);
    }

    /// How many machines are held.
    pub(crate) fn len(&self) -> usize {
        self.machines.len()
    }

    fn purge(&mut self, now: Instant) {
        if self
            .purged
            .is_some_and(|at| now.saturating_duration_since(at) < PURGE_INTERVAL)
        {
            return;
        }
        self.purged = Some(now);
        self.machines.retain(|_, machine| {
            let hold = if machine.packets > 1 { HOLD } else { HOLD_ONCE };
            now.saturating_duration_since(machine.last) < hold
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn machine(i: usize) -> PendingMachine {
        let [.., a, b] = i.to_be_bytes();
        PendingMachine {
            mac: MacAddr([2, 0, 0, 0, a, b]),
            uuid: None,
            arch: None,
            vendor_class: None,
            interface: Arc::from("br0"),
            giaddr: None,
            circuit: None,
            hostname: None,
        }
    }

    #[test]
    fn a_declined_address_comes_back_after_its_time() {
        let (mut declined, now, mac) = (Declined::default(), Instant::now(), MacAddr([2; 6]));
        assert!(!declined.holds(mac, now));
        assert!(declined.mark(mac, now));
        assert!(declined.holds(mac, now + DECLINE_HOLD - Duration::from_millis(1)));
        assert!(!declined.holds(mac, now + DECLINE_HOLD));
    }

    #[test]
    fn declines_are_bounded_and_old_ones_make_room() {
        let (mut declined, now) = (Declined::default(), Instant::now());
        for i in 0..MAX_DECLINED {
            assert!(declined.mark(machine(i).mac, now));
        }
        assert!(!declined.mark(MacAddr([6; 6]), now));
        assert!(
            declined.mark(machine(0).mac, now),
            "known ones can be renewed"
        );
        assert!(declined.mark(MacAddr([6; 6]), now + DECLINE_HOLD));
    }

    #[test]
    fn a_machine_is_reported_when_new_changed_or_after_a_while() {
        let (mut list, now) = (HoldingList::default(), Instant::now());
        assert_eq!(list.note(&machine(1), now), Held::Report);
        assert_eq!(list.note(&machine(1), now), Held::Quiet);
        let changed = PendingMachine {
            hostname: Some("new".into()),
            ..machine(1)
        };
        assert_eq!(list.note(&changed, now), Held::Report);
        assert_eq!(list.note(&changed, now), Held::Quiet);
        assert_eq!(list.note(&changed, now + REPORT_INTERVAL), Held::Report);
        list.forget(machine(1).mac);
        assert_eq!(list.len(), 0);
    }

    #[test]
    fn the_list_is_bounded_and_drops_one_time_guests_first() {
        let (mut list, now) = (HoldingList::default(), Instant::now());
        for i in 0..MAX_HELD {
            assert_eq!(list.note(&machine(i), now), Held::Report);
        }
        assert_eq!(list.note(&machine(0), now), Held::Quiet);
        assert_eq!(list.note(&machine(MAX_HELD), now), Held::Full);
        assert_eq!(list.len(), MAX_HELD);
        let later = now + HOLD_ONCE + PURGE_INTERVAL;
        assert_eq!(list.note(&machine(MAX_HELD), later), Held::Report);
        assert_eq!(
            list.note(&machine(0), later),
            Held::Report,
            "it was heard twice, so it stayed"
        );
        assert_eq!(list.len(), 2);
    }
}
