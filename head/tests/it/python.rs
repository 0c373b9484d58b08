//! Modules in Python against a real head: the glue of `proto/examples/python`. What `krakenctl module new` writes is in `scaffold`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::fcntl::{Flock, FlockArg};
use proto::v1;

use crate::modules::wait_module;
use crate::rig::{self, Client, Head, Rig, eventually};

/// A module that uses all of the glue: it tags nodes, refuses one, and reports what it sees.
const TAGGER: &str = r#"
from kraken_module import Failed, Module

tagger = Module("tagger", discovers=["/host"], reads=["/ipv4"])

@tagger.mutation("TAG", "/Platform", to="tagged", timeout=20, excludes={"/Busy": "BUSY"})
def tag(node):
    if node.name == tagger.config.get("refuse"):
        raise Failed("not this one")
    [seen] = tagger.query(["/ipv4/boot", "/power"], nodes=[node.id])
    tagger.discover({"/host/product": " ".join(sorted(seen.cfg))}, node.id)
    tagger.log("tagged", node=node.id)

@tagger.every(0.1)
def look():
    tagger.serving = tagger.config.get("serving") != "no"
    return {"/host/vendor": tagger.config.get("vendor")}

tagger.run()
"#;

/// A Python with the libraries, made once under `target`.
pub(crate) fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let target = Path::new(env!("CARGO_BIN_EXE_kraken-head"))
            .ancestors()
            .nth(2)
            .expect("target");
        let folder = target.join("python-modules");
        let maker = workspace().join("proto/examples/python");
        let wanted = fs::read(maker.join("requirements.txt")).expect("requirements");
        let lock = File::create(folder.with_extension("lock")).expect("lock");
        let _lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .expect("lock");
        let python = folder.join("bin/python");
        // Another list makes another environment.
        if fs::read(folder.join("made")).ok().as_ref() != Some(&wanted) {
            let _ = fs::remove_dir_all(&folder);
            let mut make = Command::new(maker.join("make-venv"));
            let made = make.arg(&folder).output().expect("make-venv");
            let said = String::from_utf8_lossy(&made.stderr);
            assert!(made.status.success(), "{make:?}: {said}");
            fs::write(folder.join("made"), wanted).expect("mark");
        }
        python
    })
}

/// Where the workspace lies.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
}

/// A head that runs this program as the module of this name.
async fn head_with(name: &str, program: &Path, config: &str) -> (Rig, Head, Client) {
    let rig = Rig::new("");
    let examples = workspace().join("proto/examples/python");
    rig.configure(&format!(
        "[modules.{name}]\ncommand = [{:?}, {program:?}]\nconfig = {{ {config} }}\n\
         env = {{ KRAKEN_PROTO = {:?}, PYTHONPATH = {examples:?}, PYTHONDONTWRITEBYTECODE = \"1\" }}\n",
        python(),
        workspace().join("proto"),
    ));
    let (head, client) = rig.start().await;
    (rig, head, client)
}

async fn failures(client: &Client, node: &str) -> String {
    let request = v1::ExplainRequest { nodes: node.into() };
    let report = client
        .clone()
        .explain(request)
        .await
        .expect("explain")
        .into_inner();
    report.reports[0]
        .failures
        .iter()
        .map(|failure| failure.text.clone())
        .collect::<Vec<_>>()
        .join("; ")
}

#[tokio::test]
async fn a_python_module_mutates_discovers_asks_and_is_configured() {
    let folder = tempfile::tempdir().expect("folder");
    let program = folder.path().join("tagger.py");
    fs::write(&program, TAGGER).expect("program");
    let (_rig, head, mut client) =
        head_with("tagger", &program, "refuse = \"n2\", vendor = \"a\"").await;
    rig::wait_dsc(&client, "head", "/host/vendor", Some("a")).await;
    let nodes = ["n1", "n2"].map(|name| {
        let address = format!("10.0.0.{}/24", &name[1..]);
        rig::node(
            name,
            &[
                ("/Platform", "tagged"),
                ("/ipv4/boot/address", &address),
                ("/power/target", "x"),
            ],
        )
    });
    rig::add(&mut client, nodes.to_vec()).await.expect("added");
    rig::wait_dsc(&client, "n1", "/Platform", Some("tagged")).await;
    // It asked for more than it may see.
    rig::wait_dsc(&client, "n1", "/host/product", Some("/ipv4/boot/address")).await;
    head.logged("text=\"tagged\"").await;
    eventually("the refusal is explained", || async {
        failures(&client, "n2")
            .await
            .contains("not this one")
            .then_some(())
    })
    .await;
    rig::change(
        &mut client,
        "head",
        vec![rig::set("/services/tagger/config/vendor", "b")],
    )
    .await
    .expect("set");
    rig::wait_dsc(&client, "head", "/host/vendor", Some("b")).await;
    // The glue answers health checks.
    for (serving, health) in [("yes", "serving"), ("no", "not serving")] {
        let changes = vec![rig::set("/services/tagger/config/serving", serving)];
        rig::change(&mut client, "head", changes)
            .await
            .expect("set");
        wait_module(&client, "tagger", health, |module| module.health == health).await;
    }
}
