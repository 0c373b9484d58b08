//! The declared set as a whole: the ways it gives nodes, with the planner that the head uses.

use engine::mutation::graph::MutationGraph;
use engine::mutation::path::Plan;
use engine::state::{Value, Values};

use super::*;

fn modules() -> Modules {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (reports, _heard) = Reports::channel();
    let power = Power::new(reports.clone(), None).unwrap();
    let pxe = Pxe::new(reports, std::time::Duration::from_secs(600), || 0);
    Modules::new(vec![
        Arc::new(Core),
        Arc::new(power),
        Arc::new(pxe),
        Arc::new(Images),
    ])
}

fn values(text: &str) -> Values {
    let pairs = text
        .split_whitespace()
        .map(|pair| pair.split_once('=').unwrap());
    pairs
        .map(|(url, value)| (url.parse().unwrap(), Value::from(value)))
        .collect()
}

/// The steps from `dsc` to `cfg`, by name.
fn plan(dsc: &str, cfg: &str) -> String {
    let set = modules()
        .declared(Path::new("/no/such/folder"), &Schema::built_in())
        .unwrap();
    let graph = MutationGraph::new(&set).unwrap();
    match graph.plan(
        &values(dsc),
        &values(&format!("/power/driver=REDFISH {cfg}")),
    ) {
        Plan::Converged => "converged".into(),
        Plan::Path(path) => path
            .steps
            .iter()
            .map(|step| step.name())
            .collect::<Vec<_>>()
            .join(" "),
        Plan::NoPath(no) => format!("no path: {no:?}"),
    }
}

#[test]
fn every_state_has_its_way() {
    let boot = "NONEtoWAIT WAITtoINIT INITtoSYNC";
    let run = "/RunState=SYNC /image/state=ACTIVE";
    for (dsc, cfg, expect) in [
        ("", "/RunState=SYNC", format!("UKtoOFF OFFtoON {boot}")),
        ("/PhysState=POWER_ON", "/RunState=SYNC", boot.to_owned()),
        (
            "/PhysState=POWER_OFF",
            run,
            format!("OFFtoON {boot} UKtoIDLE IDLEtoACTIVE"),
        ),
        (
            "/PhysState=POWER_ON /RunState=SYNC /image/state=ACTIVE",
            run,
            "converged".into(),
        ),
        // Silent since the last boot: armed anew, without touching the power.
        (
            "/PhysState=POWER_ON /RunState=ERROR /pxe/state=INIT",
            "/RunState=SYNC",
            "ERRORtoWAIT WAITtoINIT INITtoSYNC".into(),
        ),
        (
            "/PhysState=PHYS_HANG",
            "/RunState=SYNC",
            format!("HANGtoOFF OFFtoON {boot}"),
        ),
        (
            "/PhysState=PHYS_ERROR",
            "/RunState=SYNC",
            format!("ERRORtoOFF OFFtoON {boot}"),
        ),
        // Off: the image stops and the agent leaves before the power goes.
        (
            "/PhysState=POWER_ON /RunState=SYNC /image/state=ACTIVE",
            "/PhysState=POWER_OFF",
            "ACTIVEtoIDLE SYNCtoINIT ONtoOFF".into(),
        ),
        (
            "/PhysState=POWER_ON /RunState=ERROR",
            "/PhysState=POWER_OFF",
            "ONtoOFF".into(),
        ),
        (
            "/PhysState=POWER_ON /RunState=SYNC /image/state=ERROR",
            run,
            "ERRORtoACTIVE".into(),
        ),
    ] {
        assert_eq!(plan(dsc, cfg), expect, "from {dsc:?} to {cfg:?}");
    }
}

#[test]
fn a_busy_node_has_no_way_off() {
    let busy = "/PhysState=POWER_ON /RunState=SYNC /image/state=ACTIVE /Busy=BUSY";
    assert!(plan(busy, "/PhysState=POWER_OFF").starts_with("no path"));
    assert!(plan("/PhysState=PHYS_HANG /Busy=BUSY", "/RunState=SYNC").starts_with("no path"));
}

#[test]
fn mutation_files_join_the_set_and_their_mistakes_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let good = "module = \"site\"\n[[mutation]]\nname = \"A\"\ncontext = \"CHILD\"\n\
                mutates = { \"/site/x\" = { from = \"1\", to = \"2\" } }\n";
    std::fs::write(dir.path().join("site.toml"), good).unwrap();
    let set = modules().declared(dir.path(), &Schema::built_in()).unwrap();
    assert!(
        set.mutations
            .iter()
            .any(|mutation| mutation.id.as_str() == "site/A")
    );
    assert!(
        set.mutations
            .is_sorted_by_key(|mutation| mutation.id.clone())
    );
    let clash = good
        .replace("site", "power")
        .replace("\"A\"", "\"UKtoOFF\"");
    std::fs::write(dir.path().join("clash.toml"), clash).unwrap();
    let error = format!(
        "{:#}",
        modules()
            .declared(dir.path(), &Schema::built_in())
            .unwrap_err()
    );
    assert!(error.contains("power/UKtoOFF"), "{error}");
    std::fs::write(
        dir.path().join("clash.toml"),
        good.replace("mutates", "mutatse"),
    )
    .unwrap();
    let error = format!(
        "{:#}",
        modules()
            .declared(dir.path(), &Schema::built_in())
            .unwrap_err()
    );
    assert!(
        error.contains("clash.toml") && error.contains("mutates"),
        "{error}"
    );
}
