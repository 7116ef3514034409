//! Queues by name against a whole shard, and what a record may say to queues.

use super::world::{World, produce_results};
use tramline_wire::batch::{Attributes, BatchBuilder, Limits, NewRecord, ProducerMark};
use tramline_wire::error::ErrorCode;
use tramline_wire::hello::{HelloReply, HelloRequest};
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::prim::List;
use tramline_wire::produce::{ProduceEntry, ProduceRequestWriter};
use tramline_wire::queue::{
    AlterQueueRequest, CreateQueueFlags, CreateQueueReply, CreateQueueRequest, DeleteQueueRequest, DescribeQueueReply,
    DescribeQueueRequest, FindQueueReply, FindQueueRequest, ListQueuesReply, ListQueuesRequest, QueueFlags, QueueStart,
};
use tramline_wire::topics::{DeleteTopicRequest, DescribeTopicReply, DescribeTopicRequest, Setting};

const NO_FLAGS: CreateQueueFlags = CreateQueueFlags(0);

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn pairs<'a>(settings: Pairs<'a>) -> Vec<Setting<'a>> {
    settings.iter().map(|(key, value)| Setting { key, value }).collect()
}

fn send_create(world: &mut World, name: &str, topic: &str, flags: CreateQueueFlags, settings: Pairs<'_>) -> u64 {
    let settings = pairs(settings);
    let request = CreateQueueRequest { name, topic, flags, start: QueueStart::Latest, start_us: 0, settings: List::of(&settings) };
    world.request(Kind::CreateQueue, &[], |out| request.encode(out))
}

/// The queue's uid, and whether it was created.
fn create(world: &mut World, name: &str, topic: &str, flags: CreateQueueFlags, settings: Pairs<'_>) -> (u64, bool) {
    let asked = send_create(world, name, topic, flags, settings);
    world.settle();
    let meta = world.reply_to(asked);
    let reply = CreateQueueReply::decode(&meta).unwrap();
    (reply.queue_uid, reply.created)
}

fn refused(world: &mut World, name: &str, topic: &str, settings: Pairs<'_>) -> ErrorCode {
    send_create(world, name, topic, NO_FLAGS, settings);
    world.settle();
    world.reply_error()
}

fn send_alter(world: &mut World, name: &str, settings: Pairs<'_>) -> u64 {
    let settings = pairs(settings);
    let asked = world.request(Kind::AlterQueue, &[], |out| AlterQueueRequest { name, settings: List::of(&settings) }.encode(out));
    world.settle();
    asked
}

fn alter_refused(world: &mut World, name: &str, settings: Pairs<'_>) -> ErrorCode {
    send_alter(world, name, settings);
    world.reply_error()
}

fn delete(world: &mut World, name: &str) -> u64 {
    let asked = world.request(Kind::DeleteQueue, &[], |out| DeleteQueueRequest { name }.encode(out));
    world.settle();
    asked
}

/// (name, topic) of all queues.
fn list(world: &mut World) -> Vec<(String, String)> {
    let asked = world.request(Kind::ListQueues, &[], |out| ListQueuesRequest { after: "" }.encode(out));
    let meta = world.reply_to(asked);
    let reply = ListQueuesReply::decode(&meta).unwrap();
    reply.queues.iter().map(|queue| (queue.name.to_owned(), queue.topic.to_owned())).collect()
}

/// (uid, visibility timeout, flags, topic) of a queue that there is.
fn find(world: &mut World, name: &str) -> (u64, u32, QueueFlags, String) {
    let asked = world.request(Kind::FindQueue, &[], |out| FindQueueRequest { name }.encode(out));
    let meta = world.reply_to(asked);
    let reply = FindQueueReply::decode(&meta).unwrap();
    (reply.queue_uid, reply.visibility_timeout_ms, reply.flags, reply.topic.to_owned())
}

fn find_refused(world: &mut World, name: &str) -> ErrorCode {
    world.request(Kind::FindQueue, &[], |out| FindQueueRequest { name }.encode(out));
    world.reply_error()
}

fn partitions(world: &mut World, topic: &str) -> usize {
    let asked = world.request(Kind::DescribeTopic, &[], |out| DescribeTopicRequest { name: topic }.encode(out));
    let meta = world.reply_to(asked);
    DescribeTopicReply::decode(&meta).unwrap().partitions.len()
}

