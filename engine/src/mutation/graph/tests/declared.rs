//! What a set declares: careless sets, dependencies, what is forgotten.

use super::*;
use crate::mutation::MAX_MUTATIONS;

#[test]
fn f29_careless_sets_are_refused_by_name() {
    let refuse =
        |mutations: Vec<Mutation>| MutationGraph::new(&set(mutations)).unwrap_err().to_string();
    let twice = parsed(
        "
        A /a:>1
        A /b:>1
        ",
    );
    assert_eq!(refuse(twice), "mutation m/A is declared twice");
    assert_eq!(
        refuse(vec![mutation("m/A", "", "", "", 1)]),
        "mutation m/A mutates nothing"
    );
    assert_eq!(
        refuse(vec![mutation("m/A", "/a:>1 /a:>2", "", "", 1)]),
        "mutation m/A mutates /a twice"
    );
    let mut never = mutation("m/A", "/a:>1", "/b=1", "", 1);
    never.requires[0].allows = Allowed::AnyOf(Vec::new());
    assert_eq!(refuse(vec![never]), "mutation m/A allows no value of /b");
    let mut never = mutation("m/A", "/a:>1", "", "", 1);
    never.mutates[0].from.clear();
    assert_eq!(refuse(vec![never]), "mutation m/A allows no value of /a");

    let dependency = |conditions: &str| Dependency {
        url: "/a".parse().unwrap(),
        conditions: super::conditions(conditions),
    };
    let mut declared = set(vec![mutation("m/A", "/a:>1", "", "", 1)]);
    declared.dependencies = vec![dependency("/b=1"), dependency("/b=2")];
    let error = MutationGraph::new(&declared).unwrap_err();
    assert_eq!(error.to_string(), "dependencies of /a are declared twice");
}

#[test]
fn f28_sets_have_an_end() {
    let numbered = |count: usize, url: &dyn Fn(usize) -> String| -> MutationSet {
        set((0..count)
            .map(|at| mutation(&format!("m/{at:05}"), &format!("{}:>1", url(at)), "", "", 1))
            .collect())
    };
    let most = numbered(MAX_MUTATIONS, &|_| "/a".to_owned());
    assert!(MutationGraph::new(&most).is_ok());
    let more = numbered(MAX_MUTATIONS + 1, &|_| "/a".to_owned());
    assert_eq!(
        MutationGraph::new(&more).unwrap_err(),
        GraphError::TooManyMutations(MAX_MUTATIONS + 1)
    );
    let most = numbered(MAX_URLS, &|at| format!("/a{at}"));
    assert!(MutationGraph::new(&most).is_ok());
    let more = numbered(MAX_URLS + 1, &|at| format!("/a{at}"));
    assert_eq!(
        MutationGraph::new(&more).unwrap_err(),
        GraphError::TooManyUrls
    );
}

#[test]
fn discoverable_are_mutated_urls_those_of_the_core_and_declared_ones() {
    let mut declared = set(vec![mutation("m/A", "/a:>1", "/b=1", "", 1)]);
    declared.discoverables = vec!["/c".parse().unwrap()];
    let graph = MutationGraph::new(&declared).unwrap();
    for (url, expect) in [
        ("/a", true),
        ("/b", false),
        ("/c", true),
        ("/d", false),
        ("/PhysState", true),
        ("/RunState", true),
        ("/Busy", true),
        ("/services/ntp/state", true),
        ("/services/ntp/config", false),
        ("/services/state", false),
        ("/services/a/b/state", false),
    ] {
        assert_eq!(
            graph.is_discoverable(&url.parse().unwrap()),
            expect,
            "{url}"
        );
    }
    assert!(graph.is_mutated(&"/a".parse().unwrap()));
    assert!(!graph.is_mutated(&"/b".parse().unwrap()));
}

#[test]
fn what_nothing_mutates_is_out_of_reach_unless_it_is_a_parameter() {
    let graph = MutationGraph::new(&MutationSet {
        mutations: vec![mutation("image/START", "/image/state:>1", "/on=1", "", 1)],
        discoverables: vec!["/image/deaths".parse().unwrap()],
        ..MutationSet::default()
    })
    .unwrap();
    for (url, expect) in [
        ("/image/state", false),
        ("/image/name", false),
        ("/image/deaths", true),
        ("/fan/state", true),
        ("/RunState", true),
        ("/services/ntp/state", true),
    ] {
        let url = url.parse().unwrap();
        assert_eq!(graph.is_out_of_reach(&url), expect, "{url}");
    }
}

