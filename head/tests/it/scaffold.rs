//! What `krakenctl module new` writes works as it stands: in Rust, in Python and as a data file, each followed step by step as it says
//! itself, against a real head.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use proto::v1;

use crate::modules::wait_module;
use crate::python;
use crate::rig::{self, Client, Rig, change, set, wait_dsc};

/// A program of this workspace, which cargo builds with the tests.
fn krakenctl(rig: &Rig, args: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_kraken-head")).with_file_name("krakenctl");
    assert!(
        program.exists(),
        "{} is not there: `cargo test --workspace` builds it, `-p head` alone does not; run `cargo build -p krakenctl`",
        program.display()
    );
    let output = Command::new(program)
        .args(args)
        .current_dir(rig.path(""))
        .env("KRAKEN_SOCKET", rig.path("run/api.sock"))
        .env("NO_COLOR", "1")
        .output()
        .expect("krakenctl");
    assert!(output.status.success(), "krakenctl {args:?}: {output:?}");
    output
}

/// `module new`, in a folder of the rig, with the values that the module adds to nodes.
fn scaffold(rig: &Rig, lang: &str) -> PathBuf {
    let source = python::workspace().display().to_string();
    let mut args = vec!["module", "new", "fan", "--lang", lang];
    if lang == "rust" {
        args.extend(["--source", &source]);
    }
    let output = krakenctl(rig, &args);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("krakenctl extension add fan/fan.proto"),
        "{said}"
    );
    rig.path("fan")
}

/// A node is led there and back by the module's mutations.
async fn switches(client: &mut Client) {
    let node = rig::node("n1", &[("/fan/state", "ON")]);
    rig::add(client, vec![node]).await.expect("added");
    wait_dsc(client, "n1", "/fan/state", Some("ON")).await;
    let off = vec![set("/fan/state", "OFF")];
    change(client, "n1", off).await.expect("set");
    wait_dsc(client, "n1", "/fan/state", Some("OFF")).await;
}

/// A head that takes the module from a changed configuration.
async fn with_program(rig: &Rig, command: &[&Path], env: &str) -> (rig::Head, Client) {
    let (head, mut client) = rig.start().await;
    krakenctl(rig, &["extension", "add", "fan/fan.proto"]);
    rig.configure(&format!("[modules.fan]\ncommand = {command:?}\n{env}\n"));
    let output = krakenctl(rig, &["module", "reload"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "added: fan\n");
    let module = wait_module(&client, "fan", "runs", |module| module.up).await;
    assert_eq!(module.mutations, 2);
    switches(&mut client).await;
    wait_module(&client, "fan", "tells its health", |module| {
        module.health == "serving"
    })
    .await;
    (head, client)
}

/// Builds it without a network: the crates are those of the workspace, and so are most of what they were compiled to.
fn build(folder: &Path) -> PathBuf {
    let workspace = python::workspace();
    fs::copy(workspace.join("Cargo.lock"), folder.join("Cargo.lock")).expect("lock file");
    let head = Path::new(env!("CARGO_BIN_EXE_kraken-head"));
    let target = head.ancestors().nth(2).expect("target");
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["build", "--offline"])
        .current_dir(folder)
        // What this test's own cargo left behind would have crates built anew.
        .env_clear()
        .env("CARGO_TARGET_DIR", target)
        // The workspace's profile; another one would share nothing.
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    for name in [
        "PATH",
        "HOME",
        "CARGO_HOME",
        "RUSTUP_HOME",
        "RUSTUP_TOOLCHAIN",
        "RUSTFLAGS",
    ] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let output = command.output().expect("cargo");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("warning"), "{said}");
    let program = folder.join("program");
    fs::copy(target.join("debug/fan"), &program).expect("what was built");
    program
}

#[tokio::test]
async fn a_scaffold_in_rust_compiles_and_runs() {
    let rig = Rig::new("");
    let folder = scaffold(&rig, "rust");
    let program = tokio::task::spawn_blocking(move || build(&folder));
    let program = program.await.expect("built");
    with_program(&rig, &[&program], "").await;
}

#[tokio::test]
async fn a_scaffold_in_python_runs() {
    let rig = Rig::new("");
    let program = scaffold(&rig, "python").join("fan.py");
    let env = "env = { PYTHONDONTWRITEBYTECODE = \"1\" }";
    with_program(&rig, &[python::python(), &program], env).await;
}

#[tokio::test]
async fn a_scaffolded_data_file_is_without_warnings_and_runs() {
    let rig = Rig::new("");
    let file = scaffold(&rig, "file").join("fan.toml");
    let output = krakenctl(&rig, &["mutation", "lint", "--offline", "fan/fan.toml"]);
    assert!(
        !String::from_utf8_lossy(&output.stdout).contains("warn"),
        "{output:?}"
    );
    let (_head, mut client) = rig.start().await;
    krakenctl(&rig, &["extension", "add", "fan/fan.proto"]);
    let folder = rig.path("state/mutations");
    fs::create_dir_all(&folder).expect("folder");
    fs::copy(file, folder.join("fan.toml")).expect("file");
    rig::eventually("its mutations", async || {
        let request = v1::ListMutationsRequest {};
        let set = client.clone().list_mutations(request).await.ok()?;
        let mut all = set.into_inner().mutations.into_iter();
        all.any(|mutation| mutation.module == "fan").then_some(())
    })
    .await;
    // `discover = "to"`: a command that ends well is proof enough.
    switches(&mut client).await;
    krakenctl(&rig, &["mutation", "lint"]);
}
