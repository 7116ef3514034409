//! The bugs on purpose, with their names and the profile in which each shows.

use super::Profile;
use crate::mutants::Mutant;

/// A bug that can be switched on.
pub struct Named {
    /// For the command line.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// Where it is looked for.
    pub profile: Profile,
    /// A seed that has found it: tried first, so that looking for what is rare costs no more than for the rest. Where the simulator has changed and
    /// that one does not any more, the others are tried.
    pub seed: u64,
    /// The bug itself.
    pub mutant: Mutant,
}

macro_rules! mutants {
    ($($mutant:ident $profile:ident $(($seed:literal))? $name:literal $what:literal;)*) => {
        /// All of them.
        pub const MUTANTS: &[Named] =
            &[$(Named { name: $name, what: $what, profile: Profile::$profile, seed: [$($seed,)? 0][0], mutant: Mutant::$mutant }),*];
    };
}

mutants! {
    AckBeforeSync Faults (1) "ack-before-sync" "a block counts as durable as soon as its write was begun";
    AckOutOfOrder Faults (1) "ack-out-of-order" "a block counts as durable although one before it is still being written";
    SkipTailChecksum Faults (38) "skip-tail-checksum" "a start takes the content of a block for good without looking";
    ReuseOffset Faults "reuse-offset" "a start forgets the last batch, and its offsets are handed out again";
    ForgetDirectorySync Faults (2) "forget-directory-sync" "a renamed file counts as durable without a sync of the directory";
    BelieveFailedWrite Faults "believe-failed-write" "a write that ended with an error counts as done";
    IgnoreShortWrite Faults (1) "ignore-short-write" "a write that was cut short counts as done";
    RecycleWhileRead Faults "recycle-while-read" "a segment's file is used again while somebody reads it";
    FreeBeforeManifest Faults (10) "free-before-manifest" "a segment's file is used again before the manifest has let it go";
    DropLastIndexEntry Faults "drop-last-index-entry" "a footer leaves out its last batch";
    ServeUnverified Disk (1) "serve-unverified" "what comes back from the disk is handed out without a check";
    CutDamaged Disk (29) "cut-damaged" "a hole in the middle of the log is cut as if it were a torn end";
    FreeSortedEarly Faults "free-sorted-early" "what was sorted is freed before a checkpoint points to where it is now";
    JoinWhatDoesNotFollow Faults "join-what-does-not-follow" "the sorter joins runs between which one stayed where it was";
    TakeStaleBlock Faults "take-stale-block" "a start takes any whole block of the log for the next one, whatever its segment, number, start and predecessor";
    RetryFailedWrite Faults (81) "retry-failed-write" "a block whose write failed is written once more, and that counts";
    RetryFailedSync Faults (10) "retry-failed-sync" "a directory whose sync failed is synced once more, and that counts";
    StreamSkips Faults "stream-skips" "a stream goes on behind a batch for which a frame had no room";
    StreamOverspends Faults "stream-overspends" "a stream does not count what it sends against its credit";
    StartWithoutLock Faults (35) "start-without-lock" "a start does not wait for what the process before it still writes (a bug of the simulator's own edge)";
    ForgetProducers Faults "forget-producers" "a checkpoint says nothing of idempotent producers";
    CheckpointTentative Faults (15) "checkpoint-tentative" "a checkpoint tells of producers' batches that are not durable yet, and a start believes it";
    AckDuplicateEarly Faults (6) "ack-duplicate-early" "a repeated batch is acknowledged although the first one is not durable yet";
    TakeStaleCommit Faults "take-stale-commit" "an offset is committed whatever its assignment epoch";
    AckOffsetEarly Faults (3) "ack-offset-early" "a commit of an offset is acknowledged before it is durable";
    ForgetOffsets Faults "forget-offsets" "a checkpoint says nothing of committed offsets";
    ForgetTexts Faults "forget-texts" "a checkpoint leaves out the texts that go with committed offsets";
    ForgetClaims Faults (24) "forget-claims" "a start takes in commits of offsets, and no claims";
    ForgetMembers Faults "forget-members" "a checkpoint says nothing of members of consumer groups";
    TellListEarly Faults (10) "tell-list-early" "a member is told its partitions before they are durable";
    TakeListAsHeard Faults "take-list-as-heard" "a heartbeat gives up what the member has yet to be told to give up";
    KeepSilentMembers Faults "keep-silent-members" "a member that is not heard of any more is never dropped";
    DropMembersAtStart Faults "drop-members-at-start" "sessions of members do not begin anew with a start";
    HearReplacedMember Faults (3) "hear-replaced-member" "a static member whose place another one has taken is heard as if it were that one";
    ReviveGroups Faults (26) "revive-groups" "a start does not take in that consumer groups were deleted";
    ForgetTrim Faults "forget-trim" "a start does not look for trims that no checkpoint knows of";
    ForgetAcks Faults "forget-acks" "a start does not take in that messages were acked";
    AckMessageEarly Faults (4) "ack-message-early" "an ack is answered before it is durable";
    TellLeaseEarly Faults "tell-lease-early" "a message is delivered before its lease is durable";
    ForgetLease Faults "forget-lease" "the log is not told of leases";
    EndLeasesAtStart Faults "end-leases-at-start" "leases do not begin anew with a start, they are over";
    IgnoreDelay Faults "ignore-delay" "a message is delivered before it is due";
    RetryAtOnce Faults "retry-at-once" "a message that was given back as failed is ready at once";
    IgnorePriority Faults "ignore-priority" "priorities do not count";
    OpenLanes Faults "open-lanes" "messages of a group do not wait for one another";
    ShortDedup Faults (43) "short-dedup" "message ids are remembered for half of the window";
    ForgetIds Faults (16) "forget-ids" "a start takes in no message ids from the file `queues`";
    ForgetDeliveries Faults "forget-deliveries" "a start begins to count deliveries anew";
    TakeAnyToken Faults "take-any-token" "a lease is ended whoever asks";
    DeliverForEver Faults "deliver-for-ever" "a message is never delivered too often";
    SkipStatePiece Faults "skip-state-piece" "the file `queues` leaves out messages that have a lease or a delay";
    ForgetPurge Faults "forget-purge" "a start does not take in that a queue was purged";
    HalfStep Faults "half-step" "a step publishes and commits, and its acks are forgotten";
    RepeatStep Faults (11) "repeat-step" "a step that is sent again is carried out again, as far as it can be";
    TrimUnsettled Faults "trim-unsettled" "retention drops what a queue has not settled";
    DeliverPaused Faults "deliver-paused" "a queue that is paused goes on delivering";
    AckAppendEarly Cluster(8) "ack-append-early" "a follower tells entries as durable that it has in memory";
    ForgetVote Cluster(11) "forget-vote" "a start forgets term and vote";
    TellVoteEarly Cluster(11) "tell-vote-early" "votes are told before they are durable";
    AckOwnDisk Cluster(3) "ack-own-disk" "what the leader alone has on its disk counts as committed";
    AnswerClosedBlock Cluster "answer-closed-block" "leader_durable is answered before the leader's own write is done";
    AnswerOwnBlock Cluster "answer-own-block" "replicated is answered when the leader alone has it";
    ServeUncommitted Cluster(3) "serve-uncommitted" "consumers are shown what is not committed yet";
    KeepLookAhead Cluster(3) "keep-look-ahead" "who loses a leadership keeps offsets and batches that are not committed";
    ForeignHandle Cluster(2) "foreign-handle" "what a start has found is sent with the bytes of the entry before";
    PersistReplaced Cluster(3) "persist-replaced" "an entry that was replaced counts as durable because the one in its place before was";
    AckBeyondAgreed Cluster(10) "ack-beyond-agreed" "a follower acknowledges what stands behind the last entry that it shares with its leader";
    AckWithoutLease Cluster(8) "ack-without-lease" "a leader that nobody hears goes on taking records in";
    ServeBeforeOwnEntry Cluster(16) "serve-before-own-entry" "a new leader tells ends before its first entry is committed";
    ForgetChange Cluster "forget-change" "a start does not take in who votes";
    KeepWaiting Cluster(3) "keep-waiting" "who waits for his level goes on waiting when the leadership is lost";
    SkipApply Cluster "skip-apply" "a follower passes over some entries";
    ApplyAtStart Cluster(1) "apply-at-start" "a start takes everything in as committed, also where others vote";
    ForgetTail Cluster "forget-tail" "a start forgets the last entry of the log";
    AckSnapshotEarly Cluster(3) "ack-snapshot-early" "a snapshot is acknowledged before the checkpoint that has it is durable";
    ForgetSinceBlock Cluster(7) "forget-since-block" "a start takes entries in that a snapshot had taken the place of";
    SealUncommitted Cluster(3) "seal-uncommitted" "checkpoints tell of what is not committed";
    TakeLogEmpty Cluster(14) "take-log-empty" "a replica without a past takes the log from its first entry, and does not know who voted before";
    WipedVotes Cluster(65) "wiped-votes" "a node with an empty disk is taken for the one before, with its votes";
    ApplyTentativeProducer Cluster(69) "apply-tentative-producer" "who loses a leadership keeps what idempotent producers sent that is not committed";
    AnswerCutDuplicate Cluster(22) "answer-cut-duplicate" "a repeated batch is acknowledged as soon as the leader's own disk has the first one, which may be cut";
    PromoteEarly Cluster(1) "promote-early" "a learner gets a vote before its leader has heard of anything that it has";
}
