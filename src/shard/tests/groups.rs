//! Consumer groups against a whole shard: who is told what and when, who may commit, and that no crash takes it back.

use super::queue_metrics::snapshot;
use super::world::{CLIENT, World, produce_results};
use crate::effects::Event;
use crate::ids::ShardId;
use crate::shard::mesh::Message;
use crate::sim::{Dice, TEARS, Tear};
use tramline_wire::error::ErrorCode;
use tramline_wire::group::*;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::prim::List;
use tramline_wire::topics::DeleteTopicRequest;

const SESSION_MS: u32 = 6_000;

fn ask_find(world: &mut World, name: &str, flags: FindGroupFlags) {
    world.request(Kind::FindGroup, &[], |out| FindGroupRequest { name, flags }.encode(out));
    world.settle();
}

fn find(world: &mut World, name: &str) -> FindGroupReply {
    ask_find(world, name, FindGroupFlags::CREATE);
    FindGroupReply::decode(&world.reply_ok().1).unwrap()
}

fn ask_join(world: &mut World, group_uid: u64, flags: JoinFlags, instance: &str, topics: &[&str]) -> u64 {
    world.request(Kind::JoinGroup, &[], |out| {
        JoinGroupRequest {
            group_uid,
            flags,
            assignor: Assignor::Sticky,
            session_timeout_ms: SESSION_MS,
            instance,
            client: "test",
            topics: List::of(topics),
        }
        .encode(out)
    })
}

/// A member, and what it was told last.
#[derive(Clone, Debug)]
struct Member {
    group_uid: u64,
    id: u64,
    epoch: u64,
    /// (partition uid, assignment epoch)
    owns: Vec<(u64, u64)>,
}

fn owned(list: List<'_, GrantedPartition>) -> Vec<(u64, u64)> {
    list.iter().map(|granted| (granted.partition_uid, granted.assignment_epoch)).collect()
}

fn join(world: &mut World, group_uid: u64, instance: &str, topics: &[&str]) -> Member {
    let correlation = ask_join(world, group_uid, JoinFlags::default(), instance, topics);
    world.settle();
    let meta = world.reply_to(correlation);
    let reply = JoinGroupReply::decode(&meta).unwrap();
    Member { group_uid, id: reply.member_id, epoch: reply.epoch, owns: owned(reply.partitions) }
}

fn ask_heartbeat(world: &mut World, member: &Member, instance: &str, wait_ms: u32) -> u64 {
    world.request(Kind::HeartbeatGroup, &[], |out| {
        HeartbeatGroupRequest {
            group_uid: member.group_uid,
            member_id: member.id,
            epoch: member.epoch,
            wait_ms,
            flags: HeartbeatFlags::default(),
            instance,
            topics: List::of(&[]),
        }
        .encode(out)
    })
}

fn take_heartbeat(world: &mut World, member: &mut Member, correlation: u64) {
    let (answered, meta, _) = world.reply_ok();
    assert_eq!(answered, correlation);
    let reply = HeartbeatGroupReply::decode(&meta).unwrap();
    if reply.epoch != member.epoch {
        (member.epoch, member.owns) = (reply.epoch, owned(reply.partitions));
    }
}

fn heartbeat(world: &mut World, member: &mut Member) {
    let correlation = ask_heartbeat(world, member, "", 0);
    world.settle();
    take_heartbeat(world, member, correlation);
}

fn commit(world: &mut World, group_uid: u64, entries: &[(u64, u64, u64)]) -> Vec<ErrorCode> {
    ask_commit(world, group_uid, entries);
    world.settle();
    CommitOffsetsReply::decode(&world.reply_ok().1).unwrap().entries.iter().map(|entry| entry.error).collect()
}

fn ask_commit(world: &mut World, group_uid: u64, entries: &[(u64, u64, u64)]) -> u64 {
    let entries: Vec<_> = entries
        .iter()
        .map(|&(partition_uid, assignment_epoch, offset)| OffsetCommit { partition_uid, assignment_epoch, offset, metadata: "here" })
        .collect();
    world.request(Kind::CommitOffsets, &[], |out| CommitOffsetsRequest { group_uid, entries: List::of(&entries) }.encode(out))
}

