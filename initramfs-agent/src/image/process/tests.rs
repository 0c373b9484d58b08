use std::process::{Command, Stdio};

use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn record(pid: u32) -> Record {
    Record {
        name: "demo".into(),
        digest: "d".into(),
        pid,
        start_time: start_time(pid).unwrap(),
        deaths: 2,
    }
}

#[test]
fn records_come_back() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Record::load(dir.path()), None);
    let record = record(std::process::id());
    record.save(dir.path()).unwrap();
    assert_eq!(Record::load(dir.path()), Some(record));
    fs::write(dir.path().join(Record::FILE), "{").unwrap();
    assert_eq!(Record::load(dir.path()), None);
}

#[test]
fn a_name_full_of_brackets_does_not_confuse() {
    let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
    assert_eq!(parse_stat(stat), Some(4242));
    assert_eq!(parse_stat(&stat.replace(") S ", ") Z ")), None);
    for bad in ["", "7", "7 (x)", "7 (x) S 1"] {
        assert_eq!(parse_stat(bad), None);
    }
}

#[test]
fn the_polite_signal_is_one_that_is_heard() {
    assert_eq!(choose_signal(0), None);
    assert_eq!(choose_signal(1 << (libc::SIGTERM - 1)), Some(libc::SIGTERM));
    assert_eq!(choose_signal(u64::MAX), Some(SIGRTMIN_3));
}

#[test]
fn a_process_is_adopted_stopped_and_its_end_seen() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new("sleep")
        .arg("1000")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let record = record(child.id());
    runtime().block_on(async {
        let process = Process::adopt(record.clone(), dir.path()).unwrap();
        assert!(
            timeout(Duration::from_millis(20), process.ended())
                .await
                .is_err()
        );
        process.stop().await.unwrap();
        assert_eq!(start_time(record.pid), None, "it is a zombie now");
        assert!(Process::adopt(record.clone(), dir.path()).is_none());
    });
    child.wait().unwrap();
}

#[test]
fn another_process_with_the_same_number_is_not_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let mut other = record(std::process::id());
    other.start_time += 1;
    runtime().block_on(async {
        assert!(Process::adopt(other, dir.path()).is_none());
    });
}

#[test]
fn words_are_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("7");
    fs::write(&file, "signal 9").unwrap();
    runtime().block_on(async {
        assert_eq!(last_words(&file).await, "signal 9");
    });
    assert!(!file.exists());
}
