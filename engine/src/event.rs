//! The engine's whole surface to the world: what can be told to it, and what it wants done.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::extension::Schema;
use crate::memory::Memo;
use crate::mutation::{MutationId, MutationSet};
use crate::state::{Change, Freezer, NodeId, NodeName, Values};
use crate::sync::SessionId;
use crate::sync::join::{
    Attach, Channel, GrantId, HelloMessage, JoinOutcome, NewGrant, ProofMessage,
};
use crate::sync::message::Frame;
use crate::time::Instant;

/// A connection on which a child attaches; numbered by the shell, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct ConnId(pub u64);

/// A request that wants a reply; numbered by the shell, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct RequestId(pub u64);

/// One group of records that the store makes durable together; rises by one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct CommitId(pub u64);

/// What the engine is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// An operator's change of Cfg or of nodes; all or nothing.
    Write(Write),
    /// The store has carried out a commit, or could not.
    Committed {
        /// Which.
        commit: CommitId,
        /// The reason in words if it failed; nothing of it is durable then.
        result: Result<(), CommitError>,
    },
    /// A module reports real values.
    Discover(Discovery),
    /// A module could not carry out what it was told to; the attempt is over.
    MutationFailed {
        /// Of which node.
        node: NodeId,
        /// Which mutation.
        mutation: MutationId,
        /// Which attempt; a report about any other is ignored.
        attempt: u64,
        /// Why, for people.
        text: String,
    },
    /// The declared mutations changed.
    Declare(MutationSet),
    /// Forget everything that holds these nodes back, and try again: failed attempts, a job that was last seen, their silence.
    Release(Vec<NodeId>),
    /// An operator lifts a guard rail of the whole cluster.
    Lift(Lift),
    /// Forget only the failed attempts of these nodes, and try again.
    Retry(Vec<NodeId>),
    /// The pxe module arms a node: a grant is made durable, then the node's boot is served.
    Arm(NewGrant),
    /// Somebody fetches a grant. `secret` replaces the grant's if it was delivered before.
    FetchGrant {
        /// Where the answer goes.
        request: RequestId,
        /// Which grant.
        grant: GrantId,
        /// 32 random bytes.
        secret: [u8; 32],
        /// Wall clock, milliseconds since the Unix epoch.
        now_ms: u64,
    },
    /// A child says hello on a new connection.
    JoinHello {
        /// Where.
        conn: ConnId,
        /// What it said.
        hello: HelloMessage,
        /// What TLS says about the connection.
        channel: Channel,
        /// 32 random bytes for the challenge, 8 for the session id.
        chance: [u8; 40],
        /// Wall clock, milliseconds since the Unix epoch.
        now_ms: u64,
    },
    /// A child proves that it holds its grant.
    JoinProof {
        /// Where.
        conn: ConnId,
        /// The proof.
        proof: ProofMessage,
        /// Wall clock, milliseconds since the Unix epoch.
        now_ms: u64,
    },
    /// The connection of a child, or the one to the parent, is gone.
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// We are attached to our parent (a child's engine).
    Attached(Attach),
    /// An authenticated frame of a session.
    Frame {
        /// Of which session.
        session: SessionId,
        /// What it says.
        frame: Frame,
    },
}

/// A guard rail of the whole cluster that an operator can lift.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lift {
    /// The breaker of a mutation: everybody may try it again.
    Breaker(MutationId),
    /// A mass failure: the nodes are at fault, not this head.
    MassFailure,
}

