//! Modules out of process against a real head: what they can do, and that one that goes wrong hurts nobody else (fault F32).

use std::path::PathBuf;

use proto::v1::{self, ModuleInfo, module_info};

use crate::rig::{self, Client, Head, Rig, eventually};

/// The module in `head/examples`, which cargo builds with the tests.
pub(crate) fn example() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_BIN_EXE_kraken-head"));
    let path = target.parent().expect("a folder").join("examples/module");
    assert!(
        path.exists(),
        "{} is not there: `cargo test -p head` builds it, `--test it` alone does not; run `cargo build -p head --examples`",
        path.display()
    );
    path
}

/// A head with a good module and one that misbehaves until the file `mended` is there.
async fn head_with(misbehave: &str, limits: &str) -> (Rig, Head, Client) {
    let rig = Rig::new("");
    let (program, until) = (example(), rig.path("mended"));
    rig.configure(&format!(
        "[modules.good]\ncommand = [{program:?}]\n\
         [modules.wild]\ncommand = [{program:?}]\nlimits = {{ {limits} }}\n\
         config = {{ misbehave = {misbehave:?}, until = {until:?} }}\n",
    ));
    let (head, client) = rig.start().await;
    (rig, head, client)
}

async fn modules(client: &mut Client) -> Vec<ModuleInfo> {
    let answer = client.list_modules(v1::ListModulesRequest {}).await;
    answer.expect("modules").into_inner().modules
}

async fn module(client: &Client, name: &str) -> ModuleInfo {
    let found = modules(&mut client.clone()).await;
    let found = found.into_iter().find(|module| module.name == name);
    found.expect("the module is known")
}

/// Waits until a module is as it should be.
pub(crate) async fn wait_module(
    client: &Client,
    name: &str,
    what: &str,
    is: impl Fn(&ModuleInfo) -> bool,
) -> ModuleInfo {
    eventually(&format!("module {name}: {what}"), || async {
        Some(module(client, name).await).filter(&is)
    })
    .await
}

/// The mutation that both modules carry out, by the good one.
async fn tag(client: &mut Client, node: &str) {
    rig::add(client, vec![rig::node(node, &[("/Platform", "tagged")])])
        .await
        .expect("added");
    rig::wait_dsc(client, node, "/Platform", Some("tagged")).await;
}

/// The bad module fails as it should, the good one carries on, and when the cause is gone the bad one works again by itself.
async fn hurts_nobody(misbehave: &str, limits: &str, words: &str) {
    let (rig, head, mut client) = head_with(misbehave, limits).await;
    let failed = wait_module(&client, "wild", "fails", |module| module.failures > 0).await;
    assert!(failed.last_error.contains(words), "{:?}", failed.last_error);
    let good = wait_module(&client, "good", "runs", |module| module.up).await;
    // Of two that can do the same the first by name is asked.
    tag(&mut client, "n1").await;
    std::fs::write(rig.path("mended"), "").expect("file");
    wait_module(&client, "wild", "recovers by itself", |module| module.up).await;
    rig::wait_dsc(&client, "head", "/services/wild/state", Some("RUN")).await;
    let (before, after) = (good, module(&client, "good").await);
    assert_eq!(
        (before.pid, after.failures),
        (after.pid, 0),
        "the good one was left alone"
    );
    drop(head);
}

