//! A parent that loses many children at once suspects itself: its link, its switch, its clock (DESIGN 3, mass-failure guard).
//!
//! More than a share of the children, and at least three, silent within one dead interval: from there on nothing disruptive fires, until
//! enough of them are accounted for: they join again, are found switched off, are released by an operator or deleted; or until an operator says that
//! the children are at fault.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::state::NodeId;
use crate::time::Instant;

/// Fewer lost children than this are their own fault: one machine that dies, or two that share a chassis, are to be healed without anybody being asked.
const FEW: usize = 3;

/// Percent of the children.
pub(super) const PERCENT: u32 = 20;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct MassGuard {
    percent: u32,
    recent: VecDeque<(Instant, NodeId)>,
    suspect: Option<Suspect>,
}

/// What the parent suspects itself of.
#[derive(Clone, Debug)]
pub(super) struct Suspect {
    /// Lost and not accounted for.
    pub(super) lost: BTreeSet<NodeId>,
    /// Children that there were.
    pub(super) of: usize,
}

impl Default for MassGuard {
    fn default() -> Self {
        Self {
            percent: PERCENT,
            recent: VecDeque::new(),
            suspect: None,
        }
    }
}

impl MassGuard {
    /// Other than [`PERCENT`]; 100 switches the guard off.
    pub(super) fn configure(&mut self, percent: u32) {
        self.percent = percent;
    }

    fn is_many(&self, lost: usize, of: usize) -> bool {
        lost >= FEW && lost * 100 > of * self.percent as usize
    }

    /// A child fell silent while `alive` others are heard. True when that makes the parent suspect itself.
    pub(super) fn lost(
        &mut self,
        child: NodeId,
        alive: usize,
        dead: Duration,
        now: Instant,
    ) -> bool {
        while self.recent.front().is_some_and(|(at, _)| *at + dead < now) {
            self.recent.pop_front();
        }
        self.recent.push_back((now, child));
        if let Some(suspect) = &mut self.suspect {
            suspect.lost.insert(child);
            suspect.of = suspect.of.max(alive + suspect.lost.len());
            return false;
        }
        let lost: BTreeSet<NodeId> = self.recent.iter().map(|(_, child)| *child).collect();
        let of = alive + lost.len();
        if self.is_many(lost.len(), of) {
            self.suspect = Some(Suspect { lost, of });
        }
        self.suspect.is_some()
    }

    /// A child is accounted for. True when that ends the suspicion.
    pub(super) fn found(&mut self, child: NodeId) -> bool {
        self.recent.retain(|(_, lost)| *lost != child);
        let Some(suspect) = &mut self.suspect else {
            return false;
        };
        suspect.lost.remove(&child);
        let left = (suspect.lost.len(), suspect.of);
        let over = left.0 * 100 <= left.1 * self.percent as usize;
        if over {
            self.lift();
        }
        over
    }

    /// An operator ends the suspicion; false: there was none.
    pub(super) fn lift(&mut self) -> bool {
        self.recent.clear();
        self.suspect.take().is_some()
    }

    /// The suspicion, while there is one.
    pub(super) fn suspect(&self) -> Option<&Suspect> {
        self.suspect.as_ref()
    }
}

#[cfg(test)]
mod tests;
