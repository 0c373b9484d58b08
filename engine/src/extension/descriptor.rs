//! Schemas out of protobuf descriptors: a compiled `.proto` file (`FileDescriptorSet`) becomes fields by url pattern (DESIGN 2).
//!
//! A message that carries `option (kraken.v1.extension) = "pxe"` gives one pattern a field: `/pxe/state`. Fields that are messages go one
//! part deeper, keys of maps become `*`. Options of `kraken/v1/options.proto` say how people write a field and who may report it; comments
//! become help texts. Compiling `.proto` files is left to build scripts and to the head.

use std::collections::BTreeMap;

use prost_reflect::prost_types::FileDescriptorProto;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, ExtensionDescriptor, FieldDescriptor,
    FileDescriptor, Kind as WireKind, MessageDescriptor, Value as WireValue,
};

use super::{Field, Format, Kind, Schema};
use crate::state::StateUrl;

/// Why descriptors are no schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// Not a set of descriptors.
    #[error("these are no protobuf descriptors: {0}")]
    Decode(String),
    /// The file with the options is not among them.
    #[error(
        "the descriptors lack {0}: import \"kraken/v1/options.proto\" and compile with imports included"
    )]
    NoOptions(&'static str),
    /// No message is an extension.
    #[error("no message has the option (kraken.v1.extension), so there is nothing to add to nodes")]
    NoExtension,
    /// The extension's name cannot start a url.
    #[error("message {message}: extension {name:?} is no name: use letters, digits and \"_.-\"")]
    ExtensionName {
        /// Full name of the message.
        message: String,
        /// What it wants.
        name: String,
    },
    /// Only the core's fields start at the root.
    #[error("message {0}: only the core may have an empty extension name")]
    Reserved(String),
    /// Two fields have one url.
    #[error("field {field}: {pattern} is taken by another field")]
    Taken {
        /// Full name of the field.
        field: String,
        /// The url pattern.
        pattern: String,
    },
    /// A list of messages has no addresses for its items.
    #[error("field {0}: a list of messages has no addresses for its items; use a map")]
    RepeatedMessage(String),
    /// A message inside itself.
    #[error("field {0}: its message contains itself, so its urls have no end")]
    Recursive(String),
    /// Too deep.
    #[error("field {field}: {pattern} is longer or deeper than a url can be")]
    TooDeep {
        /// Full name of the field.
        field: String,
        /// The url pattern.
        pattern: String,
    },
    /// The format needs another type.
    #[error("field {field}: {format} needs {needs}")]
    FormatType {
        /// Full name of the field.
        field: String,
        /// The format's name.
        format: &'static str,
        /// A type.
        needs: &'static str,
    },
    /// A format of a later version.
    #[error("field {field}: format number {number} is not known to this version")]
    UnknownFormat {
        /// Full name of the field.
        field: String,
        /// The number.
        number: i32,
    },
    /// An enum without zero.
    #[error("enum {0} has no name for zero, which stands for unknown")]
    NoZero(String),
}

/// The package whose `Core` message may start at the root.
const CORE: &str = "kraken.ext.v1.Core";

impl Schema {
    /// The schema of the extensions in a serialized `FileDescriptorSet`, imports included.
    ///
    /// # Errors
    /// Names the message or field that cannot be part of a node's state.
    pub fn from_descriptors(bytes: &[u8]) -> Result<Self, DescriptorError> {
        let pool = DescriptorPool::decode(bytes)
            .map_err(|error| DescriptorError::Decode(error.to_string()))?;
        let options = Options::find(&pool)?;
        let mut reader = Reader {
            options,
            comments: pool
                .files()
                .map(|file| (file.name().to_owned(), comments(&file)))
                .collect(),
            schema: Self::default(),
        };
        let mut found = false;
        for message in pool.all_messages() {
            let message_options = message.options();
            if message_options.has_extension(&reader.options.extension) {
                let name = text(&message_options, &reader.options.extension);
                reader.add_extension(&message, &name)?;
                found = true;
            }
        }
        if found {
            Ok(reader.schema)
        } else {
            Err(DescriptorError::NoExtension)
        }
    }

