//! A shard from what recovery found.
//!
//! Order of truth: the checkpoint (groups, partitions, runs, metadata), then what the log holds behind it, in log order; then the
//! groups stand for election, whose hard states and first entries go into the first block of this start.
//!
//! Invariants: an offset that may have been acknowledged is not handed out again, also where blocks are lost; the term rises at
//! each start; damage is told, never served and never cut.

use super::admin::ControlSeat;
use super::advice::named;
use super::applying::Applying;
use super::beginnings::{Beginnings, Whose, pass_over, snapshots_of};
use super::groups::MemberCare;
use super::offsets::OffsetCare;
use super::pipelines::Pipelines;
use super::queue::{Keeping, QueueCare, STATE_MARK_SCHEMA};
use super::repair::found_at_start;
use super::shard::{Parts, Shard, Taken};
use super::suspects::{Suspects, cut, findings, record_of_doubt};
use crate::api::NodeInfo;
use crate::bytes::Slab;
use crate::config::Settings;
use crate::control::{Command, Joined, State};
use crate::effects::Effects;
use crate::ids::{BlockSeq, GroupId, IdMap, LogIndex, NodeId, PartitionUid, ReplicaId, SegmentUid, ShardId, SubscriptionUid, TopicUid};
use crate::log::envelope;
use crate::log::{
    AppendRefused, CheckpointV5, Damage, DamageKind, EntryKind, HardState, LostBlocks, Recovered, RecoveredBatch, RecoveredControl,
    RecoveredEntry, ReplicaState,
};
use crate::mutants::{Mutant, Mutants};
use crate::partition::{BatchRef, Partition, Run, TopicRules, Trim, decode_trims};
use crate::replication::{GroupPosition, GroupStart, Groups, Handle, Holds};
use crate::subscription::membership::{self, CHANGE_SCHEMA, Durable, RestoreError};
use crate::subscription::queue::{Kind as QueueNoteKind, Part, QUEUE_SCHEMA, QueueNote, Why, decode_queue_notes};
use crate::subscription::{NoteKind, OFFSETS_SCHEMA, OffsetNote, Offsets, decode_notes};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Least bytes of a record on disk: an index entry. Lost bytes divided by it bound how many offsets were in them.
const RECORD_BYTES_MIN: u64 = tramline_wire::batch::INDEX_ENTRY_BYTES as u64;

/// No partition gets that far: at a million a second after 146,000 years.
const OFFSET_MAX: u64 = 1 << 62;
/// Least bytes of an entry in a block: its row. Lost bytes divided by it bound how many entries were in them.
const ENTRY_BYTES_MIN: u64 = crate::log::layout::ENTRY_BYTES as u64;

/// What a shard is started with.
pub struct ShardStart {
    /// Which shard.
    pub id: ShardId,
    /// The node's settings.
    pub settings: Arc<Settings>,
    /// What clients are told.
    pub info: Arc<NodeInfo>,
    /// What recovery found.
    pub recovered: Recovered,
    /// What the cluster told this node when it joined; `None` for the node that the cluster began with.
    pub joined: Option<Arc<Joined>>,
    /// Somebody has said that group 0 goes on with what this node has of it, whoever voted in it.
    pub is_metadata_forced: bool,
}

