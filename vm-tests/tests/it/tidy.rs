//! Claim: the repository is as `README.md` says, and nothing in it is unfinished, oversized or bound to one machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use vm_tests::paths;

/// Near 600 lines a review looks for the second subject; here it has been found.
const LINES_MAX: usize = 700;

/// Longest line of prose or code; beyond it a review does not show it whole.
const WIDTH_MAX: usize = 240;

/// Licenses that a dependency may have, as SPDX names; `OR` needs one of them, `AND` all.
const LICENSES: [&str; 13] = [
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    // Mozilla's list of root certificates, which is data.
    "CDLA-Permissive-2.0",
    "Unlicense",
];

/// Files that git knows, relative to the workspace.
fn tracked() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(paths::workspace())
        .output()
        .expect("git");
    assert!(output.status.success(), "git ls-files: {output:?}");
    let text = String::from_utf8(output.stdout).expect("names in UTF-8");
    // A file that is being moved is known to git and not there.
    text.split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .filter(|path| paths::workspace().join(path).exists())
        .collect()
}

fn read(path: &Path) -> Option<String> {
    String::from_utf8(fs::read(paths::workspace().join(path)).ok()?).ok()
}

fn sources() -> impl Iterator<Item = (PathBuf, String)> {
    let kinds = ["rs", "toml", "proto", "md", "txt"];
    tracked()
        .into_iter()
        .filter(move |path| {
            path.extension()
                .is_some_and(|ext| kinds.iter().any(|kind| ext == *kind))
        })
        .filter_map(|path| read(&path).map(|text| (path, text)))
}

/// The texts of all files in Rust.
pub(crate) fn rust_sources() -> impl Iterator<Item = String> {
    let rust = sources().filter(|(path, _)| path.extension().is_some_and(|ext| ext == "rs"));
    rust.map(|(_, text)| text)
}

fn expect_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn files_have_one_subject() {
    let long: Vec<_> = sources()
        .filter(|(path, _)| path.extension().is_some_and(|ext| ext == "rs"))
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    expect_none("files too long", &long);
    let wide: Vec<_> = sources()
        .filter(|(path, _)| path.extension().is_some_and(|ext| ext == "rs"))
        .flat_map(|(path, text)| {
            let wide = text
                .lines()
                .enumerate()
                .filter(|(_, line)| line.chars().count() > WIDTH_MAX);
            wide.map(|(at, _)| format!("{}:{}", path.display(), at + 1))
                .collect::<Vec<_>>()
        })
        .collect();
    expect_none("lines too wide", &wide);
}

#[test]
fn nothing_is_unfinished() {
    // In two halves, so that this file does not name itself.
    let marks = [
        ["to", "do!("],
        ["unimpl", "emented!("],
        ["FIX", "ME"],
        ["TO", "DO"],
        ["XX", "X:"],
    ]
    .map(|parts| parts.concat());
    let found: Vec<_> = sources()
        .flat_map(|(path, text)| {
            let hits = text
                .lines()
                .enumerate()
                .filter(|(_, line)| marks.iter().any(|mark| line.contains(mark)));
            hits.map(|(at, line)| format!("{}:{}: {}", path.display(), at + 1, line.trim()))
                .collect::<Vec<_>>()
        })
        .collect();
    expect_none("unfinished", &found);
}

#[test]
fn no_test_is_ignored() {
    let mark = ["#[ig", "nore"].concat();
    let found: Vec<_> = sources()
        .filter(|(path, text)| {
            path.extension().is_some_and(|ext| ext == "rs") && text.contains(&mark)
        })
        .map(|(path, _)| path.display().to_string())
        .collect();
    expect_none("ignored tests", &found);
}

#[test]
fn no_path_of_one_machine() {
    let found: Vec<_> = sources()
        .flat_map(|(path, text)| {
            let hits = text
                .lines()
                .enumerate()
                .filter(|(_, line)| names_a_machine(line));
            hits.map(|(at, line)| format!("{}:{}: {}", path.display(), at + 1, line.trim()))
                .collect::<Vec<_>>()
        })
        .collect();
    expect_none("paths of somebody's machine", &found);
}

