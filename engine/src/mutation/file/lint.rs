//! What is doubtful in the polls of mutation files: two modules that look at the same nodes for the same value.
//!
//! Polls are no part of a [`MutationSet`](crate::mutation::MutationSet), so the lints of a set do not know them; [`Polled`] stands beside those, and
//! tells them which values polls find. Pure.

use std::collections::BTreeMap;

use super::output::Found;
use super::program::{Poll, Program};
use crate::mutation::Allowed;
use crate::mutation::graph::MutationGraph;
use crate::mutation::lint::{Finding, Known, Lint, LintKind, MAX_OF_A_KIND, Severity, lint_beside};
use crate::state::StateUrl;

/// What the polls of some files mean for the lints of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    lints: Vec<Lint>,
    findings: Vec<Finding>,
}

impl Polled {
    /// Of the programs of all files.
    pub fn new(programs: &[Program]) -> Self {
        let polls = programs.iter().flat_map(|program| &program.polls);
        let readings = polls.flat_map(|poll| &poll.readings);
        let found = readings.flat_map(|reading| &reading.discover);
        let mut findings: Vec<Finding> = found
            .map(|(url, found)| match found {
                Found::Value(value) => (url.clone(), Some(value.clone())),
                Found::Group(_) => (url.clone(), None),
            })
            .collect();
        findings.sort();
        findings.dedup();
        Self {
            lints: lint(programs),
            findings,
        }
    }

    /// All that is doubtful in a set and in these polls, where urls are looked up in `known`.
    pub fn lint(&self, graph: &MutationGraph, known: Known<'_>) -> Vec<Lint> {
        let mut lints = lint_beside(graph, &self.findings, Some(known));
        lints.extend_from_slice(&self.lints);
        // Stable: how many more there are of a kind stays behind those that are told.
        lints.sort_by_key(|lint| (lint.severity, lint.kind));
        lints
    }
}

/// All that is doubtful, ordered by url, at most [`MAX_OF_A_KIND`].
fn lint(programs: &[Program]) -> Vec<Lint> {
    let mut finders: BTreeMap<&StateUrl, Vec<(&Program, &Poll)>> = BTreeMap::new();
    for program in programs {
        for poll in &program.polls {
            let readings = poll.readings.iter().flat_map(|reading| &reading.discover);
            let mut urls: Vec<&StateUrl> = readings.map(|(url, _)| url).collect();
            urls.sort();
            urls.dedup();
            for url in urls {
                finders.entry(url).or_default().push((program, poll));
            }
        }
    }
    let mut lints = Vec::new();
    for (url, polls) in finders {
        for (at, (one, a)) in polls.iter().enumerate() {
            let others = polls[at + 1..].iter();
            let rival = |(other, b): &&(&Program, &Poll)| other.module != one.module && meet(a, b);
            for (other, b) in others.filter(rival) {
                if lints.len() == MAX_OF_A_KIND {
                    return lints;
                }
                lints.push(Lint {
                    severity: Severity::Warn,
                    kind: LintKind::TwoFinders,
                    text: format!(
                        "the polls {} of {} and {} of {} both look for {url} on the same nodes: where they differ, each takes back what the other \
                         found; let their requires differ, or leave it to one module",
                        a.name, one.module, b.name, other.module
                    ),
                });
            }
        }
    }
    lints
}

