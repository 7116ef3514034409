//! A member of a consumer group: turns (`crate::pump::group`) and waits.
//!
//! Single-threaded by design, as the consumer: the membership lives inside of the calls, so a member that does not poll for the session timeout is dropped.
//!
//! Not here: rules of membership (`core/group`), groups seen from outside (`groups.rs`).

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::Shared;
use crate::clock::micros;
use crate::config::GroupConfig;
use crate::core::Now;
use crate::core::consumer::RecordView;
use crate::core::group::CommitKind;
use crate::error::Error;
use crate::group_listener::{Commit, GroupListener, TopicPartition};
use crate::link::wait_mode;
use crate::metrics::ConsumerMetrics;
use crate::pump::group::{GroupPump, first_error};
use crate::transport::{Socket, WaitMode, wait};
use crate::types::Start;

/// Reads the partitions that its group's home gives it, and remembers in the group how far it has read. Made by
/// [`Client::group_consumer`](crate::Client::group_consumer).
///
/// **At least once** (the default): work on the records, then poll again. What was handed out is committed only after that, so a crash repeats at most what was handed
/// out since the last commit (`auto_commit_interval`), and loses nothing.
///
/// ```no_run
/// use std::time::Duration;
/// use tramline_client::{Client, Config, GroupConfig};
///
/// let client = Client::connect(Config::from_env())?;
/// let mut member = client.group_consumer(GroupConfig::new("billing", &["orders"]))?;
/// for _ in 0..100 {
///     member.poll(Duration::from_secs(1), |record| println!("{} {:?}", record.offset, record.value))?;
/// }
/// member.close(Duration::from_secs(10))?;
/// # Ok::<(), tramline_client::Error>(())
/// ```
///
/// To be sure after each portion of work, turn `auto_commit` off and call [`commit_sync`](Self::commit_sync) when the work is done.
///
/// **At most once**: commit what was handed out before working on it. A crash leaves out what was not done yet, and repeats nothing.
///
/// ```no_run
/// # use std::time::Duration;
/// # use tramline_client::{Client, Config, GroupConfig};
/// # let client = Client::connect(Config::from_env())?;
/// let config = GroupConfig { auto_commit: false, ..GroupConfig::new("alerts", &["orders"]) };
/// let mut member = client.group_consumer(config)?;
/// loop {
///     let mut taken = Vec::new();
///     member.poll(Duration::from_secs(1), |record| taken.push(record.value.map(<[u8]>::to_vec)))?;
///     member.commit_sync()?; // an error: another member has some of it; work on none
///     for value in taken {
///         println!("{value:?}");
///     }
/// }
/// # #[allow(unreachable_code)]
/// # Ok::<(), tramline_client::Error>(())
/// ```
///
/// **Partitions come and go** while the others are read on: [`GroupListener`] hears of it. A commit for a partition that has a later owner is refused
/// (`stale_assignment`), and changes nothing.
///
/// **Dropping it is a crash**: nothing is committed, and the group waits for the session timeout before others have its partitions. [`close`](Self::close) commits and leaves.
#[derive(Debug)]
pub struct GroupConsumer {
    shared: Arc<Shared>,
    pump: GroupPump<Socket>,
    mode: WaitMode,
}

impl GroupConsumer {
    pub(crate) fn new(shared: Arc<Shared>, config: GroupConfig, listener: Box<dyn GroupListener>) -> Result<GroupConsumer, Error> {
        let pump = GroupPump::new(&shared, config, listener)?;
        let mode = wait_mode(&shared.config);
        Ok(GroupConsumer { shared, pump, mode })
    }