/// Why a shard does not start.
#[derive(Debug)]
pub enum StartFailure {
    /// The metadata in checkpoint or log cannot be read.
    Metadata(String),
    /// A trim in the log cannot be read.
    Trim(String),
    /// Members or committed offsets of a consumer group in the log, or in the checkpoint, cannot be read.
    Group(String),
    /// Words on a queue in the log or the checkpoint cannot be read.
    Queue(String),
    /// The directory is another replica's: of another node, or of another disk of this one.
    OtherReplica {
        /// Whose it is.
        found: ReplicaId,
        /// Who started.
        me: ReplicaId,
    },
    /// It was to go on with the metadata, and has no vote about them: these have, by what it knows.
    OnlyLearned(Vec<NodeId>),
    /// What the log holds does not follow from what it held before.
    OutOfOrder(String),
    /// The consensus core refused.
    Replication(crate::replication::ReplicationError),
    /// The first block of this start found no room.
    NoRoom(crate::log::AppendRefused),
    /// The system grants no address space for `memory.bytes`.
    Memory(usize, std::io::Error),
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartFailure::Metadata(what) => {
                write!(f, "the cluster's metadata cannot be read: {what}; run `tramline inspect` on the data directory")
            }
            StartFailure::Trim(what) => {
                write!(
                    f,
                    "what was trimmed cannot be read: {what}; start the version that wrote it, or run `tramline inspect` on the data directory"
                )
            }
            StartFailure::Queue(what) => {
                write!(f, "what is stored of a queue cannot be read: {what}; restore the shard's directory from a copy")
            }
            StartFailure::Group(what) => {
                write!(
                    f,
                    "what is stored of a consumer group cannot be read: {what}; start the version that wrote it, or run `tramline inspect` on the \
                     data directory"
                )
            }
            StartFailure::OtherReplica { found, me } => {
                let told = |replica: &ReplicaId| format!("node {} (generation {})", replica.node(), replica.generation());
                let (found, me) = (told(found), told(me));
                write!(
                    f,
                    "the shard's log belongs to {found}, and this is {me}; give it the --data-dir that it has written, or an empty one and --join"
                )
            }
            StartFailure::OnlyLearned(voters) => {
                let names = match voters.as_slice() {
                    [] => "a node that does".to_owned(),
                    voters => format!("one of {}, which do as far as is known here", named(voters)),
                };
                write!(
                    f,
                    "`tramline recover` was given here, and this node does not vote about the cluster's metadata, it only follows them: recover {names}; remove the file `recover` in this \
                     data directory to start as before"
                )
            }
            StartFailure::OutOfOrder(what) => {
                write!(f, "the log contradicts itself: {what}; run `tramline inspect`, and restore the shard's directory from a copy")
            }
            StartFailure::Replication(cause) => cause.fmt(f),
            StartFailure::Memory(bytes, cause) => write!(
                f,
                "no address space for memory.bytes={bytes}: {cause}; lower memory.bytes, raise `ulimit -v` and `ulimit -d`, or allow more in \
                 vm.overcommit_memory and vm.overcommit_ratio"
            ),
            StartFailure::NoRoom(cause) => write!(f, "the first block of this start could not be made: {cause}"),
        }
    }
}

impl std::error::Error for StartFailure {}

/// The data groups of a shard: ids go over the shards in order, `per_shard` each, from 1.
pub fn data_groups(shard: ShardId, per_shard: u32) -> impl Iterator<Item = GroupId> {
    let first = 1 + u32::from(shard.0) * per_shard;
    (first..first + per_shard).map(GroupId)
}

