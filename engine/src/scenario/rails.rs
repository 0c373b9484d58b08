//! The guard rails of a case: `limits: cluster at_once=1`, `breaker: 2 of 3`.

use crate::engine::{Breaking, Guards, Limit};
use crate::extension::parse_duration;

/// Guard rails, and the lines in which they were set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rails {
    /// What the engine is given.
    pub guards: Guards,
    /// As they stand in the file.
    pub lines: Vec<String>,
}

impl Rails {
    /// `cluster at_once=1 per_minute=2`, `@rack at_once=1`, `power/OFFtoON per_minute=4`, `power_on_gap=5s`.
    pub(super) fn limit(&mut self, text: &str) -> Result<(), String> {
        self.lines.push(format!("limits: {text}"));
        let limits = &mut self.guards.limits;
        if let Some(gap) = text.strip_prefix("power_on_gap=") {
            limits.power_on_gap =
                parse_duration(gap).ok_or_else(|| format!("{gap:?} is no time; one is `5s`"))?;
            return Ok(());
        }
        let (whose, words) = text.split_once(' ').unwrap_or((text, ""));
        let mut limit = Limit::default();
        for word in words.split_whitespace() {
            let (key, count) = word.split_once('=').unwrap_or((word, ""));
            let count = count.parse().map_err(|_| {
                format!(
                    "{word:?} is no limit; one is at_once=1, per_minute=2 or percent_per_minute=10"
                )
            })?;
            match key {
                "at_once" => limit.at_once = Some(count),
                "per_minute" => limit.per_minute = Some(count),
                "percent_per_minute" => limit.percent_per_minute = Some(count),
                _ => return Err(format!("there is no limit {key:?}")),
            }
        }
        match (whose.strip_prefix('@'), whose) {
            (Some(group), _) => drop(limits.groups.insert(group.to_owned(), limit)),
            (None, "cluster") => limits.cluster = limit,
            (None, mutation) if mutation.contains('/') => {
                limits.mutations.insert(mutation.to_owned(), limit);
            }
            _ => {
                return Err(format!(
                    "{whose:?} is not `cluster`, a @group or a module/NAME"
                ));
            }
        }
        Ok(())
    }

    /// `2 of 3`.
    pub(super) fn breaker(&mut self, text: &str) -> Result<(), String> {
        self.lines.push(format!("breaker: {text}"));
        let counts = text.split_once(" of ");
        let counts = counts.and_then(|(failures, of)| failures.parse().ok().zip(of.parse().ok()));
        let (failures, of) =
            counts.ok_or_else(|| format!("{text:?} is no breaker; one is `2 of 3`"))?;
        self.guards.breaking = Breaking {
            failures,
            of,
            ..Breaking::default()
        };
        Ok(())
    }
}
