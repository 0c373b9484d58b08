//! What a module is told as its configuration.

use engine::state::Change;

use super::*;

fn told(file: &[(&str, Value)], tree: &[(&str, &str)]) -> BTreeMap<String, Value> {
    let written = file
        .iter()
        .map(|(key, value)| (key.to_string(), value.clone()));
    let program = ModuleConfig {
        name: "fan".into(),
        command: Vec::new(),
        config: written.collect(),
        env: BTreeMap::new(),
        user: None,
        secrets: Vec::new(),
        limits: Limits::default(),
    };
    let mut cfg = Values::default();
    cfg.apply(tree.iter().map(|(url, text)| {
        let url = format!("/services/{url}");
        Change::set(url.parse().unwrap(), Value::from(*text))
    }));
    merged("fan", Some(&program), &cfg)
}

#[test]
fn the_tree_goes_over_the_file_in_the_types_of_the_file() {
    let list = |items: &[&str]| Value::List(items.iter().map(|item| Value::text(*item)).collect());
    let file = [
        ("speed", Value::Int(3)),
        ("factor", Value::Float(Float(1.5))),
        ("quiet", Value::Bool(true)),
        ("rooms", list(&["a"])),
        ("folder", Value::from("/a")),
        ("limit", Value::Int(7)),
    ];
    let tree = [
        ("fan/config/speed", "9"),
        ("fan/config/factor", "2"),
        ("fan/config/quiet", "false"),
        ("fan/config/rooms", "b, c"),
        ("fan/config/folder", "7"),
        ("fan/config/limit", "none"),
        ("fan/config/more", "8"),
        ("fan/secret/token", "hunter2"),
        ("fan/state", "RUN"),
        ("fans/config/speed", "1"),
    ];
    let expect = [
        ("speed", Value::Int(9)),
        ("factor", Value::Float(Float(2.0))),
        ("quiet", Value::Bool(false)),
        ("rooms", list(&["b", "c"])),
        ("folder", Value::from("7")),
        ("limit", Value::from("none")),
        ("more", Value::from("8")),
        ("token", Value::from("hunter2")),
    ];
    let expect = expect.map(|(key, value)| (key.to_owned(), value));
    assert_eq!(told(&file, &tree), BTreeMap::from(expect));
}
