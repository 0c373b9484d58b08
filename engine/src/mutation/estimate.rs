//! How long a path will take and what it switches, as far as that can be told beforehand.
//!
//! A step takes what it usually took in this cluster (`measured`), else at most its timeout. Steps that may run side by side do: what counts is the
//! longest chain. Left out is what nobody knows beforehand: failures, holds, and discoveries that lead elsewhere.

use std::fmt;
use std::time::Duration;

use super::report::{ReportStep, time};
use super::{UrlChange, cuts_power, switches_on};

/// What a path costs beside its cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Estimate {
    /// How long it takes; `None`: there is nothing to do.
    pub time: Option<TimeEstimate>,
    /// How often power is cut.
    pub power_offs: usize,
    /// How often power is switched on: what ran before has ended by then.
    pub power_ons: usize,
}

/// A time, and how sure it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeEstimate {
    /// How sure.
    pub basis: Basis,
    /// Of the longest chain of steps; a step of which nothing is known counts nothing.
    pub time: Duration,
    /// Steps that were measured.
    pub measured: usize,
    /// All steps.
    pub steps: usize,
}

/// What a time is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Basis {
    /// Every step succeeded before: about this.
    Measured,
    /// Some step never did, but has a timeout: at most this.
    AtMost,
    /// Some step never did and has no timeout: this for the others.
    Partly,
    /// No step ever did or has a timeout.
    Unknown,
}

impl Basis {
    /// The word for it in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::AtMost => "at_most",
            Self::Partly => "partly",
            Self::Unknown => "unknown",
        }
    }
}

impl Estimate {
    /// What these steps take, from now on.
    pub fn of(steps: &[ReportStep]) -> Self {
        let count = |is: fn(&[UrlChange]) -> bool| {
            let steps = steps.iter();
            steps.filter(|step| is(&step.changes)).count()
        };
        Self {
            time: TimeEstimate::of(steps),
            power_offs: count(cuts_power),
            power_ons: count(switches_on),
        }
    }
}

impl Estimate {
    /// How often a machine goes off and comes back: being switched on alone is no reboot.
    pub fn reboots(&self) -> usize {
        self.power_offs.min(self.power_ons)
    }
}

impl TimeEstimate {
    fn of(steps: &[ReportStep]) -> Option<Self> {
        let mut ends: Vec<Duration> = Vec::with_capacity(steps.len());
        let (mut measured, mut bounded) = (0, 0);
        for step in steps {
            measured += usize::from(step.typical.is_some());
            bounded += usize::from(step.typical.is_none() && step.timeout.is_some());
            let whole = step.typical.or(step.timeout).unwrap_or_default();
            let start = step.after.iter().filter_map(|at| ends.get(*at)).max();
            let left = match step.in_flight {
                true => whole.saturating_sub(step.elapsed),
                false => whole,
            };
            ends.push(start.copied().unwrap_or_default().saturating_add(left));
        }
        let basis = match steps.len() - measured - bounded {
            0 if bounded == 0 => Basis::Measured,
            0 => Basis::AtMost,
            unknown if unknown == steps.len() => Basis::Unknown,
            _ => Basis::Partly,
        };
        Some(Self {
            basis,
            time: ends.into_iter().max()?,
            measured,
            steps: steps.len(),
        })
    }
}

impl fmt::Display for TimeEstimate {
    /// `about 25 s (measured)`, `at most 2 min (never measured)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (measured, steps) = (self.measured, self.steps);
        let known = time(self.time);
        match self.basis {
            Basis::Measured => write!(f, "about {known} (measured)"),
            Basis::AtMost if measured == 0 => write!(f, "at most {known} (never measured)"),
            Basis::AtMost => write!(f, "at most {known} ({measured} of {steps} steps measured)"),
            Basis::Partly => write!(
                f,
                "{known} and what steps take that were never measured and have no timeout ({measured} of {steps} steps measured)"
            ),
            Basis::Unknown => f.write_str("time unknown (never measured, no timeout)"),
        }
    }
}

impl fmt::Display for Estimate {
    /// One line; empty when there is nothing to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(time) = self.time else {
            return Ok(());
        };
        time.fmt(f)?;
        for (count, what) in [(self.power_offs, "power-off"), (self.power_ons, "power-on")] {
            match count {
                0 => {}
                1 => write!(f, ", 1 {what}")?,
                many => write!(f, ", {many} {what}s")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
