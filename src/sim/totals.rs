//! What happened in a run: kinds of faults, and rare states that were met. A run of many seeds in which one of them never happened proves less
//! than it seems, so it fails.

use std::fmt;

/// So many seeds of a profile meet what is due in it, unless the table says otherwise.
const SEEDS: u64 = 200;

macro_rules! events {
    ($($name:ident = $text:literal, $($profile:ident $(($seeds:literal))?)*;)*) => {
        /// Something that is counted.
        #[allow(missing_docs)] // their texts say it
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event { $($name),* }

        impl Event {
            /// All of them, in the order in which they are shown.
            pub const ALL: &'static [Event] = &[$(Event::$name),*];

            /// What it is.
            pub fn text(self) -> &'static str {
                match self { $(Event::$name => $text),* }
            }

            /// So many seeds of `profile` that never met it prove less than they seem to; `None` where it need not happen.
            pub fn due_after(self, profile: super::Profile) -> Option<u64> {
                let due: &[(super::Profile, &[u64])] = match self { $(Event::$name => &[$((super::Profile::$profile, &[$($seeds,)? SEEDS])),*]),* };
                due.iter().find(|(due, _)| *due == profile).map(|(_, seeds)| seeds[0])
            }
        }
    };
}

events! {
    Operations = "operations begun", Calm Faults Disk Swarm Cluster;
    RecordsAcked = "records acknowledged at leader_durable or above", Calm Faults Disk Swarm Cluster;
    RecordsRead = "records read", Calm Faults Disk Swarm Cluster;
    RecordsChecked = "records checked at the end", Calm Faults Disk Swarm Cluster;
    StreamsOpened = "streams opened", Calm Faults Disk Swarm;
    StreamsResumed = "streams opened where another had ended", Faults Disk Swarm;
    StreamsCancelled = "streams cancelled", Calm Faults Disk Swarm;
    StreamReplies = "replies of streams", Calm Faults Disk Swarm;
    Trims = "trims acknowledged", Calm Faults Disk Swarm;
    TopicsDeleted = "topics deleted", Calm Faults Disk Swarm;
    Kills = "processes killed", Faults Disk Swarm Cluster;
    PowerCuts = "power cuts", Faults Disk Swarm Cluster;
    StartsInterrupted = "starts interrupted", Faults Disk Swarm Cluster;
    StartsFailed = "starts that ended with an error of the disk", Faults Disk Swarm;
    LateWrites = "writes that landed after their process had died", Faults Disk Swarm Cluster;
    StartsWaited = "starts that waited for such writes", Faults Disk Swarm;
    ConnectionsCut = "connections cut", Faults Disk Swarm Cluster;
    FramesInPieces = "frames that came in two pieces", Faults Disk Swarm Cluster;
    FramesCutShort = "frames that never came whole", Faults Disk Swarm;
    ShortWrites = "short writes", Faults Disk Swarm Cluster;
    WriteErrors = "writes failed", Faults Disk Swarm Cluster;
    ReadErrors = "reads failed", Faults Disk Swarm;
    DirErrors = "operations on names failed", Faults Disk Swarm;
    SlowPeriods = "slow periods of the disk", Faults Disk Swarm Cluster;
    FullPeriods = "periods without space", Faults Disk Swarm Cluster;
    ClockJumps = "jumps of the wall clock", Faults Disk Swarm Cluster;
    BitsFlipped = "bits flipped", Disk Swarm Cluster;
    WritesLost = "writes lost", Disk Swarm Cluster;
    WritesMisplaced = "writes misplaced", Disk Swarm;
    PagesUnreadable = "pages made unreadable", Disk Swarm Cluster;
    Starts = "starts", Calm Faults Disk Swarm Cluster;
    TailsCut = "torn tails cut", Faults Disk Swarm Cluster;
    StaleBlocks = "starts over a segment whose file had been another one", Faults Disk Swarm;
    FootersRebuilt = "footers rebuilt", Disk;
    DamageFound = "damaged places found at a start", Disk Swarm(1000);
    BlocksLost = "ranges of blocks found lost", Disk;
    DamageTold = "reads answered with damaged", Disk Swarm;
    StartsRefused = "starts refused because of damage", ;
    FilesReused = "files that became another segment", Calm Faults Disk Swarm;
    FilesCut = "pieces cut off files on their way out", Calm Faults Disk Swarm;
    CutsUndone = "files of which a power cut brought pieces back", Faults Disk Swarm;
    NamesExchanged = "files replaced in turn with another", Calm Faults Disk Swarm;
    SortedSegments = "sorted segments written", Faults Disk Swarm Cluster;
    BatchesCut = "batches that retention cut off a run", Faults Disk Swarm;
    SortsInterrupted = "processes that ended while they sorted", Faults Disk Swarm;
    ColdReads = "reads from the disk", Faults Disk Swarm Cluster;
    ShardsFailed = "shards stopped by an error of the disk", Faults Disk Swarm Cluster;
    MeshMessages = "messages between shards", Faults Disk Swarm Cluster;
    RequestsUnknown = "requests whose answer never came", Faults Disk Swarm Cluster;
    ProducersSlowed = "produce held back on a disk that fills up", Faults;
    DiskFullRefusals = "produce refused: disk full", Faults Disk Swarm Cluster;
    SentAgain = "produce sent again after such a refusal", Faults Disk Swarm;
    MarkedAgain = "batches of idempotent producers sent again", Faults Disk Swarm Cluster;
    DuplicatesFound = "of these, those that were stored already", Faults Disk Swarm Cluster;
    EpochsRaised = "epochs of producers raised, for what a crash took", Faults Swarm;
    MemberSteps = "steps of members of consumer groups", Calm Faults Disk Swarm;
    MembersJoined = "members joined", Calm Faults Disk Swarm;
    MembersLeft = "members left", Calm Faults Disk Swarm;
    MembersDropped = "members that were told that they had been dropped", Faults Disk Swarm;
    MembersFenced = "members that were told that another one has their name", Faults Disk Swarm;
    ListsTold = "lists of partitions told to members", Calm Faults Disk Swarm;
    GroupsDeleted = "consumer groups deleted", Faults Disk Swarm;
    GroupsDescribed = "groups listed or described", Calm Faults Disk Swarm;
    OffsetsCommitted = "offsets committed", Calm Faults Disk Swarm;
    OffsetsFetched = "committed offsets read", Calm Faults Disk Swarm;
    StaleRefused = "commits and claims of earlier owners refused", Faults Disk Swarm;
    QueueSteps = "steps of consumers of queues", Calm Faults Disk Swarm;
    QueuesCreated = "queues created", Calm Faults Disk Swarm;
    QueuesDeleted = "queues deleted", Faults Disk Swarm;
    QueuesPaused = "queues paused", Faults Disk Swarm;
    QueuesBrowsed = "queues browsed", Calm Faults Disk Swarm;
    QueuesPurged = "queues purged", Faults Disk Swarm;
    QueuesAltered = "settings of queues altered", Faults Disk Swarm;
    QueuesTrimmed = "topics of queues trimmed", Faults Disk Swarm;
    QueueTopicsDeleted = "topics deleted with their queues", Calm Faults Swarm;
    MessagesSent = "messages acknowledged", Calm Faults Disk Swarm;
    MessagesDelivered = "messages delivered", Calm Faults Disk Swarm;
    MessagesRedelivered = "of these, those that had been delivered before", Calm Faults Disk Swarm;
    DelaysWaitedFor = "delays whose end somebody waited for beside other load", ;
    DelaysTimed = "delays whose end somebody waited for while nothing else was done", Calm(10);
    MessagesAcked = "messages acked", Calm Faults Disk Swarm;
    LeasesEnded = "leases ended otherwise, or extended", Calm Faults Disk Swarm;
    TokensRefused = "tokens refused: late, or used before", Calm Faults Disk Swarm;
    ForeignRefused = "of leases that the queue never gave: tokens refused", Calm Faults Disk Swarm;
    MessagesDeleted = "messages deleted", Faults Disk Swarm;
    MessagesRedriven = "messages redriven", Faults Disk Swarm;
    LettersSeen = "dead letters read", Faults Disk Swarm;
    StepsDone = "atomic steps done", Calm Faults Disk Swarm;
    StepsAgain = "atomic steps sent again", Faults Disk Swarm;
    StepsRefused = "atomic steps refused", Faults Disk Swarm;
    MessagesDrained = "messages taken at the end", Calm Faults Swarm;
    DuplicatesHeld = "duplicates that were not delivered", Calm Faults Swarm;
    SpaceAdded = "space given to a node that could not even write its own bookkeeping", ;
    OrderlyStops = "orderly stops", Cluster;
    OrderlyStopsCutShort = "of those that were begun, those whose process was killed before", Cluster;
    Pauses = "processes paused", Cluster;
    Blackouts = "power cuts of all nodes at once", Cluster;
    WaysCut = "ways from one node to another cut", Cluster;
    PeersConnected = "connections between nodes", Cluster;
    PeersReset = "of these, those that were reset", Cluster;
    PeersTimedOut = "of these, those that were given up", Cluster;
    LeadersElected = "leaderships won", Cluster;
    EntriesCompared = "entries compared over replicas, with their bytes", Cluster;
    ClusterAltered = "moves of replicas, drains and the like that were taken", Cluster;
    SnapshotsTaken = "snapshots of groups taken in", Cluster;
    Scenes = "blocks that rotted where a node was cut off that had not got them", Cluster;
    SuspectsFound = "replicas that a start found suspect", Cluster;
    WoundsHealed = "damaged batches repaired from other replicas", Cluster;
    DisksLost = "disks lost", Cluster;
    NodesRejoined = "nodes that were taken in with another disk", Cluster;
    PeerBitsFlipped = "bits flipped between nodes", Cluster;
    PeerFramesRefused = "of these, those that brought what is no frame", Cluster;
    SpaceCameBack = "acknowledged again after such a refusal, by the same process", Faults Disk Swarm;
}

/// Counts by event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals([u64; Event::ALL.len()]);

impl Default for Totals {
    fn default() -> Totals {
        Totals([0; Event::ALL.len()])
    }
}

impl Totals {
    pub(super) fn note(&mut self, event: Event) {
        self.add(event, 1);
    }
    pub(super) fn add(&mut self, event: Event, count: u64) {
        self.0[event as usize] += count;
    }
    /// How often.
    pub fn get(&self, event: Event) -> u64 {
        self.0[event as usize]
    }
    /// Adds another run's.
    pub fn merge(&mut self, other: &Totals) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, count)| *sum += count);
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Event::ALL.iter().try_for_each(|event| writeln!(f, "{:>12}  {}", self.get(*event), event.text()))
    }
}