/// (error, offset, text) of each partition.
fn fetch(world: &mut World, group_uid: u64, entries: &[(u64, u64)]) -> Vec<(ErrorCode, u64, String)> {
    let asks: Vec<_> = entries.iter().map(|&(partition_uid, assignment_epoch)| OffsetAsk { partition_uid, assignment_epoch }).collect();
    world.request(Kind::FetchOffsets, &[], |out| FetchOffsetsRequest { group_uid, entries: List::of(&asks) }.encode(out));
    world.settle();
    let (_, meta, _) = world.reply_ok();
    FetchOffsetsReply::decode(&meta).unwrap().entries.iter().map(|e| (e.error, e.offset, e.metadata.to_owned())).collect()
}

fn fill(world: &mut World, uid: u64, records: usize) {
    for _ in 0..records {
        world.produce(uid, Level::Durable, &[vec![7; 1000]]);
        world.settle();
        assert_eq!(produce_results(&world.reply_ok().1)[0].error, ErrorCode::Ok);
    }
}

/// A world with a topic of `partitions`, and a group.
fn world_with(partitions: u32, settings: &[(&str, &str)]) -> (World, Vec<u64>, u64) {
    let mut world = World::with(settings);
    world.create_topic("t", partitions, &[]);
    let uids = world.uids("t");
    let group = find(&mut world, "g").group_uid;
    (world, uids, group)
}

fn pass(world: &mut World, ms: u64) {
    world.pass(ms * 1000);
    let _ = world.step(Event::Deadline);
    world.settle();
}

#[test]
fn a_group_is_found_by_all_once_it_is_created() {
    let mut world = World::new();
    ask_find(&mut world, "g", FindGroupFlags::default());
    assert_eq!(world.reply_error(), ErrorCode::UnknownGroup);
    let first = find(&mut world, "g");
    assert!(first.created);
    assert_eq!(find(&mut world, "g"), FindGroupReply { created: false, ..first });
    assert_ne!(find(&mut world, "h").group_uid, first.group_uid);
    for wrong in ["", "..", "a b", &"x".repeat(250)] {
        ask_find(&mut world, wrong, FindGroupFlags::CREATE);
        assert_eq!(world.reply_error(), ErrorCode::InvalidGroupName, "{wrong:?}");
    }
    for (kind, meta) in [(Kind::JoinGroup, 99), (Kind::HeartbeatGroup, 99), (Kind::LeaveGroup, 99), (Kind::CommitOffsets, 99)] {
        world.request(kind, &[], |out| match kind {
            Kind::JoinGroup => JoinGroupRequest {
                group_uid: meta,
                flags: JoinFlags::default(),
                assignor: Assignor::Sticky,
                session_timeout_ms: SESSION_MS,
                instance: "",
                client: "",
                topics: List::of(&["t"]),
            }
            .encode(out),
            Kind::HeartbeatGroup => HeartbeatGroupRequest {
                group_uid: meta,
                member_id: 1,
                epoch: 1,
                wait_ms: 0,
                flags: HeartbeatFlags::default(),
                instance: "",
                topics: List::of(&[]),
            }
            .encode(out),
            Kind::LeaveGroup => LeaveGroupRequest { group_uid: meta, member_id: 1, flags: LeaveFlags::default(), instance: "" }.encode(out),
            _ => {
                let entries = [OffsetCommit { partition_uid: 1, assignment_epoch: 0, offset: 0, metadata: "" }];
                CommitOffsetsRequest { group_uid: meta, entries: List::of(&entries) }.encode(out);
            }
        });
        world.settle();
        assert_eq!(world.reply_error(), ErrorCode::UnknownGroup, "{kind}");
    }
}