#[test]
fn a_queue_is_created_found_altered_and_deleted() {
    let mut world = World::new();
    world.create_topic("t", 2, &[]);
    let asked = send_create(&mut world, "q", "t", NO_FLAGS, &[("visibility.timeout.ms", "5000"), ("exclusive", "true")]);
    assert!(world.replies.is_empty() && find_refused(&mut world, "q") == ErrorCode::UnknownQueue, "the change is not durable yet");
    world.settle();
    let meta = world.reply_to(asked);
    let CreateQueueReply { queue_uid, created } = CreateQueueReply::decode(&meta).unwrap();
    assert!(created && queue_uid > 0);
    assert_eq!(find(&mut world, "q"), (queue_uid, 5000, QueueFlags::EXCLUSIVE, "t".to_owned()));
    let asked = send_alter(&mut world, "q", &[("visibility.timeout.ms", ""), ("paused", "true")]);
    world.reply_to(asked);
    assert_eq!(find(&mut world, "q"), (queue_uid, 30_000, QueueFlags::EXCLUSIVE.with(QueueFlags::PAUSED), "t".to_owned()));
    let (other, _) = create(&mut world, "p", "t", NO_FLAGS, &[]);
    assert_ne!(other, queue_uid);
    assert_eq!(list(&mut world), [("p".to_owned(), "t".to_owned()), ("q".to_owned(), "t".to_owned())]);
    let asked = delete(&mut world, "q");
    world.reply_to(asked);
    assert_eq!(list(&mut world), [("p".to_owned(), "t".to_owned())]);
    assert_eq!(find_refused(&mut world, "q"), ErrorCode::UnknownQueue);
    let (again, _) = create(&mut world, "q", "t", NO_FLAGS, &[]);
    assert!(again > other, "a uid is given once");
}

#[test]
fn an_existing_queue_is_fine_to_who_says_so_and_left_as_it_is() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    world.create_topic("u", 1, &[]);
    let (uid, created) = create(&mut world, "q", "t", CreateQueueFlags::IF_NOT_EXISTS, &[]);
    assert!(created);
    assert_eq!(create(&mut world, "q", "u", CreateQueueFlags::IF_NOT_EXISTS, &[("paused", "true")]), (uid, false));
    assert_eq!(find(&mut world, "q"), (uid, 30_000, QueueFlags(0), "t".to_owned()));
    assert_eq!(refused(&mut world, "q", "t", &[]), ErrorCode::QueueExists);
    // Two at once: the second is decided when its turn comes.
    let first = send_create(&mut world, "r", "t", CreateQueueFlags::IF_NOT_EXISTS, &[]);
    let second = send_create(&mut world, "r", "t", CreateQueueFlags::IF_NOT_EXISTS, &[]);
    world.settle();
    let answers = [first, second].map(|asked| {
        let meta = world.reply_to(asked);
        CreateQueueReply::decode(&meta).unwrap()
    });
    assert_eq!((answers[0].created, answers[1].created), (true, false));
    assert_eq!(answers[0].queue_uid, answers[1].queue_uid);
}

#[test]
fn who_only_asks_whether_a_queue_is_right_creates_nothing() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let settings: Pairs<'_> = &[("dead.letter.topic", "dead")];
    assert_eq!(create(&mut world, "q", "t", CreateQueueFlags::VALIDATE_ONLY, settings), (0, false));
    assert!(list(&mut world).is_empty());
    world.request(Kind::DescribeTopic, &[], |out| DescribeTopicRequest { name: "dead" }.encode(out));
    assert_eq!(world.reply_error(), ErrorCode::UnknownTopic);
    send_create(&mut world, "q", "nowhere", CreateQueueFlags::VALIDATE_ONLY, &[]);
    assert_eq!(world.reply_error(), ErrorCode::UnknownTopic);
}

#[test]
fn what_is_wrong_with_a_queue_has_a_code() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    world.create_topic("u", 1, &[]);
    assert_eq!(refused(&mut world, "a queue", "t", &[]), ErrorCode::InvalidQueueName);
    assert_eq!(refused(&mut world, "q", "nowhere", &[]), ErrorCode::UnknownTopic);
    assert_eq!(refused(&mut world, "q", "t", &[("retention.ms", "1")]), ErrorCode::UnknownSetting);
    assert_eq!(refused(&mut world, "q", "t", &[("retry.multiplier", "0.5")]), ErrorCode::InvalidSetting);
    assert_eq!(refused(&mut world, "q", "t", &[("dead.letter.topic", "t")]), ErrorCode::DeadLetterCircle);
    create(&mut world, "q", "t", NO_FLAGS, &[("dead.letter.topic", "u")]);
    assert_eq!(refused(&mut world, "r", "u", &[("dead.letter.topic", "t")]), ErrorCode::DeadLetterCircle);
    create(&mut world, "r", "u", NO_FLAGS, &[]);
    assert_eq!(alter_refused(&mut world, "r", &[("dead.letter.topic", "t")]), ErrorCode::DeadLetterCircle);
    assert_eq!(alter_refused(&mut world, "r", &[("paused", "maybe")]), ErrorCode::InvalidSetting);
    assert_eq!(alter_refused(&mut world, "s", &[]), ErrorCode::UnknownQueue);
    delete(&mut world, "s");
    assert_eq!(world.reply_error(), ErrorCode::UnknownQueue);
    for (start, start_us) in [(QueueStart::Latest, 1), (QueueStart::Earliest, -1), (QueueStart::Time, -1)] {
        let request = CreateQueueRequest { name: "s", topic: "t", flags: NO_FLAGS, start, start_us, settings: List::of(&[]) };
        world.request(Kind::CreateQueue, &[], |out| request.encode(out));
        assert_eq!(world.reply_error(), ErrorCode::InvalidRequest, "{start:?} {start_us}");
    }
}

