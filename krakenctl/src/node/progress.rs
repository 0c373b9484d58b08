//! Waiting for nodes to become what was set: the shell around [`Waiting`].
//!
//! The watch says what changed; now and then the head is asked why the rest waits, a bounded number of nodes at a time. A progress bar is
//! drawn on a terminal only; elsewhere each node that is done gets a line on standard error.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use proto::v1;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, sleep_until};

use crate::connect::Head;
use crate::exit::{Exit, Failure};
use crate::mirror::Line;
use crate::node::follow::{Follow, Step};
use crate::output::{Format, Tone, printable};
use crate::wait::{Goal, NodeReason, Summary, Waiting};
use crate::write::Written;
use crate::{Context, names, value, view};

/// How often the head is asked why nodes wait.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Nodes asked about at once; a report has some hundred bytes to a few KiB.
const ASK_AT_ONCE: usize = 256;
/// How often the bar moves by itself.
const TICK: Duration = Duration::from_millis(200);
/// Longest reason beside the bar; what is longer stays in the summary.
const MAX_REASON: usize = 60;

/// The outcome for programs. Field names are an interface.
#[derive(Debug, Serialize)]
struct WaitView<'a> {
    revision: u64,
    nodes: &'a [String],
    elapsed_ms: u64,
    #[serde(flatten)]
    summary: Summary,
}

/// Why the waiting ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Over,
    Timeout,
    Interrupted,
}

/// Waits until each of `names` shows `goals`, and says how it went. A write on trial is taken back from `trial_ends` on.
pub(crate) async fn wait(
    head: Head,
    names: Vec<String>,
    goals: Vec<Goal>,
    (timeout, trial_ends): (Duration, Option<Instant>),
    written: &Written,
    format: Format,
    context: &Context,
) -> Result<Exit, Failure> {
    let started = Instant::now();
    let mut waiting = Waiting::new(names.iter().cloned(), goals);
    let mut follow = Follow::start(head.clone(), names::fold(&names)).await?;
    let mut bar = Bar::new(names.len(), context);
    let mut ask = tokio::time::interval(ASK_EVERY);
    ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = 0;
    // At most one, beside the loop: a head that is slow to answer keeps neither the watch nor a Ctrl-C waiting.
    let mut answers = JoinSet::new();
    let mut given_up = std::pin::pin!(given_up(started + timeout));
    let end = loop {
        if follow.mirror.is_synced() && waiting.is_over() {
            break End::Over;
        }
        bar.show(&waiting);
        tokio::select! {
            biased;
            end = &mut given_up => break end,
            () = sleep_until(trial_ends.unwrap_or(started)), if trial_ends.is_some() && !waiting.is_trial_over() => waiting.end_trial(),
            _ = ask.tick(), if answers.is_empty() => {
                let rest: Vec<&str> = waiting.unfinished().collect();
                let some: Vec<&str> = rest.iter().cycle().skip(asked).take(rest.len().min(ASK_AT_ONCE)).copied().collect();
                asked = (asked + some.len()).checked_rem(rest.len()).unwrap_or(0);
                let request = v1::ExplainRequest { nodes: names::fold(some) };
                if !request.nodes.is_empty() {
                    let mut head = head.clone();
                    answers.spawn(async move { head.explain(request).await });
                }
            }
            // Without an answer the reasons are missing, and the watch still tells who is done.
            Some(answer) = answers.join_next() => if let Ok(Ok(answer)) = answer {
                answer.get_ref().reports.iter().for_each(|report| waiting.handle_report(report));
            },
            step = follow.next(context) => match step? {
                Step::Lines(lines) => {
                    bar.done(&touched(&lines, &mut waiting, &follow), started.elapsed(), context);
                }
                Step::Lost(why) => bar.note(&format!("lost the head: {}; trying again", printable(&why)), context),
                Step::Back => bar.note("the head answers again", context),
            },
        }
    };
    bar.finish();
    let summary = waiting.summary();
    let exit = match end {
        End::Over => waiting.exit(),
        End::Timeout => Exit::Timeout,
        End::Interrupted => Exit::Interrupted,
    };
    let elapsed = started.elapsed();
    if format == Format::Name {
        context
            .screen
            .list(format, &summary.done, Clone::clone, Default::default)?;
        return Ok(exit);
    }
    let view = WaitView {
        revision: written.revision,
        nodes: &names,
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        summary,
    };
    context
        .screen
        .item(format, &view, || page(&view.summary, elapsed, context))?;
    match end {
        End::Over => {}
        End::Timeout => context.note(&format!(
            "not done within {}; what was set stays set, and the head goes on",
            value::duration(timeout)
        )),
        End::Interrupted => {
            context.note("no longer waiting; what was set stays set, and the head goes on")
        }
    }
    Ok(exit)
}