#[test]
fn partitions_move_one_by_one_and_those_that_stay_are_not_touched() {
    let (mut world, uids, group) = world_with(4, &[]);
    let mut first = join(&mut world, group, "", &["t"]);
    assert_eq!(first.owns.iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), uids);
    let before = first.clone();
    // Held until there is something to tell.
    let held = ask_heartbeat(&mut world, &first, "", 1_000);
    world.settle();
    assert!(world.replies.is_empty());
    let mut second = join(&mut world, group, "", &["t"]);
    assert!(second.owns.is_empty(), "the first has not given anything up yet");
    take_heartbeat(&mut world, &mut first, held);
    assert_eq!(first.owns.len(), 2);
    assert!(first.owns.iter().all(|kept| before.owns.contains(kept)), "the same assignment epochs: {first:?} {before:?}");
    heartbeat(&mut world, &mut second);
    assert!(second.owns.is_empty(), "the first has not said so");
    heartbeat(&mut world, &mut first);
    heartbeat(&mut world, &mut second);
    let mut all: Vec<u64> = first.owns.iter().chain(&second.owns).map(|(uid, _)| *uid).collect();
    all.sort_unstable();
    assert_eq!(all, uids);
    let old_epoch = before.owns[0].1;
    assert!(second.owns.iter().all(|(_, epoch)| *epoch > old_epoch));
    // What the second owns now, the first does not commit any more, once the second has claimed it.
    let (moved, epoch) = second.owns[0];
    fill(&mut world, moved, 3);
    assert_eq!(commit(&mut world, group, &[(moved, old_epoch, 1)]), [ErrorCode::Ok], "not claimed yet");
    assert_eq!(fetch(&mut world, group, &[(moved, epoch)]), [(ErrorCode::Ok, 1, "here".into())]);
    assert_eq!(commit(&mut world, group, &[(moved, old_epoch, 2), (moved, 0, 2)]), [ErrorCode::StaleAssignment; 2]);
    assert_eq!(commit(&mut world, group, &[(moved, epoch, 3), (moved, epoch, 4)]), [ErrorCode::Ok, ErrorCode::OffsetOutOfRange]);
    assert_eq!(fetch(&mut world, group, &[(moved, 0)]), [(ErrorCode::Ok, 3, "here".into())]);
}

#[test]
fn nobody_is_told_what_a_crash_could_take_back() {
    let (mut world, uids, group) = world_with(1, &[]);
    let correlation = ask_join(&mut world, group, JoinFlags::default(), "", &["t"]);
    world.turn();
    assert!(world.replies.is_empty() && !world.disk.under_way.is_empty(), "the write is under way, the answer waits");
    world.settle();
    assert_eq!(world.reply_ok().0, correlation);
    fill(&mut world, uids[0], 1);
    ask_commit(&mut world, group, &[(uids[0], 0, 1)]);
    world.turn();
    assert!(world.replies.is_empty());
    world.settle();
    assert_eq!(CommitOffsetsReply::decode(&world.reply_ok().1).unwrap().entries.iter().next().unwrap().error, ErrorCode::Ok);
}

#[test]
fn members_and_offsets_survive_any_crash_and_members_go_on_where_they_were() {
    for seed in 0..24 {
        let mut dice = Dice(seed);
        let (mut world, uids, group) = world_with(3, &[]);
        let mut first = join(&mut world, group, "", &["t"]);
        let mut second = join(&mut world, group, "rack-2", &["t"]);
        for _ in 0..2 {
            heartbeat(&mut world, &mut first);
            let asked = ask_heartbeat(&mut world, &second, "rack-2", 0);
            world.settle();
            take_heartbeat(&mut world, &mut second, asked);
        }
        let (uid, epoch) = first.owns[0];
        fill(&mut world, uid, 5);
        assert_eq!(fetch(&mut world, group, &[(uid, epoch)])[0].1, OFFSET_NONE);
        assert_eq!(commit(&mut world, group, &[(uid, epoch, 3)]), [ErrorCode::Ok]);
        // In some of the worlds a segment is sealed behind it, so that only the checkpoint knows.
        if seed % 2 == 1 {
            fill(&mut world, uids[2], 200);
        }
        // Under way when the power goes: it may hold or not.
        ask_commit(&mut world, group, &[(uid, epoch, 4)]);
        world.turn();
        let mut world = world.crash(TEARS[seed as usize % TEARS.len()], &mut dice);
        let mut again = first.clone();
        heartbeat(&mut world, &mut again);
        assert_eq!((&again.owns, again.epoch), (&first.owns, first.epoch), "seed {seed}: nothing has moved");
        let offset = fetch(&mut world, group, &[(uid, 0)])[0].1;
        assert!(offset == 3 || offset == 4, "seed {seed}: {offset}");
        assert_eq!(commit(&mut world, group, &[(uid, epoch - 1, 5)]), [ErrorCode::StaleAssignment], "seed {seed}");
        // An epoch that was given before is not given again.
        let third = join(&mut world, group, "", &["t"]);
        assert!(third.id > second.id && third.id > first.epoch, "seed {seed}");
    }
}

