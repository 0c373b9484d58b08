//! Progress: a spinner with the elapsed time on a terminal, plain lines elsewhere.

use std::{
    fs::File,
    io::{BufRead, BufReader, IsTerminal, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Without a terminal, a long stage says once in this time that it still runs.
const PLAIN_INTERVAL: Duration = Duration::from_secs(20);

/// Lines of a failed program's output that go into the error; the log file has them all.
const TAIL_LINES: usize = 25;

/// One named step of a longer job.
pub struct Stage {
    name: String,
    started: Instant,
    bar: Option<ProgressBar>,
    printed: Mutex<Instant>,
}

impl Stage {
    /// Begins a stage and shows its name.
    pub fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {prefix:<26} {elapsed:>5}  {wide_msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            eprintln!("lab: {name} ...");
        }
        Self {
            name,
            started: Instant::now(),
            bar,
            printed: Mutex::new(Instant::now()),
        }
    }

    /// Shows what the stage does at the moment.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.trim().to_owned()),
            None => {
                let Ok(mut printed) = self.printed.lock() else {
                    return;
                };
                if printed.elapsed() >= PLAIN_INTERVAL {
                    *printed = Instant::now();
                    eprintln!(
                        "lab: {} ... {} ({})",
                        self.name,
                        seconds(self.started.elapsed()),
                        text.trim()
                    );
                }
            }
        }
    }

    /// Prints a line that stays.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// Ends the stage and prints its name, time and `detail`.
    pub fn done(self, detail: &str) {
        let elapsed = seconds(self.started.elapsed());
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("lab: {:<26} {elapsed:>8}  {detail}", self.name);
    }

    /// Runs a program, shows its last line of output, and keeps all of it in `log`.
    pub fn run(&self, command: &mut Command, log: &Path) -> Result<()> {
        let mut seen = |_: &str| {};
        let tail = self.run_lines(command, log, &mut seen)?;
        match tail {
            Ok(()) => Ok(()),
            Err(failure) => bail!("{failure}"),
        }
    }

    /// As [`run`](Self::run), with every line given to `each`; a program that fails is not an error here but a text.
    pub fn run_lines(
        &self,
        command: &mut Command,
        log: &Path,
        each: &mut dyn FnMut(&str),
    ) -> Result<Result<(), String>> {
        if let Some(dir) = log.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut file =
            File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let (reader, writer) = std::io::pipe()?;
        let shown = shown(command);
        writeln!(file, "$ {shown}")?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        // The parent's copies of the pipe's writing end would keep the loop below from ever ending.
        command.stdout(Stdio::null()).stderr(Stdio::null());

        let mut tail = std::collections::VecDeque::new();
        let mut input = BufReader::new(reader);
        let mut bytes = Vec::new();
        while input.read_until(b'\n', &mut bytes)? > 0 {
            file.write_all(&bytes)?;
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            if !line.is_empty() {
                self.note(&line);
            }
            each(&line);
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        }
        let status = child.wait()?;
        if status.success() {
            return Ok(Ok(()));
        }
        let tail: Vec<String> = tail.into();
        Ok(Err(format!(
            "{shown}: {status}; all of its output is in {}, the end of it is:\n{}",
            log.display(),
            tail.join("\n")
        )))
    }
}

/// A command as one would type it, without its environment.
fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// A duration as people read it: `0.8 s`, `42.1 s`, `3 min 05 s`.
pub fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    if whole < 120 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

/// Rows as text columns; the first row is the heading.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        assert_eq!(seconds(Duration::from_millis(840)), "0.8 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 05 s");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["node", "time"], ["n1", "3 s"], ["long-name", "4 s"]]
            .map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(
            table(&rows),
            "node       time\nn1         3 s\nlong-name  4 s\n"
        );
    }

    #[test]
    fn a_failed_program_tells_its_last_words() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let log = dir.path().join("log");
        let stage = Stage::start("test");
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let error = stage.run(&mut command, &log).expect_err("it exits 3");
        assert!(format!("{error}").contains("two"), "{error}");
        let kept = std::fs::read_to_string(log).expect("the log");
        assert!(kept.contains("one\n") && kept.contains("two\n"), "{kept}");
    }
}
