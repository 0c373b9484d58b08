//! The admin API over its real sockets: all or nothing, secrets, rights, limits.

use proto::v1;
use tonic::Code;
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;

use crate::rig::{Client, Rig, add, change, delete, get, list, node, set, text, version, wait_dsc};

#[tokio::test]
async fn writes_are_all_or_nothing_and_rise() {
    let rig = Rig::new("");
    let (_head, mut client) = rig.start().await;
    let nodes = (1..=3)
        .map(|i| {
            node(
                &format!("n{i}"),
                &[("/ipv4/boot/address", &format!("10.0.0.{i}/24"))],
            )
        })
        .collect();
    let added = add(&mut client, nodes).await.unwrap();
    assert_eq!(
        (added.revision, added.nodes.join(",")),
        (2, "n1,n2,n3".into())
    );
    let done = change(&mut client, "n[1-3]!n2", vec![set("/Platform", "vbox")])
        .await
        .unwrap();
    assert_eq!((done.revision, done.nodes.join(",")), (3, "n1,n3".into()));

    // One bad part, and nothing of it happens.
    let clash = change(
        &mut client,
        "n[1-2]",
        vec![
            set("/Platform", "x"),
            set("/ipv4/boot/address", "10.0.0.3/24"),
        ],
    )
    .await;
    let clash = clash.unwrap_err();
    assert_eq!(clash.code(), Code::AlreadyExists);
    assert!(clash.message().contains("n3"), "{clash}");
    let unknown = change(&mut client, "n[2-5]", vec![set("/Platform", "x")])
        .await
        .unwrap_err();
    assert_eq!(
        (unknown.code(), unknown.message()),
        (Code::NotFound, "there is no node n[4-5]")
    );
    let typo = change(
        &mut client,
        "n1",
        vec![set("/Platform", "x"), set("/pxe/sate", "WAIT")],
    )
    .await
    .unwrap_err();
    assert_eq!(typo.code(), Code::InvalidArgument);
    assert!(
        typo.message().contains("did you mean /pxe/state?"),
        "{typo}"
    );
    let twice = add(&mut client, vec![node("n8", &[]), node("n1", &[])])
        .await
        .unwrap_err();
    assert_eq!(twice.code(), Code::AlreadyExists);
    let none = change(&mut client, " ", vec![set("/Platform", "x")])
        .await
        .unwrap_err();
    assert!(none.message().contains("all nodes are @*"), "{none}");
    let all = list(&mut client, "n*").await.unwrap();
    let platforms: Vec<_> = all
        .iter()
        .map(|node| text(node.cfg.as_ref(), "/Platform"))
        .collect();
    assert_eq!(platforms, [Some("vbox".into()), None, Some("vbox".into())]);

    // A stale reader does not overwrite.
    let options = |if_revision| {
        Some(v1::WriteOptions {
            reason: "ticket 7".into(),
            if_revision,
            ..v1::WriteOptions::default()
        })
    };
    let request = |if_revision| v1::SetNodesRequest {
        nodes: "n1".into(),
        changes: vec![set("/Platform", "new")],
        add_groups: vec!["rack1".into()],
        options: options(if_revision),
        ..v1::SetNodesRequest::default()
    };
    assert_eq!(
        client.set_nodes(request(2)).await.unwrap_err().code(),
        Code::Aborted
    );
    assert_eq!(
        client
            .set_nodes(request(3))
            .await
            .unwrap()
            .into_inner()
            .revision,
        4
    );
    assert_eq!(list(&mut client, "@rack1").await.unwrap()[0].name, "n1");
    let unset = v1::ValueChange {
        url: "/Platform".into(),
        value: None,
    };
    change(&mut client, "@rack1", vec![unset]).await.unwrap();
    assert_eq!(
        text(
            list(&mut client, "n1").await.unwrap()[0].cfg.as_ref(),
            "/Platform"
        ),
        None
    );
    let deleted = delete(&mut client, "n[1-2]").await.unwrap();
    assert_eq!(deleted.nodes, ["n1", "n2"]);
    let head = delete(&mut client, "head").await.unwrap_err();
    assert_eq!(head.code(), Code::InvalidArgument);
    assert_eq!(list(&mut client, "").await.unwrap().len(), 2);
}

