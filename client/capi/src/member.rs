//! Members of consumer groups: the exported functions.
//!
//! Invariants: as for consumers (`consumer.rs`); the caller's function for partitions is kept for one call only, in which it runs in the calling thread.
//! Not here: what a member promises (`tramline-client`).

use std::ffi::{c_char, c_int, c_void};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tramline_client::{Assignor, Commit, GroupConfig, GroupConsumer, GroupListener, OffsetReset, Revoked, TopicPartition};

use crate::args;
use crate::client::{check_reserved, with_client};
use crate::constants::{
    ASSIGNOR_STICKY, ASSIGNOR_UNIFORM, OFFSET_NONE, PARTS_ASSIGNED, PARTS_LOST, PARTS_REVOKED, RESET_EARLIEST, RESET_LATEST, RESET_NONE,
};
use crate::consumer::{Hand, RecordFn, start};
use crate::failure::Failure;
use crate::guard::guard;
use crate::handles::{Kind, Table};
use crate::layout::{ClientHandle, MemberHandle, MemberOptions, MemberPart};

static MEMBERS: Table<Member> = Table::new(Kind::Member);

/// A caller's function for partitions that come and go.
pub type PartsFn = unsafe extern "C" fn(what: c_int, parts: *mut MemberPart, count: usize, user: *mut c_void);

struct Member {
    consumer: GroupConsumer,
    ear: Ear,
}

/// Tells the caller's function of the call that is under way, if it gave one.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Option<Changed>>>);

#[derive(Clone, Copy)]
struct Changed {
    each: PartsFn,
    user: *mut c_void,
}

// SAFETY: it is set and taken away within one call of the member's, and used by that call's thread alone; between calls there is none.
unsafe impl Send for Changed {}

impl Ear {
    fn set(&self, changed: Option<Changed>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = changed;
    }

    fn tell(&self, what: c_int, parts: &mut [MemberPart]) {
        let changed = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Changed { each, user }) = changed {
            // SAFETY: the caller gave the function for this, and promised that it returns in the ordinary way; the parts and their topics live until it has.
            unsafe { each(what, parts.as_mut_ptr(), parts.len(), user) };
        }
    }
}

fn part(of: &TopicPartition, position: Option<u64>) -> MemberPart {
    MemberPart {
        topic: of.topic.as_ptr().cast(),
        topic_len: of.topic.len(),
        position: position.unwrap_or(OFFSET_NONE),
        commit_offset: OFFSET_NONE,
        partition: of.partition,
        reserved: 0,
    }
}

impl GroupListener for Ear {
    fn on_assigned(&mut self, partitions: &[TopicPartition]) {
        self.tell(PARTS_ASSIGNED, &mut partitions.iter().map(|of| part(of, None)).collect::<Vec<_>>());
    }
    fn on_revoked(&mut self, revoked: &mut Revoked<'_>) {
        let mut parts: Vec<MemberPart> = revoked.positions().map(|(of, position)| part(of, position)).collect();
        self.tell(PARTS_REVOKED, &mut parts);
        let names = revoked.partitions().to_vec();
        for (of, part) in names.iter().zip(parts).filter(|(_, part)| part.commit_offset != OFFSET_NONE) {
            revoked.commit(of, part.commit_offset, "");
        }
    }
    fn on_lost(&mut self, partitions: &[TopicPartition]) {
        self.tell(PARTS_LOST, &mut partitions.iter().map(|of| part(of, None)).collect::<Vec<_>>());
    }
}

