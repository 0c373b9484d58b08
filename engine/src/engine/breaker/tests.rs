//! Outcomes in the order of time.

use super::*;

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn boot() -> MutationId {
    MutationId::new("pxe", "WAITtoINIT")
}

/// `+` a success, `-` a failure, of one node after the other; how many tries until it tripped.
fn tries(breakers: &mut Breakers, outcomes: &str) -> Option<usize> {
    outcomes.chars().enumerate().find_map(|(n, outcome)| {
        let tripped = breakers.outcome(&boot(), id(n as u8), outcome == '+', at(n as u64));
        tripped.map(|_| n + 1)
    })
}

#[test]
fn five_of_the_last_ten_nodes_open_it() {
    let check = |outcomes: &str, expected: Option<usize>| {
        assert_eq!(
            tries(&mut Breakers::default(), outcomes),
            expected,
            "{outcomes}"
        );
    };
    check("-----", Some(5));
    check("++++++++++++-----", Some(17));
    check("----++++++++++----", None);
    check("-+-+-+-+-+", Some(9));
    check("-++-++-++-++-++-++-++-++", None);
}

#[test]
fn one_node_alone_never_opens_it() {
    let mut breakers = Breakers::default();
    for second in 0..100 {
        assert_eq!(breakers.outcome(&boot(), id(1), false, at(second)), None);
    }
    for (second, node) in (100..).zip([1, 2, 3, 4, 1, 2, 3, 4]) {
        assert_eq!(breakers.outcome(&boot(), id(node), false, at(second)), None);
    }
    assert!(matches!(
        breakers.outcome(&boot(), id(5), false, at(200)),
        Some(Tripped::Opened { failed, of: 5 }) if failed.len() == 5
    ));
}

#[test]
fn failures_of_another_day_do_not_count() {
    let mut breakers = Breakers::default();
    assert_eq!(tries(&mut breakers, "----"), None);
    let later = at(3) + MEMORY;
    assert_eq!(breakers.outcome(&boot(), id(9), false, later), None);
}

#[test]
fn one_node_tries_after_a_time_and_decides_for_all() {
    let mut breakers = Breakers::default();
    tries(&mut breakers, "-----");
    let held = |breakers: &Breakers, n, second| breakers.held(&boot(), Some(id(n)), at(second));
    assert_eq!(held(&breakers, 1, 5), Some(Some(at(604))));
    assert_eq!(held(&breakers, 1, 604), None);
    breakers.started(&boot(), id(1));
    assert_eq!(held(&breakers, 1, 605), None, "it may go on");
    assert_eq!(held(&breakers, 2, 605), Some(None));
    assert_eq!(breakers.outcome(&boot(), id(1), false, at(700)), None);
    assert_eq!(held(&breakers, 2, 701), Some(Some(at(1300))));
    assert_eq!(held(&breakers, 2, 1300), None);
    breakers.started(&boot(), id(2));
    breakers.given_up(&boot(), id(2), at(1301));
    assert_eq!(held(&breakers, 3, 1301), None, "another one may try");
    breakers.started(&boot(), id(3));
    let closed = breakers.outcome(&boot(), id(3), true, at(1400));
    assert_eq!(closed, Some(Tripped::Closed));
    assert_eq!(held(&breakers, 1, 1400), None);
    assert_eq!(tries(&mut breakers, "----"), None, "nothing is remembered");
}

#[test]
fn an_operator_closes_it() {
    let mut breakers = Breakers::default();
    assert!(!breakers.thaw(&boot()));
    tries(&mut breakers, "-----");
    assert_eq!(breakers.open().collect::<Vec<_>>(), [&boot()]);
    assert!(breakers.thaw(&boot()));
    assert_eq!(breakers.held(&boot(), None, at(6)), None);
}

#[test]
fn zero_failures_switch_it_off() {
    let mut breakers = Breakers::default();
    breakers.configure(Breaking {
        failures: 0,
        ..Breaking::default()
    });
    assert_eq!(tries(&mut breakers, "----------------"), None);
}
