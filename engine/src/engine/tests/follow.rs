//! Following a path: attempts and their history, steps side by side, exactly one command for one intent (faults F10, F30, F31).

use super::*;
use crate::event::Record;
use crate::mutation::report::{Outcome, Report};

impl Head {
    fn report(&self, n: u8) -> Report {
        self.engine.report(id(n), self.now).unwrap()
    }

    /// Sleeps until something fires, at most this long; how long it took.
    fn wait(&mut self, at_most: u64) -> Option<Duration> {
        let begun = self.now;
        for _ in 0..at_most * 10 {
            self.sleep_for(Duration::from_millis(100));
            if !self.fired.is_empty() {
                return Some(self.now.since(begun));
            }
        }
        None
    }

    fn count(&self, is: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| is(event)).count()
    }

    /// How often `mutation` was done, as far as anybody was told.
    fn done(&self, name: &str) -> usize {
        self.count(|event| {
            matches!(event, Event::Mutation { mutation, what: MutationEvent::Done { .. }, .. } if mutation.as_str() == name)
        })
    }
}

use crate::event::MutationEvent;

/// Two chains that have nothing to do with each other, and one step that needs both.
fn two_chains() -> MutationSet {
    let step = |name, url, from, to, requires: &[&str]| {
        let mut step = mutation(name, MutationContext::Child, &[(url, from, to)], requires);
        step.fail_to = Vec::new();
        step
    };
    MutationSet {
        generation: 2,
        mutations: vec![
            step("a/1", "/a", "", "1", &[]),
            step("a/2", "/a", "1", "2", &[]),
            step("b/1", "/b", "", "1", &[]),
            step("b/2", "/b", "1", "2", &[]),
            step("c/1", "/c", "", "1", &["/a=2", "/b=2"]),
        ],
        ..MutationSet::default()
    }
}

fn side_by_side(one_by_one: bool) -> Head {
    let mut head = Head::new();
    let schema = std::sync::Arc::make_mut(&mut head.engine.schema);
    let field = schema.field(&core::BUSY.parse().unwrap()).unwrap().clone();
    for url in ["/a", "/b", "/c"] {
        assert!(schema.add(url.into(), field.clone()));
    }
    head.input(Input::Declare(MutationSet {
        one_by_one,
        ..two_chains()
    }));
    head.add(1, &["/a=2", "/b=2", "/c=1"]);
    head
}

#[test]
fn independent_steps_run_side_by_side_each_with_its_own_attempts() {
    let mut head = side_by_side(false);
    assert_eq!(head.fired(), ["a/1", "b/1"]);
    let report = head.report(1);
    let after: Vec<&[usize]> = report.steps.iter().map(|step| &step.after[..]).collect();
    assert_eq!(after, [&[][..], &[0], &[], &[2], &[1, 3]]);
    assert_eq!(report.waits_for, "the result of a/1, and 1 more beside it");
    // One chain goes on while the other is slow, then fails, then backs off by itself.
    head.discover(1, &["/a=1"]);
    assert_eq!(head.fired(), ["a/2"]);
    head.sleep(9);
    head.discover(1, &["/a=2"]);
    assert!(head.fired().is_empty(), "c/1 needs both");
    head.sleep(2);
    assert_eq!(head.report(1).outcome, Outcome::Held);
    assert_eq!(
        head.wait(6).map(|_| head.fired()),
        Some(vec!["b/1".to_owned()])
    );
    head.discover(1, &["/b=1"]);
    head.discover(1, &["/b=2"]);
    assert_eq!(head.fired(), ["b/2", "c/1"]);
    head.discover(1, &["/c=1"]);
    assert_eq!(head.report(1).outcome, Outcome::Converged);
    assert!(
        head.interrupted
            .iter()
            .all(|mutation| mutation.as_str() == "b/1")
    );
}

#[test]
fn a_careful_set_is_followed_step_by_step() {
    let mut head = side_by_side(true);
    assert_eq!(head.fired(), ["a/1"]);
    assert_eq!(head.obey(), [] as [&str; 0]);
    head.discover(1, &["/a=1"]);
    assert_eq!(head.obey(), ["a/2", "b/1", "b/2", "c/1"]);
}

#[test]
fn a_changed_goal_interrupts_all_that_is_no_longer_wanted() {
    let mut head = side_by_side(false);
    head.set(1, "/a=").unwrap();
    assert!(head.interrupted.is_empty(), "c/1 still needs it");
    head.set(1, "/c=").unwrap();
    let interrupted: Vec<&str> = head.interrupted.iter().map(MutationId::as_str).collect();
    assert_eq!(interrupted, ["a/1"]);
    head.write(vec![WriteOp::Delete(id(1))]).unwrap();
    assert_eq!(head.interrupted.len(), 2);
}

