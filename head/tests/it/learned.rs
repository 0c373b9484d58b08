//! Costs learned from measured times, in a real head: what is measured changes what is planned, is shown, and outlives a restart.

use std::fs;

use proto::v1;

use crate::plan::{plan, steps};
use crate::rig::{Client, Rig, add, change, eventually, node, set, wait_dsc};

/// Two cheap steps for nodes with a driver, against a direct way that is declared dearer than both. Nobody knows what any of them takes, so
/// each counts with its minute.
const FILE: &str = r#"
module = "road"

[[mutation]]
name = "direct"
context = "CHILD"
mutates = { "/Platform" = { to = "there" } }
timeout = "1m"
cost = 3
command = ["true"]
discover = "to"

[[mutation]]
name = "first"
context = "CHILD"
mutates = { "/Platform" = { to = "inn" } }
requires = { "/power/driver" = "IPMITOOL" }
timeout = "1m"
command = ["true"]
discover = "to"

[[mutation]]
name = "second"
context = "CHILD"
mutates = { "/Platform" = { from = "inn", to = "there" } }
requires = { "/power/driver" = "IPMITOOL" }
timeout = "1m"
command = ["true"]
discover = "to"
"#;

/// What the costs are looked at for: one mutation more.
const MORE: &str = r#"
[[mutation]]
name = "back"
context = "CHILD"
mutates = { "/Platform" = { from = "there", to = "inn" } }
"#;

/// The way there, of a node that may take either, and what is known of the times of its steps.
async fn way(client: &mut Client, name: &str) -> (Vec<String>, String) {
    let there = vec![set("/Platform", "there")];
    let told = plan(client, name, there).await.expect("plan");
    let group = &told.groups[0];
    let each = group.estimate.as_ref().and_then(|e| e.each.as_ref());
    let time = each.and_then(|each| each.time.clone()).expect("a time");
    let steps = steps(&group.steps).into_iter().map(str::to_owned);
    (steps.collect(), time.basis)
}

async fn cost(client: &mut Client, name: &str) -> u32 {
    let request = v1::ListMutationsRequest {};
    let set = client.list_mutations(request).await.expect("mutations");
    let of = set.into_inner().mutations.into_iter();
    let mut of = of.filter(|mutation| mutation.module == "road" && mutation.name == name);
    of.next().expect("it is declared").cost
}

#[tokio::test]
async fn the_way_that_was_measured_quick_is_taken_from_then_on() {
    let direct = (vec!["road/direct".to_owned()], "measured".to_owned());
    let steps = ["road/first", "road/second"].map(str::to_owned);
    let steps = (steps.to_vec(), "at_most".to_owned());
    let rig = Rig::new("[engine]\ncosts = \"learned\"\n");
    let file = rig.path("state/mutations/road.toml");
    fs::create_dir_all(rig.path("state/mutations")).expect("folder");
    fs::write(&file, FILE).expect("file");
    let (head, mut client) = rig.start().await;
    let free = |name| node(name, &[("/power/driver", "IPMITOOL")]);
    add(&mut client, vec![free("free")]).await.expect("added");
    assert_eq!(way(&mut client, "free").await, steps);
    assert_eq!(cost(&mut client, "direct").await, 3 * 64);

    // Three that have no choice measure the direct way.
    let others = ["n1", "n2", "n3"].map(|name| node(name, &[("/Platform", "there")]));
    add(&mut client, others.into()).await.expect("added");
    for name in ["n1", "n2", "n3"] {
        wait_dsc(&client, name, "/Platform", Some("there")).await;
    }
    assert_eq!(
        way(&mut client, "free").await,
        steps,
        "nobody has looked yet"
    );
    fs::write(&file, format!("{FILE}{MORE}")).expect("file");
    head.signal(nix::sys::signal::Signal::SIGHUP);
    eventually("the direct way", || {
        let mut client = client.clone();
        async move { (way(&mut client, "free").await.0 == ["road/direct"]).then_some(()) }
    })
    .await;
    assert_eq!(way(&mut client, "free").await, direct);
    let learned_cost = cost(&mut client, "direct").await;
    assert!(learned_cost < 2 * 64, "{learned_cost}");

    // An orderly end forgets nothing; what is planned with is there at once.
    head.terminate();
    let (head, mut client) = rig.start().await;
    assert_eq!(way(&mut client, "free").await, direct);
    assert_eq!(cost(&mut client, "direct").await, learned_cost);
    let there = vec![set("/Platform", "there")];
    change(&mut client, "free", there).await.expect("set");
    wait_dsc(&client, "free", "/Platform", Some("there")).await;
    let request = v1::ExplainRequest {
        nodes: "free".into(),
    };
    let reports = client.explain(request).await.expect("explain").into_inner();
    let tried = reports.reports[0].history.iter();
    let tried: Vec<_> = tried.map(|attempt| attempt.mutation.as_str()).collect();
    assert_eq!(tried, ["road/direct"]);

    // Where costs come from is a setting of the start, as all of [engine].
    rig.configure("");
    head.signal(nix::sys::signal::Signal::SIGHUP);
    head.logged("at_next_start=[\"engine.costs\"]").await;
    assert_eq!(cost(&mut client, "direct").await, learned_cost);
    head.terminate();
    let (_head, mut client) = rig.start().await;
    assert_eq!(cost(&mut client, "direct").await, 3);
    add(&mut client, vec![free("other")]).await.expect("added");
    assert_eq!(way(&mut client, "other").await.0, steps.0);
}