    /// The core and the extensions that come with Kraken.
    pub fn built_in() -> Self {
        match Self::from_descriptors(proto::DESCRIPTORS) {
            Ok(schema) => schema,
            Err(error) => unreachable!("the schema was compiled with this crate: {error}"),
        }
    }
}

/// The options of `kraken/v1/options.proto`.
struct Options {
    extension: ExtensionDescriptor,
    format: ExtensionDescriptor,
    secret: ExtensionDescriptor,
    discoverable: ExtensionDescriptor,
    unit: ExtensionDescriptor,
}

impl Options {
    fn find(pool: &DescriptorPool) -> Result<Self, DescriptorError> {
        let find = |name| {
            pool.get_extension_by_name(name)
                .ok_or(DescriptorError::NoOptions(name))
        };
        Ok(Self {
            extension: find("kraken.v1.extension")?,
            format: find("kraken.v1.format")?,
            secret: find("kraken.v1.secret")?,
            discoverable: find("kraken.v1.discoverable")?,
            unit: find("kraken.v1.unit")?,
        })
    }
}

struct Reader {
    options: Options,
    /// Leading comments by file and path within it.
    comments: BTreeMap<String, BTreeMap<Vec<i32>, String>>,
    schema: Schema,
}

impl Reader {
    fn add_extension(
        &mut self,
        message: &MessageDescriptor,
        name: &str,
    ) -> Result<(), DescriptorError> {
        if name.is_empty() && message.full_name() != CORE {
            return Err(DescriptorError::Reserved(message.full_name().to_owned()));
        }
        if !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        {
            return Err(DescriptorError::ExtensionName {
                message: message.full_name().to_owned(),
                name: name.chars().take(64).collect(),
            });
        }
        let prefix = if name.is_empty() {
            String::new()
        } else {
            format!("/{name}")
        };
        self.add_fields(message, &prefix, &mut vec![message.full_name().to_owned()])
    }

    /// Adds the fields of `message` below `prefix`; `around` holds the messages that this one is inside of.
    fn add_fields(
        &mut self,
        message: &MessageDescriptor,
        prefix: &str,
        around: &mut Vec<String>,
    ) -> Result<(), DescriptorError> {
        for field in message.fields() {
            let pattern = format!("{prefix}/{}", field.name());
            if field.is_map() {
                let WireKind::Message(entry) = field.kind() else {
                    continue;
                };
                // The options of the map say how its values are written.
                self.add_value(
                    &field,
                    entry.map_entry_value_field().kind(),
                    format!("{pattern}/*"),
                    around,
                )?;
            } else {
                self.add_value(&field, field.kind(), pattern, around)?;
            }
        }
        Ok(())
    }

    fn add_value(
        &mut self,
        field: &FieldDescriptor,
        kind: WireKind,
        pattern: String,
        around: &mut Vec<String>,
    ) -> Result<(), DescriptorError> {
        let name = || field.full_name().to_owned();
        // A key stands where `*` does; any key of one byte or more must leave room.
        if pattern.len() >= StateUrl::MAX_BYTES
            || pattern.split('/').count() > StateUrl::MAX_PARTS + 1
        {
            return Err(DescriptorError::TooDeep {
                field: name(),
                pattern,
            });
        }
        if let WireKind::Message(inner) = kind {
            if field.is_list() {
                return Err(DescriptorError::RepeatedMessage(name()));
            }
            if around.iter().any(|outer| outer == inner.full_name()) {
                return Err(DescriptorError::Recursive(name()));
            }
            around.push(inner.full_name().to_owned());
            self.add_fields(&inner, &pattern, around)?;
            around.pop();
            return Ok(());
        }
        let options = field.options();
        let kind = value_kind(&kind)?;
        let format = self.format(field, &options, &kind)?;
        let entry = Field {
            kind,
            repeated: field.is_list(),
            format,
            secret: flag(&options, &self.options.secret),
            discoverable: flag(&options, &self.options.discoverable),
            unit: text(&options, &self.options.unit),
            doc: self.doc(field),
        };
        if self.schema.add(pattern.clone(), entry) {
            Ok(())
        } else {
            Err(DescriptorError::Taken {
                field: name(),
                pattern,
            })
        }
    }

