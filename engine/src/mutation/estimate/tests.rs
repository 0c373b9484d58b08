//! Estimates by hand-made steps: chains, steps side by side, what was never measured, what is under way.

use super::*;
use crate::mutation::{MutationContext, MutationId};

const SECOND: Duration = Duration::from_secs(1);

/// A step by its usual time, its timeout and what it comes after.
fn step(typical: Option<u64>, timeout: Option<u64>, after: &[usize]) -> ReportStep {
    ReportStep {
        mutation: MutationId::new("m", "X"),
        context: MutationContext::Child,
        disruptive: false,
        in_flight: false,
        attempt: 0,
        elapsed: Duration::ZERO,
        timeout: timeout.map(Duration::from_secs),
        typical: typical.map(Duration::from_secs),
        changes: Vec::new(),
        after: after.to_vec(),
    }
}

fn check(steps: &[ReportStep], expect: &str) {
    assert_eq!(Estimate::of(steps).to_string(), expect);
}

fn power(from: &str, to: &str) -> UrlChange {
    UrlChange {
        url: "/PhysState".parse().unwrap(),
        from: vec![(!from.is_empty()).then(|| from.into())],
        to: Some(to.into()),
    }
}

#[test]
fn nothing_to_do_takes_no_time() {
    assert_eq!(Estimate::of(&[]), Estimate::default());
    check(&[], "");
}

#[test]
fn a_chain_adds_up_and_side_by_side_the_longer_counts() {
    let (a, b) = (step(Some(5), None, &[]), step(Some(20), None, &[0]));
    check(&[a.clone(), b.clone()], "about 25 s (measured)");
    let beside = step(Some(24), None, &[]);
    check(
        &[a.clone(), b.clone(), beside.clone()],
        "about 25 s (measured)",
    );
    let last = step(Some(10), None, &[1, 2]);
    check(&[a, b, beside, last], "about 35 s (measured)");
}

#[test]
fn what_was_never_measured_is_bounded_by_its_timeout() {
    let unknown = |after: &[usize]| step(None, Some(120), after);
    check(&[unknown(&[])], "at most 2 min (never measured)");
    check(
        &[step(Some(5), Some(60), &[]), unknown(&[0])],
        "at most 2 min 5 s (1 of 2 steps measured)",
    );
    // A longer measured chain beside it hides it in the time, not in the words.
    check(
        &[step(Some(200), None, &[]), unknown(&[])],
        "at most 3 min 20 s (1 of 2 steps measured)",
    );
}

#[test]
fn without_measure_and_timeout_nothing_is_claimed() {
    check(
        &[step(None, None, &[])],
        "time unknown (never measured, no timeout)",
    );
    check(
        &[step(Some(5), None, &[]), step(None, None, &[0])],
        "5 s and what steps take that were never measured and have no timeout (1 of 2 steps measured)",
    );
    let partly = [step(None, None, &[]), step(None, Some(7), &[0])];
    let time = Estimate::of(&partly).time.unwrap();
    assert_eq!((time.basis, time.time), (Basis::Partly, 7 * SECOND));
}

#[test]
fn of_what_is_under_way_the_rest_counts() {
    let mut first = step(Some(20), Some(60), &[]);
    first.in_flight = true;
    first.elapsed = 15 * SECOND;
    let second = step(Some(30), None, &[0]);
    check(&[first.clone(), second.clone()], "about 35 s (measured)");
    first.elapsed = 50 * SECOND;
    check(&[first, second], "about 30 s (measured)");
}

#[test]
fn power_is_counted() {
    let of = |changes: Vec<UrlChange>| ReportStep {
        changes,
        ..step(Some(1), None, &[])
    };
    let steps = [
        of(vec![power("POWER_ON", "POWER_OFF")]),
        of(vec![power("POWER_OFF", "POWER_ON")]),
        // Asking the device switches nothing.
        of(vec![power("", "POWER_OFF")]),
    ];
    check(&steps, "about 1 s (measured), 1 power-off, 1 power-on");
    check(
        &[steps[0].clone(), steps[0].clone()],
        "about 1 s (measured), 2 power-offs",
    );
}