#[test]
fn a_member_that_is_not_heard_of_is_dropped_and_its_partitions_go_on() {
    let (mut world, _, group) = world_with(2, &[]);
    let first = join(&mut world, group, "", &["t"]);
    let mut second = join(&mut world, group, "", &["t"]);
    for _ in 0..4 {
        pass(&mut world, u64::from(SESSION_MS) / 3);
        heartbeat(&mut world, &mut second);
    }
    assert_eq!(second.owns.len(), 2);
    ask_heartbeat(&mut world, &first, "", 0);
    world.settle();
    assert_eq!(world.reply_error(), ErrorCode::UnknownMember);
    // A held heartbeat keeps the session alive as long as it is held, and is answered when its time is over.
    let held = ask_heartbeat(&mut world, &second, "", 2_000);
    pass(&mut world, 1_999);
    assert!(world.replies.is_empty());
    pass(&mut world, 1);
    take_heartbeat(&mut world, &mut second, held);
    pass(&mut world, u64::from(SESSION_MS) - 1);
    heartbeat(&mut world, &mut second);
    pass(&mut world, u64::from(SESSION_MS) + 1);
    ask_heartbeat(&mut world, &second, "", 0);
    world.settle();
    assert_eq!(world.reply_error(), ErrorCode::UnknownMember);
}

#[test]
fn a_static_member_comes_back_to_its_partitions_and_the_process_before_is_fenced() {
    let (mut world, uids, group) = world_with(2, &[]);
    let before = join(&mut world, group, "rack-1", &["t"]);
    let after = join(&mut world, group, "rack-1", &["t"]);
    assert_eq!(after.owns.iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), uids);
    assert!(after.owns.iter().zip(&before.owns).all(|(new, old)| new.1 > old.1));
    ask_heartbeat(&mut world, &before, "rack-1", 0);
    world.settle();
    assert_eq!(world.reply_error(), ErrorCode::MemberFenced);
    assert_eq!(fetch(&mut world, group, &[after.owns[0]])[0].0, ErrorCode::Ok);
    assert_eq!(commit(&mut world, group, &[(uids[0], before.owns[0].1, 0)]), [ErrorCode::StaleAssignment]);
}

#[test]
fn settings_belong_to_the_group_and_who_wants_to_be_alone_is() {
    let (mut world, uids, group) = world_with(1, &[]);
    let member = join(&mut world, group, "", &["t"]);
    let refused = |world: &mut World, flags, assignor, session_timeout_ms, topics: &[&str]| {
        world.request(Kind::JoinGroup, &[], |out| {
            let topics = List::of(topics);
            JoinGroupRequest { group_uid: group, flags, assignor, session_timeout_ms, instance: "", client: "", topics }.encode(out)
        });
        world.settle();
        world.reply_error()
    };
    let none = JoinFlags::default();
    assert_eq!(refused(&mut world, none, Assignor::Uniform, SESSION_MS, &["t"]), ErrorCode::GroupSettingsDiffer);
    assert_eq!(refused(&mut world, none, Assignor::Sticky, SESSION_MS + 1, &["t"]), ErrorCode::GroupSettingsDiffer);
    assert_eq!(refused(&mut world, none, Assignor::Sticky, 999, &["t"]), ErrorCode::InvalidRequest);
    assert_eq!(refused(&mut world, none, Assignor::Sticky, SESSION_MS, &[]), ErrorCode::InvalidRequest);
    assert_eq!(refused(&mut world, JoinFlags::ALONE, Assignor::Sticky, SESSION_MS, &["t"]), ErrorCode::GroupNotEmpty);
    leave(&mut world, &member);
    let correlation = ask_join(&mut world, group, JoinFlags::ALONE, "", &["t"]);
    world.settle();
    let (answered, meta, _) = world.reply_ok();
    assert_eq!(answered, correlation);
    let alone = JoinGroupReply::decode(&meta).unwrap();
    assert_eq!(alone.partitions.iter().map(|granted| granted.partition_uid).collect::<Vec<_>>(), uids);
    assert_eq!(refused(&mut world, none, Assignor::Sticky, SESSION_MS, &["t"]), ErrorCode::GroupNotEmpty);
    assert!(alone.member_id > member.id);
}

fn leave(world: &mut World, member: &Member) {
    world.request(Kind::LeaveGroup, &[], |out| {
        LeaveGroupRequest { group_uid: member.group_uid, member_id: member.id, flags: LeaveFlags::default(), instance: "" }.encode(out)
    });
    world.settle();
    LeaveGroupReply::decode(&world.reply_ok().1).unwrap();
}