/// The operator's Ctrl-C, or the end of the time.
async fn given_up(until: Instant) -> End {
    tokio::select! {
        biased;
        Ok(()) = tokio::signal::ctrl_c() => End::Interrupted,
        () = sleep_until(until) => End::Timeout,
    }
}

/// Looks again at the nodes that lines are about. Returns those that are done for the first time.
fn touched(lines: &[Line], waiting: &mut Waiting, follow: &Follow) -> Vec<String> {
    let mut done = Vec::new();
    for line in lines {
        let name = match line {
            Line::Synced { .. } => {
                done.extend(waiting.look_at_all(&follow.mirror));
                continue;
            }
            Line::Node { node } => &node.name,
            Line::Cfg(line) | Line::Dsc(line) => &line.node,
            Line::Frozen { node, .. } | Line::Deleted { node } => node,
            Line::Mutation(line) => &line.node,
            Line::Alarm(line) => &line.node,
        };
        if follow.mirror.is_synced() && waiting.look(name, &follow.mirror) {
            done.push(name.clone());
        }
    }
    done
}

/// Progress on standard error.
struct Bar {
    bar: ProgressBar,
    on_terminal: bool,
    shown_at: Option<Instant>,
}

impl Bar {
    fn new(count: usize, context: &Context) -> Self {
        let on_terminal = context.screen.progress;
        let target = if on_terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(count as u64), target);
        if let Ok(style) =
            ProgressStyle::with_template("{elapsed:>5} [{bar:30}] {pos}/{len} {wide_msg}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        if on_terminal {
            bar.enable_steady_tick(TICK);
        }
        Self {
            bar,
            on_terminal,
            shown_at: None,
        }
    }

    /// Shows where the nodes stand, at most once a tick: 10,000 of them bring as many events at once.
    fn show(&mut self, waiting: &Waiting) {
        let now = Instant::now();
        if !self.on_terminal || self.shown_at.is_some_and(|at| now < at + TICK) {
            return;
        }
        self.shown_at = Some(now);
        let counts = waiting.counts();
        self.bar.set_position(counts.done as u64);
        let mut message = match counts.failed {
            0 => String::new(),
            n => format!("{n} failed  "),
        };
        if let Some((name, reason)) = waiting.example() {
            let reason: String = printable(reason).chars().take(MAX_REASON).collect();
            message += &format!("{name}: {reason}");
        }
        self.bar.set_message(message);
    }

    fn done(&self, nodes: &[String], elapsed: Duration, context: &Context) {
        if !self.on_terminal && !nodes.is_empty() {
            let folded = printable(&names::fold(nodes));
            context.note(&format!("{folded} done after {}", value::duration(elapsed)));
        }
    }

    fn note(&self, text: &str, context: &Context) {
        self.bar.suspend(|| context.note(text));
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn page(summary: &Summary, elapsed: Duration, context: &Context) -> String {
    let paint = context.screen.paint;
    let mut out = String::new();
    if !summary.done.is_empty() {
        let count = view::count(summary.done.len(), "node");
        out += &format!(
            "{}     {} ({count}) within {}\n",
            paint.text("done", Tone::Good),
            printable(&names::fold(&summary.done)),
            value::duration(elapsed)
        );
    }
    for (title, tone, nodes) in [
        ("waiting", Tone::Warn, &summary.waiting),
        ("failed ", Tone::Bad, &summary.failed),
    ] {
        for (reason, folded) in by_reason(nodes) {
            out += &format!(
                "{}  {}  {}\n",
                paint.text(title, tone),
                printable(&folded),
                printable(&reason)
            );
        }
    }
    if let Some(first) = summary.failed.first().or_else(|| summary.waiting.first()) {
        out += &format!(
            "for more: krakenctl node explain {}\n",
            printable(&first.node)
        );
    }
    out
}

/// Nodes with the same reason in one line.
fn by_reason(nodes: &[NodeReason]) -> Vec<(String, String)> {
    let mut reasons: std::collections::BTreeMap<&str, Vec<&str>> =
        std::collections::BTreeMap::new();
    for node in nodes {
        reasons.entry(&node.reason).or_default().push(&node.node);
    }
    reasons
        .into_iter()
        .map(|(reason, nodes)| (reason.to_owned(), names::fold(nodes)))
        .collect()
}
