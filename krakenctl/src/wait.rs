//! Which nodes have become what was set: the pure half of `--wait`.
//!
//! A value counts as reached when the node's Dsc shows it. Values that no mutation changes are waited for only where the node reports
//! them (an image's name while an image runs), or where nothing that runs could change or report them; the others hold from the moment they are
//! written. A node fails when the head says twice in a row that it cannot go on (no path, parked), when somebody else sets another value meanwhile,
//! when the write was on trial and is taken back, or when it is deleted; it may recover until the wait ends.

use std::collections::BTreeMap;

use proto::v1;
use proto::v1::Outcome;
use serde::Serialize;

use crate::exit::Exit;
use crate::mirror::Mirror;

/// Reports that must agree before a node counts as failed: the first may be older than what we wrote.
const STRIKES: u8 = 2;

/// One value to reach.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Goal {
    pub(crate) url: String,
    pub(crate) value: v1::Value,
    /// It is not there before the node shows it: some mutation changes it, or none does and the head says that it is out of reach.
    pub(crate) awaited: bool,
}

/// Where one node stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    Waiting,
    Done,
    Failed,
}

#[derive(Clone, PartialEq, Debug)]
struct Entry {
    standing: Standing,
    /// What it waits for, or why it failed.
    reason: String,
    strikes: u8,
    announced: bool,
    /// Its Cfg is not what was set: the reason says why, and stays.
    overwritten: bool,
}

/// All nodes that are waited for.
#[derive(Debug)]
pub(crate) struct Waiting {
    goals: Vec<Goal>,
    nodes: BTreeMap<String, Entry>,
    counts: Counts,
    trial_is_over: bool,
}

/// How many nodes stand where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) done: usize,
    pub(crate) waiting: usize,
    pub(crate) failed: usize,
}

/// The end, or the present state, for people and programs. Field names are an interface.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Summary {
    pub(crate) done: Vec<String>,
    pub(crate) waiting: Vec<NodeReason>,
    pub(crate) failed: Vec<NodeReason>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct NodeReason {
    pub(crate) node: String,
    pub(crate) reason: String,
}

impl Waiting {
    pub(crate) fn new(nodes: impl IntoIterator<Item = String>, goals: Vec<Goal>) -> Self {
        let entry = Entry {
            standing: Standing::Waiting,
            reason: String::new(),
            strikes: 0,
            announced: false,
            overwritten: false,
        };
        let nodes: BTreeMap<String, Entry> = nodes
            .into_iter()
            .map(|name| (name, entry.clone()))
            .collect();
        Self {
            goals,
            counts: Counts {
                waiting: nodes.len(),
                ..Counts::default()
            },
            nodes,
            trial_is_over: false,
        }
    }

    /// The write was on trial, and its time is over: the head takes back what was not confirmed.
    pub(crate) fn end_trial(&mut self) {
        self.trial_is_over = true;
    }

    pub(crate) fn is_trial_over(&self) -> bool {
        self.trial_is_over
    }

    /// Looks at one node again after something changed. Returns true when it is done for the first time.
    pub(crate) fn look(&mut self, name: &str, mirror: &Mirror) -> bool {
        let Some(entry) = self.nodes.get_mut(name) else {
            return false;
        };
        let before = entry.standing;
        entry.look(name, &self.goals, mirror, self.trial_is_over);
        let after = entry.standing;
        let first = after == Standing::Done && !std::mem::replace(&mut entry.announced, true);
        self.counts.shift(before, after);
        first
    }

    /// Looks at all nodes again. Returns those that are done for the first time.
    pub(crate) fn look_at_all(&mut self, mirror: &Mirror) -> Vec<String> {
        let mut names: Vec<String> = self.nodes.keys().cloned().collect();
        names.retain(|name| self.look(name, mirror));
        names
    }

    /// Takes in why a node waits.
    pub(crate) fn handle_report(&mut self, report: &v1::Report) {
        if let Some(entry) = self.nodes.get_mut(&report.node_name) {
            let before = entry.standing;
            entry.handle_report(report);
            let after = entry.standing;
            self.counts.shift(before, after);
        }
    }

    /// Nodes to ask the head about.
    pub(crate) fn unfinished(&self) -> impl Iterator<Item = &str> {
        self.nodes
            .iter()
            .filter(|(_, entry)| !matches!(entry.standing, Standing::Done))
            .map(|(name, _)| name.as_str())
    }

