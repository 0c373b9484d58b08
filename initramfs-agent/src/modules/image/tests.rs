use std::process::{Command, Stdio};
use std::time::Duration;

use engine::Engine;
use engine::driver::{self, Clock, Handle};
use engine::engine::{EngineConfig, Role};
use engine::event::{ConnId, Input};
use engine::mutation::progress::Healing;
use engine::mutation::{Mutation, MutationContext, MutationSet, UrlChange};
use engine::state::{NodeId, Values};
use engine::sync::join::Attach;
use engine::sync::{SessionId, SyncConfig};
use tokio::time::{Instant, sleep};

use super::*;
use crate::image::process::start_time;

const NODE: NodeId = NodeId::from_bytes([1; 16]);

fn run<T>(test: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test())
}

fn mutations() -> MutationSet {
    let mutation = |name: &str, from: Option<&str>, to: &str| {
        Mutation::new(
            MutationId::new("image", name),
            MutationContext::SelfNode,
            vec![UrlChange {
                url: STATE.parse().unwrap(),
                from: vec![from.map(Value::from)],
                to: Some(Value::from(to)),
            }],
        )
    };
    MutationSet {
        generation: 1,
        mutations: vec![
            mutation("ACTIVEtoIDLE", Some("ACTIVE"), "IDLE"),
            mutation("ERRORtoACTIVE", Some("ERROR"), "ACTIVE"),
            mutation("ERRORtoIDLE", Some("ERROR"), "IDLE"),
            mutation("IDLEtoACTIVE", Some("IDLE"), "ACTIVE"),
            mutation("UKtoIDLE", None, "IDLE"),
        ],
        ..MutationSet::default()
    }
}

/// An agent's engine that believes to be attached, wants `goal`, and whose mutations go to the module.
fn engine(goal: &str, believed: &[(&str, &str)], mailbox: mpsc::Sender<Message>) -> Handle {
    let (handle, inbox) = driver::channel();
    let clock = Clock::start();
    let config = EngineConfig {
        me: NODE,
        role: Role::Agent,
        sync: SyncConfig::default(),
        healing: Healing::default(),
        seed: 1,
    };
    let engine = Engine::new(config, crate::modules::schema::schema(), clock.now());
    let perform = move |output| {
        if let engine::event::Output::Fire(fire) = output {
            let _ = mailbox.try_send(Message::Fire(Box::new(fire)));
        }
    };
    tokio::spawn(driver::run(
        engine,
        clock,
        inbox,
        perform,
        std::future::pending(),
    ));
    let attach = Attach {
        session: SessionId(1),
        conn: ConnId(1),
        parent: NodeId::from_bytes([2; 16]),
        name: "n1".parse().unwrap(),
        epoch: 1,
        cfg: (
            1,
            vec![Change::set(STATE.parse().unwrap(), Value::from(goal))],
        ),
        cfg_signature: Vec::new(),
        dsc: believed
            .iter()
            .map(|(url, value)| Change::set(url.parse().unwrap(), Value::from(*value)))
            .collect(),
        mutations: mutations(),
        sync: SyncConfig::default(),
    };
    assert!(handle.try_input(Input::Attached(attach)));
    handle
}

