//! One file's text into declarations. Walks the parsed document by hand, so that every problem has its line.

mod run;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{FileError, MAX_PROBLEMS, MutationFile, Problem};
use crate::extension::{Field, Kind, Schema, nearest, parse_duration};
use crate::mutation::{
    Condition, Dependency, Mutation, MutationContext, MutationId, NumberRange, Others,
    OthersCondition, UrlChange, may_find_power_on,
};
use crate::state::{Change, Float, MAX_VALUE_BYTES, Number, StateUrl, Value};

/// Longest module or mutation name; both together must fit in a log line.
const MAX_NAME_BYTES: usize = 64;

type Table<'i> = DeTable<'i>;
type Item<'i> = Spanned<DeValue<'i>>;

pub(super) fn read(file: &str, text: &str, schema: &Schema) -> Result<MutationFile, FileError> {
    let mut reader = Reader {
        file,
        schema,
        lines: text.match_indices('\n').map(|(at, _)| at).collect(),
        problems: Vec::new(),
        may_discover: BTreeSet::new(),
    };
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let line = reader.line(&error.span().unwrap_or_default());
            let problems = vec![Problem::at(file, line, error.message())];
            return Err(FileError { problems });
        }
    };
    let declared = reader.file(document.get_ref());
    let mut problems = reader.problems;
    problems.sort_by_key(|problem| problem.line);
    problems.truncate(MAX_PROBLEMS);
    if problems.is_empty() {
        Ok(declared)
    } else {
        Err(FileError { problems })
    }
}

struct Reader<'a> {
    file: &'a str,
    schema: &'a Schema,
    /// Where each line ends.
    lines: Vec<usize>,
    problems: Vec<Problem>,
    /// What the file declares as mutated or discoverable, once that is read.
    may_discover: BTreeSet<StateUrl>,
}

