//! Strangers, nodes and modules that mean harm, against the real head: one test a threat (engine/docs/faults.md).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use engine::state::{Change, NodeId, Value, Values};
use engine::sync::join::RefuseReason;
use engine::sync::message::{Frame, Snapshot};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::v1::{self, value::Kind};
use tonic::Code;

use crate::child::{By, Credentials};
use crate::modules::{example, wait_module};
use crate::plant::{Plant, metric};
use crate::rig::{
    Head, Rig, WAIT, add, change, connect, delete, eventually, list, node, set, text, wait_dsc,
};

/// What a child says of itself.
fn says(version: u64, values: &[(&str, &str)]) -> Frame {
    let mut all = Values::default();
    let change =
        |(url, text): &(&str, &str)| Change::set(url.parse().expect("a url"), Value::from(*text));
    all.apply(values.iter().map(change));
    Frame::Snapshot(Snapshot {
        version,
        values: all.to_changes(),
        digest: all.digest().short(),
        signature: Vec::new(),
        have: 0,
    })
}

async fn refused(plant: &Plant) -> u64 {
    let count = metric(&plant.rig, "kraken_refused_total").await;
    count.parse().expect("a count")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s09_a_node_speaks_for_itself_only_and_never_of_what_it_shall_be() {
    let plant = Plant::new();
    let (_head, mut client) = plant.rig.start().await;
    plant.enrol(&mut client).await;
    let other = [("/ipv4/boot/mac", "52:54:00:4b:00:02")];
    add(&mut client, vec![node("n2", &other)]).await.unwrap();
    let n2 = list(&mut client, "n2").await.unwrap();
    let n2_id = NodeId::from_slice(&n2[0].id).unwrap();
    let grant = plant.boot().await;
    let mut credentials = Credentials::new();
    let child = plant.join(&credentials, By::Grant(&grant)).await.unwrap();
    wait_dsc(&client, "n1", "/RunState", Some("SYNC")).await;
    let cfg = |node: &v1::Node| (node.cfg.clone(), node.cfg_revision);
    let before = cfg(&list(&mut client, "n1").await.unwrap()[0]);

    // Its Cfg, its parent's word, and no url at all, beside something true.
    let lies = [
        ("/ipv4/boot/mac", "52:54:00:4b:00:02"),
        ("/PhysState", "POWER_OFF"),
        ("/no/such", "1"),
        ("/image/state", "ACTIVE"),
    ];
    child.send_stream(&says(1, &lies)).await;
    wait_dsc(&client, "n1", "/image/state", Some("ACTIVE")).await;
    assert!(refused(&plant).await >= 1);
    let after = list(&mut client, "n1").await.unwrap();
    assert_eq!(cfg(&after[0]), before);
    let dsc = after[0].dsc.as_ref();
    assert_eq!(text(dsc, "/PhysState").as_deref(), Some("POWER_ON"));
    assert_eq!(
        (text(dsc, "/no/such"), text(dsc, "/ipv4/boot/mac")),
        (None, None)
    );
    // With its certificate it is nobody else.
    credentials.certificate = Some(child.accept.certificate.clone());
    let as_other = plant.join(&credentials, By::Certificate(n2_id)).await;
    assert_eq!(as_other.err().unwrap().0, RefuseReason::Certificate);
    let n2_after = list(&mut client, "n2").await.unwrap();
    assert_eq!(
        (cfg(&n2[0]), &n2[0].dsc),
        (cfg(&n2_after[0]), &n2_after[0].dsc)
    );
    assert_eq!(plant.switched(), "on ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_headers_streams_and_compression_have_their_limits() {
    let rig = Rig::new("");
    let (_head, mut client) = rig.start().await;
    let with = |name: &'static str, value: String| {
        let mut request = tonic::Request::new(v1::GetVersionRequest {});
        let value = value.parse().expect("a header");
        request.metadata_mut().insert(name, value);
        request
    };
    // A compressed message could be anything once it is not.
    let packed = with("grpc-encoding", "gzip".into());
    let refused = client.get_version(packed).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    let small = with("x-note", "n".repeat(4 << 10));
    client.get_version(small).await.unwrap();
    let large = with("x-note", "n".repeat(64 << 10));
    client.get_version(large).await.unwrap_err();
    // As many streams as a connection may have; what is more waits, and another connection does not.
    let mut busy = connect(&rig.path("run/api.sock")).await.unwrap();
    let mut watching = Vec::new();
    for _ in 0..64 {
        let nodes = String::new();
        let stream = busy.watch(v1::WatchRequest { nodes, after: 0 }).await;
        watching.push(stream.unwrap());
    }
    let mut queued = busy.clone();
    let one_more =
        tokio::spawn(async move { queued.get_version(v1::GetVersionRequest {}).await.is_ok() });
    let mut client = connect(&rig.path("run/api.sock")).await.unwrap();
    client.get_version(v1::GetVersionRequest {}).await.unwrap();
    assert!(!one_more.is_finished());
    watching.pop();
    assert!(one_more.await.unwrap());
}

/// Sends these bytes as the body of a call, which no client of ours would, and returns the gRPC status of the answer.
async fn raw(rig: &Rig, method: &str, body: Vec<u8>) -> Code {
    let stream = tokio::net::UnixStream::connect(rig.path("run/api.sock"));
    let io = TokioIo::new(stream.await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = axum::http::Request::post(format!("http://head/kraken.v1.Admin/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(axum::body::Body::from(body))
        .unwrap();
    let answer = tokio::time::timeout(WAIT, sender.send_request(request));
    let answer = answer.await.expect("an answer").expect("a response");
    let status = answer
        .headers()
        .get("grpc-status")
        .expect("refused at once");
    Code::from_bytes(status.as_bytes())
}

/// A gRPC frame that says that its message has `declared` bytes.
fn framed(declared: usize, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(declared).unwrap().to_be_bytes());
    frame.extend(message);
    frame
}

/// Most memory that the head ever had.
fn peak_kib(head: &Head) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", head.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let digits = line.unwrap().trim().trim_end_matches(" kB");
    digits.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f45_bytes_that_are_no_message_are_refused_within_little_memory() {
    let rig = Rig::new("");
    let (head, mut client) = rig.start().await;
    add(&mut client, vec![node("n1", &[])]).await.unwrap();
    let before = list(&mut client, "n1").await.unwrap();
    let peak = peak_kib(&head);
    // More than there is, and more than anybody may send.
    let gib = raw(&rig, "SetNodes", framed(1 << 30, b"x")).await;
    assert_eq!(gib, Code::OutOfRange);
    let cut = raw(&rig, "SetNodes", framed(100, b"x")).await;
    assert_ne!(cut, Code::Ok);
    // A text that is none, a field that runs over the end, a group that never ends, a wire type that does not exist.
    for bytes in [
        &[0x0a, 2, 0xff, 0xfe][..],
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1],
        &[0x0b, 0x0b, 0x0b, 0x0b],
        &[0x0f, 1],
        &[0xff; 64],
    ] {
        let code = raw(&rig, "SetNodes", framed(bytes.len(), bytes)).await;
        assert!(
            [Code::Internal, Code::InvalidArgument].contains(&code),
            "{bytes:?}: {code}"
        );
    }
    // Sense in form only, with the field that is at fault.
    let number = |kind| v1::ValueChange {
        url: "/Platform".into(),
        value: Some(v1::Value { kind: Some(kind) }),
    };
    for (kind, words) in [
        (Kind::FloatValue(f64::NAN), "changes[0]"),
        (Kind::IntValue(i64::MIN), "changes[0]"),
        (Kind::TextValue("x".repeat(70_000)), "changes[0]"),
    ] {
        let refused = change(&mut client, "n1", vec![number(kind)])
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(words), "{refused}");
    }
    let twice = ["a", "b"].map(|text| set("/Platform", text));
    let refused = change(&mut client, "n1", twice.to_vec()).await.unwrap_err();
    assert!(refused.message().contains("changes[1]"), "{refused}");
    let after = list(&mut client, "n1").await.unwrap();
    assert_eq!(after[0].cfg, before[0].cfg);
    assert_eq!(after[0].cfg_revision, before[0].cfg_revision);
    let grown = peak_kib(&head) - peak;
    assert!(
        grown < 32 << 10,
        "{grown} KiB more for messages of a few bytes"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s25_a_node_neither_forges_nor_fills_the_log() {
    const SHOUTS: u64 = 400;
    let plant = Plant::new();
    let (head, mut client) = plant.rig.start().await;
    plant.enrol(&mut client).await;
    let child = plant.boot_and_join().await;
    wait_dsc(&client, "n1", "/RunState", Some("SYNC")).await;
    let url = "/image/last_error";
    for version in 1..=SHOUTS {
        let shout = format!("{version}\nERROR forged line\x1b[31m{}", "x".repeat(2_000));
        child.send_stream(&says(version, &[(url, &shout)])).await;
    }
    let mut version = SHOUTS;
    eventually("the last of them", || {
        version += 1;
        let (mut client, last) = (client.clone(), says(version, &[(url, "hoarse")]));
        let child = &child;
        async move {
            // Said again and again, so that the node is not silent meanwhile.
            child.send_stream(&last).await;
            let found = list(&mut client, "n1").await.ok()?;
            (text(found[0].dsc.as_ref(), url)? == "hoarse").then_some(())
        }
    })
    .await;
    // The log is behind the tree: it has it all when it has what came after.
    delete(&mut client, "n1").await.unwrap();
    head.logged("node deleted").await;
    let log = head.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(url)).collect();
    assert!((1..=100).contains(&lines.len()), "{} lines", lines.len());
    assert!(lines.iter().all(|line| line.len() < 600), "cut");
    assert!(!log.contains('\x1b') && !log.lines().any(|line| line.starts_with("ERROR")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s28_a_module_with_a_user_of_its_own_reads_nothing_of_the_head() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root gives a module another user");
        return;
    }
    let rig = Rig::new("");
    let open = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // The test's folder is the one thing on its way that a real head does not have.
    open(&rig.path(""), 0o711);
    let (program, report) = (rig.path("module"), rig.path("report"));
    std::fs::copy(example(), &program).unwrap();
    open(&program, 0o755);
    std::fs::create_dir(&report).unwrap();
    open(&report, 0o777);
    let path = |name: &str| rig.path(name).display().to_string();
    let others = "/proc/$PPID/environ";
    let script = format!(
        "cd {report}; id -u > uid; for file in {db} {key} {token} {others}; do cat $file > /dev/null 2>&1 && echo $file >> read; done; \
         cat /proc/$PPID/comm > parent; exec {program}",
        report = report.display(),
        db = path("state/kraken.db"),
        key = path("keys/ca.key"),
        token = path("state/admin.token"),
        program = program.display(),
    );
    rig.configure(&format!(
        "[modules.spy]\ncommand = [\"sh\", \"-c\", {script:?}]\nuser = \"nobody\"\n"
    ));
    let (_head, client) = rig.start().await;
    wait_module(&client, "spy", "runs", |module| module.up).await;
    let said = |name: &str| std::fs::read_to_string(report.join(name)).unwrap_or_default();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    assert_eq!(said("uid").trim(), nobody.uid.to_string());
    assert!(
        said("parent").starts_with("kraken-head"),
        "the script ran to its end"
    );
    assert_eq!(said("read"), "");
}
