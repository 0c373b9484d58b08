//! What was a secret once is one for ever: in history, in sums of changes and in what an undo would write, whatever becomes of its field.

use super::*;

const OLD: &str = "TopSecret555";

/// Everything that people can read about the past of n1 and about what an undo would do.
async fn told(client: &mut Client, revisions: std::ops::RangeInclusive<u64>) -> String {
    let history = client.list_history(v1::ListHistoryRequest::default()).await;
    let mut said = format!("{:?}", history.unwrap());
    let request = v1::DiffRequest {
        from: *revisions.start() - 1,
        ..v1::DiffRequest::default()
    };
    said += &format!("{:?}", client.diff(request).await);
    for revision in revisions {
        let write = v1::plan_request::Write::Undo(v1::UndoRequest {
            revision,
            force: true,
            ..v1::UndoRequest::default()
        });
        let request = v1::PlanRequest {
            nodes: String::new(),
            write: Some(write),
        };
        said += &format!("{:?}", client.plan(request).await);
    }
    said
}

#[tokio::test]
async fn an_old_secret_stays_one_when_its_field_is_none_any_more() {
    let rig = Rig::new("");
    let (head, mut client) = rig.start().await;
    let secret = proto(
        "q5",
        "  string pw = 1 [(kraken.v1.secret) = true];\n  map<string, string> keys = 2 [(kraken.v1.secret) = true];",
    );
    extend(&mut client, &secret).await.unwrap();
    add(&mut client, vec![node("n1", &[])]).await.unwrap();
    let first = change(&mut client, "n1", vec![set("/q5/pw", OLD)])
        .await
        .unwrap()
        .revision;
    let unset = v1::ValueChange {
        url: "/q5/pw".into(),
        value: None,
    };
    let last = change(&mut client, "n1", vec![unset])
        .await
        .unwrap()
        .revision;

    // Neither as it is, nor by force, nor after the extension went, nor under a key of a map.
    let clear = proto("q5", "  string pw = 1;");
    let keyed = proto("q5", "  Keys keys = 2;\n  message Keys { string a = 1; }");
    for (file, force) in [(&clear, false), (&clear, true), (&keyed, true)] {
        let refused = extend_by(&mut client, file, force).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(
            refused.message().contains("is or was a secret")
                && refused.message().contains("another name"),
            "{refused}"
        );
    }
    remove(&mut client, "q5", false).await.unwrap();
    extend(&mut client, &clear).await.unwrap_err();
    let said = told(&mut client, first..=last).await;
    assert!(said.contains("(secret)") && !said.contains(OLD), "{said}");

    // By hand, while the head is away.
    drop(client);
    head.terminate();
    fs::write(rig.path("state/extensions/q5.proto"), &clear).unwrap();
    let (head, mut client) = rig.start().await;
    let listed = extensions(&mut client).await;
    let listed = listed.iter().find(|one| one.name == "q5").unwrap();
    assert!(
        listed.problem.contains("is or was a secret"),
        "{}",
        listed.problem
    );
    let said = told(&mut client, first..=last).await;
    assert!(!said.contains(OLD), "{said}");

    // Another name is free, and the old one as a secret.
    let renamed = proto(
        "q5",
        "  string pw = 1 [(kraken.v1.secret) = true];\n  string banner = 3;",
    );
    extend(&mut client, &renamed).await.unwrap();
    let said = told(&mut client, first..=last).await;
    assert!(!said.contains(OLD), "{said}");
    assert!(!head.log().contains(OLD));
    drop(client);
    head.terminate();
    private(&rig.path("state"));
}

