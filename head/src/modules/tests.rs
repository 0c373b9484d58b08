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

/// A folder of mutation files.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, file: &str, text: &str) {
        std::fs::write(self.0.path().join(file), text).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// What is refused, without the folder's name; those of which an earlier form is in force end in `(earlier)`.
    fn refused(&self, modules: &Modules) -> Vec<String> {
        let folder = format!("{}/", self.path().display());
        let files = modules.refused_files().into_iter();
        let lines = files.flat_map(|file| {
            let earlier = if file.earlier_in_force {
                " (earlier)"
            } else {
                ""
            };
            let problems = file.problems.into_iter();
            problems.map(move |problem| format!("{problem}{earlier}"))
        });
        lines.map(|line| line.replace(&folder, "")).collect()
    }
}

/// A file that declares one mutation, of `/site/x` to `to`.
fn site(module: &str, name: &str, to: &str) -> String {
    format!(
        "module = \"{module}\"\n[[mutation]]\nname = \"{name}\"\ncontext = \"CHILD\"\n\
         mutates = {{ \"/site/x\" = {{ from = \"1\", to = \"{to}\" }} }}\n"
    )
}

/// The mutations of files in a set, with where they lead.
fn of_files(set: &MutationSet) -> Vec<String> {
    let own = together(
        [
            Core.declaration(),
            power::declared(),
            pxe::declared(),
            Images.declaration(),
        ]
        .iter(),
    );
    let mutations = set
        .mutations
        .iter()
        .filter(|one| !own.mutations.contains(one));
    let shown = mutations.map(|one| format!("{} {}", one.id, one.mutates[0].to.as_ref().unwrap()));
    shown.collect()
}

#[test]
fn a_head_starts_without_the_mutation_files_that_are_bad() {
    let folder = Folder::new();
    folder.put("a.toml", &site("a", "A", "2"));
    folder.put("b.toml", &site("a", "A", "3"));
    folder.put("c.toml", "module = \"c\"\n[[mutation]\n");
    folder.put("d.toml", &site("power", "UKtoOFF", "2"));
    folder.put(
        "e.toml",
        "module = \"e\"\n[[depends]]\nurl = \"/PhysState\"\n",
    );
    let far = site("f", "F", "2")
        .replace("/site/x", "/PhysState")
        .replace("\"2\"", "7");
    folder.put("f.toml", &far);
    folder.put("g.toml", &site("g", "G", "2"));
    let modules = modules();
    let set = modules
        .declared(folder.path(), &Schema::built_in())
        .unwrap();
    assert_eq!(of_files(&set), ["a/A 2", "g/G 2"]);
    assert_eq!(
        folder.refused(&modules),
        [
            "b.toml:2: mutation a/A is declared already, at a.toml:2: give one of them another name, or take it out",
            "c.toml:2: unclosed array table, expected `]`",
            "d.toml:2: mutation power/UKtoOFF is declared already, by module power of this head: give the file's module another name",
            "e.toml:2: what /PhysState depends on is declared already, by a module of this head: take this [[depends]] out",
            "f.toml:5: /PhysState cannot be \"7\": one of PHYS_UNKNOWN, POWER_OFF, POWER_ON, POWER_CYCLE, PHYS_HANG, PHYS_ERROR is wanted",
        ]
    );
    let checked = check_files(folder.path(), &Schema::built_in()).unwrap();
    assert_eq!(checked.len(), folder.refused(&modules).len());
}

#[tokio::test]
async fn what_a_file_said_when_it_was_good_stays() {
    let (reports, mut heard) = Reports::channel();
    let (modules, schema) = (modules_of(reports), Arc::new(Schema::built_in()));
    let folder = Folder::new();
    folder.put("a.toml", &site("a", "A", "2"));
    folder.put("b.toml", &site("b", "B", "2"));
    let first = modules.declared(folder.path(), &schema).unwrap();
    assert_eq!(of_files(&first), ["a/A 2", "b/B 2"]);
    let mut set = move || match heard.try_recv() {
        Ok(Input::Declare(set)) => of_files(&set).join(", "),
        Ok(other) => panic!("{other:?}"),
        Err(_) => "no news".to_owned(),
    };

    // A bad edit keeps neither the good edit of another file nor a new file from its place.
    folder.put("a.toml", "module = \"a\"\nmutatse = 1\n");
    folder.put("b.toml", &site("b", "B", "3"));
    modules.reload(folder.path(), &schema).await.unwrap();
    assert_eq!(set(), "a/A 2, b/B 3");
    assert_eq!(
        folder.refused(&modules),
        ["a.toml:2: the file has no key `mutatse` (earlier)"]
    );
    let lints = modules.lints().lints;
    assert_eq!(lints[0].kind, "refused-file");
    assert!(lints[0].text.contains("a.toml:2: "), "{lints:?}");

    // What is in force comes before what is new, whatever the names.
    folder.put("a.toml", &site("b", "B", "9"));
    modules.reload(folder.path(), &schema).await.unwrap();
    assert_eq!(set(), "no news");
    assert_eq!(
        folder.refused(&modules),
        [
            "a.toml:2: mutation b/B is declared already, at b.toml:2: give one of them another name, or take it out (earlier)"
        ]
    );

    // A url that no extension has is told, to the log and to krakenctl.
    folder.put(
        "c.toml",
        &site("c", "C", "2").replace("/site/x", "/PhysSate"),
    );
    modules.reload(folder.path(), &schema).await.unwrap();
    assert_eq!(set(), "a/A 2, b/B 3, c/C 2");
    let lints = modules.lints().lints;
    let unknown = lints
        .iter()
        .find(|lint| lint.kind == "unknown-url")
        .unwrap();
    assert!(
        unknown.text.contains("did you mean /PhysState?"),
        "{lints:?}"
    );
    std::fs::remove_file(folder.path().join("c.toml")).unwrap();
    modules.reload(folder.path(), &schema).await.unwrap();
    assert_eq!(set(), "a/A 2, b/B 3");

    // A mutation may move from one file to another.
    folder.put("a.toml", &site("b", "B", "3"));
    folder.put("b.toml", &site("a", "A", "2"));
    modules.reload(folder.path(), &schema).await.unwrap();
    assert_eq!(set(), "no news");
    assert_eq!(folder.refused(&modules), [""; 0]);

    // A file that is gone takes with it what it declared; so does an empty folder.
    std::fs::remove_file(folder.path().join("a.toml")).unwrap();
    modules.reload(folder.path(), &schema).await.unwrap();
    assert_eq!(set(), "a/A 2");
    std::fs::remove_file(folder.path().join("b.toml")).unwrap();
    modules.reload(folder.path(), &schema).await.unwrap();
    assert_eq!(set(), "");
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
