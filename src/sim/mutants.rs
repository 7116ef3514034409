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
    /// The bug itself.
    pub mutant: Mutant,
}

macro_rules! mutants {
    ($($mutant:ident $profile:ident $name:literal $what:literal;)*) => {
        /// All of them.
        pub const MUTANTS: &[Named] =
            &[$(Named { name: $name, what: $what, profile: Profile::$profile, mutant: Mutant::$mutant }),*];
    };
}

mutants! {
    AckBeforeSync Faults "ack-before-sync" "a block counts as durable as soon as its write was begun";
    AckOutOfOrder Faults "ack-out-of-order" "a block counts as durable although one before it is still being written";
    SkipTailChecksum Faults "skip-tail-checksum" "a start takes the content of a block for good without looking";
    ReuseOffset Faults "reuse-offset" "a start forgets the last batch, and its offsets are handed out again";
    ForgetDirectorySync Faults "forget-directory-sync" "a renamed file counts as durable without a sync of the directory";
    BelieveFailedWrite Faults "believe-failed-write" "a write that ended with an error counts as done";
    IgnoreShortWrite Faults "ignore-short-write" "a write that was cut short counts as done";
    RecycleWhileRead Faults "recycle-while-read" "a segment's file is used again while somebody reads it";
    FreeBeforeManifest Faults "free-before-manifest" "a segment's file is used again before the manifest has let it go";
    DropLastIndexEntry Faults "drop-last-index-entry" "a footer leaves out its last batch";
    ServeUnverified Disk "serve-unverified" "what comes back from the disk is handed out without a check";
    CutDamaged Disk "cut-damaged" "a hole in the middle of the log is cut as if it were a torn end";
    FreeSortedEarly Faults "free-sorted-early" "what was sorted is freed before a checkpoint points to where it is now";
    JoinWhatDoesNotFollow Faults "join-what-does-not-follow" "the sorter joins runs between which one stayed where it was";
    TakeStaleBlock Faults "take-stale-block" "a start takes any whole block of the log for the next one, whatever its segment, number, start and predecessor";
    RetryFailedWrite Faults "retry-failed-write" "a block whose write failed is written once more, and that counts";
    RetryFailedSync Faults "retry-failed-sync" "a directory whose sync failed is synced once more, and that counts";
    StreamSkips Faults "stream-skips" "a stream goes on behind a batch for which a frame had no room";
    StreamOverspends Faults "stream-overspends" "a stream does not count what it sends against its credit";
    StartWithoutLock Faults "start-without-lock" "a start does not wait for what the process before it still writes (a bug of the simulator's own edge)";
    ForgetProducers Faults "forget-producers" "a checkpoint says nothing of idempotent producers";
    CheckpointTentative Faults "checkpoint-tentative" "a checkpoint tells of producers' batches that are not durable yet";
    AckDuplicateEarly Faults "ack-duplicate-early" "a repeated batch is acknowledged although the first one is not durable yet";
    ForgetTrim Faults "forget-trim" "a start does not look for trims that no checkpoint knows of";
}