#[test]
fn a_dead_letter_topic_is_there_with_its_queue() {
    let mut world = World::new();
    world.create_topic("t", 2, &[]);
    create(&mut world, "q", "t", NO_FLAGS, &[("dead.letter.topic", "dead")]);
    assert_eq!(partitions(&mut world, "dead"), 2);
    let uid = world.uids("dead")[0];
    world.produce(uid, Level::Durable, &[b"dead".to_vec()]);
    world.settle();
    assert_eq!(produce_results(&world.reply_ok().1)[0].error, ErrorCode::Ok);
    let asked = send_alter(&mut world, "q", &[("dead.letter.topic", "deader")]);
    world.reply_to(asked);
    assert_eq!(partitions(&mut world, "deader"), 2);
}

#[test]
fn a_topic_takes_its_queues_with_it() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    world.create_topic("u", 1, &[]);
    create(&mut world, "q", "t", NO_FLAGS, &[]);
    create(&mut world, "r", "u", NO_FLAGS, &[]);
    let asked = world.request(Kind::DeleteTopic, &[], |out| DeleteTopicRequest { name: "t" }.encode(out));
    world.settle();
    world.reply_to(asked);
    assert_eq!(list(&mut world), [("r".to_owned(), "u".to_owned())]);
}

#[test]
fn queues_are_there_again_after_a_crash() {
    let mut world = World::new();
    world.create_topic("t", 1, &[]);
    let (uid, _) = create(&mut world, "q", "t", NO_FLAGS, &[("paused", "true"), ("dead.letter.topic", "dead")]);
    let mut dice = crate::sim::Dice(7);
    let mut world = world.crash(crate::sim::Tear::Nothing, &mut dice);
    assert_eq!(find(&mut world, "q"), (uid, 30_000, QueueFlags::PAUSED, "t".to_owned()));
    assert_eq!(partitions(&mut world, "dead"), 1);
    assert_eq!(refused(&mut world, "r", "dead", &[("dead.letter.topic", "t")]), ErrorCode::DeadLetterCircle);
    assert!(create(&mut world, "r", "dead", NO_FLAGS, &[]).0 > uid);
}

#[test]
fn the_kinds_that_are_not_answered_are_not_offered_and_refused_as_unknown() {
    let mut world = World::new();
    let hello = HelloRequest { protocol_min: 1, protocol_max: 1, client_name: "test", client_version: "", mechanism: "", auth: b"" };
    let asked = world.request(Kind::Hello, &[], |out| hello.encode(out));
    let meta = world.reply_to(asked);
    let offered = HelloReply::decode(&meta).unwrap();
    for kind in Kind::ALL.iter().filter(|kind| kind.has_reply() && **kind != Kind::Hello) {
        // Nothing of any kind has this body, but those without one.
        let asked = world.request(*kind, &[], |out| DescribeQueueRequest { name: "", first_partition: 0 }.encode(out));
        world.settle();
        let unknown = match world.reply() {
            Some((correlation, flags, meta, _)) => {
                assert_eq!(correlation, asked);
                let is_error = flags & tramline_wire::frame::FLAG_ERROR != 0;
                is_error && tramline_wire::error::ErrorBody::decode(&meta).unwrap().code() == Some(ErrorCode::UnknownKind)
            }
            None => panic!("{kind} is not answered"),
        };
        assert_eq!(offered.api(kind.as_u8()).is_none(), unknown, "{kind}");
    }
}

/// What becomes of a record with these attributes.
fn produced(world: &mut World, uid: u64, attributes: Attributes<'_>) -> ErrorCode {
    let mut builder = BatchBuilder::new(Limits::default());
    let plain = NewRecord { value: Some(b"v"), timestamp_us: world.now.utc_us, ..NewRecord::default() };
    builder.push(&plain).unwrap();
    builder.push(&NewRecord { attributes, ..plain }).unwrap();
    let mut batch = Vec::new();
    builder.finish_plain(&mut batch, ProducerMark::default());
    world.request(Kind::Produce, &batch, |out| {
        let mut writer = ProduceRequestWriter::begin(out, Level::Durable, 0);
        writer.push(out, &ProduceEntry { partition_uid: uid, batch_len: batch.len() as u32 });
        writer.finish(out);
    });
    world.settle();
    produce_results(&world.reply_ok().1)[0].error
}

