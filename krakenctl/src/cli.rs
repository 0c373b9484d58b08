//! The command line: nouns, verbs, and the help that teaches them.
//!
//! Each command's arguments live with its code; this file only gathers them.

use clap::{Parser, Subcommand};

use crate::complete::Shell;

use crate::connect::ConnectArgs;
use crate::{extension, freeze, history, image, module, mutation, node, pending, plan, version};

const EXAMPLES: &str = "\
Examples:
  krakenctl node list                          all nodes: power, agent, image
  krakenctl node set n[1-4] /RunState=SYNC -w  switch on, boot, join, and wait for it
  krakenctl plan n[1-4] /PhysState=POWER_OFF   what would that do? Nothing is written
  krakenctl history n3                         who changed what, and why?
  krakenctl node explain n3                    why is it where it is, what would move it?
  krakenctl node watch @rack1                  every change, as it happens
  krakenctl pending list                       machines that asked for a boot and belong to no node
  krakenctl freeze --reason maintenance        stop all mutations, at once

Node sets: n1  n[1-4,7]  n[001-128]  @rack3  @rack3&@gpu  @rack3!n7  run=ERROR
  The head reads them (ClusterShell's grammar); @* is all nodes, '-' reads names from standard input.
  Quote them where your shell has its own idea of [ ], & or !.

Exit codes: 0 ok, 1 failure, 2 usage, 3 partial, 4 not found, 5 not permitted, 6 no head reached,
  7 conflict, 8 changes pending (--dry-run, plan), 124 timeout, 130 interrupted";

/// Operate a Kraken cluster
#[derive(Debug, Parser)]
#[command(name = "krakenctl", version, after_help = EXAMPLES, max_term_width = 130, propagate_version = false)]
pub(crate) struct Cli {
    /// No colors, as with NO_COLOR in the environment
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) no_color: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const FILES: &str = "\
Modules need no program: a mutation file declares what can be changed, and which commands do it. Their format, with an
example of everything, is in engine/docs/mutation-file.md; `krakenctl module new NAME --lang file` writes one to start from.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Nodes: what they should be, what they are, and why they differ
    #[command(subcommand)]
    Node(node::Command),
    /// Stop mutations from starting, on some nodes or everywhere
    Freeze(freeze::FreezeArgs),
    /// Let mutations start again
    Thaw(freeze::ThawArgs),
    /// Machines that asked for a boot and belong to no node
    #[command(subcommand)]
    Pending(pending::Command),
    /// System images
    #[command(subcommand)]
    Image(image::Command),
    /// What carries mutations out: the head's modules, and new ones
    #[command(subcommand, after_help = FILES)]
    Module(module::Command),
    /// Schemas that add values of your own to every node
    #[command(subcommand)]
    Extension(extension::Command),
    /// What the head's modules can change, and who carries it out
    #[command(subcommand, after_help = FILES)]
    Mutation(mutation::Command),
    /// What nodes would do: now, after a change, or from files
    Plan(plan::PlanArgs),
    /// What was written, by whom and why, newest first
    History(history::HistoryArgs),
    /// What differs between two revisions
    Diff(history::DiffArgs),
    /// Take a revision back, or everything after one
    Undo(history::UndoArgs),
    /// Let a write stay that is on trial (--try)
    Confirm(history::ConfirmArgs),
    /// Versions of this program and of the head
    Version(version::VersionArgs),
    /// Print what makes a shell complete commands, nodes, groups and urls
    #[command(after_help = COMPLETION)]
    Completion {
        /// Which shell
        shell: Shell,
    },
}

const COMPLETION: &str = "\
The script asks krakenctl itself at each <Tab>, so names of nodes and groups are those of the head that KRAKEN_SOCKET \
or KRAKEN_HEAD names. Load it at each start of a shell, so that it fits the installed version.

Examples:
  echo 'source <(krakenctl completion bash)' >> ~/.bashrc
  echo 'source <(krakenctl completion zsh)' >> ~/.zshrc
  echo 'krakenctl completion fish | source' >> ~/.config/fish/config.fish";
