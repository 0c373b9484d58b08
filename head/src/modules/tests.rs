//! The declared set as a whole: the ways it gives nodes, with the planner that the head uses.

use engine::mutation::graph::MutationGraph;
use engine::mutation::path::Plan;
use engine::state::{Value, Values};

use super::*;

fn modules() -> Modules {
    modules_of(Reports::channel().0)
}

fn modules_of(reports: Reports) -> Modules {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let power = Power::new(reports.clone(), None).unwrap();
    let pxe = Pxe::new(reports.clone(), std::time::Duration::from_secs(600), || 0);
    let built_in: Vec<Arc<dyn Module>> = vec![
        Arc::new(Core),
        Arc::new(power),
        Arc::new(pxe),
        Arc::new(Images),
    ];
    let files = DataFiles::new(reports.clone(), "/".into());
    Modules::new(built_in, files, reports)
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
fn what_a_failure_leaves_can_be_left() {
    let set = modules()
        .declared(Path::new("/no/such/folder"), &Schema::built_in())
        .unwrap();
    for mutation in &set.mutations {
        for left in &mutation.fail_to {
            let leaves = |change: &engine::mutation::UrlChange| {
                change.url == left.url
                    && change.from.contains(&left.value)
                    && change.to != left.value
            };
            let ways = set
                .mutations
                .iter()
                .filter(|m| m.mutates.iter().any(leaves));
            assert!(ways.count() > 0, "{}: {left:?}", mutation.id);
        }
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

/// A module that declares what it is told to.
struct Declares(&'static str, Vec<Mutation>);

impl Module for Declares {
    fn name(&self) -> &str {
        self.0
    }

    fn declaration(&self) -> Declaration {
        Declaration {
            mutations: self.1.clone(),
            ..Declaration::default()
        }
    }

    fn fire(&self, _: Fire) {}

    fn interrupt(&self, _: NodeId, _: &MutationId, _: u64) {}
}

fn change(module: &'static str, name: &str, to: &'static str) -> Mutation {
    declare::mutation(module, name, engine::mutation::MutationContext::Child)
        .change("/site/fan", &[""], to)
        .done()
}

#[tokio::test]
async fn modules_come_change_and_go_while_the_head_runs() {
    let (reports, mut heard) = Reports::channel();
    let modules = modules_of(reports);
    let no_files = Path::new("/no/such/folder");
    let first = modules.declared(no_files, &Schema::built_in()).unwrap();
    assert_eq!(first.generation, 1);
    let mut set = move || match heard.try_recv() {
        Ok(Input::Declare(set)) => {
            let fan = set.mutations.iter().filter(|m| m.id.module() == "fan");
            let names: Vec<String> = fan.map(|m| m.id.to_string()).collect();
            assert_eq!(set.mutations.len(), first.mutations.len() + names.len());
            Some((set.generation, names.join(" ")))
        }
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    };
    let put = |name, mutations| modules.put(Arc::new(Declares(name, mutations)));

    put("fan", vec![change("fan", "START", "ON")])
        .await
        .unwrap();
    assert_eq!(set(), Some((2, "fan/START".into())));
    // A restart that declares the same is no news.
    put("fan", vec![change("fan", "START", "ON")])
        .await
        .unwrap();
    assert_eq!(set(), None);
    let two = vec![change("fan", "START", "ON"), change("fan", "STOP", "OFF")];
    put("fan", two.clone()).await.unwrap();
    assert_eq!(set(), Some((3, "fan/START fan/STOP".into())));

    // What contradicts concerns its module only: the others, and what it declared before, stay.
    let twice = vec![change("fan", "START", "ON"), change("fan", "START", "OFF")];
    assert!(matches!(
        put("fan", twice).await,
        Err(DeclareError::Contradicts(_))
    ));
    let foreign = put("fan", vec![change("power", "START", "ON")]).await;
    assert!(matches!(foreign, Err(DeclareError::Foreign { .. })));
    assert_eq!(
        put("power", Vec::new()).await,
        Err(DeclareError::Taken("power".into()))
    );
    put("other", Vec::new()).await.unwrap();
    assert_eq!(set(), Some((4, "fan/START fan/STOP".into())));

    modules.remove("fan").await;
    assert_eq!(set(), Some((5, String::new())));
    modules.remove("fan").await;
    modules.remove("power").await;
    assert_eq!(set(), None);
}

#[test]
fn the_declared_set_gives_no_warning() {
    let set = modules()
        .declared(Path::new("/no/such/folder"), &Schema::built_in())
        .unwrap();
    let lints = engine::mutation::lint::lint(&MutationGraph::new(&set).unwrap());
    let told: Vec<String> = lints.iter().map(ToString::to_string).collect();
    assert_eq!(told, [""; 0]);
}
