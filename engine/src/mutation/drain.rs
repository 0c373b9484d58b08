//! A drain before power-off, for modules that forgot to ask for it (DESIGN 3, "Guard rails").
//!
//! A disruptive mutation that takes a node from `POWER_ON` gets `/RunState=SYNC` among its excludes, if some mutation can leave SYNC: the
//! planner then puts the way out of SYNC before it, and with it whatever that requires, such as the image's end. It is part of the declared set, so
//! that plans, `explain` and agents agree.
//!
//! What cuts power is disruptive, whether its module says so or not: what takes `/PhysState` from a known value but `POWER_OFF` to anything but
//! `POWER_ON`. A mutation from unknown alone is a question to the machine; one that is not must be declared disruptive, and files with a command for it are.
//!
//! Left alone are mutations that say something about `/RunState` themselves, and sets in which nothing leaves SYNC: power could not be cut at all.

use super::{Condition, Mutation, MutationSet, UrlChange};
use crate::state::{StateUrl, Value, core};

impl MutationSet {
    /// This set with every power-off marked disruptive and a drain before it. Doing it twice changes nothing.
    pub fn with_drain(mut self) -> Self {
        for mutation in &mut self.mutations {
            mutation.disruptive |= may_cut_power(&mutation.mutates);
        }
        let Ok(run_state) = core::RUN_STATE.parse::<StateUrl>() else {
            return self;
        };
        let in_sync = Some(Value::from(core::SYNC));
        let leaves_sync = |mutation: &Mutation| {
            let mut changes = mutation.mutates.iter();
            changes.any(|change| {
                change.url == run_state && change.from.contains(&in_sync) && change.to != in_sync
            })
        };
        if !self
            .mutations
            .iter()
            .any(|mutation| leaves_sync(mutation) && !mutation.switches_off())
        {
            return self;
        }
        for mutation in &mut self.mutations {
            let speaks = mutation
                .mutates
                .iter()
                .any(|change| change.url == run_state)
                || (mutation.requires.iter())
                    .chain(&mutation.excludes)
                    .any(|condition| condition.url == run_state);
            if mutation.disruptive && mutation.switches_off() && !speaks {
                let sync = Condition::is(run_state.clone(), core::SYNC);
                mutation.excludes.push(sync);
            }
        }
        self
    }
}

impl Mutation {
    /// Whether it takes a node from `POWER_ON`.
    pub(crate) fn switches_off(&self) -> bool {
        cuts_power(&self.mutates)
    }
}

/// Whether these changes may take the power from a machine of which something is known.
fn may_cut_power(changes: &[UrlChange]) -> bool {
    let is_off = |value: &Value| value.as_text() == Some(core::POWER_OFF);
    cuts_power_from(changes, |from| {
        from.as_ref().is_some_and(|value| !is_off(value))
    })
}

/// Whether these changes take the power from a machine of which nothing is known.
#[cfg(feature = "files")]
pub(crate) fn may_find_power_on(changes: &[UrlChange]) -> bool {
    cuts_power_from(changes, Option::is_none)
}

/// Whether these changes take a node from `POWER_ON`.
pub(crate) fn cuts_power(changes: &[UrlChange]) -> bool {
    cuts_power_from(changes, is_on)
}

/// Whether these changes take `/PhysState` from such a value to anything but `POWER_ON`.
fn cuts_power_from(changes: &[UrlChange], such: impl Fn(&Option<Value>) -> bool) -> bool {
    let mut changes = changes.iter();
    changes.any(|change| is_power(change) && change.from.iter().any(&such) && !is_on(&change.to))
}

/// Whether these changes switch a machine on.
pub(crate) fn switches_on(changes: &[UrlChange]) -> bool {
    let mut changes = changes.iter();
    changes.any(|change| is_power(change) && is_on(&change.to))
}

fn is_on(value: &Option<Value>) -> bool {
    value.as_ref().and_then(Value::as_text) == Some(core::POWER_ON)
}

fn is_power(change: &UrlChange) -> bool {
    change.url.as_str() == core::PHYS_STATE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::{MutationContext, MutationId, UrlChange};

    fn mutation(name: &str, url: &str, from: &str, to: &str) -> Mutation {
        Mutation {
            disruptive: name.starts_with("off"),
            ..Mutation::new(
                MutationId::new("m", name),
                MutationContext::Child,
                vec![UrlChange {
                    url: url.parse().unwrap(),
                    from: vec![Some(from.into())],
                    to: Some(to.into()),
                }],
            )
        }
    }

    /// What `mutation` excludes once it stands in a set, beside `others`.
    fn excludes(mutation: Mutation, others: &[Mutation]) -> Vec<String> {
        let mut set = MutationSet::default();
        set.mutations.push(mutation);
        set.mutations.extend(others.iter().cloned());
        let drained = set.with_drain();
        assert_eq!(drained.clone().with_drain(), drained);
        let excludes = drained.mutations[0].excludes.iter();
        excludes.map(ToString::to_string).collect()
    }

    #[test]
    fn what_cuts_power_is_disruptive_though_nobody_said_so() {
        let is_disruptive = |from: &[&str], to: &str| {
            let mut cuts = mutation("cut", core::PHYS_STATE, "", "");
            let value = |text: &&str| (!text.is_empty()).then(|| Value::from(*text));
            cuts.mutates[0].from = from.iter().map(value).collect();
            cuts.mutates[0].to = value(&to);
            let mut set = MutationSet::default();
            set.mutations.push(cuts);
            set.with_drain().mutations[0].disruptive
        };
        assert!(is_disruptive(&["POWER_ON"], "POWER_OFF"));
        assert!(is_disruptive(&["POWER_ON"], ""));
        assert!(is_disruptive(&["POWER_ON"], "PHYS_HANG"));
        assert!(is_disruptive(&["PHYS_HANG"], "POWER_OFF"));
        assert!(is_disruptive(&["", "POWER_OFF", "PHYS_HANG"], "POWER_OFF"));
        assert!(!is_disruptive(&[""], "POWER_OFF"), "a question");
        assert!(!is_disruptive(&["", "POWER_OFF"], "POWER_ON"));
        assert!(!is_disruptive(&["PHYS_HANG"], "POWER_ON"));
    }

    #[test]
    fn power_off_waits_for_the_way_out_of_sync() {
        let off = || mutation("off", core::PHYS_STATE, "POWER_ON", "POWER_OFF");
        let leave = [mutation("leave", core::RUN_STATE, "SYNC", "INIT")];
        assert_eq!(excludes(off(), &leave), ["/RunState=SYNC"]);
        assert!(excludes(off(), &[]).is_empty(), "nothing leaves SYNC");
        let mut forgot = off();
        forgot.disruptive = false;
        assert_eq!(excludes(forgot, &leave), ["/RunState=SYNC"], "it is one");
        let hang = mutation("off", core::PHYS_STATE, "PHYS_HANG", "POWER_OFF");
        assert!(excludes(hang, &leave).is_empty());
        let mut knows = off();
        let sync = Condition::is(core::RUN_STATE.parse().unwrap(), core::SYNC);
        knows.requires.push(sync);
        assert!(excludes(knows, &leave).is_empty(), "it knows what it does");
        let mut at_once = off();
        let whole = mutation("off", core::RUN_STATE, "SYNC", "INIT").mutates;
        at_once.mutates.extend(whole);
        assert!(
            excludes(off(), &[at_once]).is_empty(),
            "cutting the power is no drain"
        );
    }
}