#[test]
fn dependencies_are_what_all_discovering_mutations_require() {
    let graph = graph(vec![
        mutation("m/A", "/x:>1", "/on=1 /site=a /n=1|2", "", 1),
        mutation("m/B", "/x:|2>3", "/on=1 /site=b /n=2|1", "", 1),
        // Takes nothing from unknown.
        mutation("m/C", "/x:1>2", "/other=1", "", 1),
        // Makes unknown what was unknown.
        mutation("m/D", "/x:>", "", "", 1),
        // What it requires ends with it, or is what it changes.
        mutation("m/E", "/y:>1 /on:1>2 /z:1>2", "/on=1 /y= /z=1|2", "", 1),
    ]);
    let of = |url: &str| format!("{:?}", graph.dependencies(&url.parse().unwrap()));
    assert_eq!(of("/x"), format!("{:?}", conditions("/n=1|2 /on=1")));
    assert_eq!(of("/y"), format!("{:?}", conditions("/z=1|2")));
    assert_eq!(of("/nowhere"), "[]");
}

#[test]
fn declared_dependencies_replace_the_implied_ones() {
    let mut declared = set(vec![mutation("m/A", "/x:>1", "/on=1", "", 1)]);
    declared.dependencies = vec![Dependency {
        url: "/x".parse().unwrap(),
        conditions: conditions("/lamp=green"),
    }];
    let graph = MutationGraph::new(&declared).unwrap();
    assert_eq!(
        graph.dependencies(&"/x".parse().unwrap()),
        conditions("/lamp=green")
    );
}

#[test]
fn forgetting_goes_on_from_what_was_forgotten() {
    let graph = graph(parsed(
        "
        ON /on:>yes if /site=here
        A /a:>1 if /on=yes
        B /b:>1 if /a=1|2
        C /c:>1 if /d=1
        ",
    ));
    let forget = |dsc: &str, cfg: &str, changed: &str| {
        let changed: Vec<StateUrl> = changed
            .split_whitespace()
            .map(|url| url.parse().unwrap())
            .collect();
        let text: Vec<String> = graph
            .forget(&texts(dsc), &texts(cfg), &changed)
            .iter()
            .map(ToString::to_string)
            .collect();
        text.join(" ")
    };
    assert_eq!(
        forget("/on=no /a=1 /b=1 /c=1", "/site=here", "/on"),
        "/a /b"
    );
    assert_eq!(forget("/on=yes /a=2 /b=1", "/site=here", "/a"), "");
    assert_eq!(forget("/on=yes /a=3 /b=1", "/site=here", "/a"), "/b");
    // What is unknown already is not forgotten, nor is what nothing that changed bears on.
    assert_eq!(forget("/on=no /b=1 /c=1", "/site=here", "/on"), "");
    // A change of Cfg counts too.
    assert_eq!(
        forget("/on=yes /a=1 /b=1", "/site=there", "/site"),
        "/on /a /b"
    );
    assert_eq!(forget("/on=yes", "/site=here", "/nowhere"), "");
}

/// As [`values`], every value a text.
fn texts(text: &str) -> Values {
    let pairs = text
        .split_whitespace()
        .map(|pair| pair.split_once('=').unwrap());
    pairs
        .map(|(url, value)| (url.parse().unwrap(), Value::from(value)))
        .collect()
}

