//! Claim: every row of `engine/docs/faults.md` has tests, and every test that it names is there.

use std::fs;

use vm_tests::paths;

/// Rows of the fault catalogue that touch engine, store and modules.
const ROWS: [&str; 29] = [
    "F01", "F02", "F03", "F04", "F05", "F06", "F07", "F08", "F09", "F10", "F11", "F22", "F23",
    "F24", "F28", "F29", "F30", "F31", "F32", "F33", "F34", "F35", "F45", "F57", "F59", "S9",
    "S23", "S25", "S28",
];

/// The texts between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_of_the_fault_table_is_there() {
    let root = paths::workspace();
    let table = fs::read_to_string(root.join("engine/docs/faults.md")).expect("the table");
    let mut missing = Vec::new();
    for row in ROWS {
        let line = table
            .lines()
            .find(|line| line.starts_with(&format!("| {row} |")));
        let Some(tests) = line.and_then(|line| line.split('|').nth(3)) else {
            missing.push(format!("{row}: no such row"));
            continue;
        };
        let mut file = ("", String::new());
        let mut found = 0;
        for name in quoted(tests) {
            if name.contains('/') {
                file = (
                    name,
                    fs::read_to_string(root.join(name)).unwrap_or_default(),
                );
            } else if file.1.contains(&format!("fn {name}(")) {
                found += 1;
            } else {
                missing.push(format!("{row}: {name} is not in {:?}", file.0));
            }
        }
        if found == 0 {
            missing.push(format!("{row}: no test"));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// The row that a test's name begins with: `f01_` or `s25_`.
fn row_of(test: &str) -> Option<String> {
    let (row, _) = test.split_once('_')?;
    let number: u32 = row.get(1..)?.parse().ok()?;
    match row.as_bytes() {
        [b'f', _, _] => Some(format!("F{number:02}")),
        [b's', _, _] => Some(format!("S{number}")),
        _ => None,
    }
}

#[test]
fn every_row_has_a_test_of_its_name_and_the_table_every_such_test() {
    let root = paths::workspace();
    let table = fs::read_to_string(root.join("engine/docs/faults.md")).expect("the table");
    let line = |row: &str| {
        let start = format!("| {row} |");
        table.lines().find(|line| line.starts_with(&start))
    };
    let mut wrong = Vec::new();
    for row in ROWS {
        let tests = line(row).and_then(|line| line.split('|').nth(3));
        let mut names = quoted(tests.unwrap_or_default());
        if !names.any(|name| row_of(name).as_deref() == Some(row)) {
            wrong.push(format!("{row}: no test is named after it"));
        }
    }
    for source in super::tidy::rust_sources() {
        for name in source.split("fn ").skip(1) {
            let name = name.split(['(', '<']).next().unwrap_or_default();
            let Some(row) = row_of(name) else { continue };
            // Rows about machines and networks are not in the table.
            let Some(line) = line(&row) else { continue };
            if !line.contains(&format!("`{name}`")) {
                wrong.push(format!("{row}: {name} is not in the table"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
