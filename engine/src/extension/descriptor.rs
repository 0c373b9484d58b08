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

use super::{Declared, Extension, Field, Format, Kind, Schema};
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
    /// Messages of others whose fields are no state.
    #[error(
        "field {field}: {message} is no state of a node: use a plain type, such as int64 with (kraken.v1.format) = FORMAT_DURATION, or string"
    )]
    WellKnown {
        /// Full name of the field.
        field: String,
        /// Full name of the message.
        message: String,
    },
    /// More urls than any node should have.
    #[error("message {0}: more than {MAX_FIELDS} fields, counting those of messages within")]
    TooMany(String),
    /// The option is for secrets.
    #[error(
        "field {0}: (kraken.v1.node_reads) is for secrets; every other value travels to the node anyway"
    )]
    NotSecret(String),
}

/// Most fields of one extension, with those of messages within; hundreds of times what the built-in ones have. Messages that hold each other
/// would otherwise multiply without end.
const MAX_FIELDS: usize = 1024;

/// First parts of urls that the engine keeps for what a head tells an agent.
const RESERVED: [&str; 2] = ["Frozen", "Held"];

/// Why descriptors are no schema, and where in the `.proto` file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Misfit {
    /// Line, from 1, if the descriptors tell.
    pub line: Option<u32>,
    /// What is wrong.
    #[source]
    pub error: DescriptorError,
}

impl DescriptorError {
    /// Full name of the message, field or enum that it is about.
    fn subject(&self) -> Option<&str> {
        match self {
            Self::Decode(_) | Self::NoOptions(_) | Self::NoExtension => None,
            Self::ExtensionName { message: name, .. }
            | Self::Reserved(name)
            | Self::Taken { field: name, .. }
            | Self::RepeatedMessage(name)
            | Self::Recursive(name)
            | Self::TooDeep { field: name, .. }
            | Self::FormatType { field: name, .. }
            | Self::UnknownFormat { field: name, .. }
            | Self::NoZero(name)
            | Self::WellKnown { field: name, .. }
            | Self::TooMany(name)
            | Self::NotSecret(name) => Some(name),
        }
    }
}

/// The package whose `Core` message may start at the root.
const CORE: &str = "kraken.ext.v1.Core";

impl Schema {
    /// The schema of the extensions in a serialized `FileDescriptorSet`, imports included.
    ///
    /// # Errors
    /// Names the message or field that cannot be part of a node's state.
    pub fn from_descriptors(bytes: &[u8]) -> Result<Self, DescriptorError> {
        let mut schema = Self::default();
        let extensions = Extension::all(bytes).map_err(|misfit| misfit.error)?;
        for extension in &extensions {
            schema
                .extend(extension)
                .map_err(|pattern| DescriptorError::Taken {
                    field: extension.name.clone(),
                    pattern,
                })?;
        }
        Ok(schema)
    }

    /// The core and the extensions that come with Kraken.
    pub fn built_in() -> Self {
        match Self::from_descriptors(proto::DESCRIPTORS) {
            Ok(schema) => schema,
            Err(error) => unreachable!("the schema was compiled with this crate: {error}"),
        }
    }
}

impl Extension {
    /// The extensions in a serialized `FileDescriptorSet`, imports included, in the order of their messages.
    ///
    /// # Errors
    /// Names the message or field that cannot be part of a node's state, and its line.
    pub fn all(bytes: &[u8]) -> Result<Vec<Self>, Misfit> {
        let nowhere = |error| Misfit { line: None, error };
        let pool = DescriptorPool::decode(bytes)
            .map_err(|error| nowhere(DescriptorError::Decode(error.to_string())))?;
        let options = Options::find(&pool).map_err(nowhere)?;
        let mut reader = Reader {
            options,
            comments: pool
                .files()
                .map(|file| (file.name().to_owned(), comments(&file)))
                .collect(),
            extension: Self::empty(),
            messages: 0,
        };
        let mut extensions: Vec<Self> = Vec::new();
        for message in pool.all_messages() {
            let message_options = message.options();
            if message_options.has_extension(&reader.options.extension) {
                let name = text(&message_options, &reader.options.extension);
                // Messages of one name share its urls.
                let at = extensions
                    .iter()
                    .position(|extension| extension.name == name);
                reader.extension = at.map_or_else(Self::empty, |at| extensions.remove(at));
                reader
                    .add_extension(&message, &name)
                    .map_err(|error| Misfit {
                        line: error.subject().and_then(|name| line_of(&pool, name)),
                        error,
                    })?;
                extensions.push(std::mem::replace(&mut reader.extension, Self::empty()));
            }
        }
        if extensions.is_empty() {
            return Err(nowhere(DescriptorError::NoExtension));
        }
        Ok(extensions)
    }

    /// The core and the extensions that come with Kraken.
    pub fn built_in() -> Vec<Self> {
        match Self::all(proto::DESCRIPTORS) {
            Ok(extensions) => extensions,
            Err(error) => unreachable!("the schema was compiled with this crate: {error}"),
        }
    }

    const fn empty() -> Self {
        Self {
            name: String::new(),
            doc: String::new(),
            fields: BTreeMap::new(),
        }
    }
}

/// The line, from 1, on which the message, field or enum of this full name begins.
fn line_of(pool: &DescriptorPool, name: &str) -> Option<u32> {
    let field = || {
        let (message, field) = name.rsplit_once('.')?;
        let field = pool
            .get_message_by_name(message)?
            .get_field_by_name(field)?;
        Some((field.parent_file(), field.path().to_vec()))
    };
    let message = || {
        let message = pool.get_message_by_name(name)?;
        Some((message.parent_file(), message.path().to_vec()))
    };
    let names = || {
        let names = pool.get_enum_by_name(name)?;
        Some((names.parent_file(), names.path().to_vec()))
    };
    let (file, path) = message().or_else(field).or_else(names)?;
    let info = file.file_descriptor_proto().source_code_info.as_ref()?;
    let location = info
        .location
        .iter()
        .find(|location| location.path == path)?;
    u32::try_from(location.span.first()?.checked_add(1)?).ok()
}