/// What the engine wants done, in the order in which to do it.
#[derive(Clone, Debug)]
pub enum Output {
    /// Make these records durable, then say [`Input::Committed`]. At most one commit is under way.
    Commit {
        /// Which.
        commit: CommitId,
        /// In order.
        records: Vec<Record>,
        /// Nothing of it is an operator's: boots and mutations under way need it, and the store may take room for it that it keeps in reserve.
        own: bool,
    },
    /// The answer to [`Input::Write`].
    Written {
        /// To whom.
        request: RequestId,
        /// New revision and the changed nodes' names, or why nothing changed.
        result: Result<WriteDone, WriteError>,
    },
    /// Carry out a mutation on a node. Its intent is durable.
    Fire(Fire),
    /// Stop carrying out this attempt.
    Interrupt {
        /// Of which node.
        node: NodeId,
        /// Which mutation.
        mutation: MutationId,
        /// Which attempt.
        attempt: u64,
    },
    /// The answer to [`Input::FetchGrant`]: the grant file's text, or why it is refused.
    Grant {
        /// To whom.
        request: RequestId,
        /// The text of the grant file, or the reason in words.
        result: Result<String, String>,
    },
    /// Say this on a child's connection.
    Join {
        /// Which.
        conn: ConnId,
        /// What.
        outcome: JoinOutcome,
    },
    /// Send a frame to a neighbor: sealed in a datagram if it fits, else over the stream.
    Send {
        /// On which session.
        session: SessionId,
        /// What.
        frame: Frame,
    },
    /// The session is over: forget its keys and close its connection.
    EndSession {
        /// Which.
        session: SessionId,
        /// Whose.
        node: NodeId,
        /// Why, for the log.
        why: &'static str,
    },
    /// Tell these children, over their streams, what is declared from now on; whoever joins later hears it in the join.
    Declared {
        /// Of which children.
        sessions: Vec<SessionId>,
        /// The whole set.
        set: Arc<MutationSet>,
    },
    /// Attach to the parent (a child's engine); tell [`Input::Attached`] or [`Input::Closed`].
    Attach {
        /// Number of the attempt since the last success, from 1.
        attempt: u32,
    },
    /// Write this down when there is time, for after a restart; it may be lost.
    Remember(Memo),
    /// Something changed, for watchers and logs.
    Event(Event),
}

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node was created, or its attributes changed.
    Node {
        /// Which.
        node: NodeId,
    },
    /// A node was deleted.
    Deleted {
        /// Which.
        node: NodeId,
        /// Its name.
        name: NodeName,
    },
    /// Cfg values changed.
    Cfg {
        /// Whose.
        node: NodeId,
        /// To what.
        changes: Vec<Change>,
    },
    /// Dsc values changed.
    Dsc {
        /// Whose.
        node: NodeId,
        /// To what.
        changes: Vec<Change>,
    },
    /// A mutation was fired, ended, failed or was interrupted.
    Mutation {
        /// On which node.
        node: NodeId,
        /// Which mutation.
        mutation: MutationId,
        /// Which attempt.
        attempt: u64,
        /// What happened.
        what: MutationEvent,
    },
    /// The node cannot go on without an operator.
    Parked {
        /// Which.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// A node that could not go on does so again.
    Unparked {
        /// Which.
        node: NodeId,
    },
    /// A grant was delivered, used or refused; `alarm` when two parties claim one node.
    Join {
        /// Which node, if known.
        node: Option<NodeId>,
        /// What happened, in words.
        text: String,
        /// An operator should look.
        alarm: bool,
    },
    /// A guard rail of the whole cluster holds nodes, or does so no longer: an operator should look.
    Alarm {
        /// The word of the hold that nodes show: `breaker`, `mass_failure`.
        kind: &'static str,
        /// What it is about, where there may be several: the mutation of a breaker.
        about: String,
        /// What happened, and what ends it.
        text: String,
        /// It is over.
        over: bool,
    },
    /// A discovery, frame or message was refused.
    Refused {
        /// Whose.
        node: Option<NodeId>,
        /// Why, in words.
        why: String,
    },
}

/// What happened to a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MutationEvent {
    /// It was fired (or awaited, where another context carries it out).
    Fired {
        /// Whether we carry it out.
        ours: bool,
    },
    /// All its values were discovered.
    Done {
        /// Milliseconds from firing.
        elapsed_ms: u64,
    },
    /// It timed out, or its module said so.
    Failed {
        /// Why.
        text: String,
    },
    /// It is no longer wanted.
    Interrupted,
}

/// A mutation to carry out. Printed without the node's values, among which are secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Fire {
    /// On which node.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Which mutation.
    pub mutation: MutationId,
    /// Number of this firing on this node; rises for ever.
    pub attempt: u64,
    /// When it counts as timed out.
    pub deadline: Option<Instant>,
    /// The node's Cfg.
    pub cfg: Values,
    /// The node's Dsc.
    pub dsc: Values,
}

impl fmt::Debug for Fire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fire")
            .field("node", &self.node)
            .field("name", &self.name)
            .field("mutation", &self.mutation)
            .field("attempt", &self.attempt)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// A report of real values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// About which node.
    pub node: NodeId,
    /// Which module says so, for logs.
    pub source: Cow<'static, str>,
    /// What it found.
    pub changes: Vec<Change>,
}

/// An operator's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where the answer goes.
    pub request: RequestId,
    /// Who.
    pub author: String,
    /// Why.
    pub reason: String,
    /// Refused unless the revision is this; 0: any.
    pub if_revision: u64,
    /// Wall clock, milliseconds since the Unix epoch, for history.
    pub now_ms: u64,
    /// Makes the write safe to repeat.
    pub key: Option<WriteKey>,
    /// All or nothing, in order.
    pub ops: Vec<WriteOp>,
}

/// What a caller gives with a write so that it is carried out once, however often it is sent (fault F57).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteKey {
    /// Chosen by the caller, new for each write that is meant.
    pub text: String,
    /// SHA-256 of the request: the same key with another request is a mistake.
    pub request: [u8; 32],
}

