//! One hold in words, and many in the same words.

use super::*;

fn check(alone: &[(u64, usize)], text: &str, lifted_by: &str) {
    let held = |(seconds, before): &(u64, usize)| {
        let lift = "time, or an operator";
        let held = Held::new("backoff", format!("again in {TIME_MARK}"), lift);
        held.left(Duration::from_secs(*seconds)).behind(*before)
    };
    let mut spread = held(&alone[0]).spread();
    alone[1..]
        .iter()
        .for_each(|other| spread.widen(held(other).spread()));
    let hold = spread.fill(held(&alone[0]).hold);
    assert_eq!(
        (hold.text.as_str(), hold.lifted_by.as_str()),
        (text, lifted_by)
    );
}

#[test]
fn one_is_told_its_time_and_place() {
    check(&[(5, 0)], "again in 5 s", "time, or an operator");
    check(
        &[(180, 1)],
        "again in 3 min",
        "time, or an operator; 1 node before this one",
    );
}

#[test]
fn many_are_told_the_least_and_the_most() {
    check(
        &[(5, 3), (5, 3)],
        "again in 5 s",
        "time, or an operator; 3 nodes before this one",
    );
    let behind = "time, or an operator; 0 to 72 nodes before each of them";
    check(
        &[(7, 2), (180, 72), (5, 0)],
        "again in 5 s to 3 min",
        behind,
    );
}
