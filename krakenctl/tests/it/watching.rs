//! `node watch`.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc;
use std::time::Duration;

use crate::fake_head::FakeHead;

/// A running watch, line by line.
struct Watch {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Watch {
    fn start(head: &FakeHead, args: &[&str]) -> Self {
        let mut child = head.spawn(&[&["node", "watch"], args].concat());
        let out = BufReader::new(child.stdout.take().expect("pipe"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    #[track_caller]
    fn next(&self) -> String {
        self.lines
            .recv_timeout(Duration::from_secs(20))
            .expect("a line")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn lines_for_people() {
    let head = FakeHead::start();
    head.add("n1");
    let watch = Watch::start(&head, &[]);
    assert_eq!(watch.next(), "n1 is unknown, unknown");
    head.discover("n1", "/PhysState", "POWER_ON");
    assert_eq!(watch.next(), "n1 /PhysState unknown -> POWER_ON");
    head.run(&["node", "set", "n1", "/RunState=SYNC"]).ends(0);
    assert_eq!(watch.next(), "n1 cfg /RunState unset -> SYNC");
    head.run(&["node", "delete", "n1"]).ends(0);
    assert_eq!(watch.next(), "n1 deleted");
}

/// The connection breaks and changes happen meanwhile: each is shown once, in order.
#[test]
fn a_lost_connection_leaves_no_gap() {
    let mut head = FakeHead::start();
    head.add("n1");
    let watch = Watch::start(&head, &["-o", "json", "--changes"]);
    assert!(watch.next().contains("synced"));
    head.discover("n1", "/RunState", "INIT");
    assert!(watch.next().contains("INIT"));
    head.stop();
    head.discover("n1", "/RunState", "SYNC");
    head.discover("n1", "/RunState", "ERROR");
    head.cut();
    assert_eq!(
        watch.next(),
        r#"{"from":"INIT","node":"n1","to":"SYNC","type":"dsc","url":"/RunState"}"#
    );
    assert!(watch.next().contains("ERROR"));
    let calls = head.world().calls.clone();
    assert!(calls.contains(&"watch after 2".to_owned()), "{calls:?}");
}

/// A head that restarts numbers its events afresh: the watch shows what differs, and nothing twice.
#[test]
fn a_head_that_restarts_leaves_no_gap() {
    let mut head = FakeHead::start();
    for name in ["n1", "n2", "n3"] {
        head.add(name);
    }
    let watch = Watch::start(&head, &["--changes"]);
    head.wait_for_call("watch");
    head.discover("n1", "/RunState", "INIT");
    assert_eq!(watch.next(), "n1 /RunState unknown -> INIT");
    head.stop();
    head.discover("n1", "/RunState", "SYNC");
    head.world().nodes.remove("n3");
    head.restart();
    assert_eq!(watch.next(), "n1 /RunState INIT -> SYNC");
    assert_eq!(watch.next(), "n3 deleted");
    head.add("n4");
    assert_eq!(watch.next(), "n4 is unknown, unknown");
}

#[test]
fn a_watch_of_nothing_says_so_at_once() {
    let head = FakeHead::start();
    head.run(&["node", "watch", "n9"]).ends(4);
    head.run(&["node", "watch", "-o", "csv"]).ends(2);
}
