//! Sessions with children and with the parent: who is let in, what flows, who is dead (DESIGN 4).

mod admit;
mod attach;
mod cfg;

use std::collections::BTreeMap;

pub(super) use self::admit::Joining;
#[cfg(test)]
pub(super) use self::cfg::version_at;
use super::timers::Timer;
use super::{Engine, Role};
use crate::event::{ConnId, Event, Output};
use crate::state::{Change, Digest, NodeId, Values, core};
use crate::sync::join::Acceptor;
use crate::sync::message::Frame;
use crate::sync::neighbor::{Neighbor, NeighborOutput};
use crate::sync::{SessionId, SyncConfig};

/// All sessions of one engine.
pub(super) struct Sessions {
    pub(super) config: SyncConfig,
    pub(super) acceptor: Acceptor,
    links: BTreeMap<NodeId, Link>,
    by_session: BTreeMap<SessionId, NodeId>,
    /// What each child's last session reported: its next agent may know less.
    reported: BTreeMap<NodeId, Values>,
    /// Version and digest of the Cfg that each child was told last.
    told: BTreeMap<NodeId, (u64, Digest)>,
    attaching: Attaching,
    attempt: u32,
    chance: u64,
    /// Epoch of the head that we are attached to.
    epoch: u64,
    /// Newest Cfg version that we have obeyed.
    cfg_version: u64,
    /// What we tell our parent of ourselves.
    own: Values,
    own_version: u64,
}

struct Link {
    neighbor: Neighbor,
    conn: ConnId,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Attaching {
    Waiting,
    UnderWay,
    Attached,
}

impl Sessions {
    pub(super) fn new(config: SyncConfig, seed: u64) -> Self {
        Self {
            config,
            acceptor: Acceptor::default(),
            links: BTreeMap::new(),
            by_session: BTreeMap::new(),
            reported: BTreeMap::new(),
            told: BTreeMap::new(),
            attaching: Attaching::Waiting,
            attempt: 0,
            chance: seed,
            epoch: 0,
            cfg_version: 0,
            own: Values::default(),
            own_version: 0,
        }
    }

    pub(super) fn has(&self, node: NodeId) -> bool {
        self.links.contains_key(&node)
    }

    /// The sessions of a head's children; an agent has none.
    pub(super) fn of_children(&self, role: Role) -> Vec<SessionId> {
        match role {
            Role::Head { .. } => self.by_session.keys().copied().collect(),
            Role::Agent => Vec::new(),
        }
    }