async fn until(handle: &Handle, what: &str, test: impl Fn(&Values) -> bool) -> Values {
    let deadline = Instant::now() + Duration::from_secs(10);
    let reporter = Reporter::new(handle.clone(), NODE);
    loop {
        let dsc = reporter.believed().await;
        if test(&dsc) {
            return dsc;
        }
        assert!(Instant::now() < deadline, "{what}: {dsc:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

struct Node {
    dir: tempfile::TempDir,
    mailbox: mpsc::Sender<Message>,
    receiver: Option<mpsc::Receiver<Message>>,
    attached: tokio::sync::watch::Sender<u64>,
    follow: Attached,
}

fn node() -> Node {
    let (mailbox, receiver) = mpsc::channel(MAILBOX);
    let (attached, follow) = Attached::channel();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("exits")).unwrap();
    Node {
        dir,
        mailbox,
        receiver: Some(receiver),
        attached,
        follow,
    }
}

impl Node {
    async fn start(&mut self, handle: &Handle) {
        self.start_with(handle, None).await;
    }

    async fn start_with(&mut self, handle: &Handle, http: Option<SocketAddr>) {
        let setup = Setup {
            http,
            run_dir: self.dir.path().to_path_buf(),
            cluster_key: [0; 32],
        };
        let module = ImageModule::new(setup, Reporter::new(handle.clone(), NODE)).await;
        tokio::spawn(module.run(self.receiver.take().unwrap(), self.follow.clone()));
        self.attached.send_modify(|count| *count += 1);
    }
}

fn running_image(node: &Node) -> (std::process::Child, Record) {
    let child = Command::new("sleep")
        .arg("1000")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let record = Record {
        name: "demo".into(),
        digest: "d".repeat(64),
        pid: child.id(),
        start_time: start_time(child.id()).unwrap(),
        deaths: 0,
    };
    record.save(node.dir.path()).unwrap();
    fs::write(
        node.dir.path().join("exits").join(child.id().to_string()),
        "",
    )
    .unwrap();
    (child, record)
}

#[test]
fn a_fresh_node_is_idle_once_somebody_asks() {
    run(async || {
        let mut node = node();
        let handle = engine("IDLE", &[], node.mailbox.clone());
        node.start(&handle).await;
        until(&handle, "idle", |dsc| dsc.text(STATE) == Some("IDLE")).await;
    });
}

#[test]
fn an_image_of_an_earlier_agent_is_adopted_and_its_death_seen() {
    run(async || {
        let mut node = node();
        let (mut child, record) = running_image(&node);
        // No path leads to this goal, so nothing is fired.
        let handle = engine("ERROR", &[], node.mailbox.clone());
        node.start(&handle).await;
        let dsc = until(&handle, "adopted", |dsc| dsc.text(STATE) == Some("ACTIVE")).await;
        assert_eq!(dsc.text("/image/digest"), Some(record.digest.as_str()));

        fs::write(
            node.dir.path().join("exits").join(record.pid.to_string()),
            "signal 9",
        )
        .unwrap();
        child.kill().unwrap();
        let dsc = until(&handle, "died", |dsc| {
            dsc.text(STATE) == Some("ERROR") && dsc.get("/image/deaths").is_some()
        })
        .await;
        assert_eq!(
            dsc.text("/image/last_error"),
            Some("the image's init ended by itself: signal 9")
        );
        assert_eq!(dsc.get("/image/deaths"), Some(&Value::Int(1)));
        assert!(dsc.get("/image/digest").is_none());
        assert_eq!(Record::load(node.dir.path()), None);
        child.wait().unwrap();
    });
}

#[test]
fn an_image_that_died_while_no_agent_ran_is_an_error_and_counts() {
    run(async || {
        let mut node = node();
        let (mut child, record) = running_image(&node);
        child.kill().unwrap();
        child.wait().unwrap();
        fs::write(
            node.dir.path().join("exits").join(record.pid.to_string()),
            "exit status 3",
        )
        .unwrap();
        fs::write(node.dir.path().join(DEATHS), "4").unwrap();
        let handle = engine("ERROR", &[(STATE, "ACTIVE")], node.mailbox.clone());
        node.start(&handle).await;
        let dsc = until(&handle, "died", |dsc| dsc.text(STATE) == Some("ERROR")).await;
        assert!(
            dsc.text("/image/last_error")
                .unwrap()
                .ends_with("while no agent ran: exit status 3"),
            "{dsc:?}"
        );
        assert_eq!(dsc.get("/image/deaths"), Some(&Value::Int(5)));
    });
}

#[test]
fn a_running_image_is_stopped() {
    run(async || {
        let mut node = node();
        let (mut child, _) = running_image(&node);
        let handle = engine("IDLE", &[], node.mailbox.clone());
        node.start(&handle).await;
        until(&handle, "stopped", |dsc| dsc.text(STATE) == Some("IDLE")).await;
        assert!(!child.wait().unwrap().success());
        assert_eq!(Record::load(node.dir.path()), None);
    });
}

#[test]
fn what_the_parent_believes_of_an_image_that_is_not_here_is_corrected() {
    run(async || {
        let mut node = node();
        let handle = engine(
            "IDLE",
            &[(STATE, "ACTIVE"), ("/image/name", "demo")],
            node.mailbox.clone(),
        );
        until(&handle, "seeded", |dsc| dsc.text(STATE).is_some()).await;
        node.start(&handle).await;
        let dsc = until(&handle, "corrected", |dsc| dsc.text(STATE) == Some("IDLE")).await;
        assert!(dsc.get("/image/name").is_none());
    });
}

#[test]
fn what_cannot_be_done_is_an_error_with_its_reason() {
    run(async || {
        let mut node = node();
        let handle = engine("ACTIVE", &[], node.mailbox.clone());
        node.start(&handle).await;
        let dsc = until(&handle, "failed", |dsc| {
            dsc.text("/image/last_error").is_some()
        })
        .await;
        assert_eq!(
            dsc.text("/image/last_error"),
            Some("no image is named: set /image/name")
        );
        assert_eq!(dsc.text(STATE), Some("ERROR"));
    });
}

#[test]
fn the_end_of_the_machine_stops_the_image() {
    run(async || {
        let mut node = node();
        let (mut child, _) = running_image(&node);
        let handle = engine("ACTIVE", &[], node.mailbox.clone());
        node.start(&handle).await;
        let (done, answer) = oneshot::channel();
        node.mailbox.send(Message::Shutdown(done)).await.unwrap();
        answer.await.unwrap();
        assert!(child.try_wait().unwrap().is_some());
    });
}

#[test]
fn fetching_is_interrupted_and_leaves_the_node_idle() {
    run(async || {
        let mut node = node();
        // No path leads to this goal, so the engine fires nothing of its own.
        let handle = engine("NOWHERE", &[], node.mailbox.clone());
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        node.start_with(&handle, Some(silent.local_addr().unwrap()))
            .await;
        let mutation = MutationId::new("image", "IDLEtoACTIVE");
        let fire = Fire {
            node: NODE,
            name: "n1".parse().unwrap(),
            mutation: mutation.clone(),
            attempt: 9,
            deadline: None,
            cfg: [("/image/name".parse().unwrap(), Value::from("demo"))]
                .into_iter()
                .collect(),
            dsc: Values::default(),
        };
        node.mailbox
            .send(Message::Fire(Box::new(fire)))
            .await
            .unwrap();
        let _connection = silent.accept().await.unwrap();
        let stale = Message::Interrupt(mutation.clone(), 8);
        node.mailbox.send(stale).await.unwrap();
        node.mailbox
            .send(Message::Interrupt(mutation, 9))
            .await
            .unwrap();
        let dsc = until(&handle, "idle", |dsc| dsc.text(STATE) == Some("IDLE")).await;
        assert_eq!(dsc.text("/image/last_error"), None);
    });
}
