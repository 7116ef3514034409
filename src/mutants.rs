//! Bugs on purpose: what the simulator switches on, one at a time, to show that it would find them.
//!
//! `Mutants` is a parameter of the log (`LogConfig::mutants`). In every build but the simulator's it is an empty value whose answer is a constant "no",
//! so the compiler leaves nothing of them in the released binary; their names stand in `sim/` only.
//!
//! Not here: what each of them breaks (the places that ask), how they are found (`sim/`).

use std::fmt;

/// A bug.
#[allow(missing_docs)] // sim/mutants.rs says what each does
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    AckBeforeSync,
    AckOutOfOrder,
    SkipTailChecksum,
    ReuseOffset,
    ForgetDirectorySync,
    BelieveFailedWrite,
    IgnoreShortWrite,
    RecycleWhileRead,
    FreeBeforeManifest,
    DropLastIndexEntry,
    ServeUnverified,
    CutDamaged,
    FreeSortedEarly,
    JoinWhatDoesNotFollow,
    ForgetTrim,
    ForgetProducers,
    CheckpointTentative,
    AckDuplicateEarly,
    TakeStaleBlock,
    RetryFailedWrite,
    RetryFailedSync,
    StreamSkips,
    StreamOverspends,
    StartWithoutLock,
    TakeStaleCommit,
    AckOffsetEarly,
    ForgetOffsets,
    ForgetTexts,
    ForgetClaims,
    ForgetMembers,
    TellListEarly,
    TakeListAsHeard,
    KeepSilentMembers,
    DropMembersAtStart,
    HearReplacedMember,
    ReviveGroups,
    ForgetAcks,
    AckMessageEarly,
    TellLeaseEarly,
    ForgetLease,
    EndLeasesAtStart,
    IgnoreDelay,
    RetryAtOnce,
    IgnorePriority,
    OpenLanes,
    ShortDedup,
    ForgetIds,
    ForgetDeliveries,
    TakeAnyToken,
    DeliverForEver,
    SkipStatePiece,
    ForgetPurge,
    HalfStep,
    RepeatStep,
    TrimUnsettled,
    DeliverPaused,
    AckAppendEarly,
    ForgetVote,
    TellVoteEarly,
    AckOwnDisk,
    AnswerClosedBlock,
    AnswerOwnBlock,
    ServeUncommitted,
    KeepLookAhead,
    ForeignHandle,
    PersistReplaced,
    AckBeyondAgreed,
    AckWithoutLease,
    ServeBeforeOwnEntry,
    ForgetChange,
    KeepWaiting,
    SkipApply,
    ApplyAtStart,
    ForgetTail,
    AckSnapshotEarly,
    ForgetSinceBlock,
    SealUncommitted,
    TakeLogEmpty,
    WipedVotes,
    ApplyTentativeProducer,
    AnswerCutDuplicate,
    PromoteEarly,
}

/// Which bug is switched on: none, outside the simulator.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Mutants {
    #[cfg(feature = "sim")]
    active: Option<Mutant>,
}

impl Mutants {
    /// Whether `mutant` is switched on.
    #[cfg(not(feature = "sim"))]
    #[inline(always)]
    pub const fn has(self, _mutant: Mutant) -> bool {
        false
    }

    /// Whether `mutant` is switched on.
    #[cfg(feature = "sim")]
    pub fn has(self, mutant: Mutant) -> bool {
        self.active == Some(mutant)
    }

    /// This one.
    #[cfg(feature = "sim")]
    pub fn only(mutant: Mutant) -> Mutants {
        Mutants { active: Some(mutant) }
    }
}

impl fmt::Debug for Mutants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("-")
    }
}