fn ask_delete(world: &mut World, name: &str) {
    world.request(Kind::DeleteGroup, &[], |out| DeleteGroupRequest { name }.encode(out));
    world.settle();
}

#[test]
fn a_group_is_deleted_with_its_offsets_once_nobody_is_in_it() {
    let (mut world, uids, group) = world_with(1, &[]);
    let member = join(&mut world, group, "", &["t"]);
    assert_eq!(fetch(&mut world, group, &[member.owns[0]])[0].0, ErrorCode::Ok);
    fill(&mut world, uids[0], 2);
    assert_eq!(commit(&mut world, group, &[(uids[0], member.owns[0].1, 2)]), [ErrorCode::Ok]);
    ask_delete(&mut world, "g");
    assert_eq!(world.reply_error(), ErrorCode::GroupNotEmpty);
    leave(&mut world, &member);
    ask_delete(&mut world, "g");
    DeleteGroupReply::decode(&world.reply_ok().1).unwrap();
    ask_delete(&mut world, "g");
    assert_eq!(world.reply_error(), ErrorCode::UnknownGroup);
    let mut dice = Dice(5);
    let mut world = world.crash(Tear::Nothing, &mut dice);
    let next = find(&mut world, "g").group_uid;
    assert_ne!(next, group);
    assert_eq!(fetch(&mut world, next, &[(uids[0], 0)]), [(ErrorCode::Ok, OFFSET_NONE, String::new())]);
    ask_commit(&mut world, group, &[(uids[0], 0, 1)]);
    world.settle();
    assert_eq!(world.reply_error(), ErrorCode::UnknownGroup, "the uid of the one before");
}

#[test]
fn a_request_for_offsets_is_no_larger_than_what_the_log_takes_at_once() {
    let (mut world, uids, group) = world_with(1, &[]);
    let entries = |count: usize| vec![(uids[0], 0, 0); count];
    assert_eq!(commit(&mut world, group, &entries(1000)), vec![ErrorCode::Ok; 1000]);
    // 44 bytes each, and four of text.
    ask_commit(&mut world, group, &entries(1025));
    assert_eq!(world.reply_error(), ErrorCode::LimitExceeded);
    ask_commit(&mut world, group, &[]);
    assert_eq!(world.reply_error(), ErrorCode::InvalidRequest);
    let long = "x".repeat(OFFSET_METADATA_BYTES_MAX + 1);
    let entries = [OffsetCommit { partition_uid: uids[0], assignment_epoch: 0, offset: 0, metadata: &long }];
    world.request(Kind::CommitOffsets, &[], |out| CommitOffsetsRequest { group_uid: group, entries: List::of(&entries) }.encode(out));
    assert_eq!(world.reply_error(), ErrorCode::InvalidRequest);
}

#[test]
fn a_member_that_tells_an_epoch_that_nobody_gave_it_joins_again() {
    let (mut world, _, group) = world_with(1, &[]);
    let mut member = join(&mut world, group, "", &["t"]);
    member.epoch += 1;
    ask_heartbeat(&mut world, &member, "", 0);
    world.settle();
    assert_eq!(world.reply_error(), ErrorCode::UnknownMember);
}

/// What the log says of it behind the checkpoint builds on members that no checkpoint has any more.
#[test]
fn a_deleted_group_stops_no_start() {
    let (mut world, _, group) = world_with(2, &[]);
    let mut first = join(&mut world, group, "", &["t"]);
    let mut second = join(&mut world, group, "", &["t"]);
    heartbeat(&mut world, &mut first);
    heartbeat(&mut world, &mut first);
    heartbeat(&mut world, &mut second);
    assert_eq!((first.owns.len(), second.owns.len()), (1, 1));
    // Segments are sealed, and their joins with them; retention moves starts, so that an orderly stop writes a checkpoint.
    world.create_topic("filler", 1, &[("retention.bytes", "16384")]);
    let filler = world.uids("filler")[0];
    fill(&mut world, filler, 300);
    // The first gets what the second had, and goes too.
    leave(&mut world, &second);
    leave(&mut world, &first);
    ask_delete(&mut world, "g");
    DeleteGroupReply::decode(&world.reply_ok().1).unwrap();
    assert!(world.shard.owes_checkpoint());
    let _ = world.step(Event::Mesh { from: ShardId(0), message: Message::Stop });
    world.settle();
    assert!(world.shard.has_stopped());
    let mut world = world.crash(Tear::Nothing, &mut Dice(5));
    assert_ne!(find(&mut world, "g").group_uid, group);
}