    /// True when every node is done or failed.
    pub(crate) fn is_over(&self) -> bool {
        self.counts.waiting == 0
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Some node that waits, and what for.
    pub(crate) fn example(&self) -> Option<(&str, &str)> {
        let waits = |entry: &Entry| entry.standing == Standing::Waiting;
        let (name, entry) = self.nodes.iter().find(|(_, entry)| waits(entry))?;
        Some((name, &entry.reason))
    }

    pub(crate) fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for (node, entry) in &self.nodes {
            let with_reason = NodeReason {
                node: node.clone(),
                reason: entry.reason.clone(),
            };
            match entry.standing {
                Standing::Done => summary.done.push(node.clone()),
                Standing::Waiting => summary.waiting.push(with_reason),
                Standing::Failed => summary.failed.push(with_reason),
            }
        }
        summary
    }

    /// How a wait that ended by itself ends the process.
    pub(crate) fn exit(&self) -> Exit {
        match self.counts {
            Counts {
                waiting: 0,
                failed: 0,
                ..
            } => Exit::Ok,
            Counts { done: 0, .. } => Exit::Failure,
            _ => Exit::Partial,
        }
    }
}

impl Counts {
    fn shift(&mut self, before: Standing, after: Standing) {
        *self.of(before) -= 1;
        *self.of(after) += 1;
    }

    fn of(&mut self, standing: Standing) -> &mut usize {
        match standing {
            Standing::Waiting => &mut self.waiting,
            Standing::Done => &mut self.done,
            Standing::Failed => &mut self.failed,
        }
    }
}

impl Entry {
    fn look(&mut self, name: &str, goals: &[Goal], mirror: &Mirror, trial_is_over: bool) {
        let Some(seen) = mirror.get(name) else {
            if mirror.is_synced() {
                self.fail("it was deleted".to_owned());
            }
            return;
        };
        let other = goals
            .iter()
            .find(|goal| seen.cfg.get(&goal.url) != Some(&goal.value));
        if let Some(goal) = other {
            if self.overwritten {
                return;
            }
            self.overwritten = true;
            self.fail(match trial_is_over {
                true => format!("the trial ended, and {} is as it was before", goal.url),
                false => format!("somebody else has set {} since", goal.url),
            });
            return;
        }
        self.overwritten = false;
        let missing = goals.iter().find(|goal| match seen.dsc.get(&goal.url) {
            Some(known) => *known != goal.value,
            None => goal.awaited,
        });
        match missing {
            None => {
                self.standing = Standing::Done;
                self.strikes = 0;
                self.reason.clear();
            }
            Some(goal) => {
                let stuck = self.strikes >= STRIKES;
                if !stuck && self.standing != Standing::Waiting {
                    // It left its goal again, or the reason for its failure is gone.
                    self.reason.clear();
                }
                self.standing = if stuck {
                    Standing::Failed
                } else {
                    Standing::Waiting
                };
                if self.reason.is_empty() {
                    self.reason.clone_from(&goal.url);
                }
            }
        }
    }

    fn handle_report(&mut self, report: &v1::Report) {
        if self.standing == Standing::Done || self.overwritten {
            return;
        }
        match report.outcome() {
            Outcome::NoPath | Outcome::Parked => {
                self.strikes = self.strikes.saturating_add(1);
                self.reason = stuck_reason(report);
                if self.strikes >= STRIKES {
                    self.standing = Standing::Failed;
                }
            }
            Outcome::Held | Outcome::Path | Outcome::Converged | Outcome::Unspecified => {
                if self.strikes >= STRIKES {
                    self.standing = Standing::Waiting;
                }
                self.strikes = 0;
                let reason = way_reason(report);
                if !reason.is_empty() {
                    self.reason = reason;
                }
            }
        }
    }

    fn fail(&mut self, reason: String) {
        self.standing = Standing::Failed;
        self.reason = reason;
    }
}

fn stuck_reason(report: &v1::Report) -> String {
    let word = match report.outcome() {
        Outcome::Parked => "parked",
        _ => "no path",
    };
    let last = report
        .failures
        .last()
        .map(|failure| format!("{}: {}", failure.mutation, failure.text));
    let why = if report.reason.is_empty() {
        last.unwrap_or_default()
    } else {
        report.reason.clone()
    };
    if why.is_empty() {
        word.to_owned()
    } else {
        format!("{word}: {why}")
    }
}

fn way_reason(report: &v1::Report) -> String {
    if let Some(hold) = report.holds.first() {
        return format!("held ({}): {}", hold.kind, hold.text);
    }
    match report.steps.get(report.current as usize) {
        Some(step) => format!(
            "{} ({} of {})",
            step.mutation,
            report.current + 1,
            report.steps.len()
        ),
        None if report.waits_for.is_empty() => report.reason.clone(),
        None => report.waits_for.clone(),
    }
}

#[cfg(test)]
mod tests;
