//! `node watch`.

use crate::exit::{Exit, Failure};
use crate::mirror::{AlarmLine, Line, MutationLine, ValueLine};
use crate::node::follow::{Follow, Step};
use crate::output::{Format, Paint, Tone, printable};
use crate::{Context, complete, value, view, write};

/// Arguments of `node watch`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Starts with one line for each node, then shows every change of Cfg and Dsc, every mutation, and alarms: a breaker that opened, many nodes \
that fell silent at once, a node that cannot go on. When the connection is lost, or the \
head restarts, it connects again and goes on without a gap. Ctrl-C ends it.

With -o json each line is an object; its \"type\" is node, synced, cfg, dsc, mutation, alarm, frozen or deleted. \"synced\" comes once what \
was there at the start has been told.

Examples:
  krakenctl node watch
  krakenctl node watch n3 --changes
  krakenctl node watch -o json | jq 'select(.type == \"mutation\" and .event == \"failed\")'")]
pub(crate) struct WatchArgs {
    /// Node set; without it: all nodes
    #[arg(add = complete::nodes())]
    nodes: Option<String>,
    /// Changes alone, without the state at the start
    #[arg(long)]
    changes: bool,
    /// Put the time (UTC) before each line
    #[arg(short, long)]
    time: bool,
    /// Lines for people, or JSON lines
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

pub(crate) async fn run(args: WatchArgs, context: &Context) -> Result<Exit, Failure> {
    let nodes = args
        .nodes
        .as_deref()
        .map(write::node_set)
        .transpose()?
        .unwrap_or_default();
    let json = match args.output {
        Format::Json => true,
        Format::Table | Format::Wide => false,
        _ => {
            return Err(Failure::usage(
                "a watch is written as lines, or as JSON lines with -o json",
            ));
        }
    };
    let mut follow = Follow::start(context.head().await?, nodes).await?;
    let mut is_synced = false;
    loop {
        match follow.next(context).await? {
            Step::Lines(lines) => {
                let mut text = String::new();
                for line in &lines {
                    let at_start = !is_synced && matches!(line, Line::Node { .. });
                    is_synced |= matches!(line, Line::Synced { .. });
                    if args.changes && at_start {
                        continue;
                    }
                    text += &if json {
                        json_line(line, args.time)?
                    } else {
                        people_line(line, args.time, context.screen.paint)
                    };
                }
                if !text.is_empty() {
                    context.screen.print(&text)?;
                }
            }
            Step::Lost(why) => {
                context.note(&format!("lost the head: {}; trying again", printable(&why)))
            }
            Step::Back => context.note("the head answers again"),
        }
    }
}

fn json_line(line: &Line, with_time: bool) -> Result<String, Failure> {
    let failed =
        |error| Failure::from(anyhow::Error::new(error).context("the line cannot be written"));
    let mut json = serde_json::to_value(line).map_err(failed)?;
    if let (true, Some(object)) = (with_time, json.as_object_mut()) {
        object.insert("at_ms".to_owned(), view::now_ms().into());
    }
    Ok(serde_json::to_string(&json).map_err(failed)? + "\n")
}

fn people_line(line: &Line, with_time: bool, paint: Paint) -> String {
    let text = match line {
        Line::Node { node } => {
            let state = |url: &str| match node.dsc.get(url).and_then(|value| value.as_str()) {
                Some(text) => paint.text(&printable(text), view::tone(text)),
                None => "unknown".to_owned(),
            };
            format!(
                "{} is {}, {}",
                name(&node.name, paint),
                state("/PhysState"),
                state("/RunState")
            )
        }
        Line::Synced { .. } => return String::new(),
        Line::Dsc(line) => value_line(line, "", paint),
        Line::Cfg(line) => value_line(line, "cfg ", paint),
        Line::Frozen { node, frozen } => {
            format!(
                "{} {}",
                name(node, paint),
                if *frozen { "frozen" } else { "thawed" }
            )
        }
        Line::Deleted { node } => format!("{} deleted", name(node, paint)),
        Line::Mutation(line) => mutation_line(line, paint),
        Line::Alarm(line) => alarm_line(line, paint),
    };
    if text.is_empty() {
        return text;
    }
    let time = if with_time {
        utc_time(view::now_ms()) + " "
    } else {
        String::new()
    };
    format!("{time}{text}\n")
}

fn name(name: &str, paint: Paint) -> String {
    paint.text(&printable(name), Tone::Bold)
}

fn value_line(line: &ValueLine, kind: &str, paint: Paint) -> String {
    let word = |text: &str| {
        if text.is_empty() {
            "unknown".to_owned()
        } else {
            printable(text)
        }
    };
    let unset = |text: &str| {
        if text.is_empty() {
            "unset".to_owned()
        } else {
            printable(text)
        }
    };
    let (from, to) = match kind {
        "" => (word(&line.from_text), word(&line.to_text)),
        _ => (unset(&line.from_text), unset(&line.to_text)),
    };
    let to = paint.text(&to, view::tone(&line.to_text));
    format!(
        "{} {kind}{} {from} -> {to}",
        name(&line.node, paint),
        printable(&line.url)
    )
}

fn mutation_line(line: &MutationLine, paint: Paint) -> String {
    let tone = match line.event {
        "done" => Tone::Good,
        "failed" => Tone::Bad,
        "interrupted" => Tone::Warn,
        _ => Tone::Plain,
    };
    let mut text = format!(
        "{} {} {}",
        name(&line.node, paint),
        printable(&line.mutation),
        paint.text(line.event, tone)
    );
    if line.elapsed_ms > 0 {
        let elapsed = std::time::Duration::from_millis(line.elapsed_ms);
        text += &format!(" after {}", value::duration(elapsed));
    }
    // Numbers the firings of a node, so that lines about one of them can be told from those about the next.
    text += &format!(" (#{})", line.attempt);
    if !line.text.is_empty() {
        text += &format!(": {}", printable(&line.text));
    }
    text
}

/// `ALARM breaker power/OFFtoON: ...`, with the node in front if it is about one.
fn alarm_line(line: &AlarmLine, paint: Paint) -> String {
    let word = match line.over {
        true => paint.text("over", Tone::Good),
        false => paint.text("ALARM", Tone::Bad),
    };
    let whose = match line.node.is_empty() {
        true => String::new(),
        false => name(&line.node, paint) + " ",
    };
    let kind = match line.alarm.as_str() {
        "breaker" => format!("breaker {}", printable(&line.about)),
        other => printable(other).replace('_', " "),
    };
    format!("{whose}{word} {kind}: {}", printable(&line.text))
}

/// `12:03:04Z`.
fn utc_time(ms: u64) -> String {
    let seconds = ms / 1000 % 86_400;
    format!(
        "{:02}:{:02}:{:02}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_people() {
        let plain = |line: &Line| people_line(line, false, Paint::default());
        let value = ValueLine {
            node: "n1".into(),
            url: "/RunState".into(),
            from: serde_json::Value::Null,
            to: "SYNC".into(),
            from_text: String::new(),
            to_text: "SYNC".into(),
        };
        assert_eq!(
            plain(&Line::Dsc(value.clone())),
            "n1 /RunState unknown -> SYNC\n"
        );
        assert_eq!(plain(&Line::Cfg(value)), "n1 cfg /RunState unset -> SYNC\n");
        let failed = MutationLine {
            node: "n1".into(),
            mutation: "power/OFFtoON".into(),
            event: "failed",
            attempt: 2,
            elapsed_ms: 60_000,
            text: "timed\nout".into(),
        };
        assert_eq!(
            plain(&Line::Mutation(failed)),
            "n1 power/OFFtoON failed after 1m (#2): timed\\nout\n"
        );
        assert_eq!(plain(&Line::Synced { revision: 1 }), "");
        let mut alarm = AlarmLine {
            alarm: "breaker".into(),
            node: String::new(),
            about: "power/OFFtoON".into(),
            text: "failed on 5 nodes".into(),
            over: false,
        };
        assert_eq!(
            plain(&Line::Alarm(alarm.clone())),
            "ALARM breaker power/OFFtoON: failed on 5 nodes\n"
        );
        (alarm.alarm, alarm.node, alarm.over) = ("parked".into(), "n1".into(), true);
        assert_eq!(
            plain(&Line::Alarm(alarm)),
            "n1 over parked: failed on 5 nodes\n"
        );
    }

    #[test]
    fn time_of_day() {
        assert_eq!(utc_time(0), "00:00:00Z");
        assert_eq!(utc_time(86_399_000), "23:59:59Z");
        assert_eq!(utc_time(86_400_000 + 3_661_000), "01:01:01Z");
    }
}