impl Shard {
    /// Builds the shard and appends what this start owes the log (terms, votes, first entries). It serves once that is durable and
    /// the first view has come.
    pub fn start(start: ShardStart, effects: &mut Effects) -> Result<Shard, StartFailure> {
        let ShardStart { id, settings, info, mut recovered, joined, is_metadata_forced } = start;
        let node = info.node;
        let me = ReplicaId::of(info.generation, node);
        let whose = Whose { shard: id, me, groups_per_shard: settings.groups_per_shard, joined: joined.as_deref(), is_metadata_forced };
        pass_over(&mut recovered);
        let mut beginnings = Beginnings::of(&whose, &recovered)?;
        let mut findings = findings(me, &recovered, &beginnings);
        if !findings.is_empty() {
            cut(&mut recovered, &findings);
            let whole = std::mem::replace(&mut beginnings, Beginnings::of(&whose, &recovered)?);
            beginnings.keep_terms(&whole);
        }
        findings.retain(|_, finding| finding.is_suspect);
        beginnings.starts.iter_mut().for_each(|start| start.is_suspect = findings.contains_key(&start.id));
        let group_ids: Vec<GroupId> = beginnings.starts.iter().map(|start| start.id).collect();
        let seat = match id {
            ShardId(0) => Some(recover_seat(&recovered, &beginnings, joined.as_deref(), settings.shards)?),
            _ => None,
        };
        check_covered(recovered.checkpoint.as_ref())?;
        let controls = recover_controls(&recovered, &beginnings)?;
        let generation = recovered.state.as_ref().map_or(0, |state| state.generation);
        let is_shared = |start: &GroupStart| !start.members.is_lone(me) || start.is_suspect;
        for (group, finding) in &findings {
            tracing::error!(shard = id.0, group = group.0, "{finding}");
        }
        let has_shared = beginnings.starts.iter().any(is_shared);
        let told = recovered.state.as_ref().filter(|_| has_shared).map(|state| state.items.clone()).unwrap_or_default();
        let unclaimed = recover_partitions(me, &recovered, &controls.trims, &beginnings)?;
        let wounds = found_at_start(&recovered);
        for damage in &recovered.damage {
            tracing::error!(shard = id.0, "{damage}: it is not served; the rest of the log stays readable");
        }
        let mut groups = recover_groups(me, &beginnings, &recovered)?;
        groups.set_mutants(recovered.log.mutants());
        let mut suspects = Suspects::new(&findings, &recovered);
        let applied = |id: &GroupId| (*id, beginnings.known(*id).min(groups.last_of(*id).index));
        let mut applying = Applying::new(group_ids.iter().map(applied));
        applying.since = snapshots_of(&recovered);
        beginnings
            .starts
            .iter()
            .filter(|start| is_shared(start))
            .for_each(|start| applying.rebuild.track(start.id, beginnings.known(start.id).min(groups.last_of(start.id).index)));
        let is_pending = |group: GroupId, index: LogIndex| !beginnings.is_committed(group, index);
        applying.keep(&recovered.batches, &recovered.controls, is_pending);
        if has_shared {
            applying.rebuild.remember(&recovered);
        }
        let mut slab = Slab::try_new(settings.memory_bytes).map_err(|cause| StartFailure::Memory(settings.memory_bytes, cause))?;
        let damaged_ranges = recovered.damage.len() as u64;
        let mut log = recovered.log;
        let boot = log.incarnation().0;
        for record in &beginnings.records {
            log.append_control(&mut slab, record.group, EntryKind::Replica, &record.encode()).map_err(StartFailure::NoRoom)?;
        }
        for group in suspects.unrecorded() {
            let record = record_of_doubt(me, group, ReplicaState::Suspect);
            log.append_control(&mut slab, group, EntryKind::Replica, &record.encode()).map_err(StartFailure::NoRoom)?;
            suspects.note_record(group, log.open_block_seq());
        }
        append_owed(&mut groups, &mut log, &mut slab)?;
        let mut shard = Shard::assemble(Parts {
            id,
            node,
            settings,
            info,
            slab,
            log,
            groups,
            group_ids,
            pipelines: Pipelines::new(boot),
            is_founder: joined.is_none(),
            applying,
            suspects,
            unclaimed,
            seat,
            offsets: OffsetCare::new(controls.offsets),
            members: MemberCare::new(controls.members),
            queues: QueueCare::new(controls.queues, Keeping::new(generation, told)),
        });
        shard.metrics.counters.damaged_ranges = damaged_ranges;
        for (group, wound) in &wounds {
            // Where nothing of a partition is known to be committed, nothing but its damage tells of it yet.
            if shard.has_others(*group) {
                shard.imported(*group, PartitionUid(wound.uid), |_| ());
            }
            shard.note_wound(wound);
        }
        if shard.settings.sorter_segments > 0 {
            shard.log.keep_file_for_sorter();
        }
        shard.count_runs();
        shard.meet_peers(effects);
        shard.register(effects)?;
        Ok(shard)
    }

    /// The first start of a cluster says what its node has; all others find it in the metadata.
    fn register(&mut self, effects: &mut Effects) -> Result<(), StartFailure> {
        effects.wake_at(0);
        let Some(seat) = self.seat.as_ref().filter(|_| self.is_founder && self.pipelines.is_alone() && !self.groups.is_suspect(GroupId(0)))
        else {
            return Ok(());
        };
        if !seat.state.has_node(self.node) {
            let taken = self.register_node().map_err(|error| StartFailure::Metadata(error.message))?;
            if taken == Taken::Blocked {
                return Err(StartFailure::NoRoom(AppendRefused::Full));
            }
        }
        effects.wake_at(0);
        Ok(())
    }
}