#[tokio::test]
async fn a_module_declares_mutates_and_is_configured_while_it_runs() {
    let rig = Rig::new("");
    let program = example();
    rig.configure(&format!(
        "[modules.good]\ncommand = [{program:?}]\nconfig = {{ greeting = \"a\" }}\n"
    ));
    let (head, mut client) = rig.start().await;
    let info = wait_module(&client, "good", "runs", |module| module.up).await;
    assert_eq!(
        (info.kind(), info.mutations, info.version.as_str()),
        (module_info::Kind::Process, 1, "example")
    );
    tag(&mut client, "n1").await;
    rig::change(
        &mut client,
        "head",
        vec![rig::set("/services/good/config/greeting", "hello")],
    )
    .await
    .expect("set");
    head.logged("greeting is \\\"hello\\\"").await;

    // Stopped and started as everything else is brought where it should be.
    rig::wait_dsc(&client, "head", "/services/good/state", Some("RUN")).await;
    rig::change(
        &mut client,
        "head",
        vec![rig::set("/services/good/state", "STOP")],
    )
    .await
    .expect("set");
    rig::wait_dsc(&client, "head", "/services/good/state", Some("STOP")).await;
    let stopped = module(&client, "good").await;
    assert_eq!((stopped.up, stopped.pid, stopped.failures), (false, 0, 0));
    let report = explain(&mut client, "head").await;
    assert_eq!(report.outcome(), v1::Outcome::Converged);
    rig::change(
        &mut client,
        "head",
        vec![rig::set("/services/good/state", "RUN")],
    )
    .await
    .expect("set");
    rig::wait_dsc(&client, "head", "/services/good/state", Some("RUN")).await;
    tag(&mut client, "n2").await;
    let (status, _) = head.terminate();
    assert!(status.success());
    assert!(
        !PathBuf::from(format!("/proc/{}", info.pid)).exists(),
        "no module outlives its head"
    );
}

#[tokio::test]
async fn a_socket_in_the_folder_is_a_module_until_it_goes() {
    let rig = Rig::new("");
    let folder = rig.path("run/modules.d");
    std::fs::create_dir_all(&folder).expect("folder");
    let socket = folder.join("site.sock");
    let mut process = tokio::process::Command::new(example())
        .env("KRAKEN_MODULE_SOCKET", &socket)
        .kill_on_drop(true)
        .spawn()
        .expect("the module starts");
    let (_head, mut client) = rig.start().await;
    eventually("the module is found", || async {
        let mut client = client.clone();
        modules(&mut client)
            .await
            .into_iter()
            .find(|module| module.name == "site" && module.up)
    })
    .await;
    tag(&mut client, "n1").await;
    process.kill().await.expect("kill");
    std::fs::remove_file(&socket).expect("socket");
    eventually("the module is forgotten", || async {
        let mut client = client.clone();
        let gone = !modules(&mut client)
            .await
            .iter()
            .any(|module| module.name == "site");
        gone.then_some(())
    })
    .await;
    let set = client
        .list_mutations(v1::ListMutationsRequest {})
        .await
        .expect("set")
        .into_inner();
    assert!(
        !set.mutations
            .iter()
            .any(|mutation| mutation.module == "site")
    );
}

