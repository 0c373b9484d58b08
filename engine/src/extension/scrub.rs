//! Secrets taken out of texts: modules and their tools like to repeat what they were given.
//!
//! What is too short to be told from a word, cut in two, or written in another way is not found; so whoever cuts a text cuts it afterwards.

use super::{REDACTED, Schema};
use crate::state::{Value, Values};

/// Shorter secrets are not searched for in texts: every word would have them.
const MIN_SCRUBBED: usize = 3;

/// `text` without these secrets, if one of them is in it. One that is part of another does not keep the rest of that one in the text.
pub fn without_secrets<'a>(
    secrets: impl IntoIterator<Item = &'a str>,
    text: &str,
) -> Option<String> {
    let is_in = |secret: &&str| secret.len() >= MIN_SCRUBBED && text.contains(secret);
    let mut found: Vec<&str> = secrets.into_iter().filter(is_in).collect();
    found.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let first = found.first()?;
    let clean = text.replace(first, REDACTED);
    let rest = found.iter().skip(1);
    Some(rest.fold(clean, |clean, secret| clean.replace(secret, REDACTED)))
}

impl Schema {
    /// The secrets among these values as they would stand in a text.
    pub fn secret_texts<'a>(&'a self, values: &'a Values) -> impl Iterator<Item = String> + 'a {
        let items = |value: &'a Value| match value {
            Value::List(items) => &items[..],
            item => std::slice::from_ref(item),
        };
        let secrets = self.secrets_of(values);
        secrets.flat_map(move |(_, value)| items(value).iter().map(Value::to_string))
    }

    /// `text` without any secret of these values, if one is in it.
    pub fn scrubbed(&self, values: &[&Values], text: &str) -> Option<String> {
        let secrets = values.iter().flat_map(|values| self.secret_texts(values));
        let secrets: Vec<String> = secrets.collect();
        without_secrets(secrets.iter().map(String::as_str), text)
    }
}