    /// How many neighbors are heard.
    pub(super) fn count(&self) -> usize {
        self.links.len()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The next number of a splitmix64 sequence.
    fn chance(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Both sides.
impl Engine {
    fn open(&mut self, peer: NodeId, neighbor: Neighbor, conn: ConnId) {
        self.sessions.by_session.insert(neighbor.session(), peer);
        self.sessions.links.insert(peer, Link { neighbor, conn });
        self.pump(peer);
    }

    pub(super) fn frame(&mut self, session: SessionId, frame: Frame) {
        let Some(peer) = self.sessions.by_session.get(&session).copied() else {
            return;
        };
        if let Some(link) = self.sessions.links.get_mut(&peer) {
            link.neighbor.handle_frame(frame, self.now);
        }
        if let Some(node) = self.tree.get_mut(peer) {
            node.last_seen = Some(self.now);
        }
        self.pump(peer);
    }

    pub(super) fn neighbor_due(&mut self, peer: NodeId) {
        if let Some(link) = self.sessions.links.get_mut(&peer) {
            link.neighbor.handle_timeout(self.now);
        }
        self.pump(peer);
    }

    /// Carries out what a neighbor wants, until it wants nothing more.
    fn pump(&mut self, peer: NodeId) {
        while let Some(link) = self.sessions.links.get_mut(&peer) {
            let session = link.neighbor.session();
            let Some(output) = link.neighbor.poll_output() else {
                let next = link.neighbor.poll_timeout();
                self.timers.set(Timer::Neighbor(peer), next);
                return;
            };
            match output {
                NeighborOutput::Send(frame) => {
                    self.outputs.push_back(Output::Send { session, frame })
                }
                NeighborOutput::Received {
                    changes, version, ..
                } => match self.config.role {
                    Role::Head { .. } => self.child_reports(peer, changes),
                    Role::Agent => self.parent_wants(changes, version),
                },
                NeighborOutput::Refused(why) => self.event(Event::Refused {
                    node: Some(peer),
                    why: format!("a frame was not applied: {why}"),
                }),
                NeighborOutput::Suspect | NeighborOutput::Alive => {}
                NeighborOutput::Dead => self.dead(peer),
            }
        }
    }

    /// Dsc out of a child's session: of its own node only, and only what a node may say of itself.
    pub(super) fn child_reports(&mut self, child: NodeId, changes: Vec<Change>) {
        let before = changes.len();
        let own: Vec<Change> = changes
            .into_iter()
            .filter(|change| !self.parents_word.contains(&change.url))
            .collect();
        if own.len() < before {
            self.event(Event::Refused {
                node: Some(child),
                why: "it reports what only its parent may".into(),
            });
        }
        let (good, bad) = self.checked_dsc(child, own);
        if let Some(why) = bad {
            self.event(Event::Refused {
                node: Some(child),
                why,
            });
        }
        self.apply_dsc(child, good);
    }

    /// What sessions reported is looked at again, under another schema.
    pub(super) fn hear_again(&mut self) {
        let said: Vec<(NodeId, Vec<Change>)> = self
            .sessions
            .links
            .iter()
            .map(|(child, link)| (*child, link.neighbor.remote().to_changes()))
            .collect();
        for (child, changes) in said {
            let is_known = |change: &Change| {
                let known = self.tree.get(child)?.dsc.get(change.url.as_str());
                Some(known == change.value.as_ref())
            };
            // What is known by better words, such as the parent's, stands.
            let unheard: Vec<Change> = changes
                .into_iter()
                .filter(|change| is_known(change) == Some(false))
                .filter(|change| !self.graph().is_discoverable(&change.url))
                .filter(|change| {
                    let field = self.schema.field(&change.url);
                    field.is_some_and(|field| field.discoverable)
                })
                .collect();
            self.child_reports(child, unheard);
        }
    }

    pub(super) fn dead(&mut self, peer: NodeId) {
        self.end_session(peer, "silent for too long");
        match self.config.role {
            Role::Head { .. } => {
                let alive = self.tree.get(peer).is_some_and(|node| {
                    matches!(
                        node.dsc.text(core::RUN_STATE),
                        Some(core::SYNC | core::INIT)
                    )
                });
                if alive {
                    // What it says of its job is no longer known, but the job counts until somebody knows better.
                    if let Some(node) = self.tree.get_mut(peer)
                        && node.is_busy()
                        && let Ok(url) = core::BUSY.parse()
                    {
                        node.last_known.dsc.set(url, Some(core::BUSY_BUSY.into()));
                    }
                    if let Some(runtime) = self.runtimes.get_mut(&peer) {
                        runtime.silent_since = Some(self.now);
                    }
                    self.child_lost(peer);
                    self.observe(peer, &[(core::RUN_STATE, Some(core::ERROR))]);
                }
            }
            Role::Agent => self.attach_later(),
        }
    }

    pub(super) fn end_session(&mut self, peer: NodeId, why: &'static str) {
        if let Some(link) = self.sessions.links.remove(&peer) {
            let session = link.neighbor.session();
            self.sessions.by_session.remove(&session);
            if matches!(self.config.role, Role::Head { .. }) {
                let reported = link.neighbor.remote().clone();
                self.sessions.reported.insert(peer, reported);
            }
            self.timers.set(Timer::Neighbor(peer), None);
            self.outputs.push_back(Output::EndSession {
                session,
                node: peer,
                why,
            });
        }
    }

    /// Lets a child join again. Its session counts until it does, so that one which does not come back is missed as ever.
    pub(super) fn attach_anew(&mut self, child: NodeId, why: &'static str) {
        if let Some(link) = self.sessions.links.get(&child) {
            self.outputs.push_back(Output::EndSession {
                session: link.neighbor.session(),
                node: child,
                why,
            });
        }
    }

    /// A connection is gone. A child's session lives on until it is silent or joins again; an agent attaches anew at once.
    pub(super) fn closed(&mut self, conn: ConnId) {
        self.sessions.acceptor.closed(conn);
        if self.config.role != Role::Agent {
            return;
        }
        let parent = self
            .sessions
            .links
            .iter()
            .find(|(_, link)| link.conn == conn);
        match (parent.map(|(parent, _)| *parent), self.sessions.attaching) {
            (Some(parent), _) => {
                self.end_session(parent, "the connection to the parent is gone");
                if self.sessions.attaching == Attaching::Attached {
                    self.attach_later();
                }
            }
            (None, Attaching::UnderWay) => self.attach_later(),
            (None, _) => {}
        }
    }
}
