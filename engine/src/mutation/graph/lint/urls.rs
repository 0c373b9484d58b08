//! Urls that no extension has: slips of the pen, and conditions on what nobody can set or report.

use super::{Known, LintKind, Linter, Severity};
use crate::extension::nearest;

pub(super) fn look(linter: &mut Linter<'_>, known: Known<'_>) {
    let graph = linter.graph;
    for (index, variable) in graph.variables.iter().enumerate() {
        let url = &variable.url;
        if known.schema.field(url).is_some() {
            continue;
        }
        let patterns = known.schema.iter().map(|(pattern, _)| pattern);
        let near = nearest(
            url.as_str(),
            patterns.filter(|one| is_slip(url.as_str(), one)),
        );
        let is_reported = !variable.mutators.is_empty() || variable.discoverable;
        let mut rules = graph.rules.iter();
        let named = rules.position(|rule| rule.mentions().any(|on| on == index));
        let who = named.map_or_else(
            || "a [[depends]]".to_owned(),
            |rule| linter.id(rule).to_string(),
        );
        match near {
            Some(near) => linter.tell(Severity::Warn, LintKind::UnknownUrl, || {
                format!("no extension has {url}, which {who} names; did you mean {near}?")
            }),
            None if known.complete && !is_reported => {
                linter.tell(Severity::Warn, LintKind::UnknownUrl, || {
                    format!(
                        "no extension has {url}, which {who} names, and no module reports it, so it stays unknown: correct it, add its extension \
                         (krakenctl extension add), or list it in discoverables"
                    )
                });
            }
            None => (),
        }
    }
}

/// Whether one part of a url is a slip of the pen for the same part of another, and all the rest is the same: `/rack/state` is none for `/pxe/state`.
fn is_slip(url: &str, other: &str) -> bool {
    let (parts, others) = (url.split('/'), other.split('/'));
    if parts.clone().count() != others.clone().count() {
        return false;
    }
    let mut differ = parts.zip(others).filter(|(one, other)| one != other);
    let one = differ
        .next()
        .is_some_and(|(one, other)| nearest(one, std::iter::once(other)).is_some());
    one && differ.next().is_none()
}
