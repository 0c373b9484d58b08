//! Conditions that compare numbers: which values they accept, and what is said when they do not hold.

use super::*;

/// `/a>=3`, `/a<=9` or `3<=/a<=9`.
fn compared(text: &str) -> Condition {
    let bound = |text: &str| Number::from(text.parse::<i64>().unwrap());
    let parts: Vec<&str> = text.split("<=").collect();
    let (url, range) = match parts[..] {
        [least, url, most] => (url, NumberRange::Between(bound(least), bound(most))),
        [url, most] => (url, NumberRange::AtMost(bound(most))),
        _ => {
            let (url, least) = text.split_once(">=").unwrap();
            (url, NumberRange::AtLeast(bound(least)))
        }
    };
    Condition::number(url.parse().unwrap(), range)
}

fn requiring(mut mutation: Mutation, condition: &str) -> Mutation {
    mutation.requires.push(compared(condition));
    mutation
}

fn excluding(mut mutation: Mutation, condition: &str) -> Mutation {
    mutation.excludes.push(compared(condition));
    mutation
}

fn number(url: &str, value: Value) -> Values {
    [(url.parse().unwrap(), value)].into_iter().collect()
}

fn float(x: f64) -> Value {
    Value::Float(Float(x))
}

#[test]
fn a_comparison_accepts_numbers_within_its_bounds_alone() {
    let go = mutation("m/GO", "/go:>yes", "", "", 1);
    let holds = |condition: &str, value: Option<Value>| {
        let graph = graph(vec![requiring(go.clone(), condition)]);
        let mut cfg = values("/go=yes");
        cfg.set("/v".parse().unwrap(), value);
        matches!(graph.plan(&Values::default(), &cfg), Plan::Path(_))
    };
    for (value, least, most, between) in [
        (Value::Int(2), false, true, false),
        (Value::Int(3), true, true, true),
        (Value::Int(9), true, true, true),
        (Value::Int(10), true, false, false),
        (Value::Int(-1), false, true, false),
        (Value::Int(i64::MAX), true, false, false),
        (float(2.999), false, true, false),
        (float(3.0), true, true, true),
        (float(9.001), true, false, false),
        (float(f64::INFINITY), true, false, false),
        (float(f64::NAN), false, false, false),
        (Value::from("5"), false, false, false),
        (Value::Bool(true), false, false, false),
        (Value::List(vec![Value::Int(5)]), false, false, false),
    ] {
        assert_eq!(holds("/v>=3", Some(value.clone())), least, "{value} >= 3");
        assert_eq!(holds("/v<=9", Some(value.clone())), most, "{value} <= 9");
        assert_eq!(holds("3<=/v<=9", Some(value.clone())), between, "{value}");
    }
    for condition in ["/v>=0", "/v<=9", "-1<=/v<=9"] {
        assert!(!holds(condition, None), "unknown is no number");
    }
}

#[test]
fn mutations_lead_into_and_out_of_a_range() {
    let up = |from: i64| {
        let mut up = mutation("m/x", "/v:>", "", "", 1);
        up.id = MutationId::new("m", &format!("UP{}", from + 1));
        up.mutates[0].from = vec![(from > 0).then_some(Value::Int(from))];
        up.mutates[0].to = Some(Value::Int(from + 1));
        up
    };
    let mut set: Vec<Mutation> = (0..6).map(up).collect();
    set.push(requiring(
        mutation("m/NEED", "/need:>yes", "", "", 1),
        "/v>=3",
    ));
    set.push(excluding(
        mutation("m/AVOID", "/avoid:>yes", "", "", 1),
        "1<=/v<=4",
    ));
    let graph = graph(set);
    check(&graph, "/v=1", "/need=yes", "UP2 UP3 NEED");
    check(&graph, "/v=17", "/need=yes", "NEED");
    check(&graph, "/v=2", "/avoid=yes", "UP3 UP4 UP5 AVOID");
    check(&graph, "", "/avoid=yes", "AVOID");
    // Known only while it is big enough: the need is what all mutations share that find it out.
    let need: StateUrl = "/need".parse().unwrap();
    assert_eq!(graph.dependencies(&need), [compared("/v>=3")]);
    let changed = ["/v".parse().unwrap()];
    let forgotten = |v| graph.forget(&values(&format!("/need=yes /v={v}")), &values(""), &changed);
    assert_eq!(forgotten(2), std::slice::from_ref(&need));
    assert_eq!(forgotten(40), []);
}

#[test]
fn what_does_not_hold_is_said_in_words() {
    let set = vec![
        requiring(mutation("m/NEW", "/new:>yes", "", "", 1), "/version>=3"),
        excluding(mutation("m/COOL", "/cool:>yes", "", "", 1), "/heat>=90"),
        requiring(mutation("m/WIDE", "/wide:>yes", "", "", 1), "4<=/lanes<=8"),
        mutation("m/NARROW", "/lanes:>two", "", "", 1),
    ];
    let mut declared = super::set(set);
    declared.discoverables = vec!["/heat".parse().unwrap()];
    let graph = MutationGraph::new(&declared).unwrap();
    check(
        &graph,
        "",
        "/new=yes /version=2",
        "/new=yes cannot be reached from /new unknown: m/NEW could set it but requires /version of at least 3, where Cfg says 2",
    );
    check(
        &graph,
        "",
        "/new=yes",
        "/new=yes cannot be reached from /new unknown: m/NEW could set it but requires /version of at least 3, which Cfg does not set",
    );
    check(
        &graph,
        "/heat=95",
        "/cool=yes",
        "/cool=yes cannot be reached from /cool unknown: m/COOL could set it but is excluded by /heat=95, which is at least 90, and no mutation changes /heat",
    );
    check(
        &graph,
        "",
        "/wide=yes",
        "/wide=yes cannot be reached from /wide unknown: m/WIDE could set it but requires /lanes of 4 to 8, and no mutation leads there from /lanes unknown",
    );
    check(
        &graph,
        "/heat=89",
        "/cool=yes /new=yes /version=3",
        "COOL NEW",
    );
}

#[test]
fn careless_comparisons_are_refused_by_name() {
    let refuse = |mutations| MutationGraph::new(&set(mutations)).unwrap_err().to_string();
    let plain = || mutation("m/A", "/a:>1", "", "", 1);
    assert_eq!(
        refuse(vec![requiring(plain(), "9<=/b<=3")]),
        "mutation m/A allows no value of /b"
    );
    let compared_with = |count: usize| -> Vec<Mutation> {
        let numbered = (0..count).map(|at| {
            let mut one = requiring(plain(), &format!("/b>={at}"));
            one.id = MutationId::new("m", &at.to_string());
            one
        });
        numbered.collect()
    };
    assert!(MutationGraph::new(&set(compared_with(MAX_CUTS))).is_ok());
    assert_eq!(
        refuse(compared_with(MAX_CUTS + 1)),
        "conditions compare /b with more than 32 numbers"
    );
}

#[test]
fn numbers_that_compare_alike_have_equal_plans() {
    let graph = graph(vec![requiring(
        mutation("m/GO", "/go:>yes", "", "", 1),
        "/v>=3",
    )]);
    let steps = |value: Value| {
        let mut cfg = number("/v", value);
        cfg.set("/go".parse().unwrap(), Some(Value::from("yes")));
        graph.plan(&Values::default(), &cfg)
    };
    assert_eq!(steps(Value::Int(4)), steps(float(1e300)));
}
