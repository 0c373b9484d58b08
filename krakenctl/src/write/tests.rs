use super::*;

#[test]
fn the_limit_asks_where_somebody_can_answer_and_refuses_elsewhere() {
    assert_eq!(verdict(32, 32, false), Verdict::Go);
    assert_eq!(verdict(33, 32, true), Verdict::Ask);
    assert_eq!(verdict(33, 32, false), Verdict::Refuse);
}

#[test]
fn only_what_can_end_jobs_has_a_limit_by_itself() {
    let mut args = LimitArgs::default();
    assert_eq!(
        (args.limit(true), args.limit(false)),
        (Some(DISRUPTIVE_LIMIT), None)
    );
    args.max_nodes = Some(0);
    assert_eq!((args.limit(true), args.limit(false)), (Some(0), Some(0)));
    args.yes = true;
    assert_eq!((args.limit(true), args.limit(false)), (None, None));
}

/// `krakenctl node delete "$UNSET"` must not mean all nodes.
#[test]
fn an_empty_node_set_is_refused() {
    assert!(node_set("").is_err());
    assert!(node_set("  ").is_err());
    assert_eq!(node_set(" n1 ").as_deref(), Ok("n1"));
}
