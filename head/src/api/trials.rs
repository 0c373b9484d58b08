//! Takes writes on trial back when their time is over (`krakenctl node set --try 10m`).
//!
//! A trial is durable and ends by the wall clock, so it ends whether or not the head was restarted meanwhile. What others changed since is
//! theirs and stays. The trial ends in the same write, so nothing is ever taken back twice.

use std::collections::BTreeSet;
use std::time::Duration;

use engine::driver::wall_ms;
use engine::event::WriteOp;
use engine::history::cells;
use proto::v1;
use tokio::time::{MissedTickBehavior, interval};
use tonic::{Response, Status};
use tracing::{info, warn};

use super::admin::{Admin, Answer, stopped};
use super::convert;
use super::differences::differences;
use super::history::inverse_of;
use super::undo::{is_race, what_still_stands};
use super::write::By;
use crate::store::Span;

/// How often the clock is looked at: a trial ends at most that much late.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks for trials that are over, for as long as the head runs.
pub(crate) async fn watch(admin: Admin) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut told = BTreeSet::new();
    loop {
        ticks.tick().await;
        let now_ms = wall_ms();
        let due = admin.0.handle.query(move |engine, _| {
            let due = engine
                .trials()
                .iter()
                .filter(|(_, trial)| trial.until_ms <= now_ms);
            due.map(|(revision, _)| *revision).collect::<Vec<u64>>()
        });
        let Ok(due) = due.await else { return };
        for revision in due {
            match admin.take_back(revision).await {
                Ok(true) => info!(revision, "a trial is over: what it changed is taken back"),
                // Somebody wrote in between: the next look sees it.
                Ok(false) => {}
                Err(why) => {
                    if told.insert(revision) {
                        warn!(
                            revision,
                            why = why.message(),
                            "a trial is over, but cannot be taken back: it is tried again every second"
                        );
                    }
                }
            }
        }
    }
}

impl Admin {
    /// What a confirmation would let stay: of a write on trial what is still as it left it.
    pub(super) async fn would_stay(&self, revision: u64) -> Answer<v1::PlanResponse> {
        let asked = self.0.handle.query(move |engine, now| {
            let until_ms = engine.trials().get(&revision).map(|trial| trial.until_ms);
            let checked = engine.what_if(&[WriteOp::Settle(revision)], &[], now);
            checked.map(|what| (what.revision, until_ms.unwrap_or_default()))
        });
        let checked = asked.await.map_err(stopped)?;
        let (now, trial_until_ms) = checked.map_err(|error| convert::not_written(&error))?;
        let entry = self.entry(revision).await?;
        let mut stays = cells(&entry.ops, inverse_of(&entry)?);
        let asked = self.0.handle.query(move |engine, _| {
            let (tree, frozen) = (engine.tree(), engine.freezes());
            stays.retain(|cell, (_, set)| *set == cell.get(tree, frozen));
            stays
        });
        let stays = asked.await.map_err(stopped)?;
        let names = self.with_parents(entry.names, &stays).await?;
        Ok(Response::new(v1::PlanResponse {
            revision: now,
            stays: differences(&self.0.extensions.schema(), &stays, &names),
            trial_until_ms,
            ..v1::PlanResponse::default()
        }))
    }

    /// Takes back what still stands of a write on trial. False if another write came in between.
    async fn take_back(&self, revision: u64) -> Result<bool, Status> {
        let span = Span {
            after: revision.saturating_sub(1),
            up_to: revision,
            since_ms: 0,
            limit: 1,
        };
        let entry = self.entries(span).await?.pop();
        let (author, reason) = entry
            .as_ref()
            .map(|entry| (entry.author.clone(), entry.reason.clone()))
            .unwrap_or_default();
        let asked = self.0.handle.query(move |engine, _| {
            // Trials keep their history; without it there is nothing to go by, and the trial ends.
            let mut ops = entry.map_or_else(Vec::new, |entry| what_still_stands(engine, &entry));
            ops.push(WriteOp::Settle(revision));
            (ops, engine.revision())
        });
        let (ops, at) = asked.await.map_err(stopped)?;
        let reason = match reason.as_str() {
            "" => String::new(),
            reason => format!(" ({reason})"),
        };
        let mut by = By::head(format!(
            "revision {revision} of {author}{reason} was on trial and not confirmed"
        ));
        by.if_revision = at;
        match self.try_write(by, wall_ms(), ops).await? {
            Ok(_) => Ok(true),
            Err(error) if is_race(&error) => Ok(false),
            Err(error) => Err(convert::not_written(&error)),
        }
    }
}
