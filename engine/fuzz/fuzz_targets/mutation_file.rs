//! Any text against the reader of mutation files; what it accepts must compile or be refused by name, and plan without a panic.
#![no_main]

use engine::extension::Schema;
use engine::mutation::file::read;
use engine::mutation::graph::MutationGraph;
use engine::state::Values;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(file) = read("fuzz.toml", text, &Schema::default()) else {
        return;
    };
    let set = file.into_set();
    let Ok(graph) = MutationGraph::new(&set) else {
        return;
    };
    // Everything that some mutation can make is wanted.
    let mut goal = Values::default();
    for change in set.mutations.iter().flat_map(|mutation| &mutation.mutates) {
        goal.set(change.url.clone(), change.to.clone());
    }
    let _ = graph.plan_to(&Values::default(), &goal, &goal);
});