/// Shard 0's seat: the metadata as far as they are known to be committed, and where the nodes are that the rest tells of.
fn recover_seat(recovered: &Recovered, beginnings: &Beginnings, joined: Option<&Joined>, shards: u16) -> Result<ControlSeat, StartFailure> {
    let endpoints = |state: &State| state.cluster_endpoints().map(|(node, endpoint)| (node, endpoint.clone())).collect();
    let is_committed = |index| beginnings.is_committed(GroupId(0), index);
    let is_open =
        |control: &RecoveredControl| control.group == GroupId(0) && control.kind == EntryKind::Control && !is_committed(control.index);
    let state = recover_state(recovered, joined, is_committed)?;
    let addresses = match recovered.controls.iter().any(is_open) {
        true => endpoints(&recover_state(recovered, joined, |_| true)?),
        false => endpoints(&state),
    };
    let mut seat = ControlSeat::new(state, shards);
    seat.addresses = addresses;
    Ok(seat)
}

/// `joined`: where they begin as long as there is no checkpoint.
fn recover_state(recovered: &Recovered, joined: Option<&Joined>, is_committed: impl Fn(LogIndex) -> bool) -> Result<State, StartFailure> {
    let wrong = |error: crate::control::StoredError| StartFailure::Metadata(error.to_string());
    let snapshot = recovered.checkpoint.as_ref().map(|c| c.control.as_slice()).filter(|bytes| !bytes.is_empty());
    let snapshot = snapshot.or(joined.map(|joined| joined.state.as_slice()));
    let mut state = match snapshot {
        Some(bytes) => State::restore(bytes).map_err(wrong)?,
        None => State::new(),
    };
    // Where it stands last: one that was cut off for its damage, and brought again by others, is whole in a later block.
    let stands_in = |index: LogIndex, block: BlockSeq| {
        recovered.entries.iter().any(|entry| (entry.group, entry.index, entry.block) == (GroupId(0), index, block))
    };
    let is_of_metadata =
        |damage: &&Damage| matches!(damage.kind, DamageKind::Payload { seq, group: GroupId(0), index, .. } if stands_in(index, seq));
    if let Some(lost) = recovered.damage.iter().find(is_of_metadata) {
        return Err(StartFailure::Metadata(format!("a command in the log is damaged ({lost}); restore the shard's directory from a copy")));
    }
    let mut units: BTreeMap<LogIndex, Vec<Command>> = BTreeMap::new();
    let is_taken_in = |c: &&RecoveredControl| c.group == GroupId(0) && c.kind == EntryKind::Control && is_committed(c.index);
    for control in recovered.controls.iter().filter(is_taken_in) {
        units.entry(control.index).or_default().push(Command::decode(&control.payload).map_err(wrong)?);
    }
    for (index, commands) in units {
        let forgets =
            |command: &Command| matches!(command, Command::DeleteGroup { .. }) && recovered.log.mutants().has(Mutant::ReviveGroups);
        let commands: Vec<Command> = commands.into_iter().filter(|command| !forgets(command)).collect();
        // A command that was refused when it was first applied is refused now: nothing to tell.
        let _refusals = state.apply(index, &commands);
    }
    Ok(state)
}

fn recover_groups(me: ReplicaId, beginnings: &Beginnings, recovered: &Recovered) -> Result<Groups, StartFailure> {
    check_entries(&beginnings.starts, &recovered.entries, &recovered.lost)?;
    let is_change =
        |entry: &RecoveredEntry| beginnings.changes.iter().any(|(group, index, _)| (*group, *index) == (entry.group, entry.index));
    let mut entries: Vec<_> = recovered.entries.iter().map(|e| (e.group, e.index, e.term, handle_of(e, is_change(e)))).collect();
    if recovered.log.mutants().has(Mutant::ForgetTail) {
        entries.pop_if(|(.., handle)| handle.holds == Holds::Share);
    }
    Groups::start(me, beginnings.starts.clone(), &entries, &beginnings.changes).map_err(StartFailure::Replication)
}

fn handle_of(entry: &RecoveredEntry, is_change: bool) -> Handle {
    let holds = match entry.kind {
        EntryKind::Raft if is_change => Holds::Change,
        EntryKind::Raft => Holds::Own,
        _ => Holds::Share,
    };
    Handle { holds, block: entry.block, bytes: entry.content_len }
}

