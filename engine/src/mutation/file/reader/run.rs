//! The part of a file that has programs run: `command` and its like in a mutation, and `[[poll]]`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use regex_lite::RegexBuilder;

use super::{Item, Reader, Table, did_you_mean};
use crate::extension::parse_duration;
use crate::mutation::file::MutationFile;
use crate::mutation::file::output::{Found, Pattern, Reading};
use crate::mutation::file::program::{
    Command, ExitCodes, MAX_ARGUMENTS, MAX_POLLS, MAX_RUN, MAX_VARIABLES, MIN_PERIOD, Outcome,
    POLL_TIMEOUT, Poll, Run,
};
use crate::mutation::file::template::{Place, Source, Template};
use crate::mutation::{Mutation, MutationContext};
use crate::state::{Change, StateUrl};

/// Longest pattern of a map; a line of output is not much longer.
const MAX_PATTERN_BYTES: usize = 1024;
/// Most memory that a compiled pattern takes.
const MAX_PATTERN_MEMORY: usize = 1 << 20;
/// Most entries of one map.
const MAX_READINGS: usize = 256;

/// Keys of a mutation that say how it is carried out.
pub(super) const RUN_KEYS: [&str; 7] = [
    "command", "shell", "env", "stdin", "exit", "ask", "discover",
];

const POLL_KEYS: [&str; 11] = [
    "name", "every", "timeout", "requires", "command", "shell", "env", "stdin", "exit", "map",
    "error",
];

const SHAPE: &str =
    "a list: the program and its arguments, [\"ipmitool\", \"-H\", \"{/power/target}\"]";

/// Which fields a template may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Mutation,
    Poll,
}