#[test]
fn who_looks_and_claims_at_once_is_told_of_both() {
    let (mut world, uids, group) = world_with(2, &[]);
    let member = join(&mut world, group, "", &["t"]);
    // Nobody has ever committed, or claimed, anything of the second partition.
    let nothing = (ErrorCode::Ok, OFFSET_NONE, String::new());
    assert_eq!(fetch(&mut world, group, &[member.owns[0], (uids[1], 0)]), [nothing.clone(), nothing]);
}

#[test]
fn a_commit_that_meets_the_deletion_of_its_group_says_so() {
    let (mut world, uids, group) = world_with(1, &[]);
    let asked = ask_commit(&mut world, group, &[(uids[0], 0, 0)]);
    ask_delete(&mut world, "g");
    let meta = world.reply_to(asked);
    let told: Vec<_> = CommitOffsetsReply::decode(&meta).unwrap().entries.iter().map(|entry| entry.error).collect();
    assert_eq!(told, [ErrorCode::UnknownGroup], "the topic is there");
}

#[test]
fn a_partition_that_is_to_be_given_up_is_described_as_its_owners() {
    let (mut world, uids, group) = world_with(2, &[]);
    let first = join(&mut world, group, "", &["t"]);
    let second = join(&mut world, group, "", &["t"]);
    assert!(second.owns.is_empty(), "the first has not given anything up yet");
    let meta = describe(&mut world, "g");
    let told: Vec<_> = DescribeGroupReply::decode(&meta).unwrap().partitions.iter().map(|p| (p.uid, p.member_id)).collect();
    assert_eq!(told, [(uids[0], first.id), (uids[1], first.id)]);
}

#[test]
fn nobody_joins_a_group_that_is_being_deleted() {
    let (mut world, _, group) = world_with(1, &[]);
    let deleted = world.request(Kind::DeleteGroup, &[], |out| DeleteGroupRequest { name: "g" }.encode(out));
    ask_join(&mut world, group, JoinFlags::default(), "", &["t"]);
    assert_eq!(world.reply_error(), ErrorCode::UnknownGroup, "the metadata have not changed yet");
    world.settle();
    DeleteGroupReply::decode(&world.reply_to(deleted)).unwrap();
    assert_eq!(find(&mut world, "g"), FindGroupReply { created: true, group_uid: group + 1, node: 1, shard: 0 });
}

#[test]
fn topics_that_come_and_go_change_who_owns_what() {
    let (mut world, uids, group) = world_with(2, &[]);
    let mut member = join(&mut world, group, "", &["t", "later"]);
    assert_eq!(member.owns.len(), 2);
    let held = ask_heartbeat(&mut world, &member, "", 1_000);
    world.create_topic("later", 1, &[]);
    let later = world.uids("later")[0];
    world.settle();
    take_heartbeat(&mut world, &mut member, held);
    assert_eq!(member.owns.iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), [uids[0], uids[1], later]);
    world.request(Kind::DeleteTopic, &[], |out| DeleteTopicRequest { name: "t" }.encode(out));
    world.settle();
    world.reply_ok();
    heartbeat(&mut world, &mut member);
    assert_eq!(member.owns.iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), [later]);
}

fn describe(world: &mut World, name: &str) -> Vec<u8> {
    world.request(Kind::DescribeGroup, &[], |out| DescribeGroupRequest { name, from_topic: "", from_partition: 0 }.encode(out));
    world.settle();
    world.reply_ok().1
}

