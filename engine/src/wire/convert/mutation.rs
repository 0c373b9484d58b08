//! Declared mutations (mutation.proto).

use std::time::Duration;

use proto::v1;

use super::state::{
    change_from_proto, changes_to_proto, url_from_proto, value_from_proto, value_to_proto,
};
use super::{ConvertError, Fault, Within, convert_items, no_longer};
use crate::mutation::graph::MAX_ITEMS;
use crate::mutation::{
    Condition, Dependency, MAX_MUTATIONS, Mutation, MutationContext, MutationId, MutationSet,
    NumberRange, Others, OthersCondition, UrlChange,
};
use crate::state::{MAX_VALUES, Number, StateUrl, Value};

/// Longest name of a module or a mutation.
const MAX_NAME_BYTES: usize = 64;

/// Who carries a mutation out, as the number of the schema.
pub const fn context_to_proto(context: MutationContext) -> v1::MutationContext {
    match context {
        MutationContext::SelfNode => v1::MutationContext::Self_,
        MutationContext::Child => v1::MutationContext::Child,
        MutationContext::All => v1::MutationContext::All,
    }
}

fn context_from_proto(context: i32) -> Result<MutationContext, Fault> {
    match v1::MutationContext::try_from(context) {
        Ok(v1::MutationContext::Self_) => Ok(MutationContext::SelfNode),
        Ok(v1::MutationContext::Child) => Ok(MutationContext::Child),
        Ok(v1::MutationContext::All) => Ok(MutationContext::All),
        Ok(v1::MutationContext::Unspecified) => Err(Fault::Missing),
        Err(_) => Err(Fault::UnknownEnum(context)),
    }
}

fn optional_to_proto(value: Option<&Value>) -> v1::OptionalValue {
    v1::OptionalValue {
        value: value.map(value_to_proto),
    }
}

fn optional_from_proto(value: v1::OptionalValue) -> Result<Option<Value>, ConvertError> {
    let value = value
        .value
        .map(value_from_proto)
        .transpose()
        .within("value")?;
    Ok(value.filter(|value| !value.is_zero()))
}

/// The change of one url as a message.
pub fn url_change_to_proto(change: &UrlChange) -> v1::UrlChange {
    v1::UrlChange {
        url: change.url.to_string(),
        from: change
            .from
            .iter()
            .map(|value| optional_to_proto(value.as_ref()))
            .collect(),
        to: Some(optional_to_proto(change.to.as_ref())),
    }
}

fn url_change_from_proto(change: v1::UrlChange) -> Result<UrlChange, ConvertError> {
    Ok(UrlChange {
        url: url_from_proto(&change.url).within("url")?,
        from: alternatives("from", change.from)?,
        to: change
            .to
            .map(optional_from_proto)
            .transpose()
            .within("to")?
            .flatten(),
    })
}

fn alternatives(
    field: &str,
    values: Vec<v1::OptionalValue>,
) -> Result<Vec<Option<Value>>, ConvertError> {
    if values.is_empty() {
        return Err(Fault::Missing).within(field);
    }
    convert_items(field, MAX_ITEMS, values, optional_from_proto)
}

fn conditions_to_proto(conditions: &[Condition]) -> Vec<v1::UrlCondition> {
    conditions.iter().map(condition_to_proto).collect()
}

fn condition_to_proto(condition: &Condition) -> v1::UrlCondition {
    let any_of = condition.values().iter();
    let bound = |of: fn(&NumberRange) -> Option<Number>| {
        let bound = condition.range().as_ref().and_then(of);
        bound.map(|number| value_to_proto(&number.to_value()))
    };
    v1::UrlCondition {
        url: condition.url.to_string(),
        any_of: any_of
            .map(|value| optional_to_proto(value.as_ref()))
            .collect(),
        at_least: bound(NumberRange::least),
        at_most: bound(NumberRange::most),
    }
}

fn condition_from_proto(condition: v1::UrlCondition) -> Result<Condition, ConvertError> {
    let url = url_from_proto(&condition.url).within("url")?;
    let bound = |field: &str, value: Option<v1::Value>| {
        let Some(value) = value else { return Ok(None) };
        let value = value_from_proto(value).within(field)?;
        let number = Number::of(&value).ok_or(Fault::NoNumber).within(field)?;
        Ok::<_, ConvertError>(Some(number))
    };
    let least = bound("at_least", condition.at_least)?;
    let most = bound("at_most", condition.at_most)?;
    let range = match (least, most) {
        (Some(least), Some(most)) => NumberRange::Between(least, most),
        (Some(least), None) => NumberRange::AtLeast(least),
        (None, Some(most)) => NumberRange::AtMost(most),
        (None, None) => {
            return Ok(Condition::any_of(
                url,
                alternatives("any_of", condition.any_of)?,
            ));
        }
    };
    if !condition.any_of.is_empty() {
        return Err(Fault::BothKinds).within("any_of");
    }
    Ok(Condition::number(url, range))
}

/// A mutation as a message.
pub fn mutation_to_proto(mutation: &Mutation) -> v1::Mutation {
    v1::Mutation {
        module: mutation.id.module().to_owned(),
        name: mutation.id.name().to_owned(),
        context: context_to_proto(mutation.context).into(),
        mutates: mutation.mutates.iter().map(url_change_to_proto).collect(),
        requires: conditions_to_proto(&mutation.requires),
        excludes: conditions_to_proto(&mutation.excludes),
        timeout_ms: mutation.timeout.map_or(0, |timeout| {
            u64::try_from(timeout.as_millis())
                .unwrap_or(u64::MAX)
                .max(1)
        }),
        fail_to: changes_to_proto(&mutation.fail_to),
        cost: mutation.cost,
        disruptive: mutation.disruptive,
        requires_of: mutation.requires_of.iter().map(others_to_proto).collect(),
    }
}

