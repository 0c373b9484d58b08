//! Who carries each mutation out, and by which command, for `krakenctl mutation list` and `mutation show`.
//!
//! What a file's commands are is `datafile::carrier`'s to say.

use proto::v1;
use proto::v1::module_info::Kind;

use super::Modules;
use super::external::External;

impl External {
    /// Of all mutations of the set, by their names.
    pub(crate) fn carriers(&self) -> Vec<v1::Carrier> {
        let mut carriers = self.modules().carriers();
        let kinds = self.kinds();
        for carrier in &mut carriers {
            let module = carrier.mutation.split('/').next().unwrap_or_default();
            if carrier.kind() == Kind::BuiltIn
                && let Some(kind) = kinds.get(module)
            {
                carrier.set_kind(*kind);
            }
        }
        carriers
    }
}

impl Modules {
    /// Modules out of process count as the head's own here.
    fn carriers(&self) -> Vec<v1::Carrier> {
        let table = self.read();
        let all = table.set().mutations.into_iter().map(|mutation| {
            let carrier = self.files.carrier(&mutation.id).unwrap_or_else(|| {
                let is_known = table.modules.contains_key(mutation.id.module());
                let kind = if is_known {
                    Kind::BuiltIn
                } else {
                    Kind::Unspecified
                };
                v1::Carrier {
                    kind: kind.into(),
                    ..v1::Carrier::default()
                }
            });
            v1::Carrier {
                mutation: mutation.id.to_string(),
                file: table
                    .files
                    .loaded
                    .places
                    .get(&mutation.id)
                    .cloned()
                    .unwrap_or_default(),
                ..carrier
            }
        });
        all.collect()
    }
}