#[test]
fn a_group_is_described_with_what_is_left_to_read() {
    let (mut world, uids, group) = world_with(2, &[]);
    let member = join(&mut world, group, "", &["t"]);
    fill(&mut world, uids[0], 10);
    assert_eq!(fetch(&mut world, group, &member.owns)[0].1, OFFSET_NONE);
    for second in 1..6 {
        pass(&mut world, 1000);
        let (uid, epoch) = member.owns[0];
        assert_eq!(commit(&mut world, group, &[(uid, epoch, second)]), [ErrorCode::Ok]);
    }
    let meta = describe(&mut world, "g");
    let reply = DescribeGroupReply::decode(&meta).unwrap();
    assert_eq!((reply.group_uid, reply.name, reply.session_timeout_ms, reply.members.len()), (group, "g", SESSION_MS, 1));
    let told = reply.members.iter().next().unwrap();
    assert_eq!((told.member_id, told.client, told.partitions, told.target), (member.id, "test", 2, 2));
    let of: Vec<_> = reply.partitions.iter().collect();
    assert_eq!(
        of.iter().map(|p| (p.topic, p.index, p.uid, p.member_id, p.offset, p.committed_end)).collect::<Vec<_>>(),
        [("t", 0, uids[0], member.id, 5, 10), ("t", 1, uids[1], member.id, OFFSET_NONE, 0),]
    );
    assert!((5_000..6_000).contains(&of[0].lag_bytes) && of[0].lag_ms >= 5_000, "{of:?}");
    assert!((4_000..6_000).contains(&of[0].drain_ms), "five records at one a second: {of:?}");
    assert_eq!((of[1].lag_bytes, of[1].lag_ms, of[1].drain_ms), (0, 0, 0), "{of:?}");
    let told = snapshot(&mut world);
    let [lag] = told.labelled.groups.as_slice() else { panic!("one group: {:?}", told.labelled.groups) };
    assert_eq!((lag.name.as_str(), lag.lag_messages, lag.lag_bytes, lag.lag_us), ("g", 5, of[0].lag_bytes, of[0].lag_ms * 1000));
    assert_eq!(lag.drain_us, Some(of[0].drain_ms * 1000));
    let (uid, epoch) = member.owns[0];
    assert_eq!(commit(&mut world, group, &[(uid, epoch, 10)]), [ErrorCode::Ok]);
    let told = snapshot(&mut world);
    assert_eq!((told.labelled.groups[0].lag_messages, told.labelled.groups[0].drain_us), (0, Some(0)));
}

#[test]
fn a_group_that_nobody_uses_is_forgotten_after_a_while_and_one_that_is_used_is_not() {
    let (mut world, uids, group) = world_with(1, &[("group.expiry", "10s")]);
    fill(&mut world, uids[0], 1);
    let used = find(&mut world, "used").group_uid;
    assert_eq!(commit(&mut world, group, &[(uids[0], 0, 1)]), [ErrorCode::Ok]);
    let mut member = join(&mut world, used, "", &["t"]);
    for _ in 0..9 {
        pass(&mut world, 1_000);
        heartbeat(&mut world, &mut member);
    }
    assert!(!find(&mut world, "g").created, "nine seconds after its commit");
    for _ in 0..6 {
        pass(&mut world, 1_000);
        heartbeat(&mut world, &mut member);
    }
    ask_find(&mut world, "g", FindGroupFlags::default());
    assert_eq!(world.reply_error(), ErrorCode::UnknownGroup);
    assert_eq!(find(&mut world, "used").group_uid, used);
}

#[test]
fn a_connection_that_goes_leaves_its_member_its_time() {
    let (mut world, _, group) = world_with(1, &[]);
    let mut member = join(&mut world, group, "", &["t"]);
    ask_heartbeat(&mut world, &member, "", 2_000);
    world.settle();
    let _ = world.step(Event::Closed { conn: CLIENT });
    world.connect();
    pass(&mut world, 3_000);
    world.replies.clear();
    heartbeat(&mut world, &mut member);
    assert_eq!(member.owns.len(), 1);
}

#[test]
fn partitions_that_do_not_fit_one_description_come_with_the_next() {
    let (mut world, uids, group) = world_with(1_200, &[]);
    let member = join(&mut world, group, "", &["t"]);
    assert_eq!(member.owns.len(), uids.len());
    let mut page = |from_topic: &str, from_partition: u32| {
        let asked = DescribeGroupRequest { name: "g", from_topic, from_partition };
        world.request(Kind::DescribeGroup, &[], |out| asked.encode(out));
        world.settle();
        let meta = world.reply_ok().1;
        let reply = DescribeGroupReply::decode(&meta).unwrap();
        assert_eq!(reply.members.len(), 1);
        (reply.partitions.iter().map(|of| of.index).collect::<Vec<_>>(), reply.more)
    };
    assert_eq!(page("", 0), ((0..1_000).collect(), true));
    assert_eq!(page("t", 1_000), ((1_000..1_200).collect(), false));
    assert_eq!(page("s", 1_100), ((0..1_000).collect(), true));
    assert_eq!(page("u", 0), (vec![], false));
}
