//! Where `tracing` events go: to the kernel's log, and into a short buffer whose lines the parent gets for the node's timeline.
//!
//! A subscriber of our own, because what we need of one is a line with fields, and the agent is small.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::kmsg::{Kmsg, Level};

/// Most lines that wait for a parent; a boot has about thirty.
const MAX_LINES: usize = 256;

/// One line for the parent.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Its weight.
    pub(crate) level: Level,
    /// What it says.
    pub(crate) text: String,
    at: Instant,
}

impl Line {
    /// How long ago it was written.
    pub(crate) fn age(&self) -> Duration {
        self.at.elapsed()
    }
}

/// Lines that wait for a parent. The oldest go first when there are too many.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    lines: Mutex<VecDeque<Line>>,
    more: Notify,
}

impl Lines {
    fn push(&self, line: Line) {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
        self.0.more.notify_one();
    }

    fn pop(&self) -> Option<Line> {
        self.0
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    /// The oldest line, as soon as there is one. Nothing is lost if the caller gives up waiting.
    pub(crate) async fn next(&self) -> Line {
        loop {
            if let Some(line) = self.pop() {
                return line;
            }
            self.0.more.notified().await;
        }
    }
}

/// Sends events of this program to `kmsg` and into the returned buffer.
pub(crate) fn install(kmsg: Kmsg, debug: bool) -> Lines {
    let lines = Lines::default();
    let sink = Sink {
        kmsg,
        least: if debug { Level::Debug } else { Level::Info },
        lines: lines.clone(),
    };
    // Fails only if there is a subscriber already, which then does the work.
    let _ = tracing::subscriber::set_global_default(sink);
    lines
}

struct Sink {
    kmsg: Kmsg,
    least: Level,
    lines: Lines,
}

impl Subscriber for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.target().starts_with("kraken_agent")
            || metadata.target().starts_with("engine");
        ours && metadata.is_event() && level(metadata.level()) <= self.least
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let line = Line {
            level: level(event.metadata().level()),
            text: text.message + &text.fields,
            at: Instant::now(),
        };
        self.kmsg.line(line.level, &line.text);
        self.lines.push(line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn level(level: &tracing::Level) -> Level {
    match *level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        _ => Level::Debug,
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_lines_and_the_oldest_go_first() {
        let lines = Lines::default();
        let sink = Sink {
            kmsg: Kmsg::stderr(),
            least: Level::Info,
            lines: lines.clone(),
        };
        tracing::subscriber::with_default(sink, || {
            tracing::info!(target: "kraken_agent::test", node = "n1", count = 3, "it works");
            tracing::debug!(target: "kraken_agent::test", "too light");
            tracing::error!(target: "h2", "not ours");
        });
        let line = lines.pop().unwrap();
        assert_eq!(
            (line.level, line.text.as_str()),
            (Level::Info, "it works node=n1 count=3")
        );
        assert!(lines.pop().is_none());

        for number in 0..=MAX_LINES {
            lines.push(Line {
                level: Level::Info,
                text: number.to_string(),
                at: Instant::now(),
            });
        }
        assert_eq!(lines.pop().unwrap().text, "1");
    }
}