/// Entries follow one another (the rows of one have its index), but for those that lost blocks held: the groups fill these holes one by one.
fn check_entries(starts: &[GroupStart], entries: &[RecoveredEntry], lost: &[LostBlocks]) -> Result<(), StartFailure> {
    let lost: u64 = lost.iter().map(|lost| lost.bytes / ENTRY_BYTES_MIN).sum();
    for start in starts {
        let mut last = start.base;
        for entry in entries.iter().filter(|e| e.group == start.id) {
            let hole = entry.index.0.saturating_sub(last.index.0.saturating_add(1));
            if hole > lost || entry.term < last.term {
                let (group, index, term) = (start.id, entry.index, entry.term);
                return Err(StartFailure::OutOfOrder(format!("group {group}: entry {index} of term {term} behind {last:?}")));
            }
            last = GroupPosition { index: entry.index.max(last.index), term: entry.term };
        }
    }
    Ok(())
}

/// A shard's checkpoint covers what is sealed, and a start walks what is not: else the next one, which comes with the next segment that is sealed,
/// could cover less.
fn check_covered(checkpoint: Option<&CheckpointV5>) -> Result<(), StartFailure> {
    match checkpoint {
        Some(CheckpointV5 { covers_block, scan, .. }) if scan.first_seq <= *covers_block => {
            Err(StartFailure::OutOfOrder(format!("the checkpoint covers block {covers_block}, and block {} is not sealed", scan.first_seq)))
        }
        _ => Ok(()),
    }
}

/// A partition's batches follow one another in the log.
fn check_batch_order(partition: &Partition, batch: &RecoveredBatch) -> Result<(), StartFailure> {
    let (base, end) = (batch.base_offset, partition.index.end_offset().unwrap_or(0));
    if base.0 < end || base.0 >= OFFSET_MAX {
        let (block, uid) = (batch.block, batch.uid);
        return Err(StartFailure::OutOfOrder(format!(
            "block {block} has a batch of partition {uid} at {base}, behind one that ends at {end}"
        )));
    }
    Ok(())
}

