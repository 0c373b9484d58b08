//! Where the power switch of a node is, by its Cfg. A password is never printed.

use std::fmt;

use engine::state::{NodeName, Value, Values};

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Password(pub(super) String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Who switches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    Redfish,
    Command,
}

/// How to reach the power switch of one node: `/power` of its Cfg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: NodeName,
    pub(super) driver: Driver,
    pub(super) address: String,
    pub(super) username: String,
    pub(super) password: Password,
    pub(super) insecure: bool,
}

impl Target {
    /// `None` without a driver.
    pub(super) fn of(name: &NodeName, cfg: &Values) -> Option<Self> {
        let driver = match cfg.text("/power/driver")? {
            "REDFISH" => Driver::Redfish,
            "COMMAND" => Driver::Command,
            _ => return None,
        };
        let text = |at: &str| cfg.text(at).unwrap_or_default().to_owned();
        Some(Self {
            name: name.clone(),
            driver,
            address: text("/power/target"),
            username: text("/power/username"),
            password: Password(text("/power/password")),
            insecure: cfg.get("/power/insecure") == Some(&Value::Bool(true)),
        })
    }
}