#[test]
fn attempts_are_kept_with_their_results_and_durations() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    head.sleep(2);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    head.sleep(1);
    head.fired.clear();
    head.sleep(9);
    head.set(1, "/PhysState=POWER_OFF").unwrap();
    let history = head.report(1).history;
    let told: Vec<String> = history
        .iter()
        .map(|attempt| {
            let (mutation, took) = (&attempt.mutation, attempt.took.as_secs());
            format!(
                "{mutation} {} after {took}: {}",
                attempt.result, attempt.text
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "power/UKtoOFF done after 2: ",
            "power/OFFtoON failed after 10: no result within 10s: /PhysState is PHYS_HANG",
        ]
    );
    assert_eq!(head.report(1).failures.len(), 1);
    for _ in 0..40 {
        head.input(Input::Retry(vec![id(1)]));
        head.let_fail("no");
    }
    assert_eq!(
        head.report(1).history.len(),
        crate::mutation::progress::MAX_HISTORY
    );
}

#[test]
fn waits_after_failures_grow_and_differ_from_node_to_node() {
    let mut head = Head::new();
    for n in 1..=4 {
        head.add(n, &["/RunState=SYNC"]);
    }
    head.let_fail("no answer");
    let mut firsts = Vec::new();
    for n in 1..=4 {
        let hold = &head.report(n).holds[0];
        assert_eq!(hold.kind, "backoff");
        assert_eq!(
            hold.lifted_by,
            format!("time, or krakenctl node retry n{n}")
        );
        firsts.push(hold.text.clone());
    }
    let begun = head.now;
    let mut again = Vec::new();
    while again.len() < 4 {
        head.wait(10).expect("all try again");
        let wait = head.now.since(begun);
        assert!(wait >= Duration::from_millis(2500) && wait <= Duration::from_millis(5100));
        again.extend(head.fired.drain(..).map(|fire| (fire.node, wait)));
    }
    let waits: BTreeSet<Duration> = again.iter().map(|(_, wait)| *wait).collect();
    assert!(
        waits.len() >= 3,
        "they do not come back together: {waits:?}"
    );
}

#[test]
fn a_retry_forgets_failures_and_nothing_else() {
    let mut head = Head::new();
    head.add(1, &["/PhysState=POWER_OFF"]);
    head.let_fail("no answer");
    head.input(Input::Retry(vec![id(1)]));
    assert_eq!(head.fired(), ["power/UKtoOFF"], "without waiting");
    head.discover(1, &["/PhysState=PHYS_HANG", "/Busy=BUSY"]);
    head.fired.clear();
    head.input(Input::Retry(vec![id(1)]));
    assert!(head.fired().is_empty(), "the job still holds it");
}

#[test]
fn a_parked_node_goes_on_when_its_cause_is_gone_but_not_again_and_again() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    let parked = |head: &Head| head.report(1).outcome == Outcome::Parked;
    while !parked(&head) {
        head.let_fail("the BMC does not answer");
        head.sleep(1);
    }
    head.sleep(3600);
    assert!(head.fired().is_empty(), "nothing has changed");
    let mut fired = Vec::new();
    for _ in 0..200 {
        // The outage ends and comes back all the time.
        head.discover(1, &["/PhysState=POWER_OFF"]);
        head.sleep(30);
        fired.extend(head.let_fail("flaps"));
        head.discover(1, &["/PhysState="]);
        head.sleep(30);
        fired.extend(head.let_fail("flaps"));
    }
    assert!(
        fired.len() >= 2,
        "it is tried when the cause is gone: {fired:?}"
    );
    assert!(fired.len() < 40, "{} firings in 200 minutes", fired.len());
}

#[test]
fn f10_a_crash_between_intent_and_command_is_resolved_by_discovery() {
    // The intent is durable and the head dies: the next one cannot know whether the machine was told.
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    let last = head.fired.last().unwrap().clone();
    assert_eq!(last.mutation.as_str(), "power/OFFtoON");
    for (found, next) in [
        ("POWER_OFF", "power/OFFtoON"),
        ("POWER_ON", "pxe/NONEtoWAIT"),
    ] {
        let mut kept = Node::new(id(1), "n1".parse().unwrap(), Some(HEAD));
        kept.cfg.apply([change("/RunState=SYNC")]);
        kept.last_known.dsc.apply([change("/PhysState=POWER_OFF")]);
        kept.frozen = true;
        let mut next_head = Head::with_nodes(&[kept]);
        next_head
            .engine
            .restore_counters(1, last.attempt, Frozen::default());
        let thaw = WriteOp::Freeze {
            node: id(1),
            frozen: false,
        };
        next_head.write(vec![thaw]).unwrap();
        let asked = next_head.fired();
        assert_eq!(asked, ["power/UKtoOFF"], "it asks before it tells");
        next_head.discover(1, &[&format!("/PhysState={found}")]);
        let fired: Vec<(String, u64)> = next_head
            .fired
            .drain(..)
            .map(|fire| (fire.mutation.to_string(), fire.attempt))
            .collect();
        assert_eq!(fired.len(), 1, "{fired:?}");
        assert_eq!(fired[0].0, next);
        assert!(
            fired[0].1 > last.attempt,
            "an attempt is never numbered twice"
        );
    }
}