fn others_to_proto(others: &OthersCondition) -> v1::OthersCondition {
    let condition = conditions_to_proto(std::slice::from_ref(&others.condition)).pop();
    v1::OthersCondition {
        who: others.who.to_string(),
        condition,
    }
}

fn others_from_proto(others: v1::OthersCondition) -> Result<OthersCondition, ConvertError> {
    let condition = others.condition.ok_or(Fault::Missing).within("condition")?;
    Ok(OthersCondition {
        who: Others::parse(&others.who)
            .ok_or(Fault::Word)
            .within("who")?,
        condition: condition_from_proto(condition).within("condition")?,
    })
}

/// A mutation out of a message.
///
/// # Errors
/// A name or url that is none; no or an unknown context; nothing mutated, or one url twice; a limit broken.
pub fn mutation_from_proto(mutation: v1::Mutation) -> Result<Mutation, ConvertError> {
    let mutates = convert_items(
        "mutates",
        MAX_ITEMS,
        mutation.mutates,
        url_change_from_proto,
    )?;
    if mutates.is_empty() {
        return Err(Fault::Missing).within("mutates");
    }
    for (index, change) in mutates.iter().enumerate() {
        if mutates[..index].iter().any(|other| other.url == change.url) {
            return Err(Fault::Twice(change.url.to_string())).within("mutates");
        }
    }
    Ok(Mutation {
        id: MutationId::new(
            word(&mutation.module).within("module")?,
            word(&mutation.name).within("name")?,
        ),
        context: context_from_proto(mutation.context).within("context")?,
        mutates,
        requires: convert_items(
            "requires",
            MAX_ITEMS,
            mutation.requires,
            condition_from_proto,
        )?,
        excludes: convert_items(
            "excludes",
            MAX_ITEMS,
            mutation.excludes,
            condition_from_proto,
        )?,
        requires_of: convert_items(
            "requires_of",
            MAX_ITEMS,
            mutation.requires_of,
            others_from_proto,
        )?,
        timeout: (mutation.timeout_ms > 0).then(|| Duration::from_millis(mutation.timeout_ms)),
        fail_to: convert_items("fail_to", MAX_ITEMS, mutation.fail_to, change_from_proto)?,
        cost: mutation.cost,
        disruptive: mutation.disruptive,
    })
}

fn word(text: &str) -> Result<&str, Fault> {
    no_longer(MAX_NAME_BYTES, text.len())?;
    if text.is_empty() {
        return Err(Fault::Missing);
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.+-".contains(&b);
    text.bytes().all(fits).then_some(text).ok_or(Fault::Word)
}

/// A set of mutations as a message.
pub fn mutation_set_to_proto(set: &MutationSet) -> v1::MutationSet {
    let dependencies = set.dependencies.iter().map(|dependency| v1::Dependency {
        url: dependency.url.to_string(),
        conditions: conditions_to_proto(&dependency.conditions),
    });
    v1::MutationSet {
        generation: set.generation,
        mutations: set.mutations.iter().map(mutation_to_proto).collect(),
        dependencies: dependencies.collect(),
        discoverables: set.discoverables.iter().map(ToString::to_string).collect(),
        one_by_one: set.one_by_one,
    }
}

/// A set of mutations out of a message, brought into order.
///
/// # Errors
/// A mutation or a dependency comes twice or cannot be read; a limit broken.
pub fn mutation_set_from_proto(set: v1::MutationSet) -> Result<MutationSet, ConvertError> {
    let mut mutations = convert_items(
        "mutations",
        MAX_MUTATIONS,
        set.mutations,
        mutation_from_proto,
    )?;
    mutations.sort_by(|a, b| a.id.cmp(&b.id));
    if let Some(pair) = mutations.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(Fault::Twice(pair[0].id.to_string())).within("mutations");
    }
    let dependencies = dependencies_from_proto(set.dependencies)?;
    let discoverables = discoverables_from_proto(set.discoverables)?;
    Ok(MutationSet {
        generation: set.generation,
        mutations,
        dependencies,
        discoverables,
        one_by_one: set.one_by_one,
    })
}

pub(super) fn dependencies_from_proto(
    dependencies: Vec<v1::Dependency>,
) -> Result<Vec<Dependency>, ConvertError> {
    let dependency = |dependency: v1::Dependency| {
        Ok(Dependency {
            url: url_from_proto(&dependency.url).within("url")?,
            conditions: convert_items(
                "conditions",
                MAX_ITEMS,
                dependency.conditions,
                condition_from_proto,
            )?,
        })
    };
    let mut dependencies = convert_items("dependencies", MAX_VALUES, dependencies, dependency)?;
    dependencies.sort();
    match dependencies
        .windows(2)
        .find(|pair| pair[0].url == pair[1].url)
    {
        Some(pair) => Err(Fault::Twice(pair[0].url.to_string())).within("dependencies"),
        None => Ok(dependencies),
    }
}

pub(super) fn discoverables_from_proto(urls: Vec<String>) -> Result<Vec<StateUrl>, ConvertError> {
    let mut urls = convert_items("discoverables", MAX_VALUES, urls, |url| {
        url_from_proto(&url)
    })?;
    urls.sort();
    urls.dedup();
    Ok(urls)
}