/// Whether a line has an absolute path below somebody's home or work folder; the users `u` and `user` are nobody.
fn names_a_machine(line: &str) -> bool {
    let homes = [
        ["/ho", "me/"],
        ["/ro", "ot/"],
        ["/wo", "rk/"],
        ["/Us", "ers/"],
    ];
    homes.iter().map(|parts| parts.concat()).any(|home| {
        line.match_indices(&home).any(|(at, _)| {
            let is_inner =
                line[..at].ends_with(|c: char| c.is_alphanumeric() || "-_.}".contains(c));
            let rest = &line[at + home.len()..];
            let is_nobody = rest.starts_with("u/") || rest.starts_with("user/");
            !is_inner && !is_nobody
        })
    })
}

#[test]
fn every_file_says_what_it_is_for() {
    let found: Vec<_> = sources()
        .filter(|(path, _)| path.extension().is_some_and(|ext| ext == "rs"))
        .filter(|(path, _)| path.file_name().is_some_and(|name| name != "tests.rs"))
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    expect_none("files that do not open with their job", &found);
}

#[test]
fn members_are_documented_and_in_the_code_map() {
    let readme = read(Path::new("README.md")).expect("README.md");
    let manifest = read(Path::new("Cargo.toml")).expect("Cargo.toml");
    let manifest: toml::Table = toml::from_str(&manifest).expect("TOML");
    let members = manifest["workspace"]["members"]
        .as_array()
        .expect("members");
    for member in members
        .iter()
        .map(|member| member.as_str().expect("a name"))
    {
        let own = read(&Path::new(member).join("Cargo.toml")).expect("a manifest");
        let own: toml::Table = toml::from_str(&own).expect("TOML");
        let description = own["package"]
            .get("description")
            .and_then(|text| text.as_str());
        assert!(
            description.is_some_and(|text| !text.is_empty()),
            "{member} has a description"
        );
        let inherits = |key: &str| {
            own["package"]
                .get(key)
                .and_then(|value| value.get("workspace"))
                .is_some()
        };
        assert!(inherits("license"), "{member} has the workspace's license");
        let lints = own.get("lints").is_some();
        assert!(lints, "{member} has lints");
        assert!(
            readme.contains(&format!("[`{member}`]({member}/")),
            "{member} is in the code map"
        );
    }
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in
        sources().filter(|(path, _)| path.extension().is_some_and(|ext| ext == "md"))
    {
        let folder = path.parent().unwrap_or(Path::new(""));
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = link.split('#').next().unwrap_or_default();
            let is_local = !target.is_empty() && !target.contains("://");
            if is_local && !paths::workspace().join(folder).join(target).exists() {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    expect_none("broken links", &broken);
}

#[test]
fn licenses_are_there_and_fit() {
    for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
        assert!(
            read(Path::new(file)).is_some_and(|text| text.len() > 500),
            "{file}"
        );
    }
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .current_dir(paths::workspace())
        .output()
        .expect("cargo");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let found: Vec<_> = packages
        .iter()
        .filter(|package| !is_allowed(package["license"].as_str().unwrap_or_default()))
        .map(|package| {
            format!(
                "{} {}: {}",
                package["name"], package["version"], package["license"]
            )
        })
        .collect();
    expect_none("licenses that do not fit", &found);
}

/// Reads the SPDX expressions that crates.io's packages use: `OR` binds loosest, old manifests write it as `/`.
fn is_allowed(license: &str) -> bool {
    let plain = license.replace('/', " OR ").replace(['(', ')'], "");
    plain.split(" OR ").any(|choice| {
        choice
            .split(" AND ")
            .all(|name| LICENSES.contains(&name.trim()))
    })
}

#[test]
fn two_compilers_of_dependencies_stay_out() {
    let lock = read(Path::new("Cargo.lock")).expect("Cargo.lock");
    for banned in ["openssl-sys", "aws-lc-rs", "aws-lc-sys", "native-tls"] {
        assert!(
            !lock.contains(&format!("name = \"{banned}\"")),
            "{banned} is in Cargo.lock: ring is the only provider"
        );
    }
}
