//! Kinds of the frames between nodes, the classes of connections they travel on, and who may send which.
//!
//! Invariants: a number is never given to another kind; what a kind may be used for stands in one table, which docs/REPLICATION.md repeats (a test
//! compares them).
//! Not here: the bodies, what the answer to a frame is.

use super::error::NodeError;
use crate::prim::choices;
use std::fmt;

choices! {
    /// What a connection between two shards is for. It is said in the hello and never changes.
    pub enum Class("class of connection") {
        /// Appends of what has just been written, beats and votes, and their answers.
        Live = 1, "live";
        /// Appends of what a follower missed, and snapshots.
        CatchUp = 2, "catch-up";
        /// What a replica lost to damage.
        Repair = 3, "repair";
        /// Requests between shards 0.
        Calls = 4, "calls";
    }
}

/// An end of a connection. Who dialed is not told by any frame: both ends know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The one that connected.
    Dialer,
    /// The one that listened.
    Acceptor,
}

impl Side {
    /// The name as in docs/REPLICATION.md.
    pub const fn name(self) -> &'static str {
        match self {
            Side::Dialer => "dialer",
            Side::Acceptor => "acceptor",
        }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, from $side:tt, on $class:tt, payload $payload:literal;)*) => {
        /// What a frame says. Its number stands in the header.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $number,)* }

        impl Kind {
            /// Every kind, in order of number.
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)*];

            /// The kind with this number.
            pub const fn from_u8(number: u8) -> Option<Kind> {
                match number { $($number => Some(Kind::$name),)* _ => None }
            }
            /// The name as in docs/REPLICATION.md.
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$name => stringify!($name),)* }
            }
            /// Who sends it: one end, or `None` for either.
            pub const fn side(self) -> Option<Side> {
                match self { $(Kind::$name => kinds!(@side $side),)* }
            }
            /// On connections of which classes it travels.
            pub const fn classes(self) -> &'static [Class] {
                match self { $(Kind::$name => kinds!(@class $class),)* }
            }
            /// What its payload is, in a word or two; empty for a kind that has none.
            pub const fn payload(self) -> &'static str {
                match self { $(Kind::$name => $payload,)* }
            }
        }
    };
    (@side dialer) => { Some(Side::Dialer) };
    (@side acceptor) => { Some(Side::Acceptor) };
    (@side either) => { None };
    (@class all) => { Class::ALL };
    (@class [$($class:ident),*]) => { &[$(Class::$class),*] };
}

kinds! {
    /// The first frame of the dialer: who speaks, who is meant, what for.
    Hello = 1, from dialer, on all, payload "";
    /// The first frame of the acceptor, unless it refuses.
    HelloReply = 2, from acceptor, on all, payload "";
    /// Entries of a leader's groups.
    Append = 3, from dialer, on [Live, CatchUp], payload "entries";
    /// How far a follower has them.
    Ack = 4, from acceptor, on [Live, CatchUp], payload "";
    /// A leader is there, and how far its groups are committed.
    Beat = 5, from dialer, on [Live], payload "";
    /// A candidate asks for a vote.
    Vote = 6, from dialer, on [Live], payload "";
    /// The vote.
    VoteReply = 7, from acceptor, on [Live], payload "";
    /// A leader tells a follower to stand at once.
    TimeoutNow = 8, from dialer, on [Live], payload "";
    /// A snapshot of a group begins.
    CatchUp = 9, from dialer, on [CatchUp], payload "";
    /// What of it the receiver has.
    CatchUpReply = 10, from acceptor, on [CatchUp], payload "";
    /// A part of a snapshot.
    Piece = 11, from dialer, on [CatchUp], payload "batches or state";
    /// How many parts were taken in.
    PieceAck = 12, from acceptor, on [CatchUp], payload "";
    /// Batches of a range, or one entry, to heal damage.
    Fetch = 13, from dialer, on [Repair], payload "";
    /// Them.
    FetchReply = 14, from acceptor, on [Repair], payload "batches or an entry";
    /// Something that another node's shard 0 has to do.
    Call = 15, from dialer, on [Calls], payload "what is asked";
    /// What became of it.
    CallReply = 16, from acceptor, on [Calls], payload "the answer";
    /// Which view the sender acts on, and who leads which group.
    Leaders = 17, from dialer, on [Live], payload "";
    /// Why the connection ends now.
    Refused = 18, from either, on all, payload "";
    /// Which consumer groups were active not long ago.
    Activity = 19, from dialer, on [Live], payload "";
}

impl Kind {
    /// The number on the wire.
    pub const fn as_u8(self) -> u8 {
        self as u8
    }
    /// The version to write. All are 1; another one comes with a feature level, so that it is sent to those only who read it.
    pub const fn version(self) -> u8 {
        1
    }
    /// Whether this crate reads `version` of this kind.
    pub const fn reads(self, version: u8) -> bool {
        version == self.version()
    }
    /// Whether its frames may have a payload.
    pub const fn has_payload(self) -> bool {
        !self.payload().is_empty()
    }
    /// Checks that `sender` may send this on a connection of `class`. An error ends the connection.
    pub fn check(self, class: Class, sender: Side) -> Result<(), NodeError> {
        if self.classes().contains(&class) && self.side().is_none_or(|side| side == sender) {
            Ok(())
        } else {
            Err(NodeError::OutOfPlace { kind: self, class, sender })
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
