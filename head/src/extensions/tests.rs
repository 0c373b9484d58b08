//! Files of extensions: what is taken, what is refused and with which words, and what a broken file leaves in force.

use std::fs;

use engine::state::{NodeId, Value};

use super::*;

const EXAMPLE: &str = include_str!("../../../examples/site.proto");

fn file(name: &str, fields: &str) -> String {
    format!(
        "syntax = \"proto3\";\npackage test;\nimport \"kraken/v1/options.proto\";\nmessage M {{\n  option (kraken.v1.extension) = \"{name}\";\n{fields}\n}}\n"
    )
}

#[track_caller]
fn refused(text: &str, line: Option<u32>, expect: &str) {
    let error = compile("bad.proto", text).expect_err(expect);
    assert!(error.text.contains(expect), "{error} lacks {expect:?}");
    assert_eq!(error.line, line, "{error}");
}

fn node(values: &[(&str, &str)]) -> Node {
    let mut node = Node::new(NodeId::from_bytes([7; 16]), "n7".parse().unwrap(), None);
    for (url, value) in values {
        node.cfg
            .set(url.parse().unwrap(), Some(Value::from(*value)));
    }
    node
}

#[test]
fn the_example_is_an_extension() {
    let extension = compile("site.proto", EXAMPLE).unwrap();
    assert_eq!(extension.name, "site");
    assert!(
        extension
            .fields
            .values()
            .all(|one| !one.field.doc.is_empty())
    );
}

#[test]
fn mistakes_have_their_line_and_say_what_to_do() {
    let with = |fields: &str| file("m", fields);
    refused("", None, "import \"kraken/v1/options.proto\"");
    refused("", None, "declares no extension");
    refused(
        "syntax = \"proto3\";\nimport \"kraken/v1/options.proto\";\nmessage M { string a = 1; }",
        None,
        "declares no extension",
    );
    for path in ["/etc/passwd", "../../etc/passwd"] {
        refused(
            &format!("syntax = \"proto3\";\nimport \"{path}\";\n"),
            Some(2),
            "a file is imported by a plain path",
        );
    }
    refused(
        "syntax = \"proto3\";\nmessage {",
        Some(2),
        "expected an identifier",
    );
    refused(&with("  strin a = 1;"), Some(6), "strin");
    refused(&with("  string a = 1;\n  string a = 2;"), Some(7), "a");
    refused(
        &with("  string a = 1 [(kraken.v1.nosuch) = true];"),
        Some(6),
        "look at its options",
    );
    refused(
        &with("  string a = 1 [(kraken.v1.format) = FORMAT_SIZE];"),
        Some(6),
        "FORMAT_SIZE needs an integer",
    );
    refused(
        &with("  string a = 1 [(kraken.v1.node_reads) = true];"),
        Some(6),
        "is for secrets",
    );
    refused(
        "syntax = \"proto3\";\nimport \"other.proto\";\n",
        Some(2),
        "put what it needs into the file itself",
    );
    refused(&file("a b", "  string a = 1;"), Some(4), "is no name");
    refused(&file("Held", "  string a = 1;"), Some(4), "is no name");
    refused(&file("..", "  string a = 1;"), Some(4), "is no name");
    let two = file("m", "") + "message N { option (kraken.v1.extension) = \"n\"; string a = 1; }";
    refused(
        &two,
        None,
        "declares m and n: give each extension a file of its own",
    );
    let core = "syntax = \"proto3\";\npackage kraken.ext.v1;\nimport \"kraken/v1/options.proto\";\nmessage Core { option (kraken.v1.extension) = \"\"; string a = 1; }";
    refused(core, None, "an extension needs a name");
    refused(
        &with("  google.protobuf.Any a = 1;").replace(
            "package test;",
            "package test; import \"google/protobuf/any.proto\";",
        ),
        Some(6),
        "google.protobuf.Any is no state of a node",
    );
}