fn recover_partitions(
    me: ReplicaId,
    recovered: &Recovered,
    trims: &[(GroupId, Trim)],
    beginnings: &Beginnings,
) -> Result<IdMap<PartitionUid, Partition>, StartFailure> {
    let mut found: IdMap<PartitionUid, Partition> = IdMap::default();
    if let Some(checkpoint) = &recovered.checkpoint {
        for stored in &checkpoint.partitions {
            let uid = PartitionUid(stored.uid);
            let partition = Partition::new(uid, TopicUid(stored.topic), 0, GroupId(stored.group), TopicRules::default());
            found.insert(uid, partition);
        }
        let mut runs: Vec<_> = checkpoint.runs.iter().collect();
        runs.sort_by_key(|r| (r.uid, r.first_offset));
        for stored in runs {
            let Some(partition) = found.get_mut(&PartitionUid(stored.uid)) else { continue };
            partition.index.push_run(Run {
                segment: SegmentUid(stored.segment),
                first_offset: stored.first_offset,
                end_offset: stored.end_offset,
                newest_ts_us: stored.newest_ts,
                bytes: stored.bytes,
                footer_first: stored.footer_first,
                footer_count: stored.footer_count,
            });
        }
        for stored in &checkpoint.partitions {
            let partition = found.get_mut(&PartitionUid(stored.uid)).expect("inserted above");
            // Moved up already for what was freed between the checkpoint and the crash; runs that are missing above it are damage.
            partition.restore_bounds(stored.log_start, stored.next_offset);
        }
        let mut rest = checkpoint.producer_batches.as_slice();
        for stored in &checkpoint.producers {
            let batches = rest.split_off(..usize::from(stored.batches)).expect("a checkpoint with fewer batches is refused");
            if let Some(partition) = found.get_mut(&PartitionUid(stored.partition)) {
                partition.producers_mut().restore(stored, batches);
            }
        }
    }
    let covers = recovered.checkpoint.as_ref().map_or(BlockSeq(0), |c| BlockSeq(c.covers_block));
    let forgotten = usize::from(recovered.log.mutants().has(Mutant::ReuseOffset)).min(recovered.batches.len());
    let batches = recovered.batches[..recovered.batches.len() - forgotten].iter();
    let batches = batches.filter(|batch| beginnings.is_committed(batch.group, batch.index));
    for batch in recovered.covered_batches.iter().chain(batches) {
        let new = || Partition::new(batch.uid, TopicUid(0), 0, batch.group, TopicRules::default());
        let partition = found.entry(batch.uid).or_insert_with(new);
        let end = batch.base_offset.0 + u64::from(batch.last_offset_delta) + 1;
        if end <= partition.index.end_offset().unwrap_or(0) {
            // A snapshot may have told more than it covers: entries behind it say the same again, as do snapshots that came to nothing.
            continue;
        }
        check_batch_order(partition, batch)?;
        let placed = batch_ref(batch);
        partition.restore_batch(placed);
        // What the checkpoint covers it has told.
        if batch.block > covers {
            partition.producers_mut().replay(&batch.producer, &placed, batch.append_time_us, u64::MAX);
        }
    }
    recover_trims(recovered, trims, &mut found)?;
    // Before offsets are given up to what was lost: a batch there is none that a producer can rely on.
    if !recovered.log.mutants().has(Mutant::CheckpointTentative) {
        found.values_mut().for_each(|partition| {
            let end = partition.next_offset();
            partition.producers_mut().cut(end);
        });
    }
    // Blocks that are gone may have held records of any partition, behind whatever came after them was lost with them: as many
    // offsets as their bytes could have held are given up wherever nothing later tells where the partition went on. Of a group with other voters the leader tells.
    let is_alone = |group: GroupId| beginnings.starts.iter().any(|start| start.id == group && !beginnings.is_shared(me, start));
    for lost in &recovered.lost {
        let count = lost.bytes / RECORD_BYTES_MIN;
        let later = |uid: PartitionUid| recovered.batches.iter().any(|b| b.uid == uid && b.block > lost.last);
        let lone = found.values().filter(|partition| is_alone(partition.group));
        let mut uids: Vec<_> = lone.map(|partition| partition.uid).filter(|uid| !later(*uid)).collect();
        uids.sort_unstable();
        uids.into_iter().for_each(|uid| found.get_mut(&uid).expect("listed above").skip_lost(count));
    }
    // The same for a batch whose head does not check: its place is known, not its partition.
    for damage in &recovered.damage {
        let DamageKind::BatchHeader { seq, group, .. } = damage.kind else { continue };
        if seq <= covers || !is_alone(group) {
            continue;
        }
        let behind = |b: &RecoveredBatch| b.block > seq || b.block == seq && u64::from(b.pos) > damage.pos;
        let later = |uid: PartitionUid| recovered.batches.iter().any(|b| b.uid == uid && behind(b));
        let mut open: Vec<_> = found.values_mut().filter(|p| p.group == group && !later(p.uid)).collect();
        open.iter_mut().for_each(|partition| partition.skip_lost(damage.len / RECORD_BYTES_MIN));
    }
    Ok(found)
}

/// Trims behind the checkpoint (the checkpoint's own are in its bounds). One whose payload is damaged is told with the other damage;
/// what it dropped is there again then, as nothing else knows of it.
fn recover_trims(recovered: &Recovered, trims: &[(GroupId, Trim)], found: &mut IdMap<PartitionUid, Partition>) -> Result<(), StartFailure> {
    if recovered.log.mutants().has(Mutant::ForgetTrim) {
        return Ok(());
    }
    for (group, trim) in trims {
        if trim.log_start >= OFFSET_MAX {
            return Err(StartFailure::Trim(format!("partition {} to {}", trim.uid, trim.log_start)));
        }
        let new = || Partition::new(trim.uid, TopicUid(0), 0, *group, TopicRules::default());
        found.entry(trim.uid).or_insert_with(new).restore_trim(trim.log_start);
    }
    Ok(())
}

/// What the control payloads of data groups say, by kind.
#[derive(Default)]
struct Controls {
    trims: Vec<(GroupId, Trim)>,
    offsets: Offsets,
    members: BTreeMap<SubscriptionUid, Result<Durable, RestoreError>>,
    queues: BTreeMap<(SubscriptionUid, PartitionUid), Part>,
}

