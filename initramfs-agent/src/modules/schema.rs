//! The values that this agent reports and that no mutation changes: `/Parked`, `host.proto` and `image.proto` as a table.
//!
//! The engine refuses reports of urls that it does not know. The head knows them from descriptors; here reading those would cost more than
//! the whole engine. A test compares the table with the descriptors.

use engine::extension::{Field, Format, Kind, Schema};

const U32: Kind = Kind::Int {
    min: 0,
    max: u32::MAX as i64,
};
const U64: Kind = Kind::Int {
    min: 0,
    max: i64::MAX,
};

const FIELDS: &[(&str, Kind, Format)] = &[
    ("/host/cpu_model", Kind::Text, Format::Plain),
    ("/host/cpus", U32, Format::Plain),
    ("/host/sockets", U32, Format::Plain),
    ("/host/memory", U64, Format::Size),
    ("/host/serial", Kind::Text, Format::Plain),
    ("/host/uuid", Kind::Text, Format::Plain),
    ("/host/vendor", Kind::Text, Format::Plain),
    ("/host/product", Kind::Text, Format::Plain),
    ("/host/nics/*/mac", Kind::Text, Format::Mac),
    ("/host/nics/*/driver", Kind::Text, Format::Plain),
    ("/host/nics/*/speed", U32, Format::Plain),
    ("/host/nics/*/link", Kind::Bool, Format::Plain),
    ("/host/disks/*/size", U64, Format::Size),
    ("/host/disks/*/model", Kind::Text, Format::Plain),
    ("/host/disks/*/rotational", Kind::Bool, Format::Plain),
    ("/host/kernel", Kind::Text, Format::Plain),
    ("/host/agent_version", Kind::Text, Format::Plain),
    ("/host/boot_id", Kind::Text, Format::Plain),
    ("/host/agent_starts", U32, Format::Plain),
    ("/Parked", Kind::Text, Format::Plain),
    ("/image/name", Kind::Text, Format::Plain),
    ("/image/digest", Kind::Text, Format::Plain),
    ("/image/last_error", Kind::Text, Format::Plain),
    ("/image/deaths", U32, Format::Plain),
];

/// The table as the engine wants it.
pub(crate) fn schema() -> Schema {
    let mut schema = Schema::default();
    for (pattern, kind, format) in FIELDS {
        let field = Field {
            format: *format,
            discoverable: true,
            ..Field::new(kind.clone())
        };
        schema.add((*pattern).to_owned(), field);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_what_the_descriptors_say() {
        let real = Schema::from_descriptors(proto::DESCRIPTORS).unwrap();
        let table = schema();
        for (pattern, field) in table.iter() {
            let (_, described) = real.iter().find(|(real, _)| *real == pattern).unwrap();
            assert_eq!(
                (
                    &described.kind,
                    described.format,
                    described.repeated,
                    described.secret,
                    described.discoverable
                ),
                (
                    &field.kind,
                    field.format,
                    field.repeated,
                    field.secret,
                    field.discoverable
                ),
                "{pattern}"
            );
        }
        let ours = |pattern: &str| {
            pattern == "/Parked"
                || pattern.starts_with("/host/")
                || (pattern.starts_with("/image/") && pattern != "/image/state")
        };
        assert_eq!(
            real.iter().filter(|(pattern, _)| ours(pattern)).count(),
            table.iter().count()
        );
    }
}