/// F45: files that are made to hurt are refused, and the process goes on.
#[test]
fn f45_hostile_files_are_refused() {
    let deep = format!(
        "syntax = \"proto3\";\n{}{}",
        "message A { ".repeat(10_000),
        "}".repeat(10_000)
    );
    refused(&deep, Some(2), "nested more than 32 deep");
    let aggregate = format!(
        "option (x) = {} a: 1 {};",
        "{ a: ".repeat(10_000),
        "}".repeat(10_000)
    );
    refused(&aggregate, Some(1), "nested more than 32 deep");
    let angles = format!(
        "option (x) = {{ a {} b: 1 {} }};",
        "< a ".repeat(10_000),
        ">".repeat(10_000)
    );
    refused(&angles, Some(1), "nested more than 32 deep");
    refused(&"x".repeat(MAX + 1), None, "is larger than");
    refused(
        &format!("{}\n{deep}", "/* { ' \" { */ // {{{{ '\n"),
        Some(4),
        "nested more than 32 deep",
    );
    // Messages that hold each other multiply: 10 to the 9th urls in a few lines.
    let level = |n: usize, body: &str| format!("message L{n} {{ {body} }}\n");
    let fields = |n: usize| -> String { (1..=10).map(|i| format!("L{n} f{i} = {i};")).collect() };
    let mut bomb = file("m", "  L0 a = 1;");
    for n in 0..9 {
        bomb += &level(n, &fields(n + 1));
    }
    refused(
        &(bomb.clone() + &level(9, "string x = 1;")),
        Some(4),
        "more than 1024 fields",
    );
    refused(&(bomb + &level(9, "")), Some(4), "more than 1024 fields");
    for text in [
        "\u{0}",
        "\u{feff}syntax",
        "syntax = \"proto9\";",
        "message",
        "/*",
        "\"",
        "{{{{",
        "}}}}",
        "syntax = \"proto3\"; message A { int32 a = 99999999999999999999; }",
        "syntax = \"proto3\"; message A { int32 a = -1; }",
        "syntax = \"proto3\"; message A { A a = 1; } message A {}",
    ] {
        assert!(compile("bad.proto", text).is_err(), "{text:?}");
    }
    assert_eq!(too_many_files().len(), 1);
}

const MAX: usize = compile::MAX_FILE_BYTES;

/// One file beyond the limit is said, by name.
fn too_many_files() -> Vec<FileError> {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..=256 {
        let name = format!("e{n:03}");
        fs::write(dir.path().join(file_of(&name)), file(&name, "")).unwrap();
    }
    let (mut problems, _) = check(dir.path());
    problems.retain(|problem| problem.text.contains("256 files"));
    problems
}

#[test]
fn a_bad_file_costs_nothing_but_itself() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("a.proto", &file("a", "  string x = 1;"));
    write("again.proto", &file("a", "  string y = 1;"));
    write("bad.proto", "message {");
    write("pxe.proto", &file("pxe", "  string y = 1;"));
    write("core.proto", &file("PhysState", "  string y = 1;"));
    write("services.proto", &file("services", "  string a = 1;"));
    fs::write(dir.path().join("utf.proto"), b"\xff\xfe").unwrap();
    fs::create_dir(dir.path().join("folder.proto")).unwrap();
    write("notes.txt", "not read");
    let extensions = Extensions::load(dir.path(), &[]);
    let schema = extensions.schema();
    assert!(schema.field(&"/a/x".parse().unwrap()).is_some());
    assert!(schema.field(&"/a/y".parse().unwrap()).is_none());
    let problems: Vec<String> = extensions
        .list()
        .into_iter()
        .filter_map(|one| Some(one.problem?.to_string()))
        .collect();
    let expect = [
        "again.proto: extension a is declared by a.proto already",
        "bad.proto:1: expected an identifier",
        "core.proto: extension PhysState has the name of the built-in core value",
        "folder.proto: cannot be read: it is no regular file",
        "pxe.proto: extension pxe has the name of the built-in extension",
        "services.proto: extension services has the name of the built-in core value: choose another one, such as site_services",
        "utf.proto: cannot be read: ",
    ];
    assert_eq!(problems.len(), expect.len(), "{problems:#?}");
    for (problem, expect) in problems.iter().zip(expect) {
        assert!(problem.starts_with(expect), "{problem:?} is not {expect:?}");
    }
    assert_eq!(check(dir.path()).0.len(), expect.len());
}