impl Reader<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        #[cfg(test)]
        super::tests::LINES_SOUGHT.with(|sought| sought.set(sought.get() + 1));
        self.lines.partition_point(|end| *end < span.start) + 1
    }

    fn complain(&mut self, span: &Range<usize>, text: impl Into<String>) {
        let problem = Problem::at(self.file, self.line(span), text);
        self.problems.push(problem);
    }

    fn file(&mut self, document: &Table<'_>) -> MutationFile {
        self.known_keys(
            document,
            "the file",
            &["module", "mutation", "depends", "discoverables", "poll"],
        );
        let mut result = MutationFile::default();
        let module = match document.get("module") {
            Some(item) => self.name(item, "module"),
            None => {
                self.complain(&(0..0), "the file has no `module = \"NAME\"`");
                None
            }
        };
        let mut places = Vec::new();
        for (at, item) in self.list(document, "mutation").iter().enumerate() {
            let Some(table) = self.table(item, "mutation") else {
                continue;
            };
            let line = self.line(&item.span());
            if let Some(mutation) = self.mutation(table, item, module.as_deref().unwrap_or("?")) {
                result.mutations.push((line, mutation));
                places.push(at);
            }
        }
        for item in self.list(document, "depends") {
            let Some(table) = self.table(item, "depends") else {
                continue;
            };
            let line = self.line(&item.span());
            if let Some(dependency) = self.dependency(table, item) {
                result.dependencies.push((line, dependency));
            }
        }
        for item in self.list(document, "discoverables") {
            if let Some(text) = self.text(item, "a discoverable")
                && let Some(url) = self.url(text, &item.span())
            {
                result.discoverables.push(url);
            }
        }
        self.program(document, &mut result, &places);
        result
    }

    fn mutation(&mut self, table: &Table<'_>, item: &Item<'_>, module: &str) -> Option<Mutation> {
        const KEYS: [&str; 10] = [
            "name",
            "context",
            "mutates",
            "requires",
            "excludes",
            "requires_of",
            "timeout",
            "fail_to",
            "cost",
            "disruptive",
        ];
        self.known_keys(table, "a mutation", &[&KEYS[..], &run::RUN_KEYS].concat());
        let name = match table.get("name") {
            Some(name) => self.name(name, "name"),
            None => {
                self.complain(&item.span(), "a mutation has no `name`");
                None
            }
        };
        let mutates = match table.get("mutates") {
            Some(mutates) => self.mutates(mutates),
            None => {
                let which = name.as_deref().unwrap_or("a mutation");
                self.complain(
                    &item.span(),
                    format!("{which} has no `mutates`, so it would do nothing"),
                );
                Vec::new()
            }
        };
        // A command that starts from unknown power acts without knowing whether the machine runs; a question does not.
        let acts_blindly = table.contains_key("command") && may_find_power_on(&mutates);
        let mutation = Mutation {
            id: MutationId::new(module, name.as_deref().unwrap_or("?")),
            context: table
                .get("context")
                .map_or(MutationContext::SelfNode, |item| self.context(item)),
            mutates,
            requires: self.conditions(table, "requires"),
            excludes: self.conditions(table, "excludes"),
            requires_of: self.requires_of(table),
            timeout: table.get("timeout").and_then(|item| self.timeout(item)),
            fail_to: table
                .get("fail_to")
                .map_or(Vec::new(), |item| self.fail_to(item)),
            cost: table.get("cost").map_or(1, |item| self.cost(item)),
            disruptive: table.get("disruptive").is_some_and(|item| self.bool(item)) || acts_blindly,
        };
        name.map(|_| mutation)
    }

    fn dependency(&mut self, table: &Table<'_>, item: &Item<'_>) -> Option<Dependency> {
        self.known_keys(table, "depends", &["url", "conditions"]);
        let Some(named) = table.get("url") else {
            self.complain(&item.span(), "a `depends` has no `url`");
            return None;
        };
        let text = self.text(named, "url")?;
        let url = self.url(text, &named.span())?;
        let conditions = self.conditions(table, "conditions");
        Some(Dependency { url, conditions })
    }

    fn mutates(&mut self, item: &Item<'_>) -> Vec<UrlChange> {
        let Some(table) = self.table(item, "mutates") else {
            return Vec::new();
        };
        if table.is_empty() {
            self.complain(
                &item.span(),
                "`mutates` is empty, so the mutation would do nothing",
            );
        }
        let mut changes = Vec::new();
        for (url, item) in self.urls(table) {
            let Some(change) = self.table(item, "a change") else {
                continue;
            };
            self.known_keys(change, "a change", &["from", "to"]);
            let from = change
                .get("from")
                .map_or(vec![None], |from| self.values(&url, from));
            let to = match change.get("to") {
                Some(to) => self.value(&url, to),
                None => {
                    self.complain(&item.span(), format!("the change of {url} has no `to`"));
                    None
                }
            };
            changes.push(UrlChange { url, from, to });
        }
        changes
    }

    fn conditions(&mut self, table: &Table<'_>, key: &str) -> Vec<Condition> {
        let Some(table) = table.get(key).and_then(|item| self.table(item, key)) else {
            return Vec::new();
        };
        let mut conditions = Vec::new();
        for (url, item) in self.urls(table) {
            match item.get_ref().as_table() {
                Some(bounds) => {
                    self.known_keys(bounds, "a comparison", &["at_least", "at_most"]);
                    let range = self.range(&url, item, bounds);
                    conditions.extend(range.map(|range| Condition::number(url, range)));
                }
                None => conditions.push(Condition::any_of(url.clone(), self.values(&url, item))),
            }
        }
        conditions
    }

    /// The range of a table with `at_least`, `at_most`, or both.
    fn range(&mut self, url: &StateUrl, item: &Item<'_>, table: &Table<'_>) -> Option<NumberRange> {
        let is_number =
            |field: &Field| !field.repeated && matches!(field.kind, Kind::Int { .. } | Kind::Float);
        if !self.schema.field(url).is_none_or(is_number) {
            let text = format!("{url} is no number, so it cannot be compared; list the values");
            self.complain(&item.span(), text);
            return None;
        }
        let mut bound = |key| match table.get(key) {
            Some(item) => self.number(url, item).map(Some),
            None => Some(None),
        };
        let (least, most) = (bound("at_least"), bound("at_most"));
        match (least?, most?) {
            (Some(least), Some(most)) if least > most => {
                let text = format!("no value of {url} is at least {least} and at most {most}");
                self.complain(&item.span(), text);
                None
            }
            (Some(least), Some(most)) => Some(NumberRange::Between(least, most)),
            (Some(least), None) => Some(NumberRange::AtLeast(least)),
            (None, Some(most)) => Some(NumberRange::AtMost(most)),
            (None, None) => {
                let text = format!("the comparison of {url} has neither `at_least` nor `at_most`");
                self.complain(&item.span(), text);
                None
            }
        }
    }

    /// A bound: a number, or a text that the schema reads as one, such as `"10s"` or `"4GiB"`.
    fn number(&mut self, url: &StateUrl, item: &Item<'_>) -> Option<Number> {
        let value = match item.get_ref() {
            DeValue::String(text) => match self.schema.parse(url, text) {
                // The schema makes nothing of a zero.
                Ok(value) => Some(value.unwrap_or(Value::Int(0))),
                Err(error) => {
                    let text = format!("{url} can be compared only with a number: {error}");
                    self.complain(&item.span(), text);
                    return None;
                }
            },
            _ => plain(item),
        };
        let number = value.as_ref().and_then(Number::of);
        if number.is_none() {
            let text = format!("{url} can be compared only with a number");
            self.complain(&item.span(), text);
        }
        number
    }

    fn requires_of(&mut self, table: &Table<'_>) -> Vec<OthersCondition> {
        const WANTED: &str = "a `requires_of` is written like { who = \"@io\", url = \"/RunState\", any_of = [\"SYNC\"] }, or with at_least and at_most in place of any_of";
        const KEYS: [&str; 5] = ["who", "url", "any_of", "at_least", "at_most"];
        let Some(item) = table.get("requires_of") else {
            return Vec::new();
        };
        let Some(items) = item.get_ref().as_array() else {
            self.complain(
                &item.span(),
                format!("requires_of must be a list; {WANTED}"),
            );
            return Vec::new();
        };
        let mut conditions = Vec::new();
        for item in items {
            let Some(entry) = self.table(item, "a `requires_of`") else {
                continue;
            };
            self.known_keys(entry, "a `requires_of`", &KEYS);
            let compares = entry.contains_key("at_least") || entry.contains_key("at_most");
            let any_of = entry.get("any_of");
            let (Some(who), Some(url), true) = (
                entry.get("who"),
                entry.get("url"),
                compares != any_of.is_some(),
            ) else {
                self.complain(&item.span(), WANTED);
                continue;
            };
            let named = self.text(who, "who").unwrap_or_default();
            let Some(others) = Others::parse(named) else {
                let text =
                    format!("who {named:?} is neither \"parent\" nor a group such as \"@io\"");
                self.complain(&who.span(), text);
                continue;
            };
            let Some(text) = self.text(url, "url") else {
                continue;
            };
            if let Some(url) = self.url(text, &url.span()) {
                let condition = match any_of {
                    Some(any_of) => Some(Condition::any_of(url.clone(), self.values(&url, any_of))),
                    None => self
                        .range(&url, item, entry)
                        .map(|range| Condition::number(url, range)),
                };
                conditions.extend(condition.map(|condition| OthersCondition {
                    who: others,
                    condition,
                }));
            }
        }
        conditions
    }

    fn fail_to(&mut self, item: &Item<'_>) -> Vec<Change> {
        let Some(table) = self.table(item, "fail_to") else {
            return Vec::new();
        };
        let mut changes = Vec::new();
        for (url, item) in self.urls(table) {
            let value = self.value(&url, item);
            changes.push(Change { url, value });
        }
        changes
    }

    /// The entries of a table whose keys are urls, ordered by url.
    fn urls<'t, 'i>(&mut self, table: &'t Table<'i>) -> Vec<(StateUrl, &'t Item<'i>)> {
        let mut urls: BTreeMap<StateUrl, &Item<'i>> = BTreeMap::new();
        for (key, item) in table {
            if let Some(url) = self.url(key.get_ref(), &key.span()) {
                match urls.entry(url) {
                    Entry::Occupied(known) => {
                        let text = format!("{} is named twice", known.key());
                        self.complain(&key.span(), text);
                    }
                    Entry::Vacant(place) => {
                        place.insert(item);
                    }
                }
            }
        }
        urls.into_iter().collect()
    }

    fn values(&mut self, url: &StateUrl, item: &Item<'_>) -> Vec<Option<Value>> {
        let Some(items) = item.get_ref().as_array() else {
            return vec![self.value(url, item)];
        };
        if items.is_empty() {
            self.complain(
                &item.span(),
                format!("the list of values of {url} is empty"),
            );
        }
        items.iter().map(|item| self.value(url, item)).collect()
    }

    fn value(&mut self, url: &StateUrl, item: &Item<'_>) -> Option<Value> {
        let span = item.span();
        let Some(value) = plain(item) else {
            let kind = item.get_ref().type_str();
            self.complain(
                &span,
                format!("{url} needs a text, a number, true or false, not this {kind}"),
            );
            return None;
        };
        super::value(self.schema, url, value).unwrap_or_else(|text| {
            self.complain(&span, text);
            None
        })
    }

    fn url(&mut self, text: &str, span: &Range<usize>) -> Option<StateUrl> {
        match text.parse() {
            Ok(url) => Some(url),
            Err(error) => {
                self.complain(span, error.to_string());
                None
            }
        }
    }

    fn context(&mut self, item: &Item<'_>) -> MutationContext {
        const WORDS: [(&str, MutationContext); 3] = [
            ("SELF", MutationContext::SelfNode),
            ("CHILD", MutationContext::Child),
            ("ALL", MutationContext::All),
        ];
        let text = self.text(item, "context").unwrap_or("SELF");
        match WORDS.iter().find(|(word, _)| *word == text) {
            Some((_, context)) => *context,
            None => {
                let meant = did_you_mean(text, &WORDS.map(|(word, _)| word));
                self.complain(
                    &item.span(),
                    format!("context {text:?} is none of SELF, CHILD and ALL{meant}"),
                );
                MutationContext::SelfNode
            }
        }
    }

    fn timeout(&mut self, item: &Item<'_>) -> Option<Duration> {
        let text = self.text(item, "timeout")?;
        match parse_duration(text) {
            Some(timeout) => Some(timeout).filter(|timeout| !timeout.is_zero()),
            None => {
                self.complain(
                    &item.span(),
                    format!("timeout {text:?} is no duration; write it like \"10s\" or \"1m30s\""),
                );
                None
            }
        }
    }

    fn cost(&mut self, item: &Item<'_>) -> u32 {
        let number = item.get_ref().as_integer();
        let cost =
            number.and_then(|number| u32::from_str_radix(number.as_str(), number.radix()).ok());
        cost.unwrap_or_else(|| {
            self.complain(
                &item.span(),
                format!("cost must be a whole number from 0 to {}", u32::MAX),
            );
            1
        })
    }

    fn bool(&mut self, item: &Item<'_>) -> bool {
        item.get_ref().as_bool().unwrap_or_else(|| {
            self.complain(&item.span(), "disruptive must be true or false");
            false
        })
    }

    fn name(&mut self, item: &Item<'_>, key: &str) -> Option<String> {
        let text = self.text(item, key)?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-+".contains(&b);
        if text.is_empty() || text.len() > MAX_NAME_BYTES || !text.bytes().all(fits) {
            let shown: String = text.chars().take(MAX_NAME_BYTES).collect();
            let rule = format!("use 1 to {MAX_NAME_BYTES} letters, digits and ._-+");
            self.complain(
                &item.span(),
                format!("{key} {shown:?} is not acceptable: {rule}"),
            );
            return None;
        }
        Some(text.to_owned())
    }

    fn text<'t>(&mut self, item: &'t Item<'_>, what: &str) -> Option<&'t str> {
        let text = item.get_ref().as_str();
        if text.is_none() {
            let kind = item.get_ref().type_str();
            self.complain(
                &item.span(),
                format!("{what} must be a text in quotes, not this {kind}"),
            );
        }
        text
    }

    fn table<'t, 'i>(&mut self, item: &'t Item<'i>, what: &str) -> Option<&'t Table<'i>> {
        let table = item.get_ref().as_table();
        if table.is_none() {
            let kind = item.get_ref().type_str();
            self.complain(
                &item.span(),
                format!("{what} must be a table, not this {kind}"),
            );
        }
        table
    }

    /// The items of a list at the top of the file; a missing one is empty.
    fn list<'t, 'i>(&mut self, document: &'t Table<'i>, key: &str) -> &'t [Item<'i>] {
        let Some(item) = document.get(key) else {
            return &[];
        };
        match item.get_ref().as_array() {
            Some(items) => items,
            None => {
                let wanted = match key {
                    "discoverables" => "a list of urls".to_owned(),
                    _ => format!("written with double brackets, [[{key}]]"),
                };
                self.complain(&item.span(), format!("{key} must be {wanted}"));
                &[]
            }
        }
    }

    fn known_keys(&mut self, table: &Table<'_>, what: &str, known: &[&str]) {
        for key in table.keys() {
            let word = key.get_ref();
            if !known.contains(&&**word) {
                let shown: String = word.chars().take(MAX_NAME_BYTES).collect();
                let meant = did_you_mean(word, known);
                self.complain(&key.span(), format!("{what} has no key `{shown}`{meant}"));
            }
        }
    }
}

/// A value as TOML has it; `None` for dates, lists and tables.
fn plain(item: &Item<'_>) -> Option<Value> {
    match item.get_ref() {
        DeValue::String(text) if text.len() <= MAX_VALUE_BYTES => Some(Value::text(&**text)),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(Value::Int),
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .ok()
            .map(|number| Value::Float(Float(number))),
        DeValue::Boolean(truth) => Some(Value::Bool(*truth)),
        _ => None,
    }
}

fn did_you_mean(word: &str, known: &[&str]) -> String {
    if word.len() > MAX_NAME_BYTES {
        return String::new();
    }
    nearest(word, known.iter().copied())
        .map(|near| format!("; did you mean `{near}`?"))
        .unwrap_or_default()
}