#[test]
fn f10_an_intent_that_is_not_durable_is_not_fired() {
    let mut head = Head::new();
    let mut node = Node::new(id(1), "n1".parse().unwrap(), None);
    node.cfg.apply([change("/RunState=SYNC")]);
    head.submit(vec![WriteOp::Add(Box::new(node))]);
    let (mut intents, mut fired) = (0, 0);
    while let Some(output) = head.engine.poll_output() {
        match output {
            Output::Commit {
                commit, records, ..
            } => {
                let is_intent = |record: &Record| matches!(record, Record::Intent { .. });
                intents += usize::from(records.iter().any(is_intent));
                if intents == 0 {
                    let result = Ok(());
                    let input = Input::Committed { commit, result };
                    head.engine.handle_input(input, head.now);
                }
            }
            Output::Fire(_) => fired += 1,
            _ => {}
        }
    }
    assert_eq!((intents, fired), (1, 0), "the store has not answered");
}

#[test]
fn f30_a_goal_that_flaps_interrupts_once_each_time_and_the_newest_wins() {
    let mut head = Head::new();
    head.add(1, &["/PhysState=POWER_ON"]);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    head.fired.clear();
    for round in 0..100 {
        let goal = ["POWER_OFF", "POWER_ON"][round % 2];
        head.set(1, &format!("/PhysState={goal}")).unwrap();
        head.sleep_for(Duration::from_millis(100));
    }
    let fired = head.fired();
    assert_eq!(fired.len(), 50, "each return of the goal fires once");
    assert_eq!(
        head.interrupted.len(),
        50,
        "and each loss of it interrupts once"
    );
    assert_eq!(head.report(1).steps.len(), 1);
    head.discover(1, &["/PhysState=POWER_ON"]);
    head.sleep(600);
    assert!(head.fired().is_empty());
    assert!(
        head.engine.timers.next().is_none(),
        "nothing is left behind"
    );
}

#[test]
fn f31_a_result_after_the_timeout_is_a_plain_discovery() {
    let mut head = Head::new();
    head.add(1, &["/PhysState=POWER_ON"]);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    head.fired.clear();
    head.interrupted.clear();
    head.sleep(11);
    assert_eq!(head.dsc(1, core::PHYS_STATE), Some("PHYS_HANG"));
    assert_eq!(head.fired(), ["power/HANGtoOFF"]);
    let hangs = head.count(|event| matches!(event, Event::Dsc { changes, .. } if changes.contains(&change("/PhysState=PHYS_HANG"))));
    assert_eq!(hangs, 1, "fail_to is discovered once");
    // The machine came up after all.
    head.discover(1, &["/PhysState=POWER_ON"]);
    assert_eq!(head.done("power/OFFtoON"), 0, "no second end of an attempt");
    let interrupted: Vec<&str> = head.interrupted.iter().map(MutationId::as_str).collect();
    assert_eq!(interrupted, ["power/OFFtoON", "power/HANGtoOFF"]);
    head.sleep(600);
    assert!(head.fired().is_empty(), "nothing is left to do");
    let report = head.report(1);
    assert_eq!(report.outcome, Outcome::Converged);
    assert_eq!(report.failures.len(), 1);
}

#[test]
fn f31_a_result_after_a_change_of_goal_is_a_plain_discovery() {
    let mut head = Head::new();
    head.add(1, &["/PhysState=POWER_ON"]);
    head.discover(1, &["/PhysState=POWER_OFF"]);
    head.fired.clear();
    head.set(1, "/PhysState=POWER_OFF").unwrap();
    assert_eq!(head.interrupted.last().unwrap().as_str(), "power/OFFtoON");
    head.discover(1, &["/PhysState=POWER_ON"]);
    assert_eq!(head.done("power/OFFtoON"), 0);
    assert_eq!(
        head.fired(),
        ["power/ONtoOFF"],
        "it is undone by a step of its own"
    );
}

