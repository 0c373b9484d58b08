//! What is written down: the transcript, the key schedule, secrets, grant files.

use super::*;

#[test]
fn every_field_counts_in_the_transcript() {
    let hello = ChildJoin::with_grant(&fetch(&mut armed(), 0), identity(5), [9; 32])
        .hello()
        .clone();
    let challenge = ChallengeMessage {
        nonce: [3; 32],
        head_time_ms: NOW,
        version: 1,
    };
    let base = Transcript::new(&hello, &challenge);
    type Edit = fn(&mut HelloMessage, &mut ChallengeMessage);
    let edits: [(&str, Edit); 11] = [
        ("node", |h, _| h.node = node(7)),
        ("grant", |h, _| h.grant = Some(grant_id(7))),
        ("no grant", |h, _| h.grant = None),
        ("boot", |h, _| h.boot = boot(7)),
        ("offered versions", |h, _| h.versions.push(0)),
        ("agent version", |h, _| h.agent_version.push('x')),
        ("public key", |h, _| h.public_key[0] ^= 1),
        ("nonce", |h, _| h.nonce[0] ^= 1),
        ("cfg version", |h, _| h.cfg_version += 1),
        ("head time", |_, c| c.head_time_ms += 1),
        ("chosen version", |_, c| c.version += 1),
    ];
    let key = join_key(&Secret([1; 32]), grant_id(1));
    let mac = prove(&key, Side::Child, &base, &[9; 32]);
    for (name, edit) in edits {
        let (mut h, mut c) = (hello.clone(), challenge.clone());
        edit(&mut h, &mut c);
        let edited = Transcript::new(&h, &c);
        assert_ne!(edited, base, "{name}");
        assert!(!check(&key, Side::Child, &edited, &[9; 32], &mac), "{name}");
    }
    assert!(check(&key, Side::Child, &base, &[9; 32], &mac));
    assert!(!check(&key, Side::Parent, &base, &[9; 32], &mac), "side");
    assert!(!check(&key, Side::Child, &base, &[8; 32], &mac), "exporter");
    assert!(
        !check(&key, Side::Child, &base, &[9; 32], &mac[..31]),
        "cut"
    );
}

/// Fixed values, computed once with Python's hmac and hashlib from docs/sync-protocol.md: the wire format must not drift.
#[test]
fn the_key_schedule_is_the_documented_one() {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let key = join_key(&Secret([1; 32]), grant_id(2));
    assert_eq!(
        hex(&key.0),
        "8032a2547c97129411ccb34cc4a9139bb67d22c44af4f47274b6a3963770049a"
    );
    let keys = session_keys(&[3; 32], Some(&key), SessionId(0x0102_0304_0506_0708));
    assert_eq!(
        hex(&keys.up.0),
        "3308daccb81e375beff558f65b9ef936673ab4533c8a8747397c6798dfd95b05"
    );
    assert_eq!(
        hex(&keys.down.0),
        "a79fa2acf6f09bd46e314ea71cca090cd2328c1899cf868d374d338f16834ef4"
    );
    let rejoin = session_keys(&[3; 32], None, SessionId(0x0102_0304_0506_0708));
    assert_eq!(
        hex(&rejoin.up.0),
        "f0ec1a69fcd066f480a2d9a9dee49f854dadb9ef306840acc132870682659c19"
    );
    let hello = HelloMessage {
        node: node(4),
        grant: Some(grant_id(2)),
        boot: boot(5),
        versions: vec![1, 2],
        agent_version: "0.1.0".into(),
        public_key: vec![6; 91],
        nonce: [7; 32],
        cfg_version: 8,
    };
    let challenge = ChallengeMessage {
        nonce: [9; 32],
        head_time_ms: NOW,
        version: 1,
    };
    let mac = prove(
        &key,
        Side::Child,
        &Transcript::new(&hello, &challenge),
        &[3; 32],
    );
    assert_eq!(
        hex(&mac),
        "c88990f52de993457657ded351b3e913f45d9a9fae27ebe2727f745ed8a3d2b7"
    );
}

#[test]
fn secrets_cannot_be_printed() {
    let mut acceptor = Acceptor::default();
    acceptor.arm(NewGrant {
        secret: Secret([0xe7; 32]),
        ..new_grant(1)
    });
    let grant = acceptor.armed(node(1)).unwrap().clone();
    let file = fetch(&mut acceptor, 0);
    let child = ChildJoin::with_grant(&file, identity(5), [0xe7; 32]);
    let keys = session_keys(&[0xe7; 32], None, SessionId(1));
    let shown = format!(
        "{file:?} {grant:?} {child:?} {acceptor:?} {:?} {keys:?}",
        channel(0xe7)
    );
    assert!(shown.contains("Secret(..)"));
    assert!(!shown.contains("231") && !shown.contains("e7e7"), "{shown}");
    assert!(!shown.contains(&format!("{:?}", keys.up.0)));
}

#[test]
fn grant_files_are_read_strictly() {
    let good = fetch(&mut armed(), 0);
    let text = good.to_string();
    assert_eq!(text.lines().count(), 5);
    assert_eq!(text.parse::<GrantFile>().unwrap(), good);
    assert_eq!(
        text.trim_end().parse::<GrantFile>().unwrap(),
        good,
        "without the last newline"
    );
    assert!(text.len() <= MAX_FILE_BYTES);
    let table = [
        ("", "does not start with"),
        ("kraken-grant-v2\n", "does not start with"),
        (&text.replace("grant 0", "grunt 0"), "line 2"),
        (&text.replace("node ", "node  "), "line 3"),
        (&text.replace("boot b", "boot x"), "line 4"),
        (&text[..text.len() - 2], "line 5"),
        (&text.replace("secret 0", "secret +"), "line 5"),
        (&text.replace("secret 0", "secret ä"), "line 5"),
        (&text.replace('\n', "\r\n"), "does not start with"),
        (&format!("{text}more\n"), "more than five lines"),
        (
            &format!("{text}{}", "x".repeat(MAX_FILE_BYTES)),
            "longer than",
        ),
    ];
    for (text, expect) in table {
        let error = text.parse::<GrantFile>().expect_err(expect).to_string();
        assert!(error.contains(expect), "{error:?} lacks {expect:?}");
        assert!(!error.contains("0101"), "errors never repeat the file");
    }
}

proptest! {
    #[test]
    fn any_text_is_no_grant_or_its_own_rendering(text in "(kraken-grant-v1\n)?[a-z0-9 \n-]{0,220}") {
        if let Ok(file) = text.parse::<GrantFile>() {
            let again = file.to_string();
            prop_assert_eq!(again.trim_end(), text.trim_end());
        }
    }
}