#[test]
fn a_record_says_nothing_to_queues_that_they_could_not_do() {
    const INVALID: ErrorCode = ErrorCode::InvalidAttribute;
    let mut world = World::new();
    world.create_topic("t", 1, &[("queue.retention.ms", "60000")]);
    world.create_topic("for-ever", 1, &[("queue.retention.ms", "-1")]);
    let (uid, for_ever) = (world.uids("t")[0], world.uids("for-ever")[0]);
    let none = Attributes::default();
    for (priority, expected) in [(0, ErrorCode::Ok), (9, ErrorCode::Ok), (10, INVALID), (255, INVALID)] {
        assert_eq!(produced(&mut world, uid, Attributes { priority: Some(priority), ..none }), expected, "priority {priority}");
    }
    for (ttl_ms, expected) in [(0, INVALID), (1, ErrorCode::Ok), (u32::MAX, ErrorCode::Ok)] {
        assert_eq!(produced(&mut world, uid, Attributes { ttl_ms: Some(ttl_ms), ..none }), expected, "time to live {ttl_ms}");
    }
    let latest = world.now.utc_us + 60_000_000;
    let times =
        [(i64::MIN, INVALID), (-1, INVALID), (0, ErrorCode::Ok), (latest, ErrorCode::Ok), (latest + 1, INVALID), (i64::MAX, INVALID)];
    for (time, expected) in times {
        assert_eq!(produced(&mut world, uid, Attributes { deliver_at_us: Some(time), ..none }), expected, "due at {time}");
    }
    let last = Attributes { deliver_at_us: Some(i64::MAX), priority: Some(9), ttl_ms: Some(1), group: Some(b"g"), message_id: Some(b"m") };
    assert_eq!(produced(&mut world, for_ever, last), ErrorCode::Ok);
    assert_eq!(produced(&mut world, for_ever, Attributes { priority: Some(10), ..last }), INVALID);
    assert_eq!(world.read(uid, 0).0.len(), 2 * 6, "nothing of a refused batch is stored");
}

/// Numbers of the first and last partition that one reply tells of, how many these are, and whether there are more.
fn described(world: &mut World, name: &str, first_partition: u32) -> (Option<(u32, u32)>, usize, bool) {
    let asked = world.request(Kind::DescribeQueue, &[], |out| DescribeQueueRequest { name, first_partition }.encode(out));
    world.settle();
    let meta = world.reply_to(asked);
    let reply = DescribeQueueReply::decode(&meta).unwrap();
    assert!(reply.partitions.iter().all(|of| of.error == ErrorCode::Ok), "each is told of");
    let numbers: Vec<_> = reply.partitions.iter().map(|of| of.partition).collect();
    assert!(numbers.is_sorted());
    (numbers.first().copied().zip(numbers.last().copied()), numbers.len(), reply.more)
}

#[test]
fn partitions_that_do_not_fit_one_description_come_with_the_next() {
    let mut world = World::new();
    world.create_topic("t", 4_500, &[]);
    create(&mut world, "q", "t", NO_FLAGS, &[]);
    assert_eq!(described(&mut world, "q", 0), (Some((0, 1_999)), 2_000, true));
    assert_eq!(described(&mut world, "q", 2_000), (Some((2_000, 3_999)), 2_000, true));
    assert_eq!(described(&mut world, "q", 4_000), (Some((4_000, 4_499)), 500, false));
    assert_eq!(described(&mut world, "q", 4_500), (None, 0, false));
}

#[test]
fn a_long_list_of_queues_comes_in_pages() {
    // With names as long as may be.
    let mut world = World::new();
    let name = |number: usize| format!("{number:0>249}");
    let topic = "u".repeat(249);
    world.create_topic(&topic, 1, &[]);
    for number in 0..2_001 {
        create(&mut world, &name(number), &topic, NO_FLAGS, &[]);
    }
    create(&mut world, "q", &topic, NO_FLAGS, &[]);
    let mut page = |after: &str| {
        let asked = world.request(Kind::ListQueues, &[], |out| ListQueuesRequest { after }.encode(out));
        let meta = world.reply_to(asked);
        let reply = ListQueuesReply::decode(&meta).unwrap();
        (reply.queues.iter().map(|queue| queue.name.to_owned()).collect::<Vec<_>>(), reply.more)
    };
    let (first, more) = page("");
    assert!(more && first.len() == 2_000 && first.iter().enumerate().all(|(number, queue)| *queue == name(number)));
    assert_eq!(page(&name(1_999)), (vec![name(2_000), "q".to_owned()], false));
    assert_eq!(page("q"), (vec![], false));
}