impl Member {
    /// One call, in which the caller's function is told.
    fn told<R>(&mut self, changed: Option<PartsFn>, user: *mut c_void, call: impl FnOnce(&mut GroupConsumer) -> R) -> R {
        self.ear.set(changed.map(|each| Changed { each, user }));
        let result = call(&mut self.consumer);
        self.ear.set(None);
        result
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn defaults() -> MemberOptions {
    let config = GroupConfig::new("", &[]);
    MemberOptions {
        struct_size: size_of::<MemberOptions>(),
        instance_id: std::ptr::null(),
        session_timeout_us: microseconds(config.session_timeout),
        auto_commit_interval_us: microseconds(config.auto_commit_interval),
        assignor: ASSIGNOR_STICKY,
        auto_offset_reset: RESET_EARLIEST,
        auto_commit: u32::from(config.auto_commit),
        credit_bytes: config.consumer.credit_bytes,
        partition_bytes_max: config.consumer.partition_bytes_max,
        verify_checksums: u32::from(config.consumer.verify_checksums),
        batch_values_bytes_max: config.consumer.batch_values_bytes_max,
        reserved: 0,
    }
}

/// # Safety
/// `options.instance_id` is null, or NUL-terminated.
unsafe fn config(group: &str, topics: &[&str], options: MemberOptions) -> Result<GroupConfig, Failure> {
    check_reserved(options.reserved)?;
    let mut config = GroupConfig::new(group, topics);
    if !options.instance_id.is_null() {
        // SAFETY: as the caller says.
        config.instance_id = Some(unsafe { args::text(options.instance_id, "instance_id")? }.to_string());
    }
    config.session_timeout = Duration::from_micros(options.session_timeout_us);
    config.auto_commit_interval = Duration::from_micros(options.auto_commit_interval_us);
    config.assignor = match options.assignor {
        ASSIGNOR_STICKY => Assignor::Sticky,
        ASSIGNOR_UNIFORM => Assignor::Uniform,
        other => {
            return Err(Failure::argument(format!("assignor is {other}, which means nothing: see TRAMLINE_ASSIGNOR_... in tramline.h")));
        }
    };
    config.auto_offset_reset = match options.auto_offset_reset {
        RESET_EARLIEST => OffsetReset::Earliest,
        RESET_LATEST => OffsetReset::Latest,
        RESET_NONE => OffsetReset::None,
        other => {
            return Err(Failure::argument(format!(
                "auto_offset_reset is {other}, which means nothing: see TRAMLINE_RESET_... in tramline.h"
            )));
        }
    };
    config.auto_commit = args::flag(options.auto_commit, "auto_commit")?;
    config.consumer.credit_bytes = options.credit_bytes;
    config.consumer.partition_bytes_max = options.partition_bytes_max;
    config.consumer.verify_checksums = args::flag(options.verify_checksums, "verify_checksums")?;
    config.consumer.batch_values_bytes_max = options.batch_values_bytes_max;
    Ok(config)
}

/// Uses a member, of which a partition that it reads is meant.
///
/// # Safety
/// `topic` is null, or a NUL-terminated string.
unsafe fn with_part<R>(
    member: MemberHandle,
    topic: *const c_char,
    partition: u32,
    each: impl FnOnce(&mut GroupConsumer, &str) -> Result<R, Failure>,
) -> Result<R, Failure> {
    // SAFETY: as the caller says.
    let topic = unsafe { args::text(topic, "topic")? };
    MEMBERS.with(member.id, |member| {
        let has = member.consumer.assigned().iter().any(|of| (of.topic.as_str(), of.partition) == (topic, partition));
        match has {
            true => each(&mut member.consumer, topic),
            false => Err(Failure::argument(format!("topic {topic} partition {partition} is not assigned to this member"))),
        }
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_member_options_defaults(options: *mut MemberOptions, options_size: usize) -> c_int {
    // SAFETY: the caller says that `options_size` bytes can be written there, or gives null.
    guard(|| unsafe { args::put_struct(options, options_size, defaults(), "options") })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_member_open(
    client: ClientHandle,
    group: *const c_char,
    topics: *const *const c_char,
    topic_count: usize,
    options: *const MemberOptions,
    out: *mut MemberHandle,
) -> c_int {
    guard(|| {
        // SAFETY: the caller says that there is room for a handle, or gives null.
        unsafe { args::put(out, MemberHandle { id: 0 }, "out")? };
        // SAFETY: the caller says that strings are NUL-terminated, that the array has so many and the struct is as long as it says, or gives null.
        let config = unsafe {
            let options = if options.is_null() { defaults() } else { args::sized(options, "options")? };
            config(args::text(group, "group")?, &args::texts(topics, topic_count, "topics")?, options)?
        };
        let ear = Ear::default();
        let consumer = with_client(client, |client| Ok(client.group_consumer_with(config, ear.clone())?))?;
        let id = MEMBERS.insert(Member { consumer, ear })?;
        // SAFETY: as above.
        unsafe { args::put(out, MemberHandle { id }, "out") }
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_member_poll(
    member: MemberHandle,
    timeout_us: u64,
    each: Option<RecordFn>,
    changed: Option<PartsFn>,
    user: *mut c_void,
    records: *mut usize,
) -> c_int {
    guard(|| {
        // SAFETY: the caller says that there is room for a number, or gives null.
        unsafe { args::put_if_wanted(records, 0) };
        let mut hand = Hand::new(each, user)?;
        let timeout = Duration::from_micros(timeout_us);
        let result = MEMBERS.with(member.id, |member| {
            let polled =
                member.told(changed, user, |consumer| consumer.poll_until(timeout, |record| -> ControlFlow<()> { hand.out(record) }));
            Ok(polled.map(|_| ())?)
        });
        // SAFETY: as above.
        unsafe { args::put_if_wanted(records, hand.count()) };
        result
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_member_commit(member: MemberHandle) -> c_int {
    guard(|| MEMBERS.with(member.id, |member| Ok(member.consumer.commit_sync()?)))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_member_commit_offset(
    member: MemberHandle,
    topic: *const c_char,
    partition: u32,
    offset: u64,
    metadata: *const c_char,
) -> c_int {
    guard(|| {
        // SAFETY: the caller says that the strings are NUL-terminated, or gives null.
        let (topic, metadata) = unsafe {
            let metadata = if metadata.is_null() { "" } else { args::text(metadata, "metadata")? };
            (args::text(topic, "topic")?.to_string(), metadata.to_string())
        };
        if offset == OFFSET_NONE {
            return Err(Failure::argument("offset is TRAMLINE_OFFSET_NONE, which is no offset: none was told"));
        }
        let commit = Commit { topic, partition, offset, metadata };
        MEMBERS.with(member.id, |member| Ok(member.consumer.commit_offsets_sync(&[commit])?))
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_member_stop_auto_commit(member: MemberHandle) -> c_int {
    guard(|| {
        MEMBERS.with(member.id, |member| {
            member.consumer.stop_auto_commit();
            Ok(())
        })
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_member_committed(member: MemberHandle, topic: *const c_char, partition: u32, offset: *mut u64) -> c_int {
    guard(|| {
        // SAFETY: the caller says that the string is NUL-terminated, or gives null.
        let topic = unsafe { args::text(topic, "topic")? };
        let found = MEMBERS.with(member.id, |member| Ok(member.consumer.committed(topic, &[partition])?))?;
        // SAFETY: the caller says that there is room for a number, or gives null.
        unsafe { args::put(offset, found.first().copied().flatten().unwrap_or(OFFSET_NONE), "offset") }
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_member_seek(
    member: MemberHandle,
    topic: *const c_char,
    partition: u32,
    start_kind: c_int,
    at: u64,
) -> c_int {
    guard(|| {
        let start = start(start_kind, at)?;
        // SAFETY: the caller says that the string is NUL-terminated, or gives null.
        unsafe { with_part(member, topic, partition, |member, topic| Ok(member.seek(topic, partition, start)?)) }
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_member_pause(member: MemberHandle, topic: *const c_char, partition: u32) -> c_int {
    // SAFETY: the caller says that the string is NUL-terminated, or gives null.
    guard(|| unsafe { with_part(member, topic, partition, |member, topic| Ok(member.pause(topic, partition))) }.map(|_| ()))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_member_resume(member: MemberHandle, topic: *const c_char, partition: u32) -> c_int {
    // SAFETY: the caller says that the string is NUL-terminated, or gives null.
    guard(|| unsafe { with_part(member, topic, partition, |member, topic| Ok(member.resume(topic, partition))) }.map(|_| ()))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tramline_member_position(member: MemberHandle, topic: *const c_char, partition: u32, offset: *mut u64) -> c_int {
    guard(|| {
        // SAFETY: the caller says that the string is NUL-terminated, or gives null.
        let position = unsafe { with_part(member, topic, partition, |member, topic| Ok(member.position(topic, partition)))? };
        // SAFETY: the caller says that there is room for a number, or gives null.
        unsafe { args::put(offset, position.unwrap_or(OFFSET_NONE), "offset") }
    })
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_member_close(member: MemberHandle, timeout_us: u64, changed: Option<PartsFn>, user: *mut c_void) -> c_int {
    guard(|| end(member, changed, user, |consumer| consumer.close(Duration::from_micros(timeout_us))))
}

/// See tramline.h.
#[unsafe(no_mangle)]
pub extern "C" fn tramline_member_leave(member: MemberHandle, timeout_us: u64, changed: Option<PartsFn>, user: *mut c_void) -> c_int {
    guard(|| end(member, changed, user, |consumer| consumer.leave(Duration::from_micros(timeout_us))))
}

fn end(
    member: MemberHandle,
    changed: Option<PartsFn>,
    user: *mut c_void,
    end: impl FnOnce(GroupConsumer) -> Result<(), tramline_client::Error>,
) -> Result<(), Failure> {
    MEMBERS.end(member.id, |Member { consumer, ear }| {
        ear.set(changed.map(|each| Changed { each, user }));
        Ok(end(consumer)?)
    })
}