    fn format(
        &self,
        field: &FieldDescriptor,
        options: &DynamicMessage,
        kind: &Kind,
    ) -> Result<Format, DescriptorError> {
        let number = match &*options.get_extension(&self.options.format) {
            WireValue::EnumNumber(number) => *number,
            _ => 0,
        };
        let (format, name) = match number {
            0 => return Ok(Format::Plain),
            1 => (Format::Ip, "FORMAT_IP"),
            2 => (Format::Cidr, "FORMAT_CIDR"),
            3 => (Format::Mac, "FORMAT_MAC"),
            4 => (Format::Duration, "FORMAT_DURATION"),
            5 => (Format::Size, "FORMAT_SIZE"),
            number => {
                return Err(DescriptorError::UnknownFormat {
                    field: field.full_name().to_owned(),
                    number,
                });
            }
        };
        let (fits, needs) = match format {
            Format::Duration | Format::Size => (matches!(kind, Kind::Int { .. }), "an integer"),
            _ => (matches!(kind, Kind::Text), "a string"),
        };
        if fits {
            return Ok(format);
        }
        Err(DescriptorError::FormatType {
            field: field.full_name().to_owned(),
            format: name,
            needs,
        })
    }

    fn doc(&self, field: &FieldDescriptor) -> String {
        let file = field.parent_file();
        let comment = self
            .comments
            .get(file.name())
            .and_then(|comments| comments.get(field.path()));
        comment.cloned().unwrap_or_default()
    }
}

fn value_kind(kind: &WireKind) -> Result<Kind, DescriptorError> {
    let int = |min, max| Kind::Int { min, max };
    Ok(match kind {
        WireKind::Bool => Kind::Bool,
        WireKind::Float | WireKind::Double => Kind::Float,
        WireKind::String => Kind::Text,
        WireKind::Bytes | WireKind::Message(_) => Kind::Bytes,
        WireKind::Int32 | WireKind::Sint32 | WireKind::Sfixed32 => {
            int(i32::MIN.into(), i32::MAX.into())
        }
        WireKind::Uint32 | WireKind::Fixed32 => int(0, u32::MAX.into()),
        WireKind::Int64 | WireKind::Sint64 | WireKind::Sfixed64 => int(i64::MIN, i64::MAX),
        WireKind::Uint64 | WireKind::Fixed64 => int(0, i64::MAX),
        WireKind::Enum(names) => Kind::Enum(enum_names(names)?),
    })
}

/// The name of zero, then the others by number.
fn enum_names(descriptor: &EnumDescriptor) -> Result<Vec<String>, DescriptorError> {
    let mut values: Vec<(i32, String)> = descriptor
        .values()
        .map(|value| (value.number(), value.name().to_owned()))
        .collect();
    values.sort_by_key(|(number, _)| (*number != 0, *number));
    match values.first() {
        Some((0, _)) => Ok(values.into_iter().map(|(_, name)| name).collect()),
        _ => Err(DescriptorError::NoZero(descriptor.full_name().to_owned())),
    }
}

fn text(options: &DynamicMessage, extension: &ExtensionDescriptor) -> String {
    options
        .get_extension(extension)
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn flag(options: &DynamicMessage, extension: &ExtensionDescriptor) -> bool {
    options
        .get_extension(extension)
        .as_bool()
        .unwrap_or_default()
}

/// The comments above the items of a file, each as one paragraph.
fn comments(file: &FileDescriptor) -> BTreeMap<Vec<i32>, String> {
    let proto: &FileDescriptorProto = file.file_descriptor_proto();
    let locations = proto
        .source_code_info
        .iter()
        .flat_map(|info| &info.location);
    locations
        .filter_map(|location| {
            let lines = location.leading_comments().lines().map(str::trim);
            let comment = lines.collect::<Vec<_>>().join(" ").trim().to_owned();
            (!comment.is_empty()).then(|| (location.path.clone(), comment))
        })
        .collect()
}

#[cfg(test)]
mod tests;