#[test]
fn goals_that_exclude_each_other_are_set_aside_for_live_nodes() {
    let graph = graph(vec![
        mutation("power/OFF", "/power:>off", "", "", 1),
        mutation("power/ON", "/power:off>on", "", "", 1),
        mutation("run/SYNC", "/run:>sync", "/power=on", "", 1),
        mutation("image/UP", "/image:>up", "/run=sync", "", 1),
        mutation("site/A", "/site:>a", "/room=1", "", 1),
    ]);
    let goal = |cfg: &str| {
        let goal = graph.effective_goal(&texts(cfg));
        let pairs = goal
            .goal
            .iter()
            .map(|(url, value)| format!("{url}={value}"));
        let aside = goal
            .suspended
            .iter()
            .map(|(url, because)| format!("{url}<{because}"));
        pairs.chain(aside).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        goal("/power=on /run=sync /image=up"),
        "/image=up /power=on /run=sync"
    );
    assert_eq!(
        goal("/power=off /run=sync /image=up"),
        "/power=off /image</power /run</power"
    );
    // Also through a url that Cfg leaves open.
    assert_eq!(goal("/power=off /image=up"), "/power=off /image</power");
    // What Cfg alone decides is no goal: that is an obstacle to be named.
    assert_eq!(goal("/room=2 /site=a"), "/site=a");
    assert_eq!(goal("/else=1"), "");
}