/// What a write answers is what Cfg shows, whatever was typed: `node set --wait` looks for it.
#[tokio::test]
async fn a_write_tells_what_became_of_its_values() {
    let rig = Rig::new("");
    let (_head, mut client) = rig.start().await;
    extend(&mut client, SITE).await.unwrap();
    add(&mut client, vec![node("n1", &[])]).await.unwrap();
    let typed = [
        ("/site/gpu/power_cap", "350"),
        ("/site/gpu/grace", "95s"),
        ("/site/position", "0"),
        ("/site/rack", "r07"),
        ("/power/password", OLD),
    ];
    let typed = typed.map(|(url, text)| set(url, text)).to_vec();
    let written = change(&mut client, "n1", typed).await.unwrap();
    let (set, unset): (Vec<_>, Vec<_>) = written
        .kept
        .into_iter()
        .partition(|change| change.value.is_some());
    assert_eq!(unset.len(), 1);
    assert_eq!(unset[0].url, "/site/position");
    assert_eq!(set.len(), 4);
    let cfg = list(&mut client, "n1")
        .await
        .unwrap()
        .remove(0)
        .cfg
        .unwrap();
    for one in &set {
        assert!(cfg.values.contains(one), "{one:?} in {cfg:?}");
    }
    assert!(!format!("{set:?}").contains(OLD));
}

/// A module that was told a secret says it in its log, on its standard error, as the reason of a failure and with its last words.
#[tokio::test]
async fn what_a_module_was_told_it_cannot_tell_on() {
    let rig = Rig::new("");
    let (program, until) = (crate::modules::example(), rig.path("mended"));
    rig.configure(&format!(
        "[log]\nlevel = \"trace\"\n[modules.wild]\ncommand = [{program:?}]\nsecrets = [\"/power/password\"]\n\
         config = {{ misbehave = \"tell\", reads = \"/power/password\", until = {until:?} }}\n",
    ));
    let (head, mut client) = rig.start().await;
    let watched = client.watch(v1::WatchRequest::default()).await.unwrap();
    let values = [("/Platform", "tagged"), ("/power/password", OLD)];
    add(&mut client, vec![node("n1", &values)]).await.unwrap();
    // Told once more after its failure, it ends.
    let failed =
        crate::modules::wait_module(&client, "wild", "has ended", |module| module.failures > 0)
            .await;
    let words = "stderr: told (secret)";
    assert!(failed.last_error.contains(words), "{}", failed.last_error);
    head.logged("module output").await;
    let explain = v1::ExplainRequest { nodes: "n1".into() };
    let explained = format!("{:?}", client.explain(explain).await.unwrap());
    assert!(explained.contains("told (secret)"), "{explained}");
    let listed = format!("{:?}", list(&mut client, "").await.unwrap());
    assert!(listed.contains(words), "{listed}");
    let mut events = watched.into_inner();
    let mut seen = String::new();
    while !seen.contains(words) {
        seen.push_str(&format!("{:?}", events.message().await.unwrap().unwrap()));
    }
    let log = head.log();
    assert!(log.contains("told (secret)"), "{log}");
    for (what, said) in [
        ("explain", &explained),
        ("nodes", &listed),
        ("watch", &seen),
        ("log", &log),
    ] {
        assert!(!said.contains(OLD), "{what}: {said}");
    }
}

/// A poll finds a secret, and the log has its url alone.
#[tokio::test]
async fn what_a_poll_finds_is_in_no_log() {
    let rig = Rig::new("");
    rig.configure("[log]\nlevel = \"trace\"\n");
    let files = rig.path("state/mutations");
    fs::create_dir_all(&files).unwrap();
    fs::write(
        files.join("finder.toml"),
        format!(
            "module = \"finder\"\ndiscoverables = [\"/q6/key\"]\n[[poll]]\nname = \"key\"\nevery = \"1s\"\n\
             command = [\"echo\", \"key\"]\nmap = [{{ line = \"key\", discover = {{ \"/q6/key\" = \"{OLD}\" }} }}]\n"
        ),
    )
    .unwrap();
    fs::create_dir_all(rig.path("state/extensions")).unwrap();
    let finder = proto(
        "q6",
        "  string key = 1 [(kraken.v1.secret) = true, (kraken.v1.discoverable) = true];",
    );
    fs::write(rig.path("state/extensions/q6.proto"), finder).unwrap();
    let (head, mut client) = rig.start().await;
    add(&mut client, vec![node("n1", &[])]).await.unwrap();
    crate::rig::wait_dsc(&client, "n1", "/q6/key", Some("(secret)")).await;
    head.logged("found=\"/q6/key\"").await;
    let log = head.log();
    assert!(!log.contains(OLD) && !log.contains("Change {"), "{log}");
}