/// Takes in the checkpoint's notes, then what stands in the log behind it. A payload that is damaged is told with the other damage: an offset goes back
/// to the commit before, a member joins again.
fn recover_controls(recovered: &Recovered, beginnings: &Beginnings) -> Result<Controls, StartFailure> {
    let mut controls = Controls::default();
    let state = recovered.state.iter().flat_map(|state| &state.items);
    let notes = recovered.checkpoint.iter().flat_map(|checkpoint| &checkpoint.notes).chain(state).map(|payload| (None, payload));
    let of_log = recovered
        .controls
        .iter()
        .filter(|c| c.group != GroupId(0) && c.kind == EntryKind::Control && beginnings.is_committed(c.group, c.index))
        .map(|c| (Some(c.group), &c.payload));
    for (group, payload) in notes.chain(of_log) {
        match (envelope::schema_of(payload), group) {
            (Some(OFFSETS_SCHEMA), _) => {
                let notes = decode_notes(payload).map_err(|error| StartFailure::Group(error.to_string()))?;
                let forgets = |note: &&OffsetNote| note.kind == NoteKind::Claim && recovered.log.mutants().has(Mutant::ForgetClaims);
                notes.iter().filter(|note| !forgets(note)).for_each(|note| controls.offsets.apply(note));
            }
            (Some(QUEUE_SCHEMA), _) => {
                let (partition, queue, notes) = decode_queue_notes(payload).map_err(|error| StartFailure::Queue(error.to_string()))?;
                let part = controls.queues.entry((queue, partition)).or_default();
                let mutants = recovered.log.mutants();
                notes.iter().filter(|note| !forgets(mutants, note)).for_each(|note| part.apply(None, &as_taken(mutants, note)));
            }
            (Some(STATE_MARK_SCHEMA), None) => {
                let named = Keeping::read_mark(payload).map_err(StartFailure::Queue)?;
                let found = recovered.state.as_ref().map_or(0, |state| state.generation);
                if found < named {
                    let what = format!("the checkpoint names generation {named} of the file `queues`, which has {found}");
                    return Err(StartFailure::Queue(what));
                }
            }
            (Some(CHANGE_SCHEMA), _) => restore_members(recovered, &mut controls, payload)?,
            // Whatever else it is, it is no trim that this program knows.
            (_, Some(group)) => {
                let trims = decode_trims(payload).map_err(|error| StartFailure::Trim(error.to_string()))?;
                controls.trims.extend(trims.into_iter().map(|trim| (group, trim)));
            }
            (schema, None) => return Err(StartFailure::Group(format!("a note of schema {schema:?} in the checkpoint"))),
        }
    }
    Ok(controls)
}

/// Bugs on purpose: words on a queue that are passed over.
fn forgets(mutants: Mutants, note: &QueueNote) -> bool {
    let is_ack = note.kind == QueueNoteKind::Settle && note.why == Why::Acked;
    is_ack && mutants.has(Mutant::ForgetAcks)
        || note.kind == QueueNoteKind::Id && mutants.has(Mutant::ForgetIds)
        || note.kind == QueueNoteKind::Purge && mutants.has(Mutant::ForgetPurge)
}

/// Bugs on purpose: a word on a queue that says something else than was written.
fn as_taken(mutants: Mutants, note: &QueueNote) -> Cow<'_, QueueNote> {
    match mutants.has(Mutant::ForgetDeliveries) {
        true => Cow::Owned(QueueNote { deliveries: note.deliveries.min(1), ..note.clone() }),
        false => Cow::Borrowed(note),
    }
}

fn restore_members(recovered: &Recovered, controls: &mut Controls, payload: &[u8]) -> Result<(), StartFailure> {
    let (uid, changes) = membership::decode(payload).map_err(|error| StartFailure::Group(error.to_string()))?;
    let Ok(durable) = controls.members.entry(uid).or_insert_with(|| Ok(Durable::new(1))) else { return Ok(()) };
    let Err(error) = durable.apply(&changes) else { return Ok(()) };
    if recovered.damage.is_empty() && recovered.lost.is_empty() {
        // A group that was deleted is in no checkpoint any more, and what it wrote last may stand behind one: the metadata tell whether it is there.
        controls.members.insert(uid, Err(error));
        return Ok(());
    }
    // A payload before this one is lost. Who was a member is not known any more: they join again, with epochs above all before. What stands behind it and
    // makes sense by itself is theirs who did.
    tracing::error!(group = uid.0, "members of a consumer group are lost with damaged blocks ({error}): they have to join again");
    let mut fresh = Durable::new(1);
    let is_whole = fresh.apply(&changes).is_ok();
    controls.members.insert(uid, Ok(if is_whole { fresh } else { Durable::new(1) }));
    Ok(())
}

