//! Claim: killing the agent leaves the image running, and the node is back in SYNC within 2 s of the agent's restart.

use std::time::{Duration, Instant};

use crate::lab::{self, SOON};

/// The supervisor starts a dead agent within a second; then it has 2 s; the rest is for a console and a `krakenctl` on a busy core.
const BACK: Duration = Duration::from_secs(5);

#[test]
fn agent_killed_readopts() {
    lab::claim("agent_killed_readopts", |cluster, _| {
        let page = cluster.page("n1").expect("a request").expect("an answer");
        let resets = cluster.all_resets().expect("counts");
        let starts = || -> anyhow::Result<u32> {
            Ok(cluster
                .known("n1", "/host/agent_starts")?
                .parse()
                .unwrap_or(0))
        };
        let before = starts().expect("a count");
        let killed = Instant::now();
        cluster.type_line("n1", "kill-agent").expect("a console");
        let mut back = None;
        let end = killed + SOON;
        while back.is_none() {
            let answer = cluster.page("n1").expect("a request");
            assert_eq!(
                answer.as_ref(),
                Some(&page),
                "the image is the same one and answers throughout"
            );
            if starts().expect("a count") > before && cluster.is_up("n1").expect("a state") {
                back = Some(killed.elapsed());
            }
            assert!(
                Instant::now() < end,
                "the agent did not come back within {SOON:?}"
            );
        }
        let back = back.expect("it is back");
        assert!(back < BACK, "back in SYNC after {back:?}");
        assert_eq!(
            cluster
                .known("n1", "/image/deaths")
                .expect("a count")
                .trim_start_matches('0'),
            ""
        );
        assert_eq!(
            cluster.all_resets().expect("counts"),
            resets,
            "nobody touched the power"
        );
    });
}
