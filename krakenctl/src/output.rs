//! What goes to standard output: tables, JSON, YAML, CSV, names; and how it is colored.
//!
//! Data goes to standard output, messages to standard error. Texts from nodes and from unknown machines can hold anything, so
//! control characters are escaped before a terminal sees them.

use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, ContentArrangement, presets};
use serde::Serialize;

use crate::exit::Failure;

/// How a result is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For people with room: more columns.
    Wide,
    /// For programs: one array (`watch`: one object a line).
    Json,
    /// For programs and `node add -f`.
    Yaml,
    /// For spreadsheets: every column, quoted where needed (RFC 4180).
    Csv,
    /// Names alone, one a line.
    Name,
}

/// What a text means; decides its color.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Warn,
    Bad,
    Dim,
    Bold,
}

/// One cell of a table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) tone: Tone,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// A table. Columns marked wide are left out of [`Format::Table`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Table {
    columns: Vec<(String, bool)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Columns by title; a leading `+` marks one as wide.
    pub(crate) fn new<'a>(columns: impl IntoIterator<Item = &'a str>) -> Self {
        let columns = columns
            .into_iter()
            .map(|title| match title.strip_prefix('+') {
                Some(title) => (title.to_owned(), true),
                None => (title.to_owned(), false),
            });
        Self {
            columns: columns.collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, one cell a column.
    pub(crate) fn row(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len());
        self.rows.push(row);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines, without borders; empty cells show a dash.
    pub(crate) fn render(&self, wide: bool, paint: Paint) -> String {
        let kept: Vec<usize> = (0..self.columns.len())
            .filter(|at| wide || !self.columns[*at].1)
            .collect();
        let mut table = comfy_table::Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(kept.iter().map(|at| self.columns[*at].0.as_str()));
        // Styling is decided here, not by what the library finds out about the terminal.
        if paint.color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        for row in &self.rows {
            table.add_row(kept.iter().map(|at| {
                let cell = &row[*at];
                let text = if cell.text.is_empty() {
                    "-".to_owned()
                } else {
                    printable(&cell.text)
                };
                style(comfy_table::Cell::new(text), cell.tone)
            }));
        }
        for column in table.column_iter_mut() {
            column
                .set_padding((0, 2))
                .set_cell_alignment(CellAlignment::Left);
        }
        let mut lines = String::new();
        for line in table.lines() {
            lines.push_str(line.trim_end());
            lines.push('\n');
        }
        lines
    }

    /// RFC 4180, with every column.
    fn csv(&self) -> String {
        let titles = self
            .columns
            .iter()
            .map(|(title, _)| quote(&title.to_lowercase()))
            .collect();
        let rows = self
            .rows
            .iter()
            .map(|row| row.iter().map(|cell| quote(&cell.text)).collect());
        let mut out = String::new();
        for fields in std::iter::once::<Vec<String>>(titles).chain(rows) {
            out.push_str(&fields.join(","));
            out.push_str("\r\n");
        }
        out
    }
}

fn quote(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn style(cell: comfy_table::Cell, tone: Tone) -> comfy_table::Cell {
    use comfy_table::{Attribute, Color};
    match tone {
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::Green),
        Tone::Warn => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red),
        Tone::Dim => cell.add_attribute(Attribute::Dim),
        Tone::Bold => cell.add_attribute(Attribute::Bold),
    }
}

/// Whether to color.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Paint {
    pub(crate) color: bool,
}

impl Paint {
    /// Colors text outside of tables (ECMA-48 SGR).
    pub(crate) fn text(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            _ if !self.color => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Good => 32,
            Tone::Warn => 33,
            Tone::Bad => 31,
            Tone::Dim => 2,
            Tone::Bold => 1,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Escapes control characters, so that no value can move the cursor or rename the window.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // Bidirectional overrides reorder what is shown (CVE-2021-42574).
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.extend(c.escape_unicode()),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// The terminal, or what stands in for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    /// For standard output.
    pub(crate) paint: Paint,
    /// For standard error.
    pub(crate) error_paint: Paint,
    /// Standard error is a terminal: progress may be drawn.
    pub(crate) progress: bool,
    /// Somebody can answer a question.
    pub(crate) interactive: bool,
}

impl Screen {
    pub(crate) fn detect(no_color: bool) -> Self {
        let term_is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let wanted = !no_color
            && !term_is_dumb
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let errors = io::stderr().is_terminal();
        Self {
            paint: Paint {
                color: wanted && io::stdout().is_terminal(),
            },
            error_paint: Paint {
                color: wanted && errors,
            },
            progress: errors && !term_is_dumb,
            interactive: errors && io::stdin().is_terminal(),
        }
    }

    /// Writes to standard output.
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    /// Writes a list: `items` for programs, the rest for people.
    pub(crate) fn list<T: Serialize>(
        &self,
        format: Format,
        items: &[T],
        name: impl Fn(&T) -> String,
        table: impl FnOnce() -> Table,
    ) -> Result<(), Failure> {
        let text = match format {
            Format::Table | Format::Wide => {
                let table = table();
                if table.is_empty() {
                    return Ok(());
                }
                table.render(format == Format::Wide, self.paint)
            }
            Format::Csv => table().csv(),
            Format::Name => items
                .iter()
                .map(|item| printable(&name(item)) + "\n")
                .collect(),
            Format::Json | Format::Yaml => document(format, &items)?,
        };
        self.print(&text)
    }

    /// Writes one thing: `item` for programs, `text` for people.
    pub(crate) fn item<T: Serialize>(
        &self,
        format: Format,
        item: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match format {
            Format::Json | Format::Yaml => self.print(&document(format, item)?),
            _ => self.print(&text()),
        }
    }
}

/// `item` as a JSON or YAML document.
fn document<T: Serialize>(format: Format, item: &T) -> Result<String, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::from(anyhow::anyhow!("the result cannot be written: {error}"))
    };
    if format == Format::Yaml {
        return serde_saphyr::to_string(item).map_err(|error| failed(&error));
    }
    serde_json::to_string_pretty(item)
        .map(|text| text + "\n")
        .map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests;
