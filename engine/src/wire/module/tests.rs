//! One module against its host's half: what is taken, and that what is not hurts nobody (fault F32).

use super::*;
use crate::state::Values;

const ME: NodeId = NodeId::from_bytes([9; 16]);

struct Talk {
    host: ModuleHost,
    now: Instant,
}

fn talk(on_node: bool, values_per_second: u32) -> Talk {
    let place = Place {
        module: "fan".into(),
        host: ME,
        host_name: "head".parse().unwrap(),
        on_node,
        values_per_second,
    };
    let now = Instant::from_origin(Duration::from_secs(100));
    let config = BTreeMap::from([("speed".to_owned(), Value::Int(3))]);
    Talk {
        host: ModuleHost::new(place, &config, now),
        now,
    }
}

fn declaration() -> v1::Declaration {
    let value = |text: &str| v1::Value {
        kind: Some(v1::value::Kind::TextValue(text.into())),
    };
    v1::Declaration {
        api_version: 1,
        module: "fan".into(),
        mutations: vec![v1::Mutation {
            name: "START".into(),
            context: v1::MutationContext::Child.into(),
            mutates: vec![v1::UrlChange {
                url: "/site/fan".into(),
                from: vec![v1::OptionalValue::default()],
                to: Some(v1::OptionalValue {
                    value: Some(value("ON")),
                }),
            }],
            requires: vec![v1::UrlCondition {
                url: "/site/room".into(),
                any_of: vec![v1::OptionalValue {
                    value: Some(value("hot")),
                }],
                ..v1::UrlCondition::default()
            }],
            ..v1::Mutation::default()
        }],
        discoverables: vec!["/site/rpm".into()],
        reads: vec!["/power".into()],
        ..v1::Declaration::default()
    }
}

fn discovery(node: u8, values: &[(&str, &str)]) -> from_module::Kind {
    let change = |(url, text): &(&str, &str)| v1::ValueChange {
        url: (*url).into(),
        value: Some(v1::Value {
            kind: Some(v1::value::Kind::TextValue((*text).into())),
        }),
    };
    from_module::Kind::Discovery(v1::Discovery {
        node_id: if node == 0 {
            Vec::new()
        } else {
            vec![node; 16]
        },
        values: values.iter().map(change).collect(),
    })
}

impl Talk {
    fn declared(mut self) -> Self {
        self.says(from_module::Kind::Declare(declaration()));
        let events = self.events();
        assert!(
            matches!(events[..], [ModuleEvent::Declared(_)]),
            "{events:?}"
        );
        self.told();
        self
    }

    fn says(&mut self, kind: from_module::Kind) {
        let now = self.now;
        self.host
            .handle_message(v1::FromModule { kind: Some(kind) }, now);
    }

    fn sleep(&mut self, wait: Duration) {
        let end = self.now + wait;
        while let at = self.host.poll_timeout(self.now)
            && at <= end
        {
            // A timer that stands still would spin.
            assert!(at > self.now || self.host.ended);
            if self.host.ended {
                break;
            }
            self.now = at;
            self.host.handle_timeout(at);
        }
        self.now = end;
    }

    fn events(&mut self) -> Vec<ModuleEvent> {
        std::iter::from_fn(|| self.host.poll_event()).collect()
    }

    fn told(&mut self) -> Vec<to_module::Kind> {
        std::iter::from_fn(|| self.host.poll_transmit())
            .filter_map(|message| message.kind)
            .collect()
    }

    /// The values that were passed on, as `node url=value`.
    fn passed(&mut self) -> Vec<String> {
        let mut passed = Vec::new();
        for event in self.events() {
            if let ModuleEvent::Discovered { node, changes } = event {
                let node = node.as_bytes()[0];
                passed.extend(changes.iter().map(|change| match &change.value {
                    Some(value) => format!("{node} {}={value}", change.url),
                    None => format!("{node} {} unknown", change.url),
                }));
            }
        }
        passed
    }

    fn ended(&mut self) -> Option<String> {
        self.events().into_iter().find_map(|event| match event {
            ModuleEvent::End(why) => Some(why),
            _ => None,
        })
    }
}