#[tokio::test]
async fn secrets_are_written_but_never_read() {
    let rig = Rig::new("");
    let (head, mut client) = rig.start().await;
    add(
        &mut client,
        vec![node(
            "n1",
            &[("/power/password", "hunter2"), ("/power/username", "root")],
        )],
    )
    .await
    .unwrap();
    let read = list(&mut client, "n1").await.unwrap().remove(0);
    let cfg = read.cfg.unwrap();
    assert_eq!(
        text(Some(&cfg), "/power/password").as_deref(),
        Some("(secret)")
    );
    // Read, edit, write back: the secret stays as it is.
    change(&mut client, "n1", cfg.values.clone()).await.unwrap();
    drop(client);
    head.terminate();
    let db = rusqlite::Connection::open(rig.path("state/kraken.db")).unwrap();
    let texts = |query: &str| -> Vec<String> {
        let mut statement = db.prepare(query).unwrap();
        statement
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap()
    };
    assert_eq!(
        texts("SELECT text FROM cfg WHERE url = '/power/password'"),
        ["(secret)"]
    );
    assert!(
        !texts("SELECT text FROM history")
            .concat()
            .contains("hunter2")
    );
    let value: Vec<u8> = db
        .query_row(
            "SELECT value FROM cfg WHERE url = '/power/password'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert!(value.windows(7).any(|window| window == b"hunter2"));
}

async fn freezes(client: &mut Client) -> Vec<v1::Hold> {
    let request = v1::ExplainRequest { nodes: "n1".into() };
    let explained = client.explain(request).await.unwrap().into_inner();
    let frozen = |hold: &v1::Hold| hold.kind == "frozen";
    explained.reports[0]
        .holds
        .iter()
        .filter(|hold| frozen(hold))
        .cloned()
        .collect()
}

#[tokio::test]
async fn freezing_holds_and_explain_says_so() {
    let power = "[power]\npoll = \"100ms\"\n[power.command]\non = [\"true\"]\noff = [\"true\"]\nstatus = [\"echo\", \"off\"]\n";
    let rig = Rig::new(power);
    let (_head, mut client) = rig.start().await;
    let freeze = |nodes: &str, freeze| v1::FreezeRequest {
        nodes: nodes.into(),
        freeze,
        options: None,
    };
    client.freeze(freeze("", true)).await.unwrap();
    assert!(version(&mut client).await.frozen);
    add(
        &mut client,
        vec![node(
            "n1",
            &[("/PhysState", "POWER_ON"), ("/power/driver", "COMMAND")],
        )],
    )
    .await
    .unwrap();
    wait_dsc(&client, "n1", "/PhysState", Some("POWER_OFF")).await;
    let explain = client
        .explain(v1::ExplainRequest { nodes: "n1".into() })
        .await
        .unwrap()
        .into_inner();
    let report = &explain.reports[0];
    assert_eq!(report.outcome, i32::from(v1::Outcome::Held));
    assert_eq!(report.steps[0].mutation, "power/OFFtoON");
    assert!(
        report.holds.iter().any(|hold| hold.kind == "frozen"),
        "{report:?}"
    );
    let grouped = v1::SetNodesRequest {
        nodes: "n1".into(),
        add_groups: vec!["rack3".into()],
        ..v1::SetNodesRequest::default()
    };
    client.set_nodes(grouped).await.unwrap();
    for bad in ["@rack9", "n1,@rack9"] {
        assert!(client.freeze(freeze(bad, true)).await.is_err(), "{bad}");
    }
    let heat = v1::FreezeRequest {
        options: Some(v1::WriteOptions {
            reason: "heat".into(),
            ..v1::WriteOptions::default()
        }),
        ..freeze("@rack3", true)
    };
    let froze = client.freeze(heat).await.unwrap().into_inner();
    assert_eq!(froze.groups, ["rack3"]);
    assert!(froze.nodes.is_empty(), "{froze:?}");
    let all = client.list_nodes(v1::ListNodesRequest::default()).await;
    let frozen = all.unwrap().into_inner().frozen_groups;
    assert_eq!(
        (frozen[0].group.as_str(), frozen[0].reason.as_str()),
        ("rack3", "heat")
    );
    // Neither the cluster nor the node lifts it; the group does, and history knows.
    client.freeze(freeze("", false)).await.unwrap();
    client.freeze(freeze("n1", false)).await.unwrap();
    let held = freezes(&mut client).await;
    let by = &frozen[0].author;
    let text = format!("its group rack3 is frozen by {by}: heat");
    assert!(
        held.iter()
            .any(|hold| hold.text == text && hold.lifted_by == "krakenctl thaw @rack3"),
        "{held:?}"
    );
    client.freeze(freeze("@rack3", false)).await.unwrap();
    assert!(freezes(&mut client).await.is_empty());
    client.freeze(freeze("@rack3!n9x*", true)).await.unwrap();
    assert!(list(&mut client, "n1").await.unwrap()[0].frozen);
    client.freeze(freeze("n1", true)).await.unwrap();
    assert!(list(&mut client, "n1").await.unwrap()[0].frozen);
    client.freeze(freeze("n1", false)).await.unwrap();
    let released = client
        .release(v1::ReleaseRequest { nodes: "n1".into() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(released.nodes, ["n1"]);
    let set = client
        .list_mutations(v1::ListMutationsRequest {})
        .await
        .unwrap()
        .into_inner();
    let names: Vec<&str> = set
        .mutations
        .iter()
        .map(|mutation| mutation.name.as_str())
        .collect();
    for name in ["UKtoOFF", "NONEtoWAIT", "INITtoSYNC", "IDLEtoACTIVE"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test]
async fn tcp_needs_the_token() {
    let rig = Rig::new("[api]\nlisten = \"127.0.0.1:0\"\n");
    let (head, _client) = rig.start().await;
    let address = head.logged("api address=").await;
    let channel = Endpoint::from_shared(format!("http://{}", address.trim()))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let call = |token: Option<String>| {
        let mut client = Client::new(channel.clone());
        async move {
            let mut request = tonic::Request::new(v1::GetVersionRequest {});
            if let Some(token) = token {
                let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
                request.metadata_mut().insert("authorization", value);
            }
            client
                .get_version(request)
                .await
                .map(|_| ())
                .map_err(|status| status.code())
        }
    };
    let token = std::fs::read_to_string(rig.path("state/admin.token"))
        .unwrap()
        .trim()
        .to_owned();
    assert_eq!(call(None).await, Err(Code::Unauthenticated));
    assert_eq!(
        call(Some("0".repeat(64))).await,
        Err(Code::PermissionDenied)
    );
    assert_eq!(call(Some(token.clone())).await, Ok(()));
    let page = |path: &str| get(format!("http://{}{path}", address.trim()), None);
    assert_eq!(
        page("/healthz").await.unwrap().text().await.unwrap(),
        "ok\n"
    );
    assert_eq!(
        page("/readyz").await.unwrap().text().await.unwrap(),
        "ready\n"
    );
    assert_eq!(page("/metrics").await.unwrap().status(), 401);
    assert_eq!(
        page("/kraken.v1.Admin/GetVersion").await.unwrap().status(),
        401
    );
    let metrics = get(format!("http://{}/metrics", address.trim()), Some(&token)).await;
    let metrics = metrics.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("kraken_nodes{run_state=\"SYNC\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("kraken_store_commits_total{result=\"ok\"} 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn s23_limits_are_kept_and_the_head_stays_up() {
    let rig = Rig::new("");
    let (_head, mut client) = rig.start().await;
    let huge = change(
        &mut client,
        "head",
        vec![set("/Platform", &"x".repeat(2 << 20))],
    )
    .await
    .unwrap_err();
    assert_eq!(huge.code(), Code::OutOfRange, "{huge}");
    let long = change(
        &mut client,
        "head",
        vec![set("/Platform", &"x".repeat(100 << 10))],
    )
    .await
    .unwrap_err();
    assert_eq!(long.code(), Code::InvalidArgument, "{long}");
    let many = list(&mut client, "n[1-999999999]").await.unwrap_err();
    assert_eq!(many.code(), Code::InvalidArgument);
    assert!(many.message().contains("more than 100000 names"));
    for bad in ["n[", "@", "n1,,n2", "&", "/x"] {
        assert_eq!(
            list(&mut client, bad).await.unwrap_err().code(),
            Code::InvalidArgument,
            "{bad}"
        );
    }
    let reason = "r".repeat(4096);
    let options = Some(v1::WriteOptions {
        reason,
        ..v1::WriteOptions::default()
    });
    let long = client
        .add_nodes(v1::AddNodesRequest {
            nodes: vec![node("n1", &[])],
            options,
        })
        .await
        .unwrap_err();
    assert_eq!(long.code(), Code::InvalidArgument);
    for name in ["", "-x", "a b", "../n1", &"x".repeat(300)] {
        assert_eq!(
            add(&mut client, vec![node(name, &[])])
                .await
                .unwrap_err()
                .code(),
            Code::InvalidArgument,
            "{name}"
        );
    }
    assert_eq!(list(&mut client, "").await.unwrap().len(), 1);
}

#[tokio::test]
async fn health_and_reflection_answer() {
    let rig = Rig::new("");
    let (_head, client) = rig.start().await;
    drop(client);
    let socket = format!("unix:{}", rig.path("run/api.sock").display());
    let channel = Endpoint::from_shared(socket)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    let request = tonic_health::pb::HealthCheckRequest {
        service: "kraken.v1.Admin".into(),
    };
    let status = health.check(request).await.unwrap().into_inner().status;
    assert_eq!(
        status,
        i32::from(tonic_health::pb::health_check_response::ServingStatus::Serving)
    );
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let ask = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let mut answers = reflection
        .server_reflection_info(tokio_stream::once(ask))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(services)) = answer else {
        panic!("{answer:?}")
    };
    assert!(
        services
            .service
            .iter()
            .any(|service| service.name == "kraken.v1.Admin"),
        "{services:?}"
    );
}

#[tokio::test]
async fn a_socket_that_was_opened_before_is_served() {
    let rig = Rig::new("");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // What systemd does: the socket as descriptor 3, and its number of sockets and our pid in the environment.
    let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" --config \"$1\"";
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_kraken-head")])
        .arg(rig.path("head.toml"))
        .stdin(std::os::fd::OwnedFd::from(listener));
    let (_head, _client) = rig.start_with(command).await;
    let health = get(format!("http://{address}/healthz"), None)
        .await
        .unwrap();
    assert_eq!(health.text().await.unwrap(), "ok\n");
    let metrics = get(format!("http://{address}/metrics"), None)
        .await
        .unwrap();
    assert_eq!(metrics.status(), 401);
}

#[tokio::test]
async fn machines_are_enrolled_and_images_are_named_in_errors() {
    let rig = Rig::new("");
    let (_head, mut client) = rig.start().await;
    let request = |mac: &str, name: &str| v1::EnrolRequest {
        mac: mac.into(),
        node: Some(node(name, &[("/ipv4/boot/address", "10.0.0.9/24")])),
        options: None,
    };
    let done = client
        .enrol(request("52-54-00-4B-00-09", "n9"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(done.nodes, ["n9"]);
    let nodes = list(&mut client, "n9").await.unwrap();
    assert_eq!(
        text(nodes[0].cfg.as_ref(), "/ipv4/boot/mac").as_deref(),
        Some("52:54:00:4b:00:09")
    );
    let taken = client
        .enrol(request("52:54:00:4b:00:09", "n8"))
        .await
        .unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists, "{taken}");
    assert_eq!(
        client
            .enrol(request("nonsense", "n8"))
            .await
            .unwrap_err()
            .code(),
        Code::InvalidArgument
    );
    assert!(
        client
            .list_pending(v1::ListPendingRequest {})
            .await
            .unwrap()
            .into_inner()
            .pending
            .is_empty()
    );
    for (path, part) in [
        ("demo", "absolute path"),
        ("/no/such/image", "/no/such/image/manifest.json"),
    ] {
        for dry_run in [true, false] {
            let request = v1::AddImageRequest {
                path: path.into(),
                dry_run,
            };
            let error = client.add_image(request).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
            assert!(error.message().contains(part), "{error}");
        }
    }
    assert!(
        client
            .list_images(v1::ListImagesRequest {})
            .await
            .unwrap()
            .into_inner()
            .images
            .is_empty()
    );
}

#[tokio::test]
async fn connections_without_a_request_are_cut() {
    use tokio::io::AsyncReadExt as _;
    let rig = Rig::new("[api]\nlisten = \"127.0.0.1:0\"\n");
    let (head, mut client) = rig.start().await;
    let address = head.logged("api address=").await;
    let mut idle = Vec::new();
    // As many as one address may have, and more: the administrator's socket does not care.
    for _ in 0..40 {
        idle.push(
            tokio::net::TcpStream::connect(address.trim())
                .await
                .unwrap(),
        );
    }
    assert_eq!(list(&mut client, "").await.unwrap().len(), 1);
    for stream in &mut idle {
        let mut byte = [0];
        let read = tokio::time::timeout(crate::rig::WAIT, stream.read(&mut byte)).await;
        assert!(!matches!(read.expect("the head cuts it"), Ok(1..)));
    }
}