    /// Hands out records of the partitions that the member has; waits for the first, at most `timeout`. Returns how many. Joining, leaving partitions, callbacks and commits all
    /// happen in here. What was handed out before counts as done from this call on (see `auto_commit`).
    ///
    /// Errors are those of [`Consumer::poll`](crate::Consumer::poll), and: `member_fenced` (another process took this one's `instance_id`), `group_settings_differ`, and
    /// others that will not pass end the membership, and are told by each call from then on; what may pass is told when it has lasted for `call_timeout`, and is tried on.
    pub fn poll(&mut self, timeout: Duration, mut each: impl FnMut(&RecordView<'_>)) -> Result<usize, Error> {
        self.poll_until(timeout, |record| {
            each(record);
            ControlFlow::Continue(())
        })
    }

    /// As [`poll`](Self::poll), but stops after the record for which `each` says `Break`; the next poll goes on after it.
    pub fn poll_until(&mut self, timeout: Duration, mut each: impl FnMut(&RecordView<'_>) -> ControlFlow<()>) -> Result<usize, Error> {
        let deadline_us = self.now().mono_us.saturating_add(micros(timeout));
        loop {
            if let Some(error) = self.pump.take_error() {
                return Err(error);
            }
            let now = self.now();
            let (delivered, progress) = self.pump.turn(now, &mut each);
            if delivered.records > 0 {
                return Ok(delivered.records);
            }
            if self.pump.has_error() {
                continue;
            }
            if now.mono_us >= deadline_us {
                return Ok(0);
            }
            if !progress {
                self.wait(deadline_us - now.mono_us, now)?;
            }
        }
    }

    /// Commits everything that was handed out, and waits until it is on stable storage. An error: at least one partition is not committed; the others may be.
    pub fn commit_sync(&mut self) -> Result<(), Error> {
        let positions = self.pump.positions();
        self.commit_offsets_sync(&positions)
    }

    /// Commits these offsets, and waits. Refused without effect when one of the partitions is not this member's.
    pub fn commit_offsets_sync(&mut self, offsets: &[Commit]) -> Result<(), Error> {
        let now = self.now();
        let job = self.pump.core.commit(CommitKind::Sync, offsets, now)?;
        loop {
            let now = self.now();
            let progress = self.pump.turn_member(now);
            // It ends by itself: what is not answered within `call_timeout` has an outcome, too.
            if let Some(outcomes) = self.pump.core.take_job(job) {
                return first_error(outcomes);
            }
            if !progress {
                self.wait_for_member(u64::MAX, now)?;
            }
        }
    }

    /// Begins to commit everything that was handed out; a later [`poll`](Self::poll) sees to it, and tells [`GroupListener::on_committed`] what became of it.
    pub fn commit_async(&mut self) -> Result<(), Error> {
        let positions = self.pump.positions();
        self.commit_offsets_async(&positions)
    }

    /// As [`commit_async`](Self::commit_async), with these offsets. Of one partition they take effect in the order of the calls.
    pub fn commit_offsets_async(&mut self, offsets: &[Commit]) -> Result<(), Error> {
        let now = self.now();
        self.pump.core.commit(CommitKind::Async, offsets, now)?;
        self.pump.turn_member(now);
        Ok(())
    }

    /// What the group has committed of these partitions of a topic, whoever has them; `None` where nothing is.
    pub fn committed(&self, topic: &str, partitions: &[u32]) -> Result<Vec<Option<u64>>, Error> {
        self.shared.committed_of_group(&self.pump.core.config.group, topic, partitions)
    }

    /// Goes on elsewhere in a partition that the member has. Nothing is committed by it.
    pub fn seek(&mut self, topic: &str, partition: u32, start: Start) -> Result<(), Error> {
        self.pump.check_assigned(topic, partition)?;
        let assignment = self.shared.assignment(topic, Some(&[partition]), start)?;
        assignment.give_to(&mut self.pump.reader.core);
        self.pump.core.on_sought(topic, partition);
        Ok(())
    }

    /// From now on nothing is committed by itself, also not when it is closed: for whoever met an error while working on what was handed out, and leaves it to others.
    pub fn stop_auto_commit(&mut self) {
        self.pump.core.config.auto_commit = false;
    }

    /// As [`Consumer::pause`](crate::Consumer::pause). A partition that is given up and comes back is not paused.
    pub fn pause(&mut self, topic: &str, partition: u32) -> bool {
        self.pump.reader.core.set_paused(topic, partition, true).unwrap_or(false)
    }

    /// As [`Consumer::resume`](crate::Consumer::resume).
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

    /// Gives everything up in good order: [`GroupListener::on_revoked`], the last commit (with `auto_commit`, of all that was handed out), and goodbye, so that others go on at once. A
    /// static member keeps its partitions until its session times out, for whoever comes back under its name; [`leave`](Self::leave) gives them up.
    pub fn close(self, timeout: Duration) -> Result<(), Error> {
        let keeps = self.pump.core.config.instance_id.is_some();
        self.end(keeps, timeout)
    }

    /// As [`close`](Self::close), and a static member does not come back.
    pub fn leave(self, timeout: Duration) -> Result<(), Error> {
        self.end(false, timeout)
    }

    fn end(mut self, keeps: bool, timeout: Duration) -> Result<(), Error> {
        let deadline_us = self.now().mono_us.saturating_add(micros(timeout));
        let now = self.now();
        self.pump.core.close(keeps, now);
        // A commit that failed is told, but others have to know that it is gone all the same.
        let mut failed = None;
        while !self.pump.core.is_over() {
            let now = self.now();
            let progress = self.pump.turn_member(now) | self.pump.tell(now);
            failed = failed.or_else(|| self.pump.take_error());
            if now.mono_us >= deadline_us {
                let last = failed.map(Arc::new);
                return Err(Error::Timeout { doing: "leaving the group".to_string(), after: timeout, last });
            }
            if !progress {
                self.wait_for_member(deadline_us - now.mono_us, now)?;
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn now(&mut self) -> Now {
        self.pump.reader.clock.now()
    }

    fn wait(&mut self, at_most_us: u64, now: Now) -> Result<(), Error> {
        if !self.pump.may_read(now) {
            return self.wait_for_member(at_most_us, now);
        }
        let step_us = self.pump.next_step_us(now).saturating_sub(now.mono_us);
        let GroupPump { reader, core, links, driver, .. } = &mut self.pump;
        let mut interests = driver.interests(links, core).chain(reader.driver.interests(&mut reader.links, &mut reader.core));
        wait(self.mode, Duration::from_micros(at_most_us.min(step_us)), &mut interests)
            .map_err(|source| Error::io("cannot wait for", "the brokers", source))
    }

    fn wait_for_member(&mut self, at_most_us: u64, now: Now) -> Result<(), Error> {
        let step_us = self.pump.next_member_us(now).saturating_sub(now.mono_us);
        let GroupPump { core, links, driver, .. } = &mut self.pump;
        driver.wait(self.mode, Duration::from_micros(at_most_us.min(step_us)), links, core)
    }
}

#[cfg(test)]
mod tests;