#[test]
fn one_cascade_of_changes_fires_once() {
    let mut head = Head::new();
    head.add(1, &["/RunState=SYNC"]);
    head.fired.clear();
    // Everything about a boot in one report, in an order that passes through many plans.
    head.discover(
        1,
        &[
            "/PhysState=PHYS_HANG",
            "/pxe/state=WAIT",
            "/PhysState=POWER_OFF",
            "/RunState=INIT",
        ],
    );
    assert_eq!(head.fired().len(), 1);
}

/// One step that the node carries out itself.
fn own_step() -> MutationSet {
    let changes = [("/pxe/state", "", "ACTIVE")];
    let context = MutationContext::SelfNode;
    let mut step = mutation("image/START", context, &changes, &["/RunState=SYNC"]);
    step.fail_to = Vec::new();
    MutationSet {
        generation: 2,
        mutations: vec![step],
        ..MutationSet::default()
    }
}

fn agent() -> Engine {
    let rig = Head::new();
    let config = EngineConfig {
        me: id(1),
        role: Role::Agent,
        ..rig.engine.config.clone()
    };
    Engine::new(config, (*rig.engine.schema).clone(), Instant::ZERO)
}

/// A session of node 1, whose Cfg wants what these mutations lead to.
fn attached(session: u64, dsc: Vec<Change>, mutations: MutationSet) -> Input {
    Input::Attached(crate::sync::join::Attach {
        session: crate::sync::SessionId(session),
        conn: crate::event::ConnId(session),
        parent: HEAD,
        name: "n1".parse().unwrap(),
        epoch: 1,
        cfg: (1, vec![change("/pxe/state=ACTIVE")]),
        cfg_signature: Vec::new(),
        dsc,
        mutations,
        sync: SyncConfig::default(),
    })
}

/// One that starts while a job runs and its Cfg forbids what runs: between the session and the first look at the job it would end it.
#[test]
fn an_agent_that_joins_with_a_job_begins_nothing_that_the_job_forbids() {
    let mut set = own_step();
    let busy = Condition::is(core::BUSY.parse().unwrap(), core::BUSY_BUSY);
    set.mutations[0].excludes.push(busy);
    let fires = |dsc: Vec<Change>| {
        let mut agent = agent();
        agent.handle_input(attached(1, dsc, set.clone()), Instant::ZERO);
        std::iter::from_fn(|| agent.poll_output()).any(|output| matches!(output, Output::Fire(_)))
    };
    assert!(!fires(vec![change("/Busy=BUSY")]));
    assert!(fires(vec![change("/Busy=")]));
}

#[test]
fn an_agent_that_gives_up_says_so_and_its_head_tells() {
    let mut agent = agent();
    let attach = |agent: &mut Engine, session: u64, now| {
        agent.handle_input(attached(session, Vec::new(), own_step()), now);
    };
    let parked = |agent: &Engine| {
        let node = agent.tree().get(id(1)).unwrap();
        node.dsc.text(core::PARKED).map(str::to_owned)
    };
    attach(&mut agent, 1, Instant::ZERO);
    let (mut fired, mut now) = (0, Instant::ZERO);
    while parked(&agent).is_none() && fired < 10 {
        while let Some(output) = agent.poll_output() {
            if let Output::Fire(fire) = output {
                fired += 1;
                let failed = Input::MutationFailed {
                    node: fire.node,
                    mutation: fire.mutation,
                    attempt: fire.attempt,
                    text: "its init exits at once".into(),
                };
                agent.handle_input(failed, now);
            }
        }
        now = agent.poll_timeout().unwrap_or(now).max(now);
        agent.handle_timeout(now);
    }
    let reason = "image/START failed 3 times, last: its init exits at once";
    assert_eq!((fired, parked(&agent).as_deref()), (3, Some(reason)));

    // What the session carries up is what the head's explain says.
    let mut head = Head::new();
    head.input(Input::Declare(own_step()));
    head.add(1, &["/pxe/state=ACTIVE"]);
    head.discover(1, &["/RunState=SYNC", &format!("/Parked={reason}")]);
    let report = head.report(1);
    assert_eq!(report.outcome, Outcome::Parked);
    assert_eq!(report.reason, format!("the node itself gave up: {reason}"));
    assert!(report.waits_for.contains("krakenctl node retry n1"));

    // A new join forgets the attempts, and takes the word back.
    attach(&mut agent, 2, now);
    assert_eq!(parked(&agent), None);
    let fires = |agent: &mut Engine| {
        std::iter::from_fn(|| agent.poll_output()).any(|output| matches!(output, Output::Fire(_)))
    };
    assert!(fires(&mut agent));
}
