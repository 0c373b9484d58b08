use super::*;
use crate::boot::table::tests::{armed_node, node, table};
use crate::boot::{ClientArch, EventSender, Loader};

fn served() -> Served {
    // n1 is on the link, n5 behind a router.
    let far = crate::boot::BootNode {
        address: "10.99.0.5/24".parse().expect("an address"),
        ..node(5)
    };
    let table = table([armed_node(1), far]);
    let loader = Loader {
        arch: ClientArch::Bios,
        name: "undionly.kpxe".into(),
        bytes: Bytes::from_static(b"loader"),
    };
    Served {
        table,
        loaders: Arc::new(Loaders::new(vec![loader]).expect("one")),
        stages: Arc::new(StageLog::new(EventSender::channel().0)),
        sessions: Arc::default(),
        address: "10.77.0.1/24".parse().expect("an address"),
        http_port: 8080,
        sync_port: 31415,
    }
}

fn client(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, last))
}

fn read(file: &mut MemoryFile) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut context = Context::from_waker(std::task::Waker::noop());
    loop {
        let mut piece = [0; 4];
        match Pin::new(&mut *file).poll_read(&mut context, &mut piece) {
            Poll::Ready(Ok(0)) => return Ok(content),
            Poll::Ready(Ok(read)) => content.extend_from_slice(&piece[..read]),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => panic!("memory is always ready"),
        }
    }
}

fn refused(served: &Served, client: IpAddr, name: &str) -> Refused {
    match served.open(client, name) {
        Ok(_) => panic!("{client} got {name}"),
        Err(refused) => refused,
    }
}

#[test]
fn loaders_and_scripts_come_from_memory() {
    let served = served();
    let mut loader = served.open(client(11), "undionly.kpxe").expect("a loader");
    assert_eq!(read(&mut loader).expect("content"), b"loader");
    let mut script = served
        .open(client(11), "boot/52:54:00:4b:00:01/script")
        .expect("a script");
    let script = String::from_utf8(read(&mut script).expect("content")).expect("text");
    assert!(script.contains("kraken.parent=10.77.0.1:31415"), "{script}");
}

#[test]
fn strangers_and_unknown_names_get_errors_of_rfc_1350() {
    let served = served();
    let far_node: IpAddr = "10.99.0.5".parse().expect("an address");
    assert!(
        served.open(far_node, "undionly.kpxe").is_ok(),
        "a node behind a router"
    );
    let stranger = refused(
        &served,
        "192.0.2.1".parse().expect("an address"),
        "undionly.kpxe",
    );
    assert_eq!(stranger, Refused::Stranger);
    assert!(matches!(stranger.error(), TftpError::PermissionDenied));
    for (name, expect) in [
        ("missing.efi", BadName::Unknown),
        ("boot/52:54:00:4b:00:63/script", BadName::Unknown),
        ("../undionly.kpxe", BadName::Traversal),
    ] {
        assert_eq!(
            refused(&served, client(11), name),
            Refused::Name(expect),
            "{name}"
        );
    }
    assert!(matches!(
        Refused::Name(BadName::Unknown).error(),
        TftpError::FileNotFound
    ));
    assert!(matches!(
        Refused::Write.error(),
        TftpError::PermissionDenied
    ));
}

#[test]
fn transfers_are_bounded_by_client_and_in_all_and_given_back() {
    let served = served();
    let open = |client| served.open(client, "undionly.kpxe");
    let own: Vec<_> = (0..MAX_SESSIONS_PER_CLIENT)
        .map(|_| open(client(11)).expect("room"))
        .collect();
    assert!(matches!(open(client(11)), Err(Refused::Sessions)));
    drop(own);
    let mut all = Vec::new();
    for i in 0..MAX_SESSIONS {
        all.push(open(client((i / MAX_SESSIONS_PER_CLIENT) as u8 + 100)).expect("room"));
    }
    assert!(matches!(open(client(11)), Err(Refused::Sessions)));
    all.pop();
    assert!(open(client(11)).is_ok());
    drop(all);
    assert!(served.sessions.0.lock().expect("unpoisoned").is_empty());
}

#[test]
fn a_transfer_that_lasts_too_long_is_ended() {
    let served = served();
    let mut file = served.open(client(11), "undionly.kpxe").expect("a loader");
    file.ends = Instant::now();
    assert_eq!(
        read(&mut file).expect_err("over").kind(),
        io::ErrorKind::TimedOut
    );
}
