//! What the claims share: artifacts, clusters that several claims use one after the other, and the bundle of a failed one.

use std::{
    fs,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use vm_tests::{
    artifacts::Artifacts,
    cluster::{Cluster, Options},
    failure_bundle, suite,
};

/// One cluster at a time: two cores without KVM carry no more.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The artifacts, if the lab runs this test; else says aloud that the claim was not tried.
pub(crate) fn artifacts(claim: &str) -> Option<Artifacts> {
    let Some(list) = std::env::var_os(suite::ARTIFACTS_VARIABLE) else {
        // Past libtest's capture, so that it is seen.
        let text = format!("SKIP {claim}: VM claims run under `cargo lab test`\n");
        std::io::stderr().write_all(text.as_bytes()).ok();
        return None;
    };
    let bytes = fs::read(list).expect("the list of artifacts");
    Some(serde_json::from_slice(&bytes).expect("a list of artifacts"))
}

/// Options for a cluster of `count` machines that ends with this process.
pub(crate) fn options(claim: &str, count: u8) -> Options {
    Options {
        lifeline: true,
        lab: PathBuf::from(env!("CARGO_BIN_EXE_kraken-lab")),
        ..Options::new(claim, count)
    }
}

/// Waits until no other claim has a cluster.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the claim's body; if it panics, keeps all evidence of the cluster first.
pub(crate) fn prove(claim: &str, cluster: &Cluster, body: impl FnOnce()) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(body)) else {
        return;
    };
    let why = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default();
    match failure_bundle::keep(cluster, claim, &why) {
        Ok(folder) => eprintln!(
            "claim {claim} failed; everything about it is in {}",
            folder.display()
        ),
        Err(error) => eprintln!("claim {claim} failed, and so did keeping its evidence: {error:#}"),
    }
    resume_unwind(panic);
}
