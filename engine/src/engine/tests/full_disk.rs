//! A full disk: operators' writes are refused, and what the head needs itself is tried again alone (fault F05, promise P7).

use super::*;
use crate::event::Record;

/// The next commit: which, how many writes and other records it has, and whether it is the head's own.
fn commit_of(head: &mut Head) -> Option<(crate::event::CommitId, usize, usize, bool)> {
    while let Some(output) = head.engine.poll_output() {
        match output {
            Output::Commit {
                commit,
                records,
                own,
            } => {
                let is_write = |record: &&Record| matches!(record, Record::Write { .. });
                let writes = records.iter().filter(is_write).count();
                return Some((commit, writes, records.len() - writes, own));
            }
            Output::Fire(fire) => head.fired.push(fire),
            Output::Written { result, .. } => head.written.push(result),
            _ => {}
        }
    }
    None
}

#[test]
fn f05_a_full_disk_refuses_operators_and_keeps_what_the_head_needs() {
    let mut head = Head::new();
    head.add(1, &[]);
    head.add(2, &["/PhysState=POWER_ON"]);
    let reboot = Change::set("/Reboot".parse().unwrap(), Value::Bool(true));
    let changes = vec![reboot];
    head.write(vec![WriteOp::Set {
        node: id(1),
        changes,
    }])
    .unwrap();
    head.fired.clear();
    let operator = |head: &mut Head, mac: &str| {
        let ops = vec![WriteOp::Set {
            node: id(2),
            changes: vec![change(&format!("/ipv4/boot/mac=52:54:00:00:00:{mac}"))],
        }];
        head.engine
            .handle_input(Input::Write(write(99, ops)), head.now);
    };
    let find = |head: &mut Head, n: u8| {
        let found = Discovery {
            node: id(n),
            source: "power".into(),
            changes: vec![change("/PhysState=POWER_OFF")],
        };
        head.engine.handle_input(Input::Discover(found), head.now);
    };
    let told = |head: &mut Head, commit, result| {
        let committed = Input::Committed { commit, result };
        head.engine.handle_input(committed, head.now);
    };
    let full = || Err(crate::event::CommitError::DiskFull);
    // While a write is under way, there come the end of a reboot, which is the head's own write, an intent, and one more of the operator's.
    operator(&mut head, "01");
    let (first, ..) = commit_of(&mut head).unwrap();
    find(&mut head, 1);
    find(&mut head, 2);
    operator(&mut head, "02");
    told(&mut head, first, Ok(()));
    let (mixed, writes, others, own) = commit_of(&mut head).unwrap();
    assert_eq!((writes, others, own), (2, 1, false));
    head.written.clear();
    told(&mut head, mixed, full());
    // Ours are tried again alone; operators who go on do not hold them up.
    operator(&mut head, "03");
    let (alone, writes, others, own) = commit_of(&mut head).unwrap();
    assert_eq!((writes, others, own), (1, 1, true));
    assert!(matches!(&head.written[..], [Err(WriteError::Store(_))]));
    assert_eq!(head.fired(), [""; 0], "nothing is fired that is not logged");
    told(&mut head, alone, Ok(()));
    let (last, writes, _, own) = commit_of(&mut head).unwrap();
    assert_eq!((writes, own), (1, false));
    assert_eq!(head.fired(), ["power/OFFtoON"]);
    let cfg = |head: &Head, n| head.engine.tree().get(id(n)).unwrap().cfg.clone();
    assert_eq!(cfg(&head, 1).get("/Reboot"), None);
    told(&mut head, last, full());
    assert_eq!(commit_of(&mut head), None);
    assert_eq!(head.written.len(), 2);
    let mac = "/ipv4/boot/mac";
    assert_eq!(cfg(&head, 2).text(mac), Some("52:54:00:00:00:01"));
}
