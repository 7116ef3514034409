//! The twin of a member of a consumer group: turns inside of futures, waits by returning `Pending`.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{TURNS_PER_POLL, Timer, asked};
use crate::admin::Shared;
use crate::config::GroupConfig;
use crate::core::Now;
use crate::core::consumer::RecordView;
use crate::core::group::CommitKind;
use crate::error::Error;
use crate::group_listener::{Commit, GroupListener, TopicPartition};
use crate::metrics::ConsumerMetrics;
use crate::pump::group::{GroupPump, first_error};
use crate::transport::AsyncSocket;
use crate::types::Start;

/// A member of a consumer group; the same guarantees as [`crate::GroupConsumer`]. The membership lives inside of its futures: one of them has to be polled at least once per
/// session timeout.
#[derive(Debug)]
pub struct GroupConsumer {
    shared: Arc<Shared>,
    pump: GroupPump<AsyncSocket>,
    timer: Timer,
}

impl GroupConsumer {
    pub(super) fn new(shared: Arc<Shared>, config: GroupConfig, listener: Box<dyn GroupListener>) -> Result<GroupConsumer, Error> {
        let pump = GroupPump::new(&shared, config, listener)?;
        Ok(GroupConsumer { shared, pump, timer: Timer::default() })
    }

    /// Hands out records of the partitions that the member has; waits for the first, for as long as it takes. Returns how many. Errors as of [`crate::GroupConsumer::poll`].
    pub async fn poll(&mut self, mut each: impl FnMut(&RecordView<'_>)) -> Result<usize, Error> {
        self.poll_until(|record| {
            each(record);
            ControlFlow::Continue(())
        })
        .await
    }

    /// As [`poll`](Self::poll), but stops after the record for which `each` says `Break`; the next poll goes on after it.
    pub async fn poll_until(&mut self, mut each: impl FnMut(&RecordView<'_>) -> ControlFlow<()>) -> Result<usize, Error> {
        poll_fn(|context| {
            self.turns(context, GroupPump::next_step_us, |pump, now| {
                if let Some(error) = pump.take_error() {
                    return (Some(Err(error)), true);
                }
                let (delivered, moved) = pump.turn(now, &mut each);
                let is_some = delivered.records > 0;
                (is_some.then_some(Ok(delivered.records)), moved || pump.has_error())
            })
        })
        .await
    }

    /// As [`crate::GroupConsumer::commit_sync`]. When the future is dropped the commit is made all the same, by later calls.
    pub async fn commit(&mut self) -> Result<(), Error> {
        let positions = self.pump.positions();
        self.commit_offsets(&positions).await
    }

    /// As [`crate::GroupConsumer::commit_offsets_sync`].
    pub async fn commit_offsets(&mut self, offsets: &[Commit]) -> Result<(), Error> {
        let now = self.pump.reader.clock.now();
        let job = self.pump.core.commit(CommitKind::Sync, offsets, now)?;
        poll_fn(|context| {
            self.turns(context, GroupPump::next_member_us, |pump, now| {
                let moved = pump.turn_member(now);
                (pump.core.take_job(job).map(first_error), moved)
            })
        })
        .await
    }

    /// As [`crate::GroupConsumer::commit_async`]: what becomes of it is told by a later `poll`.
    pub fn commit_later(&mut self) -> Result<(), Error> {
        let positions = self.pump.positions();
        let now = self.pump.reader.clock.now();
        self.pump.core.commit(CommitKind::Async, &positions, now).map(|_| ())
    }

    /// As [`crate::GroupConsumer::committed`].
    pub async fn committed(&self, topic: &str, partitions: &[u32]) -> Result<Vec<Option<u64>>, Error> {
        let (group, topic, partitions) = (self.pump.core.config.group.clone(), topic.to_string(), partitions.to_vec());
        asked(&self.shared, move |shared| shared.committed_of_group(&group, &topic, &partitions)).await
    }

    /// As [`crate::GroupConsumer::seek`].
    pub async fn seek(&mut self, topic: &str, partition: u32, start: Start) -> Result<(), Error> {
        self.pump.check_assigned(topic, partition)?;
        let name = topic.to_string();
        let assignment = asked(&self.shared, move |shared| shared.assignment(&name, Some(&[partition]), start)).await?;
        assignment.give_to(&mut self.pump.reader.core);
        self.pump.core.on_sought(topic, partition);
        Ok(())
    }

    /// As [`crate::GroupConsumer::stop_auto_commit`].
    pub fn stop_auto_commit(&mut self) {
        self.pump.core.config.auto_commit = false;
    }

    /// As [`crate::GroupConsumer::pause`].
    pub fn pause(&mut self, topic: &str, partition: u32) -> bool {
        self.pump.reader.core.set_paused(topic, partition, true).unwrap_or(false)
    }

    /// As [`crate::GroupConsumer::resume`].
    pub fn resume(&mut self, topic: &str, partition: u32) -> bool {
        self.pump.reader.core.set_paused(topic, partition, false).unwrap_or(false)
    }

    /// Partitions that the member has.
    pub fn assigned(&self) -> Vec<TopicPartition> {
        self.pump.core.assigned().collect()
    }

    /// The offset that is handed out next in a partition that the member has.
    pub fn position(&self, topic: &str, partition: u32) -> Option<u64> {
        self.pump.reader.core.position(topic, partition)
    }

    /// Its id in the group; `None` while it is not a member.
    pub fn member_id(&self) -> Option<u64> {
        self.pump.core.member_id()
    }

    /// What its consumer has done so far.
    pub fn metrics(&self) -> ConsumerMetrics {
        self.pump.reader.core.metrics
    }

    /// As [`crate::GroupConsumer::close`], for as long as it takes.
    pub async fn close(self) -> Result<(), Error> {
        let keeps = self.pump.core.config.instance_id.is_some();
        self.end(keeps).await
    }

    /// As [`crate::GroupConsumer::leave`], for as long as it takes.
    pub async fn leave(self) -> Result<(), Error> {
        self.end(false).await
    }

    async fn end(mut self, keeps: bool) -> Result<(), Error> {
        let now = self.pump.reader.clock.now();
        self.pump.core.close(keeps, now);
        let mut failed = None;
        poll_fn(|context| {
            self.turns(context, GroupPump::next_member_us, |pump, now| {
                let moved = pump.turn_member(now) | pump.tell(now);
                failed = failed.take().or_else(|| pump.take_error());
                (pump.core.is_over().then(|| failed.take().map_or(Ok(()), Err)), moved)
            })
        })
        .await
    }

    /// Turns until one has a result, or nothing moves. `next_us`: when the next turn is due then; only what `turn` sees to, else it is due again at once. `turn`: the result,
    /// and whether anything moved.
    fn turns<R>(
        &mut self,
        context: &mut Context<'_>,
        next_us: impl Fn(&GroupPump<AsyncSocket>, Now) -> u64,
        mut turn: impl FnMut(&mut GroupPump<AsyncSocket>, Now) -> (Option<R>, bool),
    ) -> Poll<R> {
        self.set_wakers(context);
        for _ in 0..TURNS_PER_POLL {
            let now = self.pump.reader.clock.now();
            let (result, moved) = turn(&mut self.pump, now);
            self.set_wakers(context);
            if let Some(result) = result {
                return Poll::Ready(result);
            }
            if moved | self.pump.driver.take_opened() | self.pump.reader.driver.take_opened() {
                continue;
            }
            let now = self.pump.reader.clock.now();
            let after = Duration::from_micros(next_us(&self.pump, now).saturating_sub(now.mono_us));
            if !self.timer.is_over(after, context) {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn set_wakers(&mut self, context: &Context<'_>) {
        let GroupPump { reader, driver, .. } = &mut self.pump;
        driver.sockets().chain(reader.driver.sockets()).for_each(|socket| socket.set_waker(context.waker()));
    }
}