#[test]
fn a_file_that_somebody_broke_stays_in_force_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("site.proto");
    let write = |fields: &str| fs::write(&path, file("site", fields)).unwrap();
    let nodes = [node(&[("/site/rack", "r7")])];
    let load = || {
        let extensions = Extensions::load(dir.path(), &nodes);
        let has = |url: &str| extensions.schema().field(&url.parse().unwrap()).is_some();
        let problem = extensions.list().into_iter().find_map(|one| one.problem);
        (
            has("/site/rack"),
            has("/site/row"),
            problem
                .map(|problem| problem.to_string())
                .unwrap_or_default(),
        )
    };
    write("  string rack = 1;");
    assert_eq!(load(), (true, false, String::new()));

    let stays = |(rack, row, problem): (bool, bool, String), expect: &str| {
        assert!(rack && !row, "{problem}");
        assert!(problem.contains(expect), "{problem:?} lacks {expect:?}");
    };
    fs::write(&path, "message {").unwrap();
    stays(load(), "site.proto:1: expected an identifier");
    write("  string row = 2;");
    stays(load(), "n7 has a value of /site/rack: its field is gone");
    write("  int32 rack = 1; string row = 2;");
    stays(load(), "it no longer fits: a whole number");
    write("  string rack = 2; string row = 1;");
    stays(load(), "/site/rack had field number 1 and has 2");
    fs::remove_file(&path).unwrap();
    stays(load(), "is gone, but n7 has a value of /site/rack");

    // More fields are fine, and from then on they are what stays.
    write("  string rack = 1; string row = 2;");
    assert_eq!(load(), (true, true, String::new()));
    fs::write(&path, "").unwrap();
    let (rack, row, _) = load();
    assert!(rack && row);

    // Gone without values, it is gone.
    fs::remove_file(&path).unwrap();
    let extensions = Extensions::load(dir.path(), &[]);
    assert!(extensions.list().iter().all(|one| one.file.is_empty()));
    assert!(Folder::new(dir.path()).last_good().is_empty());
}

#[test]
fn a_change_is_durable_before_it_counts_and_can_be_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/extensions");
    let extensions = Extensions::load(&path, &[]);
    let url = "/site/rack".parse().unwrap();
    let source = file("site", "  string rack = 1;");
    let change = extensions.prepare("upload.proto", source.clone()).unwrap();
    assert_eq!(
        (change.text.as_str(), change.is_same),
        ("extension add site", false)
    );
    let before = extensions.put(&change).unwrap();
    assert_eq!(fs::read_to_string(path.join("site.proto")).unwrap(), source);
    extensions.take_back(&change, before);
    assert!(extensions.schema().field(&url).is_none());
    assert!(!path.join("site.proto").exists());

    extensions.put(&change).unwrap();
    extensions.done(&change);
    assert!(extensions.schema().field(&url).is_some());
    assert!(
        extensions
            .prepare("upload.proto", source.clone())
            .unwrap()
            .is_same
    );
    let more = file("site", "  string rack = 1; string row = 2;");
    let change = extensions.prepare("upload.proto", more).unwrap();
    assert_eq!(change.text, "extension change site: +/site/row");
    let swapped = file("site", "  string rack = 2;");
    let swapped = extensions.prepare("upload.proto", swapped).unwrap();
    assert_eq!(swapped.renumbered.len(), 1);

    let unknown = extensions.prepare_removal("nosuch").err().unwrap();
    assert!(unknown.to_string().contains("there is no extension nosuch"));
    assert_eq!(
        extensions.prepare_removal("pxe").err(),
        Some(Refused::BuiltIn("pxe".into()))
    );
    let removal = extensions.prepare_removal("site").unwrap();
    extensions.put(&removal).unwrap();
    extensions.done(&removal);
    assert!(extensions.schema().field(&url).is_none());
    let again = Extensions::load(&path, &[]);
    assert!(again.schema().field(&url).is_none());
}
