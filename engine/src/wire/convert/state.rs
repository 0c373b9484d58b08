//! Values and their addresses (state.proto).

use proto::v1;

use super::{ConvertError, Fault, Within, at_most, convert_items, no_longer};
use crate::state::{
    Change, Float, MAX_LIST_ITEMS, MAX_VALUE_BYTES, MAX_VALUES, NodeId, StateUrl, Value, Values,
};

/// A value as a message.
pub fn value_to_proto(value: &Value) -> v1::Value {
    use v1::value::Kind;
    let kind = match value {
        Value::Bool(b) => Kind::BoolValue(*b),
        Value::Int(n) => Kind::IntValue(*n),
        Value::Float(x) => Kind::FloatValue(x.0),
        Value::Text(text) => Kind::TextValue(text.to_string()),
        Value::Bytes(bytes) => Kind::BytesValue(bytes.to_vec()),
        Value::List(items) => Kind::ListValue(v1::ValueList {
            items: items.iter().map(value_to_proto).collect(),
        }),
    };
    v1::Value { kind: Some(kind) }
}

/// A value out of a message.
///
/// # Errors
/// No kind; too long; a list with too many items or with lists in it.
pub fn value_from_proto(value: v1::Value) -> Result<Value, ConvertError> {
    use v1::value::Kind;
    let kind = value.kind.ok_or(Fault::Missing)?;
    let Kind::ListValue(list) = kind else {
        return plain(kind);
    };
    let item = |item: v1::Value| plain(item.kind.ok_or(Fault::Missing)?);
    Ok(Value::List(convert_items(
        "items",
        MAX_LIST_ITEMS,
        list.items,
        item,
    )?))
}

fn plain(kind: v1::value::Kind) -> Result<Value, ConvertError> {
    use v1::value::Kind;
    Ok(match kind {
        Kind::BoolValue(b) => Value::Bool(b),
        Kind::IntValue(n) => Value::Int(n),
        Kind::FloatValue(x) => Value::Float(Float(x)),
        Kind::TextValue(text) => {
            no_longer(MAX_VALUE_BYTES, text.len())?;
            Value::text(text)
        }
        Kind::BytesValue(bytes) => {
            no_longer(MAX_VALUE_BYTES, bytes.len())?;
            Value::Bytes(bytes.into())
        }
        Kind::ListValue(_) => return Err(Fault::Nested.into()),
    })
}

/// An address out of a message.
///
/// # Errors
/// When it is not in its canonical form.
pub fn url_from_proto(url: &str) -> Result<StateUrl, ConvertError> {
    Ok(url.parse::<StateUrl>().map_err(Fault::from)?)
}

/// A change as a message.
pub fn change_to_proto(change: &Change) -> v1::ValueChange {
    v1::ValueChange {
        url: change.url.to_string(),
        value: change.value.as_ref().map(value_to_proto),
    }
}

/// A change out of a message. A zero value unsets, as its absence does.
///
/// # Errors
/// No url; no acceptable value.
pub fn change_from_proto(change: v1::ValueChange) -> Result<Change, ConvertError> {
    let url = url_from_proto(&change.url).within("url")?;
    let value = change
        .value
        .map(value_from_proto)
        .transpose()
        .within("value")?;
    Ok(Change {
        url,
        value: value.filter(|value| !value.is_zero()),
    })
}

/// Changes as messages.
pub fn changes_to_proto(changes: &[Change]) -> Vec<v1::ValueChange> {
    changes.iter().map(change_to_proto).collect()
}

/// Changes out of messages, in order. `field` names them in errors.
///
/// # Errors
/// Too many; one that cannot be read.
pub fn changes_from_proto(
    field: &str,
    changes: Vec<v1::ValueChange>,
) -> Result<Vec<Change>, ConvertError> {
    convert_items(field, MAX_VALUES, changes, change_from_proto)
}

/// A whole set of values out of messages, which unset nothing and name no url twice.
pub(super) fn whole_from_proto(
    field: &str,
    changes: Vec<v1::ValueChange>,
) -> Result<Values, ConvertError> {
    at_most(MAX_VALUES, changes.len()).within(field)?;
    let mut values = Values::default();
    for (index, change) in changes.into_iter().enumerate() {
        let change = change_from_proto(change).within_item(index).within(field)?;
        if change.value.is_none() {
            return Err(Fault::Missing)
                .within("value")
                .within_item(index)
                .within(field);
        }
        if values.get(change.url.as_str()).is_some() {
            return Err(Fault::Twice(change.url.to_string())).within(field);
        }
        values.set(change.url, change.value);
    }
    Ok(values)
}

/// Values as a message, ordered by url.
pub fn values_to_proto(values: &Values) -> v1::Values {
    v1::Values {
        values: changes_to_proto(&values.to_changes()),
    }
}

/// Values out of a message.
///
/// # Errors
/// Too many; one that cannot be read, is unset, or comes twice.
pub fn values_from_proto(values: v1::Values) -> Result<Values, ConvertError> {
    whole_from_proto("values", values.values)
}

/// A node's id out of a message.
///
/// # Errors
/// Not 16 bytes; all of them zero.
pub fn node_id_from_proto(bytes: &[u8]) -> Result<NodeId, ConvertError> {
    let bytes: [u8; 16] = super::bytes_exactly(bytes)?;
    Ok(NodeId::from_slice(&bytes).ok_or(Fault::NilId)?)
}