#[test]
fn it_is_greeted_and_declares() {
    let mut talk = talk(false, 10);
    let told = talk.told();
    let [to_module::Kind::Hello(hello)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(
        (hello.api_version, hello.module.as_str(), hello.on_node),
        (1, "fan", false)
    );
    assert_eq!(hello.config.as_ref().unwrap().values.len(), 1);
    let mut talk = talk.declared();
    // The same again is no news; something else is.
    talk.says(from_module::Kind::Declare(declaration()));
    assert_eq!(talk.events(), []);
    let less = v1::Declaration {
        mutations: Vec::new(),
        ..declaration()
    };
    talk.says(from_module::Kind::Declare(less));
    assert!(matches!(talk.events()[..], [ModuleEvent::Declared(_)]));
}

#[test]
fn versions_and_names_that_do_not_fit_are_refused_in_words() {
    for (declaration, words) in [
        (
            v1::Declaration {
                api_version: 2,
                ..declaration()
            },
            "version 2",
        ),
        (
            v1::Declaration {
                api_version: 0,
                ..declaration()
            },
            "version 0",
        ),
        (
            v1::Declaration {
                module: "pump".into(),
                ..declaration()
            },
            "\"pump\"",
        ),
        (
            v1::Declaration {
                discoverables: vec!["no url".into()],
                ..declaration()
            },
            "discoverables",
        ),
    ] {
        let mut talk = talk(false, 10);
        talk.says(from_module::Kind::Declare(declaration));
        let why = talk.ended().unwrap();
        assert!(why.contains(words), "{why}");
        // Nothing counts after the end.
        talk.says(discovery(0, &[("/site/rpm", "1")]));
        assert_eq!(talk.events(), []);
    }
    let mut early = talk(false, 10);
    early.says(discovery(0, &[("/site/rpm", "1")]));
    assert!(early.ended().unwrap().contains("declare"));
}

#[test]
fn s28_it_reports_only_what_it_declared_and_on_a_node_only_that_node() {
    let mut talk = talk(false, 100).declared();
    talk.says(discovery(0, &[("/site/fan", "ON")]));
    talk.says(discovery(3, &[("/site/rpm/left", "7"), ("/site/rpm", "")]));
    assert_eq!(
        talk.passed(),
        [
            "9 /site/fan=ON",
            "3 /site/rpm/left=7",
            "3 /site/rpm unknown"
        ]
    );
    for url in ["/PhysState", "/site/rpms", "/site", "no url"] {
        talk.says(discovery(0, &[("/site/fan", "ON"), (url, "x")]));
        assert_eq!(talk.passed(), Vec::<String>::new(), "{url}");
        assert!(
            matches!(talk.told()[..], [to_module::Kind::Refused(_)]),
            "{url}"
        );
    }
    let mut own = self::talk(true, 100).declared();
    own.says(discovery(9, &[("/site/fan", "ON")]));
    own.says(discovery(3, &[("/site/fan", "ON")]));
    assert_eq!(own.passed(), ["9 /site/fan=ON"]);
}

#[test]
fn s28_it_sees_what_it_declared_and_secrets_only_of_its_own() {
    let talk = talk(false, 1).declared();
    let values: Values = [
        "/Busy",
        "/site/room",
        "/site/other",
        "/power/target",
        "/power/password",
        "/fan/key",
        "/services/fan/state",
        "/powers",
    ]
    .iter()
    .map(|url| (url.parse().unwrap(), Value::from("x")))
    .collect();
    let secret = |url: &StateUrl| matches!(url.as_str(), "/power/password" | "/fan/key");
    let seen = |urls: &[&str]| {
        let urls: Vec<StateUrl> = urls.iter().map(|url| url.parse().unwrap()).collect();
        let kept = talk.host.scope().filter(&values, &urls, secret);
        kept.iter()
            .map(|(url, _)| url.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        seen(&[]),
        "/Busy /fan/key /power/target /powers /services/fan/state /site/room"
    );
    assert_eq!(seen(&["/power", "/site/other"]), "/power/target");
}

#[test]
fn what_it_was_told_can_fail_once_and_be_interrupted() {
    let mut talk = talk(false, 10).declared();
    let fire = Fire {
        node: NodeId::from_bytes([3; 16]),
        name: "n3".parse().unwrap(),
        mutation: MutationId::new("fan", "START"),
        attempt: 7,
        deadline: Some(talk.now + Duration::from_secs(2)),
        cfg: Values::default(),
        dsc: Values::default(),
    };
    let mutate = crate::wire::convert::mutate_to_proto(&fire, &fire.cfg, &fire.dsc, talk.now);
    assert_eq!(
        (mutate.mutation.as_str(), mutate.timeout_ms),
        ("START", 2_000)
    );
    let failed = |attempt| {
        from_module::Kind::Failed(v1::MutationFailed {
            node_id: vec![3; 16],
            mutation: "START".into(),
            attempt,
            text: "stuck\nfan".into(),
        })
    };
    talk.host.fire(&fire, mutate.clone());
    assert_eq!(talk.host.told().count(), 1);
    talk.says(failed(6));
    talk.says(failed(7));
    talk.says(failed(7));
    let events = talk.events();
    let [
        ModuleEvent::Failed {
            attempt: 7, text, ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(text, "stuck fan");
    talk.host.fire(&fire, mutate);
    talk.host.interrupt(fire.node, &fire.mutation, 7);
    talk.host.interrupt(fire.node, &fire.mutation, 7);
    let told = talk.told();
    assert!(
        matches!(
            told[..],
            [
                to_module::Kind::Mutate(_),
                to_module::Kind::Mutate(_),
                to_module::Kind::Interrupt(_)
            ]
        ),
        "{told:?}"
    );
}

#[test]
fn f32_silence_ends_the_connection_and_any_word_keeps_it() {
    let mut silent = talk(false, 10);
    silent.sleep(DECLARE_TIMEOUT);
    assert!(silent.ended().unwrap().contains("declare"));

    let mut talk = talk(false, 10).declared();
    for _ in 0..10 {
        talk.sleep(PING);
        let told = talk.told();
        let [to_module::Kind::Ping(ping)] = &told[..] else {
            panic!("{told:?}")
        };
        talk.says(from_module::Kind::Pong(*ping));
    }
    assert_eq!(talk.ended(), None);
    talk.sleep(PING + PONG_TIMEOUT);
    assert!(talk.ended().unwrap().contains("hangs"));
}

#[test]
fn f32_a_flood_goes_on_at_the_rate_and_ends_with_the_latest_values() {
    let mut talk = talk(false, 10).declared();
    for round in 0..1_000 {
        for node in 1..=20 {
            talk.says(discovery(node, &[("/site/rpm", &round.to_string())]));
        }
    }
    let odd = |talk: &mut Talk| {
        let events = talk.events();
        let odd = events
            .iter()
            .filter(|event| matches!(event, ModuleEvent::Odd(_)))
            .count();
        let values: usize = events
            .iter()
            .map(|event| match event {
                ModuleEvent::Discovered { changes, .. } => changes.len(),
                _ => 0,
            })
            .sum();
        (odd, values)
    };
    // One second's worth at once, one word about it, and nobody reads on for the moment.
    assert_eq!(odd(&mut talk), (1, 10));
    let now = talk.now;
    assert!(!talk.host.may_read(now));
    assert_eq!(talk.host.counts().values_cut, 20_000 - 10 - 20);
    talk.sleep(Duration::from_secs(1));
    assert_eq!(odd(&mut talk), (0, 10));
    let now = talk.now;
    assert!(talk.host.may_read(now));
    talk.sleep(Duration::from_secs(1));
    let last = talk.passed();
    assert_eq!(last.len(), 10);
    assert!(
        last.iter().all(|value| value.ends_with("/site/rpm=999")),
        "{last:?}"
    );
}

#[test]
fn f32_garbage_is_refused_and_at_last_ends_the_connection() {
    let mut talk = talk(false, 1_000).declared();
    for _ in 0..50 {
        talk.host
            .handle_message(v1::FromModule { kind: None }, talk.now);
    }
    assert_eq!(talk.told().len(), 50);
    let events = talk.events();
    assert!(
        matches!(events[..], [ModuleEvent::Odd(_)]),
        "said once: {events:?}"
    );
    talk.says(discovery(0, &[("/site/fan", "ON")]));
    assert_eq!(talk.passed(), ["9 /site/fan=ON"]);
    for _ in 0..51 {
        talk.says(discovery(0, &[("/PhysState", "POWER_OFF")]));
    }
    assert!(talk.ended().unwrap().contains("/PhysState"));
}

#[test]
fn f32_lines_and_questions_have_a_rate() {
    let mut talk = talk(false, 1_000).declared();
    for _ in 0..100 {
        talk.says(from_module::Kind::Log(v1::ModuleLog {
            level: v1::module_log::Level::Info.into(),
            text: "a\u{1b}[31mline\n".into(),
            node_id: Vec::new(),
        }));
    }
    let events = talk.events();
    assert_eq!(events.len(), LINES as usize);
    assert_eq!(
        events[0],
        ModuleEvent::Line {
            level: v1::module_log::Level::Info,
            node: None,
            text: "a [31mline".into()
        }
    );
    assert_eq!(talk.host.counts().lines_dropped, 80);
    let query = |urls: usize| {
        from_module::Kind::Query(v1::Query {
            id: 5,
            node_ids: Vec::new(),
            urls: vec!["/power".into(); urls],
        })
    };
    talk.says(query(MAX_QUERY));
    assert!(matches!(
        talk.events()[..],
        [ModuleEvent::Asked { id: 5, .. }]
    ));
    talk.says(query(MAX_QUERY + 1));
    let told = talk.told();
    assert!(
        matches!(&told[..], [to_module::Kind::QueryResult(result), to_module::Kind::Refused(_)] if !result.error.is_empty()),
        "{told:?}"
    );
    for _ in 0..QUESTIONS {
        talk.says(query(1));
    }
    assert_eq!(
        talk.events()
            .iter()
            .filter(|event| matches!(event, ModuleEvent::Asked { .. }))
            .count(),
        QUESTIONS as usize - 1
    );
}