#[test]
fn f29_cheaper_wins_then_shorter_then_the_first_by_id() {
    let costs = graph(parsed(
        "
        DIRECT /a:1>4 cost 4
        ONE /a:1>2
        TWO /a:2>3
        THREE /a:3>4
        ",
    ));
    check(
        &costs,
        "/a=one",
        "/a=4",
        "/a=4 cannot be reached from /a=one: no mutation leads to /a=4 as that type of value: mind the difference between texts and numbers",
    );
    let plan = |graph: &MutationGraph| {
        let plan = graph.plan(&texts("/a=1"), &texts("/a=4"));
        plan.steps()
            .iter()
            .map(MutationId::name)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(plan(&costs), "ONE TWO THREE");
    let free = graph(parsed(
        "
        A /a:1>2 cost 0
        B /a:2>1 cost 0
        C /a:2>3 cost 0
        D /a:3>4 cost 0
        X /a:1>4 cost 0
        ",
    ));
    assert_eq!(plan(&free), "X");
    let tie = graph(vec![
        mutation("m/B", "/a:1>4", "", "", 1),
        mutation("m/A", "/a:1>4", "", "", 1),
        mutation("l/Z", "/a:1>4", "", "", 1),
    ]);
    assert_eq!(plan(&tie), "Z");
}

#[test]
fn independent_parts_interleave_by_id() {
    let graph = graph(parsed(
        "
        A /a:>1
        D /a:1>2
        B /b:>1
        C /b:1>2
        ",
    ));
    let plan = graph.plan(&Values::default(), &texts("/a=2 /b=2"));
    let steps: Vec<&str> = plan.steps().iter().map(MutationId::name).collect();
    assert_eq!(steps, ["A", "B", "C", "D"]);
}

#[test]
fn one_mutation_may_change_several_urls_and_forget_its_own() {
    // After B, /x hangs on /p=1, which B itself ends.
    let graph = graph(parsed(
        "
        A /x:>1 if /p=1
        B /p:1>2 /y:>1
        C /p:>1
        ",
    ));
    let both = graph.plan(&texts("/p=1 /x=1"), &texts("/x=1 /y=1"));
    let Plan::NoPath(no_path) = both else {
        panic!("{both:?}")
    };
    assert_eq!(no_path.kind, NoPathKind::Conflict);
    assert_eq!(no_path.reason, "/y=1 can be reached only by giving up /x=1");
}

#[test]
fn excludes_may_name_unknown() {
    let graph = graph(parsed(
        "
        A /a:>1 unless /b=
        B /b:>1
        ",
    ));
    let plan = graph.plan(&Values::default(), &texts("/a=1"));
    assert_eq!(
        plan.steps()
            .iter()
            .map(MutationId::name)
            .collect::<Vec<_>>(),
        ["B", "A"]
    );
}

/// Forty switches that all must be on at once, except that the last needs the first off again.
pub(crate) fn hopeless() -> Vec<Mutation> {
    let mut mutations = Vec::new();
    let mut all = String::new();
    for at in 0..40 {
        mutations.push(mutation(
            &format!("m/ON{at:02}"),
            &format!("/s{at:02}:|off>on"),
            "",
            "",
            1,
        ));
        mutations.push(mutation(
            &format!("m/OFF{at:02}"),
            &format!("/s{at:02}:on>off"),
            "",
            "",
            1,
        ));
        if at % 2 == 0 {
            all.push_str(&format!(" /s{at:02}=on /s{:02}=off", at + 1));
        }
    }
    mutations.push(mutation("m/GOAL", "/goal:>1", &all, "", 1));
    mutations.push(mutation("m/LAST", "/last:>1", "/goal=1", "", 1));
    mutations.push(mutation("m/SPOIL", "/last:1>2 /goal:1>", "/s00=off", "", 1));
    mutations
}

#[test]
fn f28_a_hopeless_search_ends_and_says_so() {
    let graph = graph(hopeless());
    let plan = graph.plan(&Values::default(), &texts("/last=2 /goal=1"));
    let Plan::NoPath(no_path) = plan else {
        panic!("{plan:?}")
    };
    assert_eq!(no_path.kind, NoPathKind::OverBudget);
    assert!(
        no_path.reason.contains("was given up after 131072 states"),
        "{no_path}"
    );
}

#[test]
fn f28_ten_thousand_mutations_of_one_url_are_planned() {
    let chain = (1..MAX_MUTATIONS).map(|at| {
        let from = if at == 1 {
            String::new()
        } else {
            (at - 1).to_string()
        };
        mutation(
            &format!("m/{at:05}"),
            &format!("/a:{from}>{at}"),
            "",
            "",
            u32::MAX,
        )
    });
    let graph = graph(chain.collect());
    let plan = graph.plan(&Values::default(), &texts("/a=9999"));
    let Plan::Path(path) = plan else {
        panic!("{plan:?}")
    };
    assert_eq!(path.steps.len(), MAX_MUTATIONS - 1);
    assert_eq!(path.cost, u64::from(u32::MAX) * 9_999);
}

#[test]
fn values_that_no_mutation_mentions_are_told_apart() {
    let graph = graph(parsed(
        "
        A /a:>1 unless /b=x
        B /b:x>y
        ",
    ));
    let plan = |dsc: &str, cfg: &str| graph.plan(&texts(dsc), &texts(cfg));
    assert_eq!(plan("/a=odd", "/a=odd"), Plan::Converged);
    assert!(matches!(plan("/a=odd", "/a=even"), Plan::NoPath(_)));
    assert_eq!(plan("/b=odd", "/a=1").steps().len(), 1);
}

#[test]
fn the_drawing_marks_start_goal_and_path() {
    let graph = graph(parsed(
        "
        A /a:>1
        B /a:1>2
        C /a:2>1
        ",
    ));
    let cfg = texts("/a=2");
    let states = graph.states(&Values::default(), &cfg, &cfg);
    assert_eq!(states.path.len(), 3);
    assert!(!states.truncated);
    assert_eq!(
        states.to_dot(),
        r#"digraph states {
  rankdir=LR;
  node [shape=box, style=rounded];
  s0 [label="all unknown\l", peripheries=2, penwidth=3];
  s1 [label="/a=1\l", penwidth=3];
  s2 [label="/a=2\l", style="rounded,filled", fillcolor=palegreen, penwidth=3];
  s0 -> s1 [label="m/A", penwidth=3, color=forestgreen];
  s1 -> s2 [label="m/B", penwidth=3, color=forestgreen];
  s2 -> s1 [label="m/C"];
}
"#
    );
}

#[test]
fn a_large_drawing_is_cut_but_holds_the_path() {
    let mut mutations = Vec::new();
    for url in 0..6 {
        for at in 1..6 {
            let from = if at == 1 {
                String::new()
            } else {
                (at - 1).to_string()
            };
            mutations.push(mutation(
                &format!("m/U{url}V{at}"),
                &format!("/u{url}:{from}>{at}"),
                "",
                "",
                1,
            ));
        }
    }
    let graph = graph(mutations);
    let cfg = texts("/u0=5 /u1=5 /u2=5 /u3=5 /u4=5 /u5=5");
    let states = graph.states(&Values::default(), &cfg, &cfg);
    assert!(states.truncated);
    assert_eq!(states.graph.node_count(), MAX_GRAPH_STATES);
    assert_eq!(states.path.len(), 31);
    assert!(states.to_dot().contains("more than 2048 states"));
}
