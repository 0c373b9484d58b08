//! Modules in Python against a real head: the glue of `proto/examples/python`. What `krakenctl module new` writes is in `scaffold`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::fcntl::{Flock, FlockArg};
use proto::v1;

use crate::modules::wait_module;
use crate::rig::{self, Client, Head, Rig, eventually, wait_dsc};

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

/// A module of which six threads ask at once, and whose look goes wrong now and then.
const ASKER: &str = r#"
import threading
import kraken_module
from kraken_module import Module

asker = Module("asker", discovers=["/host"], reads=["/ipv4"])
looks, answers = [], []

def ask():
    for _ in range(3):
        answers.extend(asker.query(["/ipv4"]))

@asker.every(0.05)
def look():
    looks.append(1)
    if len(looks) % 2:
        raise ValueError(f"look {len(looks)}")
    if len(looks) == 2:
        threads = [threading.Thread(target=ask) for _ in range(6)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    return {"/host/product": str(len(answers))}

asker.configured = lambda: "fail" in asker.config and 1 / 0
if __file__.endswith("stranger.py"):
    kraken_module.API_VERSION = 7
asker.run()
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

#[tokio::test]
async fn threads_of_a_python_module_ask_at_once_and_a_look_that_fails_is_not_the_last() {
    let folder = tempfile::tempdir().expect("folder");
    let program = folder.path().join("asker.py");
    fs::write(&program, ASKER).expect("program");
    let (_rig, head, client) = head_with("asker", &program, "fail = \"yes\"").await;
    // Six threads, three times, one node each time; and it comes after a look that failed.
    wait_dsc(&client, "head", "/host/product", Some("18")).await;
    head.logged("look: ValueError: look 3").await;
    head.logged("ZeroDivisionError").await;
    let asker = wait_module(&client, "asker", "runs", |module| module.up).await;
    assert_eq!((asker.failures, asker.refused), (0, 0), "{asker:?}");
}

#[tokio::test]
async fn a_python_module_of_another_version_ends_with_words() {
    let folder = tempfile::tempdir().expect("folder");
    let program = folder.path().join("stranger.py");
    fs::write(&program, ASKER).expect("program");
    let (_rig, head, client) = head_with("asker", &program, "").await;
    head.logged("this module speaks version 7 of the module API, the host 1 to 1")
        .await;
    let ended = |module: &v1::ModuleInfo| module.last_error.contains("exit status: 1");
    wait_module(&client, "asker", "has ended", ended).await;
}