impl Reader<'_> {
    /// Reads how mutations are carried out and what is polled. What the file declares is known by now, so that urls can be checked;
    /// `places` says which of the document's mutations each of them is.
    pub(super) fn program(
        &mut self,
        document: &Table<'_>,
        result: &mut MutationFile,
        places: &[usize],
    ) {
        let mut program = std::mem::take(&mut result.program);
        if let Some(module) = document
            .get("module")
            .and_then(|item| item.get_ref().as_str())
        {
            module.clone_into(&mut program.module);
        }
        let mutated = (result.mutations.iter())
            .flat_map(|(_, mutation)| mutation.mutates.iter().map(|change| &change.url));
        program.may_discover = mutated.chain(&result.discoverables).cloned().collect();
        self.may_discover = program.may_discover.clone();
        for item in self.list(document, "poll") {
            let Some(table) = self.table(item, "poll") else {
                continue;
            };
            let Some(poll) = self.poll(table, item) else {
                continue;
            };
            if program.polls.iter().any(|known| known.name == poll.name) {
                let text = format!("poll {} is declared already", poll.name);
                self.complain(&item.span(), text);
            } else if program.polls.len() == MAX_POLLS {
                let text = format!("a file has at most {MAX_POLLS} polls");
                self.complain(&item.span(), text);
                break;
            } else {
                program.polls.push(poll);
            }
        }
        let tables = document
            .get("mutation")
            .and_then(|item| item.get_ref().as_array());
        let tables: &[Item<'_>] = tables.map_or(&[], |tables| tables);
        for ((_, mutation), at) in result.mutations.iter().zip(places) {
            if let Some(table) = tables.get(*at).and_then(|item| item.get_ref().as_table())
                && let Some(run) = self.run(table, mutation, &program.polls)
            {
                program.runs.insert(mutation.id.clone(), run);
            }
        }
        result.program = program;
    }

    fn run(&mut self, table: &Table<'_>, mutation: &Mutation, polls: &[Poll]) -> Option<Run> {
        let first = RUN_KEYS.iter().find_map(|key| table.get(*key))?;
        let command = self.command(table, Of::Mutation);
        let ask = table.get("ask").and_then(|item| {
            let name = self.text(item, "ask")?;
            let found = polls.iter().position(|poll| poll.name == name);
            if found.is_none() {
                let names: Vec<&str> = polls.iter().map(|poll| poll.name.as_str()).collect();
                let meant = did_you_mean(name, &names);
                let text = format!("the file has no [[poll]] of the name {name:?}{meant}");
                self.complain(&item.span(), text);
            }
            found
        });
        let trust = table.get("discover").is_some_and(|item| {
            if self.text(item, "discover").is_some_and(|text| text != "to") {
                let text = "discover can only be \"to\": a command that ends well has brought the values about";
                self.complain(&item.span(), text);
            }
            if command.is_none() || table.contains_key("ask") {
                let text = "discover = \"to\" goes with a `command` and without `ask`, which looks for itself";
                self.complain(&item.span(), text);
            }
            true
        });
        if !table.contains_key("command") && !table.contains_key("ask") {
            let text = format!("{} has no `command` for this", mutation.id);
            self.complain(&first.span(), text);
        }
        if mutation.context == MutationContext::All {
            let text = format!(
                "{} has a command, which the head runs: its context must be CHILD, or SELF for the head's own node",
                mutation.id
            );
            self.complain(&first.span(), text);
        }
        let to = mutation.mutates.iter().map(|change| Change {
            url: change.url.clone(),
            value: change.to.clone(),
        });
        Some(Run {
            command,
            ask,
            trust,
            timeout: mutation.timeout,
            to: to.collect(),
        })
    }

    fn poll(&mut self, table: &Table<'_>, item: &Item<'_>) -> Option<Poll> {
        self.known_keys(table, "a poll", &POLL_KEYS);
        let name = match table.get("name") {
            Some(name) => self.name(name, "name"),
            None => {
                self.complain(&item.span(), "a poll has no `name`");
                None
            }
        };
        let every = match table.get("every") {
            Some(item) => self.period(item, "every", MIN_PERIOD, Duration::MAX),
            None => {
                self.complain(
                    &item.span(),
                    "a poll has no `every`, such as every = \"10s\"",
                );
                None
            }
        };
        let timeout = table
            .get("timeout")
            .and_then(|item| self.period(item, "timeout", Duration::from_millis(1), MAX_RUN));
        let requires = self.conditions(table, "requires");
        if !table.contains_key("command") {
            self.complain(&item.span(), "a poll has no `command`");
        }
        let command = self.command(table, Of::Poll);
        let readings = table
            .get("map")
            .map_or(Vec::new(), |item| self.readings(item));
        let error = table.get("error").and_then(|item| {
            let text = self.text(item, "error")?;
            let url = self.url(text, &item.span())?;
            self.reportable(&url, &item.span()).then_some(url)
        });
        Some(Poll {
            name: name?,
            every: every?,
            timeout: timeout.unwrap_or(POLL_TIMEOUT),
            requires,
            command: command?,
            readings,
            error,
        })
    }

    fn period(
        &mut self,
        item: &Item<'_>,
        what: &str,
        least: Duration,
        most: Duration,
    ) -> Option<Duration> {
        let text = self.text(item, what)?;
        let found = parse_duration(text).filter(|found| (least..=most).contains(found));
        if found.is_none() {
            let bound = match most {
                Duration::MAX => format!("at least {least:?}"),
                _ => format!("{least:?} to {most:?}"),
            };
            let text = format!(
                "{what} {text:?} is no duration of {bound}; write it like \"10s\" or \"1m30s\""
            );
            self.complain(&item.span(), text);
        }
        found
    }

    fn command(&mut self, table: &Table<'_>, of: Of) -> Option<Command> {
        let item = table.get("command")?;
        let shell = table
            .get("shell")
            .is_some_and(|item| self.truth(item, "shell"));
        let argv = match (item.get_ref().as_array(), item.get_ref().as_str()) {
            (None, Some(text)) if shell => {
                if let Some(field) = self.field_in_shell(text) {
                    let text = format!(
                        "{field} is not filled in within a shell's text: give it a name in env, as env = {{ NAME = \"{field}\" }}, and write \"$NAME\""
                    );
                    self.complain(&item.span(), text);
                }
                ["/bin/sh", "-c", text].map(Template::plain).to_vec()
            }
            (None, Some(_)) => {
                let text = format!("command must be {SHAPE}; one text needs shell = true");
                self.complain(&item.span(), text);
                Vec::new()
            }
            (Some(_), _) if shell => {
                let text = "with shell = true, command is one text; values of the node go through env, as $NAME";
                self.complain(&item.span(), text);
                Vec::new()
            }
            (Some(words), _) => self.arguments(item, words, of),
            _ => {
                self.complain(&item.span(), format!("command must be {SHAPE}"));
                Vec::new()
            }
        };
        let env = table
            .get("env")
            .map_or(Vec::new(), |item| self.variables(item, of));
        let stdin = table
            .get("stdin")
            .and_then(|item| self.template(item, "stdin", Place::Hidden, of));
        let exit = table
            .get("exit")
            .map_or_else(ExitCodes::default, |item| self.exit(item));
        Some(Command {
            argv,
            env,
            stdin,
            exit,
        })
    }

    /// What would be a field anywhere else; `${node}` is the shell's own, and so are braces with other words in them.
    fn field_in_shell(&self, text: &str) -> Option<String> {
        let ends = text.match_indices('}').map(|(end, _)| end);
        let braces = ends.filter_map(|end| Some((text[..end].rfind('{')?, end)));
        let braces = braces.filter(|(start, _)| !text[..*start].ends_with('$'));
        let mut words = braces.map(|(start, end)| &text[start..=end]);
        let is_field = |word: &&str| {
            let read = Template::parse(word, self.schema);
            read.is_ok_and(|template| template.fields().next().is_some())
        };
        words.find(is_field).map(str::to_owned)
    }

    fn arguments(&mut self, item: &Item<'_>, words: &[Item<'_>], of: Of) -> Vec<Template> {
        if words.len() > MAX_ARGUMENTS {
            let text = format!("command has more than {MAX_ARGUMENTS} words");
            self.complain(&item.span(), text);
        }
        let argv: Vec<Template> = words
            .iter()
            .take(MAX_ARGUMENTS)
            .filter_map(|word| self.template(word, "an argument", Place::Argument, of))
            .collect();
        match (words.first(), argv.first()) {
            (Some(word), Some(program)) if program.fields().next().is_some() => {
                self.complain(&word.span(), "the program itself cannot have fields");
            }
            (Some(word), Some(program)) if program.to_string().is_empty() => {
                self.complain(&word.span(), "the program has no name");
            }
            (None, _) => self.complain(&item.span(), "command is empty"),
            _ => {}
        }
        argv
    }

    fn variables(&mut self, item: &Item<'_>, of: Of) -> Vec<(String, Template)> {
        let Some(table) = self.table(item, "env") else {
            return Vec::new();
        };
        if table.len() > MAX_VARIABLES {
            let text = format!("env has more than {MAX_VARIABLES} variables");
            self.complain(&item.span(), text);
        }
        let mut variables = Vec::new();
        for (name, item) in table.iter().take(MAX_VARIABLES) {
            let word = name.get_ref();
            let starts = |c: char| c.is_ascii_alphabetic() || c == '_';
            if !word.starts_with(starts)
                || !word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            {
                let text = format!("{word:?} is no name of a variable");
                self.complain(&name.span(), text);
            }
            if let Some(template) = self.template(item, "a variable", Place::Hidden, of) {
                variables.push((word.to_string(), template));
            }
        }
        variables
    }

    fn template(&mut self, item: &Item<'_>, what: &str, place: Place, of: Of) -> Option<Template> {
        let text = self.text(item, what)?;
        let template = match Template::parse(text, self.schema) {
            Ok(template) => template,
            Err(why) => {
                self.complain(&item.span(), why);
                return None;
            }
        };
        for field in template.fields() {
            if let Some(url) = field.url()
                && !self.may_discover.contains(url)
                && let Err(error) = self.schema.known_url(url)
            {
                self.complain(&item.span(), error.to_string());
            }
            if field.secret && !field.open && place == Place::Argument {
                let text = format!(
                    "{field} is secret, and every user of the machine can read arguments: put it into env or stdin, or write {{secret:...}}"
                );
                self.complain(&item.span(), text);
            }
            if of == Of::Poll && matches!(field.source, Source::Mutation | Source::Attempt) {
                self.complain(&item.span(), format!("a poll has no {field}"));
            }
        }
        Some(template)
    }

    fn exit(&mut self, item: &Item<'_>) -> ExitCodes {
        let mut exit = ExitCodes::default();
        let Some(table) = self.table(item, "exit") else {
            return exit;
        };
        for (code, item) in table {
            let Some(outcome) = self.outcome(item) else {
                continue;
            };
            match (&**code.get_ref(), code.get_ref().parse()) {
                ("other", _) => exit.other = outcome,
                (_, Ok(number)) => {
                    exit.codes.insert(number, outcome);
                }
                (word, Err(_)) => {
                    let text = format!("{word:?} is no exit code: use 0 to 255, or `other`");
                    self.complain(&code.span(), text);
                }
            }
        }
        exit
    }

    fn outcome(&mut self, item: &Item<'_>) -> Option<Outcome> {
        const WORDS: [(&str, Outcome); 3] = [
            ("ok", Outcome::Ok),
            ("failed", Outcome::Failed),
            ("retry", Outcome::Retry),
        ];
        if item.get_ref().as_table().is_some() {
            let mut changes = Vec::new();
            for (url, value) in self.findings(item, "an exit code") {
                match value {
                    Found::Value(value) => changes.push(Change { url, value }),
                    Found::Group(_) => {}
                }
            }
            return Some(Outcome::Discover(changes));
        }
        let word = item.get_ref().as_str().unwrap_or_default();
        let found = WORDS.iter().find(|(known, _)| *known == word);
        if found.is_none() {
            let meant = did_you_mean(word, &WORDS.each_ref().map(|(word, _)| *word));
            let text = format!(
                "an exit code means \"ok\", \"failed\", \"retry\" or a table of what it discovers{meant}"
            );
            self.complain(&item.span(), text);
        }
        found.map(|(_, outcome)| outcome.clone())
    }

    fn readings(&mut self, item: &Item<'_>) -> Vec<Reading> {
        let Some(items) = item.get_ref().as_array() else {
            self.complain(&item.span(), "map must be a list of tables");
            return Vec::new();
        };
        if items.len() > MAX_READINGS {
            let text = format!("map has more than {MAX_READINGS} entries");
            self.complain(&item.span(), text);
        }
        let mut readings = Vec::new();
        for item in items.iter().take(MAX_READINGS) {
            let Some(table) = self.table(item, "an entry of map") else {
                continue;
            };
            self.known_keys(
                table,
                "an entry of map",
                &["line", "contains", "regex", "discover", "unless"],
            );
            let pattern = self.pattern(table, item);
            let discover = match table.get("discover") {
                Some(item) => self.findings(item, "discover"),
                None => {
                    self.complain(&item.span(), "an entry of map has no `discover`");
                    Vec::new()
                }
            };
            let unless = self.conditions(table, "unless");
            let Some(pattern) = pattern else { continue };
            let groups = match &pattern {
                Pattern::Regex(regex) => regex.captures_len(),
                _ => 0,
            };
            for (url, found) in &discover {
                if let Found::Group(number) = found
                    && *number >= groups
                {
                    let text = format!("{url}: the pattern has no group {number}");
                    self.complain(&item.span(), text);
                }
            }
            readings.push(Reading {
                pattern,
                discover,
                unless,
            });
        }
        readings
    }

    fn pattern(&mut self, table: &Table<'_>, item: &Item<'_>) -> Option<Pattern> {
        let given = ["line", "contains", "regex"].map(|key| (key, table.get(key)));
        let mut given = given
            .into_iter()
            .filter_map(|(key, item)| Some((key, item?)));
        let (Some((key, named)), None) = (given.next(), given.next()) else {
            let text = "an entry of map has exactly one of `line`, `contains` and `regex`";
            self.complain(&item.span(), text);
            return None;
        };
        let text = self.text(named, key)?;
        if text.is_empty() || text.len() > MAX_PATTERN_BYTES {
            let rule = format!("{key} must have 1 to {MAX_PATTERN_BYTES} bytes");
            self.complain(&named.span(), rule);
            return None;
        }
        match key {
            "line" => Some(Pattern::Line(text.trim().to_owned())),
            "contains" => Some(Pattern::Contains(text.to_owned())),
            _ => match RegexBuilder::new(text)
                .size_limit(MAX_PATTERN_MEMORY)
                .build()
            {
                Ok(regex) => Some(Pattern::Regex(regex)),
                Err(error) => {
                    self.complain(&named.span(), format!("regex {text:?}: {error}"));
                    None
                }
            },
        }
    }

    /// A table of urls and what is found out about them; `"$1"` is a group of the pattern.
    fn findings(&mut self, item: &Item<'_>, what: &str) -> Vec<(StateUrl, Found)> {
        let Some(table) = self.table(item, what) else {
            return Vec::new();
        };
        let mut findings = BTreeMap::new();
        for (url, item) in self.urls(table) {
            if !self.reportable(&url, &item.span()) {
                continue;
            }
            let group = item
                .get_ref()
                .as_str()
                .and_then(|text| text.strip_prefix('$')?.parse().ok());
            let found = match group {
                Some(number) if what == "discover" => Found::Group(number),
                _ => Found::Value(self.value(&url, item)),
            };
            findings.insert(url, found);
        }
        findings.into_iter().collect()
    }

    fn reportable(&mut self, url: &StateUrl, span: &Range<usize>) -> bool {
        let may = self.may_discover.contains(url);
        if !may {
            let text = format!(
                "{url} is not declared in this file: mutate it, or list it in `discoverables`"
            );
            self.complain(span, text);
        }
        may
    }

    fn truth(&mut self, item: &Item<'_>, what: &str) -> bool {
        item.get_ref().as_bool().unwrap_or_else(|| {
            self.complain(&item.span(), format!("{what} must be true or false"));
            false
        })
    }
}

#[cfg(test)]
mod tests;
