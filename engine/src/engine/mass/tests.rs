//! Children that fall silent and come back.

use super::*;

const DEAD: Duration = Duration::from_secs(10);

fn id(n: usize) -> NodeId {
    NodeId::from_bytes([n as u8; 16])
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

/// Loses `lost` of `of` children, one every `gap` seconds; after how many it suspects itself.
fn lose(guard: &mut MassGuard, lost: usize, of: usize, gap: u64) -> Option<usize> {
    (1..=lost).find(|n| guard.lost(id(*n), of - n, DEAD, at(*n as u64 * gap)))
}

#[test]
fn more_than_a_fifth_and_at_least_three_within_a_dead_interval() {
    let check = |lost, of, gap, expected| {
        let found = lose(&mut MassGuard::default(), lost, of, gap);
        assert_eq!(found, expected, "{lost} of {of}, one in {gap} s");
    };
    check(2, 2, 0, None);
    check(2, 4, 0, None);
    check(3, 4, 0, Some(3));
    check(3, 14, 0, Some(3));
    check(3, 15, 0, None);
    check(5, 24, 0, Some(5));
    check(5, 25, 0, None);
    check(100, 100, 1, Some(57));
    check(100, 100, 2, Some(77));
    check(30, 100, 0, Some(21));
    check(100, 100, 11, None);
}

#[test]
fn it_ends_when_enough_are_accounted_for() {
    let mut guard = MassGuard::default();
    assert_eq!(lose(&mut guard, 10, 20, 0), Some(5));
    for n in 6..=10 {
        assert!(!guard.lost(id(n), 20 - n, DEAD, at(0)), "it begins once");
    }
    let ended = (1..=10).find(|n| guard.found(id(*n)));
    assert_eq!(ended, Some(6), "four of twenty are left");
    assert!(guard.suspect().is_none());
    assert!(!guard.found(id(9)), "it ends once");
}

#[test]
fn an_operator_ends_it() {
    let mut guard = MassGuard::default();
    assert!(!guard.lift());
    lose(&mut guard, 5, 5, 0);
    assert!(guard.lift());
    assert!(guard.suspect().is_none());
    assert!(
        !guard.lost(id(9), 3, DEAD, at(1)),
        "and it starts from nothing"
    );
}

#[test]
fn a_hundred_percent_switches_it_off() {
    let mut guard = MassGuard::default();
    guard.configure(100);
    assert_eq!(lose(&mut guard, 10, 10, 0), None);
}