/// Where a batch stands that recovery has found.
pub(super) fn batch_ref(batch: &RecoveredBatch) -> BatchRef {
    BatchRef {
        base_offset: batch.base_offset.0,
        newest_ts_us: batch.newest_ts,
        block: batch.block,
        at: batch.at,
        len: batch.len,
        last_delta: batch.last_offset_delta,
    }
}

/// Puts the new terms and raft's own first entries into the open block.
pub(super) fn append_owed(groups: &mut Groups, log: &mut crate::log::Log, slab: &mut Slab) -> Result<(), StartFailure> {
    for owed in groups.owed(log.open_block_seq()) {
        if let Some((term, vote, commit)) = owed.hard_state {
            let bytes = HardState { group: owed.group, term, vote, commit, is_shared: owed.is_shared }.encode();
            log.append_control(slab, owed.group, EntryKind::HardState, &bytes).map_err(StartFailure::NoRoom)?;
        }
        for change in owed.own_entries {
            let payload = change.map(|change| change.encode());
            let payload = payload.as_ref().map_or(&[][..], |payload| payload);
            log.append_control(slab, owed.group, EntryKind::Raft, payload).map_err(StartFailure::NoRoom)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Offset, Term};
    use tramline_wire::batch::ProducerMark;

    fn entry(index: u64, term: u64) -> RecoveredEntry {
        let (group, block) = (GroupId(1), BlockSeq(index));
        RecoveredEntry { group, kind: EntryKind::Data, index: LogIndex(index), term: Term(term), block, content_len: 0 }
    }

    #[test]
    fn a_hole_among_entries_is_no_larger_than_what_was_lost_could_fill() {
        let base = GroupPosition { index: LogIndex(4), term: Term(2) };
        let starts = [GroupStart { id: GroupId(1), base, ..GroupStart::default() }];
        let lost = [LostBlocks { first: BlockSeq(7), last: BlockSeq(8), bytes: 4096 }];
        let check = |entries: &[RecoveredEntry], lost: &[LostBlocks]| check_entries(&starts, entries, lost).is_ok();
        assert!(check(&[entry(4, 2), entry(5, 2), entry(6, 3)], &[]));
        assert!(!check(&[entry(5, 2), entry(7, 3)], &[]));
        assert!(check(&[entry(5, 2), entry(7 + 101, 3)], &lost));
        assert!(!check(&[entry(5, 2), entry(7 + 102, 3)], &lost));
        assert!(!check(&[entry(5, 2), entry(u64::MAX, 3)], &lost));
        assert!(!check(&[entry(5, 3), entry(6, 2)], &[]), "terms do not fall");
    }

    #[test]
    fn a_checkpoint_covers_nothing_of_what_is_not_sealed() {
        let check = |covers_block, first_seq| {
            let mut checkpoint = CheckpointV5 { covers_block, ..CheckpointV5::default() };
            checkpoint.scan.first_seq = first_seq;
            check_covered(Some(&checkpoint)).is_ok()
        };
        assert!(check_covered(None).is_ok());
        assert!(check(10, 11));
        // Damage took blocks 11 to 15.
        assert!(check(10, 16));
        assert!(!check(10, 10) && !check(10, 0));
    }

    #[test]
    fn a_batch_below_the_end_of_the_one_before_is_refused() {
        let mut partition = Partition::new(PartitionUid(9), TopicUid(1), 0, GroupId(1), TopicRules::default());
        let batch = |base: u64| RecoveredBatch {
            group: GroupId(1),
            index: LogIndex(1),
            term: Term(1),
            uid: PartitionUid(9),
            base_offset: Offset(base),
            last_offset_delta: 3,
            newest_ts: 0,
            append_time_us: 0,
            producer: ProducerMark::default(),
            block: BlockSeq(1),
            at: 96,
            len: 200,
            segment: SegmentUid(1),
            pos: 4192,
            damaged: false,
        };
        assert!(check_batch_order(&partition, &batch(10)).is_ok());
        partition.restore_batch(batch_ref(&batch(10)));
        assert!(check_batch_order(&partition, &batch(14)).is_ok());
        for wrong in [0, 10, 13, 1 << 62, u64::MAX] {
            assert!(check_batch_order(&partition, &batch(wrong)).is_err(), "{wrong}");
        }
    }
}
