//! What can happen in a simulated world, and how a trace names it.

use super::machine::Boot;
use super::net::Host;
use crate::event::{CommitId, ConnId, Fire};

/// Something that is going to happen.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    Datagram {
        from: Host,
        to: Host,
        bytes: Vec<u8>,
    },
    Stream {
        conn: ConnId,
        to: Host,
    },
    Closed {
        conn: ConnId,
        at: Host,
    },
    JoinTimeout {
        conn: ConnId,
        machine: usize,
    },
    StartHead,
    Commit {
        incarnation: u64,
        commit: CommitId,
    },
    Bmc {
        incarnation: u64,
        fire: Box<Fire>,
        on: Option<bool>,
    },
    PowerSeen {
        incarnation: u64,
        fire: Box<Fire>,
        on: Option<bool>,
    },
    Arm {
        incarnation: u64,
        fire: Box<Fire>,
    },
    Poll {
        machine: usize,
    },
    Remember,
    Boot {
        machine: usize,
        cycle: u64,
        step: Boot,
    },
    StartAgent {
        machine: usize,
        cycle: u64,
    },
    AgentWork {
        machine: usize,
        incarnation: u64,
        fire: Box<Fire>,
    },
    Fault,
    Attack,
    Operator,
    ReAdd {
        machine: usize,
    },
}

impl Happening {
    /// The machine whose pause holds it up.
    pub(super) fn on_machine(&self) -> Option<usize> {
        match self {
            Self::Datagram {
                to: Host::Machine(machine),
                ..
            }
            | Self::Stream {
                to: Host::Machine(machine),
                ..
            }
            | Self::Closed {
                at: Host::Machine(machine),
                ..
            }
            | Self::JoinTimeout { machine, .. }
            | Self::AgentWork { machine, .. } => Some(*machine),
            _ => None,
        }
    }

    /// Its name in a trace.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Datagram { .. } => "datagram",
            Self::Stream { .. } => "stream",
            Self::Closed { .. } => "closed",
            Self::JoinTimeout { .. } => "join timeout",
            Self::StartHead => "start head",
            Self::Commit { .. } => "commit",
            Self::Bmc { .. } => "bmc",
            Self::PowerSeen { .. } => "power seen",
            Self::Arm { .. } => "arm",
            Self::Poll { .. } => "poll",
            Self::Remember => "remember",
            Self::Boot { .. } => "boot",
            Self::StartAgent { .. } => "start agent",
            Self::AgentWork { .. } => "agent work",
            Self::Fault => "fault",
            Self::Attack => "attack",
            Self::Operator => "operator",
            Self::ReAdd { .. } => "add again",
        }
    }

    /// What tells it from others of its name in a trace.
    pub(super) fn number(&self) -> u64 {
        match self {
            Self::Datagram { to, bytes, .. } => host_number(*to) ^ (bytes.len() as u64) << 32,
            Self::Stream { conn, .. }
            | Self::Closed { conn, .. }
            | Self::JoinTimeout { conn, .. } => conn.0,
            Self::Commit { commit, .. } => commit.0,
            Self::Bmc { fire, .. } | Self::PowerSeen { fire, .. } | Self::Arm { fire, .. } => {
                fire.attempt
            }
            Self::AgentWork { fire, .. } => fire.attempt,
            Self::Poll { machine }
            | Self::Boot { machine, .. }
            | Self::StartAgent { machine, .. }
            | Self::ReAdd { machine } => *machine as u64,
            Self::StartHead | Self::Remember | Self::Fault | Self::Attack | Self::Operator => 0,
        }
    }
}

pub(super) const fn host_number(host: Host) -> u64 {
    match host {
        Host::Head => u64::MAX,
        Host::Machine(index) => index as u64,
    }
}
