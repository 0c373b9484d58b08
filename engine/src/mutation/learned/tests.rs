//! What times count with; plans with learned costs depend on times and declarations, never on their order.

use proptest::prelude::*;

use super::*;
use crate::mutation::MutationSet;
use crate::mutation::graph::MutationGraph;
use crate::mutation::graph::tests::random::{any_node, any_set};
use crate::mutation::measured::FRESH;
use crate::mutation::path::Plan;
use crate::time::Instant;

fn counts(seconds: f64, before: Option<u32>) -> u32 {
    counted(Duration::from_secs_f64(seconds), before)
}

#[test]
fn times_count_as_powers_of_two() {
    let table = [
        (0.0, 1),
        (0.3, 1),
        (1.0, 1),
        (1.1, 2),
        (3.0, 4),
        (4.0, 4),
        (4.1, 8),
        (61.0, 64),
        (1e12, 1 << 31),
    ];
    for (seconds, expect) in table {
        assert_eq!(counts(seconds, None), expect, "{seconds} s");
    }
}

#[test]
fn a_time_on_a_border_does_not_move_the_cost() {
    for seconds in [3.1, 4.0, 4.2, 7.9, 8.1, 10.0] {
        assert_eq!(counts(seconds, Some(8)), 8, "{seconds} s");
    }
    assert_eq!(counts(3.0, Some(8)), 4);
    assert_eq!(counts(10.1, Some(8)), 16);
    assert_eq!(counts(0.0, Some(1)), 1);
    assert_eq!(counts(1.25, Some(1)), 1);
    assert_eq!(counts(1.3, Some(1)), 2);
}

fn mutation(cost: u32, timeout: Option<u64>) -> Mutation {
    Mutation {
        timeout: timeout.map(Duration::from_secs),
        cost,
        ..Mutation::new(
            MutationId::new("m", "A"),
            crate::mutation::MutationContext::Child,
            Vec::new(),
        )
    }
}

#[test]
fn what_is_not_known_counts_with_its_timeout_and_what_is_free_stays_free() {
    let mut learned = Learned::default();
    let cost = |learned: &Learned, of: &Mutation| learned.cost(of, of.cost, 0);
    let (bounded, endless) = (mutation(3, Some(60)), mutation(1, None));
    assert_eq!(cost(&learned, &bounded), 3 * 64);
    assert_eq!(cost(&learned, &endless), UNKNOWN_SECONDS);
    assert_eq!(cost(&learned, &mutation(0, None)), 0);
    assert_eq!(cost(&learned, &mutation(u32::MAX, Some(60))), u32::MAX);

    let mut measured = Measured::default();
    for times in 1..=MIN_TIMES {
        assert_eq!(cost(&learned, &bounded), 3 * 64, "{times}");
        measured.note(&bounded.id, Duration::from_secs(2), Instant::ZERO);
        learned.refresh([&bounded].into_iter(), &measured);
    }
    assert_eq!(cost(&learned, &bounded), 3 * 2);
}

#[test]
fn a_mutation_that_is_not_carried_out_counts_ever_less_and_is_measured_anew() {
    let of = mutation(3, Some(1000));
    let (mut learned, mut measured) = (Learned::default(), Measured::default());
    let mut now = Instant::ZERO;
    let mut takes = |learned: &mut Learned, seconds: u64, now: Instant| {
        measured.note(&of.id, Duration::from_secs(seconds), now);
        learned.refresh([&of].into_iter(), &measured);
        learned.cost(&of, 1, measured.stale(&of.id, now))
    };
    let first = [(); 3].map(|()| takes(&mut learned, 60, now));
    assert_eq!(first, [1024, 1024, 64]);
    let sinks: Vec<u32> = (0..9).map(|stale| learned.cost(&of, 1, stale)).collect();
    assert_eq!(sinks, [64, 32, 16, 8, 4, 2, 1, 1, 1]);
    assert_eq!(learned.cost(&of, 3, u32::MAX), 3);
    assert_eq!(learned.cost(&of, 0, 2), 0);

    // Still slow: one success says so. What is carried out once a month does not sink.
    for _ in 0..9 {
        now = now + FRESH;
        assert_eq!(takes(&mut learned, 60, now), 64);
    }
    // Mended: from the third on it counts with what it takes, and the earlier times move nothing.
    now = now + FRESH * 3;
    assert_eq!([(); 3].map(|()| takes(&mut learned, 2, now)), [64, 64, 2]);
    // What nobody measured has nothing that could go stale.
    let other = Mutation {
        id: MutationId::new("m", "B"),
        ..of.clone()
    };
    assert_eq!(
        learned.cost(&other, 1, measured.stale(&other.id, now + FRESH)),
        1024
    );
}

/// The set as it would be planned with after these times, noted round about from `first` on.
fn priced(mut set: MutationSet, times: &[Vec<u32>], first: usize) -> MutationSet {
    let mut ids: Vec<MutationId> = set.mutations.iter().map(|m| m.id.clone()).collect();
    ids.sort();
    let mut measured = Measured::default();
    for round in 0..times.iter().map(Vec::len).max().unwrap_or(0) {
        for at in 0..ids.len() {
            let at = (at + first) % ids.len();
            if let Some(ms) = times.get(at).and_then(|times| times.get(round)) {
                let took = Duration::from_millis(u64::from(*ms));
                measured.note(&ids[at], took, Instant::ZERO);
            }
        }
    }
    let mut learned = Learned::default();
    learned.refresh(set.mutations.iter(), &measured);
    for mutation in &mut set.mutations {
        mutation.cost = learned.cost(mutation, mutation.cost, 0);
    }
    set
}

proptest! {
    #[test]
    fn plans_with_learned_costs_know_no_order(
        set in any_set(),
        (dsc, cfg) in (any_node(), any_node()),
        times in prop::collection::vec(prop::collection::vec(0..200_000_u32, 0..20), 12),
        (first, turn) in (0..12_usize, 0..12_usize),
    ) {
        let Ok(graph) = MutationGraph::new(&priced(set.clone(), &times, 0)) else {
            return Ok(());
        };
        let plan = graph.plan(&dsc, &cfg);
        let mut turned = set;
        let turn = turn % turned.mutations.len();
        turned.mutations.rotate_left(turn);
        let again = MutationGraph::new(&priced(turned, &times, first)).unwrap();
        prop_assert_eq!(&again.plan(&dsc, &cfg), &plan);
        if let Plan::Path(path) = &plan {
            let costs = path.steps.iter().map(|id| u64::from(graph.mutation(id).unwrap().cost));
            prop_assert_eq!(path.cost, costs.sum::<u64>());
        }
    }
}
