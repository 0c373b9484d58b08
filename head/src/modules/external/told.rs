//! The secrets that a module was told: whatever it says from then on is shown without them, wherever it says it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use engine::extension::{Schema, without_secrets};
use engine::state::Values;

/// Most secrets that are remembered of one module, the latest: some for each node of the largest cluster that a head serves by itself. Looking for
/// all of them in a line takes some milliseconds, and lines of modules are limited.
const MAX_TOLD: usize = 65_536;

/// See the module.
#[derive(Default)]
pub(super) struct Told(Mutex<Known>);

#[derive(Default)]
struct Known {
    secrets: BTreeSet<String>,
    /// In the order in which they were told.
    order: VecDeque<String>,
}

impl Told {
    /// The module gets these values.
    pub(super) fn learn(&self, schema: &Schema, values: &Values) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for secret in schema.secret_texts(values) {
            if known.secrets.insert(secret.clone()) {
                known.order.push_back(secret);
            }
        }
        while known.order.len() > MAX_TOLD
            && let Some(oldest) = known.order.pop_front()
        {
            known.secrets.remove(&oldest);
        }
    }

    /// What the module says, without what it was told.
    pub(super) fn scrubbed(&self, text: String) -> String {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        without_secrets(known.order.iter().map(String::as_str), &text).unwrap_or(text)
    }
}
