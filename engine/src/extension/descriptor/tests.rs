use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::*;
use crate::state::Value;

/// One file in memory beside the real options.
struct Memory(String);

impl FileResolver for Memory {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            "test.proto" => File::from_source(name, &self.0),
            "kraken/v1/options.proto" => File::from_source(
                name,
                include_str!("../../../../proto/kraken/v1/options.proto"),
            ),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

fn read(body: &str) -> Result<Schema, DescriptorError> {
    read_file(&format!(
        "syntax = \"proto3\"; package test; import \"kraken/v1/options.proto\";\n{body}"
    ))
}

fn read_file(source: &str) -> Result<Schema, DescriptorError> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Memory(source.to_owned()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_file("test.proto")
        .unwrap();
    Schema::from_descriptors(&compiler.encode_file_descriptor_set())
}

fn message(fields: &str) -> Result<Schema, DescriptorError> {
    read(&format!(
        "message M {{ option (kraken.v1.extension) = \"m\"; {fields} }}"
    ))
}

#[test]
fn built_ins_have_their_fields() {
    let schema = Schema::built_in();
    let field = |url: &str| {
        schema
            .field(&url.parse().unwrap())
            .unwrap_or_else(|| panic!("{url} is missing"))
    };

    let phys = field("/PhysState");
    assert!(phys.discoverable);
    let Kind::Enum(names) = &phys.kind else {
        panic!("{phys:?}")
    };
    assert_eq!(names[..3], ["PHYS_UNKNOWN", "POWER_OFF", "POWER_ON"]);

    assert_eq!(field("/ipv4/boot/mac").format, Format::Mac);
    assert_eq!(field("/ipv4/interfaces/ib0/address").format, Format::Cidr);
    assert!(field("/ipv4/dns").repeated);
    assert!(field("/power/password").secret);
    assert!(!field("/power/target").discoverable);
    assert_eq!(field("/host/nics/eth0/speed").unit, "Mbit/s");
    assert_eq!(
        field("/host/memory").kind,
        Kind::Int {
            min: 0,
            max: i64::MAX
        }
    );
    assert_eq!(
        field("/pxe/append").doc,
        "Added to the kernel command line."
    );
    assert!(
        schema
            .field(&"/ipv4/interfaces/address".parse().unwrap())
            .is_none()
    );
}

#[test]
fn values_are_checked_by_their_descriptors() {
    let schema = Schema::built_in();
    let parse = |url: &str, text: &str| schema.parse(&url.parse().unwrap(), text);
    assert_eq!(
        parse("/PhysState", "POWER_ON").unwrap(),
        Some(Value::text("POWER_ON"))
    );
    assert_eq!(
        parse("/PhysState", "PHYS_UNKNOWN").unwrap(),
        None,
        "the zero is never stored"
    );
    assert_eq!(
        parse("/host/memory", "4GiB").unwrap(),
        Some(Value::Int(4 << 30))
    );
    assert!(
        parse("/PhysState", "POWER_ONN")
            .unwrap_err()
            .to_string()
            .contains("one of PHYS_UNKNOWN")
    );
    assert!(
        parse("/PhysStat", "POWER_ON")
            .unwrap_err()
            .to_string()
            .contains("did you mean /PhysState?")
    );
}

#[test]
fn an_extension_needs_no_code() {
    let schema = message(
        "enum Mode { OFF = 0; LATE = 7; SOON = 3; } Mode mode = 1;
         // How long it
         // takes.
         int64 time = 2 [(kraken.v1.format) = FORMAT_DURATION, (kraken.v1.discoverable) = true];
         map<string, string> words = 3;
         map<string, In> ins = 4; message In { repeated uint32 sizes = 1; oneof which { bool a = 2; bytes b = 3; } }",
    )
    .unwrap();
    let patterns: Vec<&str> = schema.iter().map(|(pattern, _)| pattern).collect();
    assert_eq!(
        patterns,
        [
            "/m/ins/*/a",
            "/m/ins/*/b",
            "/m/ins/*/sizes",
            "/m/mode",
            "/m/time",
            "/m/words/*"
        ]
    );
    let field = |url: &str| schema.field(&url.parse().unwrap()).unwrap();
    assert_eq!(
        field("/m/mode").kind,
        Kind::Enum(["OFF", "SOON", "LATE"].map(String::from).to_vec())
    );
    assert_eq!(field("/m/time").doc, "How long it takes.");
    assert_eq!(field("/m/words/x").kind, Kind::Text);
    assert!(field("/m/ins/x/sizes").repeated);
}

#[test]
fn mistakes_are_named() {
    let check = |result: Result<Schema, DescriptorError>, expect: &str| {
        let error = result.expect_err(expect).to_string();
        assert!(error.contains(expect), "{error:?} lacks {expect:?}");
    };
    check(
        Schema::from_descriptors(b"\xff\xff"),
        "no protobuf descriptors",
    );
    check(
        Schema::from_descriptors(b""),
        "import \"kraken/v1/options.proto\"",
    );
    check(
        read_file("syntax = \"proto3\"; message M {}"),
        "lack kraken.v1.extension",
    );
    check(
        read("message M { string a = 1; }"),
        "no message has the option",
    );
    check(
        read("message M { option (kraken.v1.extension) = \"\"; }"),
        "test.M: only the core",
    );
    check(
        read("message M { option (kraken.v1.extension) = \"a/b\"; }"),
        "\"a/b\" is no name",
    );
    check(
        message("repeated In ins = 1; message In { string a = 1; }"),
        "field test.M.ins: a list of messages",
    );
    check(message("M inner = 1;"), "contains itself");
    check(message("map<string, M> inner = 1;"), "contains itself");
    check(
        message("int32 a = 1 [(kraken.v1.format) = FORMAT_IP];"),
        "field test.M.a: FORMAT_IP needs a string",
    );
    check(
        message("string a = 1 [(kraken.v1.format) = FORMAT_SIZE];"),
        "FORMAT_SIZE needs an integer",
    );
    check(
        read(
            "message A { option (kraken.v1.extension) = \"m\"; string a = 1; }
             message B { option (kraken.v1.extension) = \"m\"; string a = 1; }",
        ),
        "field test.B.a: /m/a is taken",
    );
    check(
        message(&format!("string {} = 1;", "x".repeat(260))),
        "longer or deeper",
    );
}
