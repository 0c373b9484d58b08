use std::sync::Arc;

use super::*;
use crate::mutation::path::Planner;
use crate::mutation::{Condition, MutationSet};

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs
        .iter()
        .map(|(url, value)| (url.parse().unwrap(), Value::from(*value)))
        .collect()
}

fn mutation(
    id: &str,
    context: MutationContext,
    change: (&str, &str, &str),
    requires: &[(&str, &str)],
) -> Mutation {
    let value = |text: &str| (!text.is_empty()).then(|| Value::from(text));
    let (module, name) = id.split_once('/').unwrap();
    let (url, from, to) = change;
    Mutation {
        requires: requires
            .iter()
            .map(|(url, value)| Condition::is(url.parse().unwrap(), *value))
            .collect(),
        timeout: Some(Duration::from_secs(60)),
        disruptive: id.ends_with("ONtoOFF"),
        ..Mutation::new(
            MutationId::new(module, name),
            context,
            vec![UrlChange {
                url: url.parse().unwrap(),
                from: vec![value(from)],
                to: value(to),
            }],
        )
    }
}

fn report(dsc: &[(&str, &str)], cfg: &[(&str, &str)]) -> Report {
    let (power, run) = ("/PhysState", "/RunState");
    let set = MutationSet {
        mutations: vec![
            mutation(
                "power/UKtoOFF",
                MutationContext::Child,
                (power, "", "POWER_OFF"),
                &[("/Platform", "vbox")],
            ),
            mutation(
                "power/OFFtoON",
                MutationContext::Child,
                (power, "POWER_OFF", "POWER_ON"),
                &[],
            ),
            mutation(
                "power/ONtoOFF",
                MutationContext::Child,
                (power, "POWER_ON", "POWER_OFF"),
                &[],
            ),
            mutation(
                "core/INITtoSYNC",
                MutationContext::SelfNode,
                (run, "", "SYNC"),
                &[(power, "POWER_ON")],
            ),
        ],
        ..MutationSet::default()
    };
    let graph = Arc::new(MutationGraph::new(&set).unwrap());
    let (dsc, cfg) = (values(dsc), values(cfg));
    let plan = Planner::new(graph.clone()).plan(&dsc, &cfg);
    let id = NodeId::from_bytes([1; 16]);
    Report::of_plan(id, "n1".parse().unwrap(), &plan, &graph, &dsc)
}

#[test]
fn a_node_on_its_way() {
    let mut report = report(
        &[("/PhysState", "POWER_OFF")],
        &[("/RunState", "SYNC"), ("/Platform", "vbox")],
    );
    report.steps[0].in_flight = true;
    report.steps[0].attempt = 2;
    report.steps[0].elapsed = Duration::from_secs(12);
    report.waits_for = "the machine to be found switched on".to_owned();
    report.failures.push(ReportFailure {
        mutation: MutationId::new("power", "OFFtoON"),
        attempt: 1,
        text: "no result within 60s: /PhysState is PHYS_HANG".to_owned(),
        age: Duration::from_secs(200),
    });
    assert_eq!(
        report.to_string(),
        "\
n1 is on its way, 2 steps left
  state   /PhysState is POWER_OFF
          /RunState is unknown, should be SYNC
  path    now  power/OFFtoON          /PhysState POWER_OFF -> POWER_ON  (for 12 s of 60 s, attempt 2)
          then core/INITtoSYNC        /RunState unknown -> SYNC  (by the node itself)
  takes   at most 108 s (never measured), 1 power-on
  waits   the machine to be found switched on
  failed  power/OFFtoON 3 min 20 s ago (attempt 1): no result within 60s: /PhysState is PHYS_HANG
"
    );
}

#[test]
fn a_node_that_is_held() {
    let mut report = report(
        &[("/PhysState", "POWER_ON"), ("/RunState", "SYNC")],
        &[("/PhysState", "POWER_OFF"), ("/RunState", "SYNC")],
    );
    report.outcome = Outcome::Held;
    report.holds.push(Hold {
        kind: "busy",
        text: "node n1 is BUSY: a job runs on it".to_owned(),
        lifted_by: "the end of the job".to_owned(),
    });
    assert_eq!(
        report.to_string(),
        "\
n1 is held before its next step
  state   /PhysState is POWER_ON, should be POWER_OFF
  path    next power/ONtoOFF          /PhysState POWER_ON -> POWER_OFF  (disruptive)
  takes   at most 60 s (never measured), 1 power-off
  held    node n1 is BUSY: a job runs on it [busy]
          until the end of the job
  reason  Cfg /RunState is set aside while Cfg wants /PhysState=POWER_OFF, where it cannot be known
"
    );
}

#[test]
fn a_node_that_cannot_get_there_and_one_that_is_there() {
    let lost = report(&[], &[("/RunState", "SYNC")]);
    assert_eq!(lost.outcome, Outcome::NoPath);
    assert_eq!(
        lost.to_string(),
        "\
n1 cannot get to what Cfg asks for
  state   /RunState is unknown, should be SYNC
  reason  /RunState=SYNC cannot be reached from /RunState unknown: core/INITtoSYNC could set it but requires /PhysState=POWER_ON, and \
power/OFFtoON could set /PhysState=POWER_ON but starts from /PhysState=POWER_OFF, and power/UKtoOFF could set /PhysState=POWER_OFF \
but requires /Platform=vbox, which Cfg does not set
"
    );
    let there = report(&[("/RunState", "SYNC")], &[("/RunState", "SYNC")]);
    assert_eq!(
        there.to_string(),
        "n1 is as it should be\n  state   /RunState is SYNC, as it should be\n"
    );
    assert_eq!(report(&[], &[]).to_string(), "n1 is as it should be\n");
}