#[tokio::test]
async fn a_service_is_restarted_stopped_and_started_over_restarts_of_the_head() {
    let rig = Rig::new("");
    let program = example();
    rig.configure(&format!("[modules.good]\ncommand = [{program:?}]\n"));
    let (head, client) = rig.start().await;
    let first = wait_module(&client, "good", "runs", |module| module.up).await;
    // Restarted: what was wanted is so again, and it is counted.
    kill(first.pid);
    let again = wait_module(&client, "good", "runs again", |module| {
        module.up && module.pid != first.pid
    })
    .await;
    assert_eq!((again.failures, again.state.as_str()), (1, "RUN"));
    let mut client = client;
    let state = |state| vec![rig::set("/services/good/state", state)];
    rig::change(&mut client, "head", state("STOP"))
        .await
        .expect("set");
    rig::wait_dsc(&client, "head", "/services/good/state", Some("STOP")).await;
    // A mutation does not start what an operator stopped; it says how to.
    let node = rig::node("n1", &[("/Platform", "tagged")]);
    rig::add(&mut client, vec![node]).await.expect("added");
    eventually("the failure is explained", || {
        let mut client = client.clone();
        async move {
            let explain = v1::ExplainRequest { nodes: "n1".into() };
            let reports = client.explain(explain).await.ok()?.into_inner().reports;
            let text = &reports[0].failures.first()?.text;
            text.contains("/services/good/state=RUN").then_some(())
        }
    })
    .await;
    // Taken back, the word means what it means after a restart of the head: it runs, and does what is asked of it.
    let nothing = v1::ValueChange {
        url: "/services/good/state".into(),
        value: None,
    };
    rig::change(&mut client, "head", vec![nothing.clone()])
        .await
        .expect("unset");
    rig::wait_dsc(&client, "n1", "/Platform", Some("tagged")).await;
    rig::wait_dsc(&client, "head", "/services/good/state", Some("RUN")).await;
    rig::change(&mut client, "head", state("STOP"))
        .await
        .expect("set");
    rig::wait_dsc(&client, "head", "/services/good/state", Some("STOP")).await;
    let node = rig::node("n2", &[("/Platform", "tagged")]);
    rig::add(&mut client, vec![node]).await.expect("added");
    head.kill();

    // Stopped stays stopped.
    let (_head, mut client) = rig.start().await;
    rig::wait_dsc(&client, "head", "/services/good/state", Some("STOP")).await;
    let stopped = module(&client, "good").await;
    assert_eq!(
        (stopped.up, stopped.pid, stopped.state.as_str()),
        (false, 0, "STOP")
    );
    rig::change(&mut client, "head", vec![nothing])
        .await
        .expect("unset");
    rig::wait_dsc(&client, "n2", "/Platform", Some("tagged")).await;
    rig::wait_dsc(&client, "head", "/services/good/state", Some("RUN")).await;
}

#[tokio::test]
async fn a_service_that_waits_to_be_restarted_is_started_when_it_is_needed() {
    let rig = Rig::new("");
    rig.configure(&format!("[modules.good]\ncommand = [{:?}]\n", example()));
    let (head, mut client) = rig.start().await;
    // It rests for longer each time, in the end for 4 s.
    for failures in 1..=4 {
        let pid = wait_module(&client, "good", "runs", |module| module.up)
            .await
            .pid;
        kill(pid);
        wait_module(&client, "good", "rests", |module| {
            module.failures == failures
        })
        .await;
    }
    tag(&mut client, "n1").await;
    head.logged("the module is started at once: a mutation needs it")
        .await;
    let module = module(&client, "good").await;
    assert_eq!((module.up, module.failures), (true, 4));
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid.try_into().expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
}

