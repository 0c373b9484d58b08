//! Extensions of a running head: added, changed, refused, removed, and still there after a restart; and secrets, which nobody gets to see.

mod hostile;
mod secrets;
mod undo;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use proto::v1;
use tonic::Code;

use crate::rig::{Client, Rig, add, change, eventually, list, node, set, text};

const SITE: &str = include_str!("../../../examples/site.proto");

fn proto(name: &str, fields: &str) -> String {
    format!(
        "syntax = \"proto3\";\nimport \"kraken/v1/options.proto\";\nmessage M {{\n  option (kraken.v1.extension) = \"{name}\";\n{fields}\n}}\n"
    )
}

async fn extend(
    client: &mut Client,
    source: &str,
) -> Result<v1::ChangeExtensionResponse, tonic::Status> {
    extend_by(client, source, false).await
}

async fn extend_by(
    client: &mut Client,
    source: &str,
    force: bool,
) -> Result<v1::ChangeExtensionResponse, tonic::Status> {
    let request = v1::AddExtensionRequest {
        file_name: "/srv/site/upload.proto".into(),
        source: source.into(),
        force,
        options: Some(v1::WriteOptions {
            reason: "ticket 9".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    client
        .add_extension(request)
        .await
        .map(tonic::Response::into_inner)
}

async fn remove(
    client: &mut Client,
    name: &str,
    force: bool,
) -> Result<v1::ChangeExtensionResponse, tonic::Status> {
    let request = v1::RemoveExtensionRequest {
        name: name.into(),
        force,
        ..Default::default()
    };
    client
        .remove_extension(request)
        .await
        .map(tonic::Response::into_inner)
}

async fn extensions(client: &mut Client) -> Vec<v1::Extension> {
    let request = v1::ListExtensionsRequest::default();
    client
        .list_extensions(request)
        .await
        .unwrap()
        .into_inner()
        .extensions
}

async fn cfg(client: &mut Client, node: &str, url: &str) -> Option<String> {
    let nodes = list(client, node).await.unwrap();
    text(nodes[0].cfg.as_ref(), url)
}

#[tokio::test]
async fn an_extension_lives_from_its_first_moment_until_it_is_removed() {
    let rig = Rig::new("");
    let (head, mut client) = rig.start().await;
    add(&mut client, vec![node("n1", &[]), node("n2", &[])])
        .await
        .unwrap();
    let before = change(&mut client, "n1", vec![set("/site/rack", "r07")])
        .await
        .unwrap_err();
    assert!(
        before.message().contains("no extension has /site/rack"),
        "{before}"
    );

    let added = extend(&mut client, SITE).await.unwrap();
    assert_eq!(added.change, "extension add site");
    let shown = added.extension.unwrap();
    let field = shown
        .fields
        .iter()
        .find(|field| field.url == "/site/gpu/power_cap")
        .unwrap();
    assert_eq!(
        (field.unit.as_str(), field.zero.as_str()),
        ("W", "the board's default")
    );
    assert!(field.discoverable && field.help.contains("whole board"));
    assert_eq!(
        extend(&mut client, SITE).await.unwrap().change,
        "",
        "nothing changed"
    );
    let good = [
        set("/site/rack", "r07"),
        set("/site/position", "12"),
        set("/site/gpu/power_cap", "350"),
        set("/site/gpu/grace", "1m30s"),
        set("/site/pdu", "10.9.0.1"),
        set("/site/power", "UPS"),
    ];
    change(&mut client, "n[1-2]", good.to_vec()).await.unwrap();
    for (url, value, expect) in [
        (
            "/site/gpu/power_cap",
            "-3",
            "changes[0]: /site/gpu/power_cap cannot be \"-3\": a whole number from 0 to 4294967295 (in W) is wanted, such as 42",
        ),
        (
            "/site/gpu/grace",
            "soon",
            "a duration is wanted, such as 10s or 1m30s",
        ),
        (
            "/site/pdu",
            "10.9.0",
            "an IP address is wanted, such as 10.0.0.1",
        ),
        (
            "/site/power",
            "UPSS",
            "one of POWER_UNKNOWN, GRID, UPS is wanted",
        ),
        ("/site/racks", "x", "did you mean /site/rack?"),
    ] {
        let error = change(&mut client, "n1", vec![set(url, value)])
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains(expect), "{error}");
    }

    // Kill -9, and everything is there.
    drop(client);
    head.kill();
    let (head, mut client) = rig.start().await;
    assert_eq!(
        cfg(&mut client, "n1", "/site/rack").await.as_deref(),
        Some("r07")
    );
    change(&mut client, "n2", vec![set("/site/rack", "r08")])
        .await
        .unwrap();

    // More fields are fine; fewer, other types and other numbers are not while somebody has values.
    let more = SITE.replace(
        "  string rack = 1;",
        "  string rack = 1;\n  // Row.\n  string row = 20;",
    );
    assert_eq!(
        extend(&mut client, &more).await.unwrap().change,
        "extension change site: +/site/row"
    );
    for (from, to, expect) in [
        (
            "  string rack = 1;",
            "",
            "n1, n2 have a value of /site/rack: its field is gone (unset them first, or --force unsets them)",
        ),
        (
            "string rack = 1;",
            "int32 rack = 1;",
            "it no longer fits: a whole number",
        ),
        (
            "string rack = 1;",
            "string rack = 30;",
            "/site/rack had field number 1 and has 30: give it its old number back",
        ),
        (
            "string rack = 1;",
            "string shelf = 1;",
            "field number 1 was /site/rack and is /site/shelf",
        ),
        (
            "    UPS = 2;\n",
            "",
            "have a value of /site/power: it no longer fits: one of POWER_UNKNOWN, GRID is wanted",
        ),
    ] {
        let error = extend(&mut client, &more.replace(from, to))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert!(error.message().contains(expect), "{error} lacks {expect:?}");
    }
    assert_eq!(
        fs::read_to_string(rig.path("state/extensions/site.proto")).unwrap(),
        more
    );
    let bad = extend(&mut client, "syntax = \"proto3\";\nmessage {")
        .await
        .unwrap_err();
    assert!(bad.message().starts_with("upload.proto:2: "), "{bad}");
    let taken = extend(&mut client, &proto("pxe", "  string a = 1;"))
        .await
        .unwrap_err();
    assert!(
        taken
            .message()
            .contains("has the name of the built-in extension"),
        "{taken}"
    );

    // By force, in one write, and only what has to go.
    let without = more.replace("  string rack = 1;", "");
    let forced = extend_by(&mut client, &without, true).await.unwrap();
    assert_eq!(forced.nodes, ["n1", "n2"]);
    assert_eq!(cfg(&mut client, "n1", "/site/rack").await, None);
    assert_eq!(
        cfg(&mut client, "n1", "/site/power").await.as_deref(),
        Some("UPS")
    );

    let held = remove(&mut client, "site", false).await.unwrap_err();
    assert_eq!(held.code(), Code::FailedPrecondition);
    assert!(
        held.message()
            .contains("n1, n2 have a value of /site/gpu/grace"),
        "{held}"
    );
    assert_eq!(
        remove(&mut client, "pxe", true).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(
        remove(&mut client, "nosuch", true)
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    assert_eq!(
        remove(&mut client, "site", true).await.unwrap().nodes,
        ["n1", "n2"]
    );
    assert!(!rig.path("state/extensions/site.proto").exists());
    assert!(
        extensions(&mut client)
            .await
            .iter()
            .all(|one| one.file.is_empty())
    );
    drop(client);
    head.terminate();
    let (_head, mut client) = rig.start().await;
    let gone = change(&mut client, "n1", vec![set("/site/rack", "r07")])
        .await
        .unwrap_err();
    assert!(gone.message().contains("no extension has"), "{gone}");
}

#[tokio::test]
async fn a_bad_file_is_said_and_the_head_goes_on_without_it() {
    let rig = Rig::new("");
    let folder = rig.path("state/extensions");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("good.proto"), proto("good", "  string a = 1;")).unwrap();
    fs::write(folder.join("bad.proto"), proto("bad", "  strin a = 1;")).unwrap();
    let output = rig.command().args(["config", "check"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("extensions/bad.proto:5: "), "{said}");

    let (head, mut client) = rig.start().await;
    head.logged("problem=bad.proto:5: ").await;
    add(&mut client, vec![node("n1", &[("/good/a", "x")])])
        .await
        .unwrap();
    let all = extensions(&mut client).await;
    let bad = all.iter().find(|one| one.name == "bad").unwrap();
    assert!(bad.problem.starts_with("bad.proto:5: ") && bad.fields.is_empty());

    // Corrected while the head runs, it is in force at once; a bad file without an extension can be removed, too.
    extend(&mut client, &proto("bad", "  string a = 1;"))
        .await
        .unwrap();
    change(&mut client, "n1", vec![set("/bad/a", "y")])
        .await
        .unwrap();
    assert!(
        extensions(&mut client)
            .await
            .iter()
            .all(|one| one.problem.is_empty())
    );
    let output = rig.command().args(["config", "check"]).output().unwrap();
    assert!(output.status.success());
}

/// Secrets, from every side that one can look from.
#[tokio::test]
async fn secrets_show_nowhere() {
    let rig = Rig::new("[log]\nlevel = \"trace\"\n");
    let (head, mut client) = rig.start().await;
    extend(&mut client, SITE).await.unwrap();
    let secrets = ["hunter2-bmc", "hunter3-pdu", "hunter4-token"];
    let values = [
        ("/power/password", secrets[0]),
        ("/site/pdu_password", secrets[1]),
        ("/site/inventory_token", secrets[2]),
        ("/site/rack", "r1"),
        ("/power/driver", "REDFISH"),
        ("/power/target", "https://127.0.0.1:1/redfish/v1/Systems/1"),
        ("/PhysState", "POWER_ON"),
    ];
    let watched = client.watch(v1::WatchRequest::default()).await.unwrap();
    add(&mut client, vec![node("n1", &values)]).await.unwrap();
    let read = list(&mut client, "n1").await.unwrap().remove(0);
    let read = read.cfg.unwrap();
    for url in [
        "/power/password",
        "/site/pdu_password",
        "/site/inventory_token",
    ] {
        assert_eq!(text(Some(&read), url).as_deref(), Some("(secret)"), "{url}");
    }
    // Read, edited and written back they stay as they are; a node without one is told.
    change(&mut client, "n1", read.values.clone())
        .await
        .unwrap();
    add(&mut client, vec![node("n2", &[])]).await.unwrap();
    let copied = change(&mut client, "n2", read.values).await.unwrap_err();
    assert!(
        copied
            .message()
            .contains("which means unchanged, but node n2 has none"),
        "{copied}"
    );
    let request = v1::ValueChange {
        url: "/site/pdu_password".into(),
        value: Some(v1::Value {
            kind: Some(v1::value::Kind::BytesValue(secrets[1].into())),
        }),
    };
    let wrong = change(&mut client, "n1", vec![request]).await.unwrap_err();
    assert!(
        wrong
            .message()
            .contains("/site/pdu_password cannot be this"),
        "{wrong}"
    );

    // The power module fails with the password in its hands.
    head.logged("mutation failed").await;
    let explain = v1::ExplainRequest { nodes: "n1".into() };
    let explained = format!("{:?}", client.explain(explain).await.unwrap());
    let mut events = watched.into_inner();
    let mut seen = String::new();
    while !seen.contains("FAILED") && !seen.contains("kind: Failed") {
        seen.push_str(&format!("{:?}", events.message().await.unwrap().unwrap()));
    }
    let history = history(&rig);
    assert!(history.contains("/power/password=(secret)"), "{history}");
    assert!(history.contains("extension add site"), "{history}");
    for secret in secrets {
        for (what, said) in [
            ("explain", &explained),
            ("watch", &seen),
            ("log", &head.log()),
            ("history", &history),
            ("errors", &format!("{wrong}{copied}")),
        ] {
            // Watchers print texts as they are and as numbers.
            assert!(!said.contains(secret), "{secret} is in {what}");
        }
    }
    drop(client);
    head.terminate();
    private(&rig.path("state"));
}

/// What people read of the history.
fn history(rig: &Rig) -> String {
    let path = rig.path("state/kraken.db");
    let db =
        rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
            .unwrap();
    let mut texts = db
        .prepare("SELECT text FROM history UNION ALL SELECT text FROM cfg")
        .unwrap();
    let texts: Result<Vec<String>, _> = texts.query_map([], |row| row.get(0)).unwrap().collect();
    texts.unwrap().join("\n")
}

/// No file of the state is for others to read.
fn private(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::metadata(&path).unwrap();
        if metadata.is_dir() {
            private(&path);
        } else {
            assert_eq!(metadata.mode() & 0o077, 0, "{}", path.display());
        }
    }
}