/// Whether there may be a node that both look at.
fn meet(a: &Poll, b: &Poll) -> bool {
    a.requires.iter().all(|one| {
        let same_url = b.requires.iter().filter(|other| other.url == one.url);
        let mut values = same_url.map(|other| (&one.allows, &other.allows));
        values.all(|allowed| match allowed {
            (Allowed::AnyOf(these), Allowed::AnyOf(those)) => {
                these.iter().any(|value| those.contains(value))
            }
            // Numbers within bounds: told apart only by who declares them.
            _ => true,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extension::Schema;
    use crate::mutation::file::read;

    fn program(module: &str, requires: &str) -> Program {
        let text = format!(
            r#"
            module = "{module}"
            discoverables = ["/PhysState"]
            [[poll]]
            name = "look"
            every = "30s"
            requires = {{ {requires} }}
            command = ["true"]
            map = [{{ line = "on", discover = {{ "/PhysState" = "POWER_ON" }} }}]
            "#
        );
        let file = read("m.toml", &text, &Schema::built_in());
        file.unwrap_or_else(|error| panic!("{error}")).program
    }

    #[test]
    fn polls_of_the_same_nodes_are_named() {
        let driver = |name: &str| format!("\"/power/driver\" = \"{name}\"");
        let (redfish, command) = (driver("REDFISH"), driver("COMMAND"));
        let told = |a: Program, b: Program| -> Vec<String> {
            lint(&[a, b]).iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            told(program("a", ""), program("b", &redfish)),
            [
                "warn: the polls look of a and look of b both look for /PhysState on the same nodes: where they differ, each takes back what the other found; let their requires differ, or leave it to one module [two-finders]"
            ]
        );
        assert_eq!(
            told(program("a", &command), program("b", &redfish)),
            [""; 0]
        );
        assert_eq!(told(program("a", ""), program("a", "")), [""; 0]);
    }

    #[test]
    fn what_a_poll_finds_need_not_be_set() {
        let off = |map: &str| {
            let text = format!(
                r#"
                module = "m"
                [[poll]]
                name = "look"
                every = "30s"
                command = ["true"]
                map = [{map}]
                [[mutation]]
                name = "UP"
                mutates = {{ "/PhysState" = {{ from = "POWER_OFF", to = "POWER_ON" }} }}
                "#
            );
            let file = read("m.toml", &text, &Schema::built_in());
            let file = file.unwrap_or_else(|error| panic!("{error}"));
            let polled = Polled::new(std::slice::from_ref(&file.program));
            let lints = told(&polled, file.into_set(), false);
            lints.iter().any(|lint| lint.kind == LintKind::NeverFires)
        };
        let found = |value: &str| {
            format!("{{ regex = \"^is (.*)$\", discover = {{ \"/PhysState\" = \"{value}\" }} }}")
        };
        assert!(!off(&found("POWER_OFF")));
        assert!(!off(&found("$1")), "whatever it says");
        assert!(off(&found("POWER_ON")));
    }

    /// All that is doubtful in a set, by the built-in extensions.
    fn told(polled: &Polled, set: crate::mutation::MutationSet, complete: bool) -> Vec<Lint> {
        let schema = &Schema::built_in();
        polled.lint(
            &MutationGraph::new(&set).unwrap(),
            Known { schema, complete },
        )
    }

    #[test]
    fn urls_that_no_extension_has_are_named() {
        let text = r#"
            module = "m"
            [[mutation]]
            name = "A"
            mutates = { "/PhysSate" = { to = "POWER_ON" } }
            requires = { "/Plattform" = "x", "/warehouse/shelf" = "y", "/Platform" = "z" }
            "#;
        let file = read("m.toml", text, &Schema::built_in()).unwrap();
        let urls = |complete: bool| -> Vec<String> {
            let lints = told(&Polled::default(), file.clone().into_set(), complete).into_iter();
            let unknown = lints.filter(|lint| lint.kind == LintKind::UnknownUrl);
            unknown.map(|lint| lint.text).collect()
        };
        let near = [
            "no extension has /PhysSate, which m/A names; did you mean /PhysState?",
            "no extension has /Plattform, which m/A names; did you mean /Platform?",
        ];
        assert_eq!(urls(false), near);
        let all = urls(true);
        assert_eq!(all[..2], near);
        assert!(all[2].starts_with(
            "no extension has /warehouse/shelf, which m/A names, and no module reports it"
        ));
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn how_many_more_there_are_comes_last() {
        let one = |at: usize| {
            format!(
                "[[mutation]]\nname = \"M{at:03}\"\nmutates = {{ \"/x{at}/long/way\" = {{ from = \"1\", to = \"2\" }} }}\n"
            )
        };
        let text: String = (0..MAX_OF_A_KIND + 7).map(one).collect();
        let file = read(
            "m.toml",
            &format!("module = \"m\"\n{text}"),
            &Schema::built_in(),
        );
        let lints = told(&Polled::default(), file.unwrap().into_set(), false).into_iter();
        let never = lints.filter(|lint| lint.kind == LintKind::NeverFires);
        let texts: Vec<String> = never.map(|lint| lint.text).collect();
        assert_eq!(texts.len(), MAX_OF_A_KIND + 1);
        assert_eq!(texts[MAX_OF_A_KIND], "7 more of this kind");
    }
}
