//! The standard health check of a module: `grpc.health.v1.Health/Check` of the whole server, beside the heartbeat of module.proto.
//!
//! ```text
//!             SERVING                NOT_SERVING, UNKNOWN, an error
//!   asked ──────────────▶ serving ◀──────────────────────────▶ held ── HOLD over ──▶ end: it is started again
//!     │ there is no such service                                 silence: end, it hangs
//!     ▼
//!   heartbeat only: not asked again on this connection
//! ```
//!
//! A module that says that it cannot serve is told nothing: mutations wait, as for one that is being started. [`Health`] is pure; [`ask`] is
//! the shell. The agent asks its modules by heartbeat alone: another client in its binary would cost more than it finds.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::link::words;
use super::status::NOT_SERVING;

/// Time between two questions, as between two pings.
const ASK: Duration = engine::wire::module::PING;
/// A module that does not answer in this time hangs, as one that does not answer a ping.
const ANSWER_TIMEOUT: Duration = engine::wire::module::PONG_TIMEOUT;
/// A module that cannot serve for so long is started again: what it waits for has had its time, and a fresh start mends the rest.
const HOLD: Duration = Duration::from_secs(30);

/// What came of one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It serves.
    Serving,
    /// It does not, in words.
    NotServing(String),
    /// It has no health service.
    Absent,
    /// Nothing came in time.
    Silent,
}

/// What follows from an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All is as it was.
    Same,
    /// Tell it nothing until it serves.
    Hold(String),
    /// It serves again.
    Resume,
    /// Start it again.
    End(String),
}

/// What is known of a module's health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Health {
    /// No answer yet.
    #[default]
    Unasked,
    /// Its heartbeat has to do.
    Heartbeat,
    /// It says that it serves.
    Serving,
    /// It says that it does not, since then.
    NotServing(Instant),
}

impl Health {
    /// Takes an answer.
    pub(super) fn handle(&mut self, answer: Answer, now: Instant) -> Verdict {
        match (answer, &*self) {
            (Answer::Silent, _) => Verdict::End(format!(
                "it hangs: no answer to a health check within {ANSWER_TIMEOUT:?}"
            )),
            (Answer::NotServing(why), Self::NotServing(since))
                if now.duration_since(*since) >= HOLD =>
            {
                Verdict::End(format!("it cannot serve for {HOLD:?}: {why}"))
            }
            (Answer::NotServing(_), Self::NotServing(_)) => Verdict::Same,
            (Answer::NotServing(why), _) => {
                *self = Self::NotServing(now);
                Verdict::Hold(why)
            }
            (answer, was) => {
                let was_held = matches!(was, Self::NotServing(_));
                *self = if answer == Answer::Serving {
                    Self::Serving
                } else {
                    Self::Heartbeat
                };
                if was_held {
                    Verdict::Resume
                } else {
                    Verdict::Same
                }
            }
        }
    }

    /// Whether it may be told something.
    pub(super) fn is_held(&self) -> bool {
        matches!(self, Self::NotServing(_))
    }

    /// For `krakenctl module list`.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Unasked => "",
            Self::Heartbeat => "heartbeat",
            Self::Serving => "serving",
            Self::NotServing(_) => NOT_SERVING,
        }
    }
}

/// Asks again and again, until nobody wants the answers or the module turns out to have no health service.
pub(super) async fn ask(channel: Channel, answers: mpsc::Sender<Answer>) {
    let mut client = HealthClient::new(channel);
    loop {
        let answer =
            match timeout(ANSWER_TIMEOUT, client.check(HealthCheckRequest::default())).await {
                Err(_) => Answer::Silent,
                Ok(Ok(response)) => match response.into_inner().status() {
                    ServingStatus::Serving => Answer::Serving,
                    ServingStatus::ServiceUnknown => Answer::Absent,
                    ServingStatus::NotServing => {
                        Answer::NotServing("it says that it does not serve".into())
                    }
                    ServingStatus::Unknown => {
                        Answer::NotServing("it does not know whether it serves".into())
                    }
                },
                Ok(Err(status)) => match status.code() {
                    Code::Unimplemented | Code::NotFound => Answer::Absent,
                    _ => Answer::NotServing(format!("its health check fails: {}", words(&status))),
                },
            };
        let is_last = matches!(answer, Answer::Absent | Answer::Silent);
        if answers.send(answer).await.is_err() || is_last {
            return;
        }
        tokio::select! {
            () = sleep(ASK) => {}
            () = answers.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no() -> Answer {
        Answer::NotServing("no".into())
    }

    #[test]
    fn every_answer_in_every_state() {
        let now = Instant::now();
        let held = Health::NotServing(now);
        let (same, resume, hold) = (Verdict::Same, Verdict::Resume, Verdict::Hold("no".into()));
        let table = [
            (
                Health::Unasked,
                Answer::Serving,
                same.clone(),
                Health::Serving,
            ),
            (
                Health::Unasked,
                Answer::Absent,
                same.clone(),
                Health::Heartbeat,
            ),
            (Health::Unasked, no(), hold.clone(), held.clone()),
            (
                Health::Serving,
                Answer::Serving,
                same.clone(),
                Health::Serving,
            ),
            (Health::Serving, no(), hold.clone(), held.clone()),
            (
                Health::Serving,
                Answer::Absent,
                same.clone(),
                Health::Heartbeat,
            ),
            (Health::Heartbeat, no(), hold, held.clone()),
            (held.clone(), no(), same, held.clone()),
            (
                held.clone(),
                Answer::Serving,
                resume.clone(),
                Health::Serving,
            ),
            (held, Answer::Absent, resume, Health::Heartbeat),
        ];
        for (mut health, answer, verdict, next) in table {
            let case = format!("{health:?} {answer:?}");
            assert_eq!(
                (health.handle(answer, now), &health),
                (verdict, &next),
                "{case}"
            );
        }
    }

    #[test]
    fn f32_one_that_cannot_serve_for_long_and_one_that_is_silent_are_ended() {
        let now = Instant::now();
        let mut health = Health::default();
        assert_eq!(health.handle(no(), now), Verdict::Hold("no".into()));
        assert_eq!(health.handle(no(), now + HOLD - ASK), Verdict::Same);
        let Verdict::End(why) = health.handle(no(), now + HOLD) else {
            panic!("it is ended")
        };
        assert!(why.ends_with("for 30s: no"), "{why}");
        for mut health in [Health::Unasked, Health::Serving, Health::NotServing(now)] {
            let Verdict::End(why) = health.handle(Answer::Silent, now) else {
                panic!("it is ended")
            };
            assert!(why.contains("it hangs"), "{why}");
        }
    }
}