/// The options of `kraken/v1/options.proto`.
struct Options {
    extension: ExtensionDescriptor,
    format: ExtensionDescriptor,
    secret: ExtensionDescriptor,
    discoverable: ExtensionDescriptor,
    unit: ExtensionDescriptor,
    zero: ExtensionDescriptor,
    node_reads: ExtensionDescriptor,
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
            zero: find("kraken.v1.zero")?,
            node_reads: find("kraken.v1.node_reads")?,
        })
    }
}

struct Reader {
    options: Options,
    /// Leading comments by file and path within it.
    comments: BTreeMap<String, BTreeMap<Vec<i32>, String>>,
    /// The one that is being read.
    extension: Extension,
    /// Messages within it so far: they can multiply without any field.
    messages: usize,
}

/// Where the reader is: the urls and numbers so far, and the messages that it is inside of.
struct Place {
    prefix: String,
    numbers: Vec<u32>,
    around: Vec<String>,
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
        let is_name = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
            && !name.starts_with(['.', '-'])
            && !RESERVED.contains(&name);
        if !is_name {
            return Err(DescriptorError::ExtensionName {
                message: message.full_name().to_owned(),
                name: name.chars().take(64).collect(),
            });
        }
        self.extension.name = name.to_owned();
        self.messages = 0;
        if self.extension.doc.is_empty() {
            self.extension.doc = self.doc(&message.parent_file(), message.path());
        }
        let place = Place {
            prefix: match name {
                "" => String::new(),
                name => format!("/{name}"),
            },
            numbers: Vec::new(),
            around: vec![message.full_name().to_owned()],
        };
        self.add_fields(message, &place)
    }

    fn add_fields(
        &mut self,
        message: &MessageDescriptor,
        place: &Place,
    ) -> Result<(), DescriptorError> {
        for field in message.fields() {
            let pattern = format!("{}/{}", place.prefix, field.name());
            if field.is_map() {
                let WireKind::Message(entry) = field.kind() else {
                    continue;
                };
                // The options of the map say how its values are written.
                self.add_value(
                    &field,
                    entry.map_entry_value_field().kind(),
                    format!("{pattern}/*"),
                    place,
                )?;
            } else {
                self.add_value(&field, field.kind(), pattern, place)?;
            }
        }
        Ok(())
    }

    fn add_value(
        &mut self,
        field: &FieldDescriptor,
        kind: WireKind,
        pattern: String,
        place: &Place,
    ) -> Result<(), DescriptorError> {
        let name = || field.full_name().to_owned();
        // A key stands where `*` does; any key of one byte or more must leave room.
        if pattern.len() >= StateUrl::MAX_BYTES
            || pattern.split('/').count() > StateUrl::MAX_PARTS + 1
        {
            return Err(DescriptorError::TooDeep {
                field: name(),
                pattern: pattern.chars().take(64).collect(),
            });
        }
        let numbers = [&place.numbers[..], &[field.number()]].concat();
        if let WireKind::Message(inner) = kind {
            return self.add_message(field, &inner, pattern, numbers, place);
        }
        if self.extension.fields.len() >= MAX_FIELDS {
            return Err(DescriptorError::TooMany(place.around[0].clone()));
        }
        let options = field.options();
        let kind = value_kind(&kind)?;
        let format = self.format(field, &options, &kind)?;
        let entry = Field {
            repeated: field.is_list(),
            format,
            secret: flag(&options, &self.options.secret),
            discoverable: flag(&options, &self.options.discoverable),
            unit: text(&options, &self.options.unit),
            doc: self.doc(&field.parent_file(), field.path()),
            zero: text(&options, &self.options.zero),
            node_reads: flag(&options, &self.options.node_reads),
            ..Field::new(kind)
        };
        if entry.node_reads && !entry.secret {
            return Err(DescriptorError::NotSecret(name()));
        }
        let declared = Declared {
            field: entry,
            numbers,
        };
        match self.extension.fields.insert(pattern.clone(), declared) {
            None => Ok(()),
            Some(_) => Err(DescriptorError::Taken {
                field: name(),
                pattern,
            }),
        }
    }

    fn add_message(
        &mut self,
        field: &FieldDescriptor,
        inner: &MessageDescriptor,
        pattern: String,
        numbers: Vec<u32>,
        place: &Place,
    ) -> Result<(), DescriptorError> {
        let name = || field.full_name().to_owned();
        if field.is_list() {
            return Err(DescriptorError::RepeatedMessage(name()));
        }
        if inner.package_name() == "google.protobuf" {
            return Err(DescriptorError::WellKnown {
                field: name(),
                message: inner.full_name().to_owned(),
            });
        }
        if place.around.iter().any(|outer| outer == inner.full_name()) {
            return Err(DescriptorError::Recursive(name()));
        }
        self.messages += 1;
        if self.messages > MAX_FIELDS {
            return Err(DescriptorError::TooMany(place.around[0].clone()));
        }
        let around = [&place.around[..], &[inner.full_name().to_owned()]].concat();
        let within = Place {
            prefix: pattern,
            numbers,
            around,
        };
        self.add_fields(inner, &within)
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

    fn doc(&self, file: &FileDescriptor, path: &[i32]) -> String {
        let comments = self.comments.get(file.name());
        let comment = comments.and_then(|comments| comments.get(path));
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