/// One change of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOp {
    /// Add a node.
    Add(Box<crate::state::Node>),
    /// Delete a node.
    Delete(NodeId),
    /// Change Cfg values; zero or `None` unsets.
    Set {
        /// Whose.
        node: NodeId,
        /// What.
        changes: Vec<Change>,
    },
    /// Change groups.
    Groups {
        /// Whose.
        node: NodeId,
        /// To add.
        add: Vec<String>,
        /// To remove.
        remove: Vec<String>,
    },
    /// Freeze or thaw one node.
    Freeze {
        /// Which.
        node: NodeId,
        /// Freeze or thaw.
        frozen: bool,
    },
    /// Give a node another parent: its agent joins again, nothing else happens to it.
    Move {
        /// Which.
        node: NodeId,
        /// The parent; the head for those that nobody is above.
        parent: NodeId,
    },
    /// Freeze or thaw the cluster.
    FreezeCluster(bool),
    /// Freeze or thaw a group: all nodes that are in it, for as long as they are.
    FreezeGroup {
        /// Which.
        group: String,
        /// Who freezes it; `None`: thaw.
        by: Option<Freezer>,
    },
    /// Another schema, from here on. Refused while a Cfg value fits the schema before it and not this one.
    Schema {
        /// All extensions, the built-in ones with them.
        schema: Arc<Schema>,
        /// What is different, for history.
        text: String,
        /// The file that makes the difference, so that it can be put back.
        edit: SchemaEdit,
    },
    /// The write that this is part of is on trial: it is taken back at that time, milliseconds since the Unix epoch, unless it is settled.
    Try {
        /// When.
        until_ms: u64,
    },
    /// The trial of this revision is over: it was confirmed, or is taken back by the write that this is part of.
    Settle(u64),
}

/// The file of an extension before and after a write.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SchemaEdit {
    /// The extension.
    pub extension: String,
    /// The text before it; empty: there was none.
    pub before: String,
    /// The text after it; empty: there is none.
    pub after: String,
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteDone {
    /// The cluster's revision after it.
    pub revision: u64,
    /// Names of the nodes that it changed.
    pub nodes: Vec<NodeName>,
}

impl WriteDone {
    /// The answer to a write about these nodes.
    pub fn of(revision: u64, nodes: &BTreeMap<NodeId, NodeName>) -> Self {
        let mut nodes: Vec<NodeName> = nodes.values().cloned().collect();
        nodes.sort();
        Self { revision, nodes }
    }
}

/// Why a write changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Not at the expected revision.
    #[error("the cluster is at revision {is}, not {expected}: read again and retry")]
    Conflict {
        /// The revision asked for.
        expected: u64,
        /// The real one.
        is: u64,
    },
    /// No such node.
    #[error("there is no node with id {0}")]
    NoSuchNode(NodeId),
    /// A name, id or address is taken.
    #[error("{0}")]
    Taken(String),
    /// Something is not acceptable.
    #[error("{0}")]
    Invalid(String),
    /// There is no such trial.
    #[error("revision {0} is not on trial: `krakenctl history` shows what is")]
    NotOnTrial(u64),
    /// A write with this key was made already.
    #[error("this write was made already, as revision {revision}")]
    Repeated {
        /// By it.
        revision: u64,
    },
    /// The key belongs to another write.
    #[error(
        "the idempotency key {key:?} was used for another write, revision {revision}: choose a new key for each write"
    )]
    KeyReused {
        /// Which key.
        key: String,
        /// By it.
        revision: u64,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] CommitError),
}

/// Why a commit failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// No space; writes work again when there is some.
    #[error("the disk of the state directory is full: make room and retry")]
    DiskFull,
    /// The store does not work any more; the head serves reads only.
    #[error("the store failed and takes no more writes: {0}")]
    Failed(String),
}

/// What history keeps of a write beside its operations.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Kept {
    /// Takes the operations back, in this order.
    pub inverse: Vec<WriteOp>,
    /// Names of the nodes that it is about: they may be gone when somebody looks.
    pub names: BTreeMap<NodeId, NodeName>,
    /// Its key, if it has one.
    pub key: Option<WriteKey>,
}

/// What the store keeps (DESIGN 2, promises P1-P5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// One operator's write: history, and the new state of what it touched.
    Write {
        /// Revision after it.
        revision: u64,
        /// Who.
        author: String,
        /// Why.
        reason: String,
        /// When, milliseconds since the Unix epoch.
        at_ms: u64,
        /// What.
        ops: Vec<WriteOp>,
        /// What history keeps beside it.
        kept: Kept,
    },
    /// A mutation is about to be fired (P5).
    Intent {
        /// On which node.
        node: NodeId,
        /// Which.
        mutation: MutationId,
        /// Which attempt.
        attempt: u64,
    },
    /// A grant was made, delivered again, or used.
    Grant(crate::sync::join::Grant),
    /// A grant is gone.
    GrantGone(GrantId),
}
