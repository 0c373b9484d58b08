//! Scenario files, for `plan --scenario` and `node explain --scenario`: played by the engine that heads run, without a head.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use engine::extension::Schema;
use engine::mutation::MutationSet;
use engine::mutation::file::load_dir;
use engine::scenario::{Case, Scenario};

use crate::exit::Failure;
use crate::output::{Paint, Tone};

/// A file, and the mutation sets that its cases name.
pub(crate) struct Scenarios {
    scenario: Scenario,
    sets: BTreeMap<String, MutationSet>,
}

impl Scenarios {
    /// Reads a file, and its sets out of the folder `sets` beside it.
    pub(crate) fn load(file: &Path) -> Result<Self, Failure> {
        let unacceptable =
            |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", file.display()));
        let text = fs::read_to_string(file).map_err(|error| unacceptable(&error))?;
        let scenario = Scenario::parse(&text).map_err(|error| unacceptable(&error))?;
        let folder = file.with_file_name("sets");
        let mut sets = BTreeMap::new();
        for case in &scenario.cases {
            if !sets.contains_key(&case.mutations) {
                let schema = Schema::built_in();
                let set = load_dir(&folder.join(&case.mutations), &schema)
                    .map_err(|error| unacceptable(&error))?
                    .with_reported(&schema);
                sets.insert(case.mutations.clone(), set);
            }
        }
        Ok(Self { scenario, sets })
    }

    /// The cases, each with its set.
    pub(crate) fn cases(&self) -> impl Iterator<Item = (&Case, &MutationSet)> {
        self.scenario
            .cases
            .iter()
            .filter_map(|case| Some((case, self.sets.get(&case.mutations)?)))
    }
}

/// The title of a case and what happens in it.
pub(crate) fn heading(case: &Case, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.text(&case.title, Tone::Bold));
    for line in &case.script {
        text.push_str(&format!("  > {}\n", line.text));
    }
    text
}
