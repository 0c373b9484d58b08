//! The commands of mutation files, for people.
//!
//! They are shown as their files have them, with fields in braces: no value of a node is filled in, and of variables only the names are
//! told, for files may hold passwords.

use engine::mutation::MutationId;
use engine::mutation::file::program::Command;
use proto::v1;
use proto::v1::module_info::Kind;

use super::DataFiles;

impl DataFiles {
    /// How a mutation is carried out; none: no file has a command or a question for it.
    pub(crate) fn carrier(&self, mutation: &MutationId) -> Option<v1::Carrier> {
        let (file, run) = self.0.table().run(mutation)?;
        let ask = run.ask.and_then(|at| file.program.polls.get(at));
        let of = |command: &Command| {
            let names = command.env.iter().map(|(name, _)| name.clone());
            (command.to_string(), names.collect::<Vec<String>>())
        };
        let (command, env) = run.command.as_ref().map(of).unwrap_or_default();
        Some(v1::Carrier {
            kind: Kind::File.into(),
            command,
            env,
            ask: ask.map(|poll| poll.name.clone()).unwrap_or_default(),
            ask_command: ask.map(|poll| poll.command.to_string()).unwrap_or_default(),
            trusts_exit: run.trust,
            ..v1::Carrier::default()
        })
    }
}