async fn reload(client: &mut Client) -> Result<v1::ReloadModulesResponse, tonic::Status> {
    let answer = client.reload_modules(v1::ReloadModulesRequest {}).await;
    answer.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn what_no_module_that_runs_can_change_is_explained() {
    let rig = Rig::new("");
    rig.configure("[modules.host]\ncommand = [\"/bin/false\"]\n");
    let (_head, mut client) = rig.start().await;
    wait_module(&client, "host", "fails", |module| module.failures > 0).await;
    let wanted = [("/host/product", "x"), ("/Platform", "only said")];
    rig::add(&mut client, vec![rig::node("n1", &wanted)])
        .await
        .expect("added");
    let report = explain(&mut client, "n1").await;
    assert_eq!(report.outcome(), v1::Outcome::NoPath, "{report:?}");
    let why = "nothing that runs can change /host/product; module host is RESTARTING (";
    assert!(report.reason.starts_with(why), "{report:?}");
    assert_eq!(report.desired, [rig::set("/host/product", "x")]);
    rig::wait_dsc(&client, "head", "/services/host/state", Some("RESTARTING")).await;
    let head = explain(&mut client, "head").await;
    let why = "module host is RESTARTING (its process ended (exit status: 1)";
    assert_eq!(head.holds[0].kind, "module", "{head:?}");
    assert!(head.holds[0].text.starts_with(why), "{head:?}");
}

async fn explain(client: &mut Client, node: &str) -> v1::Report {
    let request = v1::ExplainRequest { nodes: node.into() };
    let answer = client.explain(request).await.expect("explain");
    answer.into_inner().reports.remove(0)
}

#[tokio::test]
async fn modules_follow_the_configuration_file_while_the_head_runs() {
    let rig = Rig::new("");
    let program = example();
    let section =
        |name: &str, more: &str| format!("[modules.{name}]\ncommand = [{program:?}]\n{more}\n");
    let (stays, goes) = (section("stays", ""), section("goes", ""));
    rig.configure(&(stays.clone() + &goes + &section("told", "config = { greeting = \"a\" }")));
    let (head, mut client) = rig.start().await;
    let up = |module: &ModuleInfo| module.up;
    let stayed = wait_module(&client, "stays", "runs", up).await;
    let told = wait_module(&client, "told", "runs", up).await;
    wait_module(&client, "goes", "runs", up).await;
    tag(&mut client, "n1").await;

    // One comes, one goes, one is told, one is left alone.
    let hello = section("told", "config = { greeting = \"hello\" }");
    rig.configure(&(stays.clone() + &section("comes", "config = { tag = \"a\" }") + &hello));
    let done = reload(&mut client).await.expect("reloaded");
    assert_eq!(
        (done.added, done.removed, done.restarted, done.configured),
        (
            vec!["comes".into()],
            vec!["goes".into()],
            vec![],
            vec!["told".into()]
        )
    );
    head.logged("greeting is \\\"hello\\\"").await;
    let came = wait_module(&client, "comes", "runs", up).await;
    let names: Vec<String> = modules(&mut client)
        .await
        .into_iter()
        .map(|module| module.name)
        .collect();
    assert!(!names.contains(&"goes".to_owned()), "{names:?}");
    rig::wait_dsc(&client, "head", "/services/goes/state", None).await;
    let same = (
        module(&client, "stays").await.pid,
        module(&client, "told").await.pid,
    );
    assert_eq!(same, (stayed.pid, told.pid), "neither was started again");
    let node = rig::node("n2", &[("/Platform", "a")]);
    rig::add(&mut client, vec![node]).await.expect("added");
    rig::wait_dsc(&client, "n2", "/Platform", Some("a")).await;

    // A file that is not good changes nothing, and says where.
    rig.configure(&(stays.clone() + &section("comes", "memory = 7")));
    let refused = reload(&mut client).await.expect_err("an unknown key");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(
        refused
            .message()
            .contains("there is no key modules.comes.memory"),
        "{refused:?}"
    );
    rig.configure(&(stays.clone() + &section("power", "")));
    let refused = reload(&mut client).await.expect_err("a name that is taken");
    assert!(
        refused.message().contains("a module of its own"),
        "{refused:?}"
    );
    assert_eq!(module(&client, "comes").await.pid, came.pid);

    // Another environment is another process; SIGHUP does the same, and the rest of the file is named.
    rig.configure(
        &(stays
            + &section("comes", "env = { SPEED = \"1\" }")
            + &hello
            + "[log]\nlevel = \"debug\"\n"),
    );
    head.signal(nix::sys::signal::Signal::SIGHUP);
    let again = wait_module(&client, "comes", "runs anew", |module| {
        module.up && module.pid != came.pid
    })
    .await;
    assert_eq!(again.failures, 0, "a new configuration is no failure");
    let said = head.log().matches("modules are bounded by").count();
    let by = again.limited_by.as_str();
    assert!(
        said == 1 && ["cgroup", "rlimits"].contains(&by),
        "{said} {by}"
    );
    let done = reload(&mut client).await.expect("reloaded");
    assert_eq!(
        (done.restarted, done.at_next_start),
        (vec![], vec!["log.level".to_owned()])
    );
}

#[tokio::test]
async fn f32_a_module_that_crashes_hurts_nobody() {
    hurts_nobody("crash", "", "its process ended (signal: 6").await;
}

#[tokio::test]
async fn f32_a_module_that_exits_with_0_is_started_again() {
    hurts_nobody("exit", "", "its process ended (exit status: 0)").await;
}

#[tokio::test]
async fn f32_a_module_that_hangs_is_found_out() {
    hurts_nobody("hang", "", "no answer").await;
}

#[tokio::test]
async fn f32_a_module_that_answers_no_ping_is_found_out() {
    hurts_nobody("mute", "", "no answer to a ping").await;
}

#[tokio::test]
async fn f32_a_module_that_does_not_serve_is_told_nothing_until_it_does() {
    let rig = Rig::new("");
    let (program, until) = (example(), rig.path("mended"));
    rig.configure(&format!(
        "[modules.good]\ncommand = [{program:?}]\n\
         [modules.wild]\ncommand = [{program:?}]\n\
         config = {{ misbehave = \"unwell\", until = {until:?}, tag = \"wild\" }}\n",
    ));
    let (_head, mut client) = rig.start().await;
    let held = wait_module(&client, "wild", "is held", |module| {
        module.health == "not serving"
    })
    .await;
    assert!(
        !held.up && held.last_error.contains("does not serve"),
        "{held:?}"
    );
    rig::add(&mut client, vec![rig::node("n1", &[("/Platform", "wild")])])
        .await
        .expect("added");
    // The good one works, while the mutation waits for the other.
    tag(&mut client, "n2").await;
    let report = explain(&mut client, "n1").await;
    assert!(report.steps[0].in_flight, "{report:?}");
    std::fs::write(&until, "").expect("file");
    rig::wait_dsc(&client, "n1", "/Platform", Some("wild")).await;
    let serves = module(&client, "wild").await;
    assert_eq!(
        (
            serves.up,
            serves.health.as_str(),
            serves.failures,
            serves.pid
        ),
        (true, "serving", 0, held.pid)
    );
}

#[tokio::test]
async fn f32_a_module_that_talks_garbage_is_cut_off() {
    hurts_nobody("garbage", "", "/PhysState is not declared").await;
}

#[tokio::test]
async fn f32_an_oversized_message_is_refused() {
    hurts_nobody("large", "", "message length too large").await;
}

#[tokio::test]
async fn f32_a_module_that_forks_is_ended_with_all_its_processes() {
    hurts_nobody("fork", "pids = 12", "processes and threads, more than 12").await;
}

/// It would have 20 s to listen.
#[tokio::test]
async fn f32_a_module_that_forks_before_it_listens_is_ended() {
    let rig = Rig::new("");
    let forks = "for i in $(seq 30); do sleep 60 & done; wait";
    rig.configure(&format!(
        "[modules.wild]\ncommand = [\"/bin/sh\", \"-c\", {forks:?}]\nlimits = {{ pids = 12 }}\n"
    ));
    let (_head, client) = rig.start().await;
    let failed = wait_module(&client, "wild", "fails", |module| module.failures > 0).await;
    let words = "processes and threads, more than 12";
    assert!(failed.last_error.contains(words), "{:?}", failed.last_error);
}

#[tokio::test]
async fn f32_a_module_that_eats_memory_is_ended() {
    hurts_nobody("eat", "memory = \"64MiB\"", "of memory, more than 64").await;
}

#[tokio::test]
async fn f32_a_flood_is_cut_at_the_rate() {
    let (_rig, head, mut client) = head_with("flood", "discoveries_per_second = 50").await;
    head.logged("it reports more than 50 values a second").await;
    wait_module(&client, "wild", "cut", |module| module.values_cut > 100).await;
    // The head answers and the other module works while it lasts.
    wait_module(&client, "good", "runs", |module| module.up).await;
    rig::add(&mut client, vec![rig::node("n1", &[])])
        .await
        .expect("added");
    let bad = module(&client, "wild").await;
    assert_eq!(bad.failures, 0, "{}", bad.last_error);
}
