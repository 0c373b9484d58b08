//! `node`: what nodes should be, what they are, and why they differ.

pub(crate) mod add;
mod delete;
mod explain;
mod follow;
mod list;
mod progress;
mod reboot;
mod release;
pub(crate) mod set;
mod show;
pub(crate) mod spec;
mod watch;

use crate::Context;
use crate::exit::{Exit, Failure};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List nodes with power, agent and image state
    List(list::ListArgs),
    /// Show all values of nodes: intent (Cfg) beside observation (Dsc)
    Show(show::ShowArgs),
    /// Set values, groups, the parent: all nodes of the set or none
    Set(set::SetArgs),
    /// Unset values: "don't care" from then on
    Unset(set::UnsetArgs),
    /// Say why nodes are where they are, and what would move them
    Explain(explain::ExplainArgs),
    /// Follow every change as it happens
    Watch(watch::WatchArgs),
    /// Add nodes, by name or from a file
    Add(add::AddArgs),
    /// Delete nodes
    Delete(delete::DeleteArgs),
    /// Switch nodes off and on once, as carefully as any power-off
    Reboot(reboot::RebootArgs),
    /// Let nodes that failed try again now
    Retry(release::RetryArgs),
    /// Let nodes go on, whatever holds them back
    Release(release::ReleaseArgs),
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::List(args) => list::run(args, context).await,
        Command::Show(args) => show::run(args, context).await,
        Command::Set(args) => set::set(args, context).await,
        Command::Unset(args) => set::unset(args, context).await,
        Command::Explain(args) => explain::run(args, context).await,
        Command::Watch(args) => watch::run(args, context).await,
        Command::Add(args) => add::run(args, context).await,
        Command::Delete(args) => delete::delete(args, context).await,
        Command::Reboot(args) => reboot::run(args, context).await,
        Command::Retry(args) => release::retry(args, context).await,
        Command::Release(args) => release::release(args, context).await,
    }
}
