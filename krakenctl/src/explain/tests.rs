use super::*;

fn value(text: &str) -> v1::Value {
    v1::Value {
        kind: Some(v1::value::Kind::TextValue(text.to_owned())),
    }
}

fn is(url: &str, text: &str) -> v1::ValueChange {
    v1::ValueChange {
        url: url.to_owned(),
        value: Some(value(text)),
    }
}

fn step(mutation: &str, url: &str, from: Option<&str>, to: &str) -> v1::ReportStep {
    let optional = |text: Option<&str>| v1::OptionalValue {
        value: text.map(value),
    };
    v1::ReportStep {
        mutation: mutation.to_owned(),
        context: MutationContext::Child.into(),
        timeout_ms: 60_000,
        changes: vec![v1::UrlChange {
            url: url.to_owned(),
            from: vec![optional(from)],
            to: Some(optional(Some(to))),
        }],
        ..Default::default()
    }
}

fn report() -> v1::Report {
    let mut running = step("power/OFFtoON", "/PhysState", Some("POWER_OFF"), "POWER_ON");
    running.in_flight = true;
    running.attempt = 2;
    running.elapsed_ms = 12_000;
    running.after = vec![0];
    let mut last = step("core/INITtoSYNC", "/RunState", Some("INIT"), "SYNC");
    last.after = vec![1];
    v1::Report {
        node_name: "n1".into(),
        outcome: Outcome::Path.into(),
        desired: vec![is("/PhysState", "POWER_ON"), is("/RunState", "SYNC")],
        known: vec![is("/PhysState", "POWER_OFF")],
        steps: vec![
            step("power/UKtoOFF", "/PhysState", None, "POWER_OFF"),
            running,
            last,
        ],
        current: 1,
        waits_for: "/PhysState to be POWER_ON".into(),
        holds: vec![v1::Hold {
            kind: "busy".into(),
            text: "a job runs".into(),
            lifted_by: "the end of the job".into(),
        }],
        failures: vec![v1::Failure {
            mutation: "power/OFFtoON".into(),
            attempt: 1,
            text: "timed out".into(),
            age_ms: 90_000,
        }],
        ..Default::default()
    }
}

#[test]
fn a_report_reads_as_a_page() {
    let expect = "\
n1  on its way: step 2 of 3

  URL         WANTED    KNOWN
  /PhysState  POWER_ON  POWER_OFF  differs
  /RunState   SYNC      unknown    not yet

Path
           MUTATION         CHANGES                           BY
  done  1  power/UKtoOFF    /PhysState unknown -> POWER_OFF   its parent  may instead find /PhysState=POWER_ON
  ->    2  power/OFFtoON    /PhysState POWER_OFF -> POWER_ON  its parent  running for 12s of 1m
        3  core/INITtoSYNC  /RunState INIT -> SYNC            its parent

Waits for  /PhysState to be POWER_ON

Held by
  busy         a job runs
               lifted by: the end of the job

Failures
  1m30s ago    power/OFFtoON (#1): timed out
";
    assert_eq!(
        render(&report(), &Shown::default(), Paint::default()),
        expect
    );
}

#[test]
fn steps_side_by_side_say_what_they_come_after() {
    let mut report = report();
    report.steps[1].after = Vec::new();
    report.steps[2].after = vec![0, 1];
    let page = render(&report, &Shown::default(), Paint::default());
    assert!(page.contains("its parent  running for 12s"), "{page}");
    assert!(
        page.contains("its parent  at once, may instead find"),
        "{page}"
    );
    assert!(page.contains("its parent  after 1, 2"), "{page}");
}

#[test]
fn the_latest_attempts_are_on_the_page_and_all_in_json() {
    let mut report = report();
    report.history = (1..=8)
        .map(|attempt| v1::Attempt {
            mutation: "power/OFFtoON".into(),
            attempt,
            result: if attempt == 8 { "done" } else { "failed" }.into(),
            text: if attempt == 8 { "" } else { "timed out" }.into(),
            age_ms: 90_000,
            took_ms: 4_000,
        })
        .collect();
    let page = render(&report, &Shown::default(), Paint::default());
    assert!(!page.contains("(#2)") && page.contains("(#3)"), "{page}");
    assert!(
        page.contains("  1m30s ago    power/OFFtoON (#7) failed after 4s: timed out\n"),
        "{page}"
    );
    assert!(page.contains("(#8) done after 4s\n"), "{page}");
    let view = ReportView::new(&report, &Shown::default());
    let json = serde_json::to_value(&view).expect("json");
    assert_eq!(json["history"].as_array().map(Vec::len), Some(8));
}

#[test]
fn what_lifts_the_only_hold_is_told_once() {
    let mut report = report();
    report.waits_for.clone_from(&report.holds[0].lifted_by);
    let page = render(&report, &Shown::default(), Paint::default());
    assert_eq!(page.matches("the end of the job").count(), 1, "{page}");
}

#[test]
fn each_outcome_has_its_own_headline() {
    let text = |outcome: Outcome| {
        let report = v1::Report {
            node_name: "n1".into(),
            outcome: outcome.into(),
            reason: "because".into(),
            ..Default::default()
        };
        render(&report, &Shown::default(), Paint::default())
    };
    assert_eq!(
        text(Outcome::Converged),
        "n1  converged: it is what it should be\n\nReason     because\n"
    );
    assert!(text(Outcome::NoPath).contains("no path"));
    assert!(text(Outcome::Held).starts_with("n1  held\n"));
    assert!(text(Outcome::Parked).contains("krakenctl node retry n1"));
}

#[test]
fn programs_get_stable_names() {
    let view = ReportView::new(&report(), &Shown::default());
    let json = serde_json::to_value(&view).expect("json");
    assert_eq!(json["outcome"], "path");
    assert_eq!(json["desired"]["/RunState"], "SYNC");
    assert_eq!(json["steps"][1]["context"], "child");
    assert_eq!(
        json["steps"][0]["changes"][0]["from"][0],
        serde_json::Value::Null
    );
    assert_eq!(json["steps"][0]["changes"][0]["to"], "POWER_OFF");
    assert_eq!(json["holds"][0]["lifted_by"], "the end of the job");
    assert_eq!(json["failures"][0]["age_ms"], 90_000);
}

#[test]
fn nothing_in_a_report_reaches_the_terminal_as_a_command() {
    let mut report = report();
    report.failures[0].text = "\x1b]0;title\x07".into();
    report.reason = "\r".into();
    assert!(!render(&report, &Shown::default(), Paint::default()).contains(['\x1b', '\x07', '\r']));
}
