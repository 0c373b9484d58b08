//! Why a mutation may not fire, and how that is said: of one node, or of many that differ in nothing but their place in a queue and in time.

use std::time::Duration;

use super::governor::Gate;
use crate::mutation::report::{Hold, time};
use crate::time::Instant;

/// Stands for [`Held::left`] in the texts of a hold.
pub(super) const TIME_MARK: &str = "{time}";

/// Why a mutation may not fire now.
#[derive(Clone)]
pub(super) struct Held {
    /// In words, with [`TIME_MARK`], and without the place in a queue.
    pub(super) hold: Hold,
    /// When it ends by itself and nobody else says so.
    pub(super) until: Option<Instant>,
    /// Where the node waits to be told that it may try again.
    pub(super) gate: Option<Gate>,
    left: Option<Duration>,
    before: usize,
}

/// Time and place of those who meet the same hold: least and most.
#[derive(Clone, Copy)]
pub(super) struct Spread {
    left: Option<(Duration, Duration)>,
    before: (usize, usize),
}

impl Held {
    pub(super) fn new(kind: &'static str, text: String, lifted_by: impl Into<String>) -> Self {
        Self {
            hold: Hold {
                kind,
                text,
                lifted_by: lifted_by.into(),
            },
            until: None,
            gate: None,
            left: None,
            before: 0,
        }
    }

    pub(super) fn until(mut self, until: Instant) -> Self {
        self.until = Some(until);
        self
    }

    pub(super) fn at(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    /// The time for which [`TIME_MARK`] stands, said in whole seconds: one that is begun counts, for nothing is free before.
    pub(super) fn left(mut self, left: Duration) -> Self {
        let begun = u64::from(left.subsec_nanos() > 0);
        self.left = Some(Duration::from_secs(left.as_secs() + begun));
        self
    }

    /// So many stand before it.
    pub(super) fn behind(mut self, before: usize) -> Self {
        self.before = before;
        self
    }

    /// Of this node alone.
    pub(super) fn spread(&self) -> Spread {
        Spread {
            left: self.left.map(|left| (left, left)),
            before: (self.before, self.before),
        }
    }

    /// In words.
    pub(super) fn into_hold(self) -> Hold {
        let spread = self.spread();
        spread.fill(self.hold)
    }
}

impl Spread {
    /// Those of another, too.
    pub(super) fn widen(&mut self, other: Self) {
        let (least, most) = &mut self.before;
        *least = other.before.0.min(*least);
        *most = other.before.1.max(*most);
        self.left = match (self.left, other.left) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
    }

    /// The hold in words.
    pub(super) fn fill(&self, mut hold: Hold) -> Hold {
        if let Some((least, most)) = self.left {
            let (least, most) = (time(least), time(most));
            let said = if least == most {
                least
            } else {
                format!("{least} to {most}")
            };
            hold.text = hold.text.replace(TIME_MARK, &said);
            hold.lifted_by = hold.lifted_by.replace(TIME_MARK, &said);
        }
        hold.lifted_by += &match self.before {
            (_, 0) => String::new(),
            (least, most) if least == most => format!("; {} before this one", nodes(most)),
            (least, most) => format!("; {least} to {} before each of them", nodes(most)),
        };
        hold
    }
}

/// How many nodes.
pub(super) fn nodes(count: usize) -> String {
    match count {
        1 => "1 node".to_owned(),
        count => format!("{count} nodes"),
    }
}

/// Where a node waits that these holds keep from firing: nowhere if something else has to change first, which plans it anew.
pub(super) fn waits_at(held: &[Held]) -> Option<Gate> {
    let first = held.first()?.gate.clone()?;
    held.iter().all(|held| held.gate.is_some()).then_some(first)
}

#[cfg(test)]
mod tests;
