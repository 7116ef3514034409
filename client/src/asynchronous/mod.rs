//! The client in a Tokio runtime (feature `tokio`): the same cores, woken by the runtime instead of poll(2).
//!
//! ```no_run
//! use tramline_client::asynchronous::Client;
//! use tramline_client::{Config, ConsumerConfig, ProducerConfig, Record, Start};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(Config::from_env()).await?;
//! client.run(|client| client.create_topic("greetings", 4, &[], true)).await?;
//!
//! let mut producer = client.producer(ProducerConfig::default())?;
//! producer.send(&Record { topic: "greetings", value: Some(b"hello"), ..Record::default() }).await?;
//! producer.flush().await;
//! producer.drain(|delivery| println!("{:?} {:?}", delivery.offset, delivery.error));
//!
//! let mut consumer = client.consumer(ConsumerConfig::default())?;
//! consumer.assign_all("greetings", Start::Earliest).await?;
//! consumer.poll(|record| println!("{:?}", record.value)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! No task is spawned: bytes move only while one of the futures here is polled. Each can be dropped at any await (`select!`, `timeout`): what was taken stays taken,
//! what was handed out stays handed out, and the next call goes on. They need a runtime with I/O and time enabled, and panic outside of one.
//!
//! Administration is rare and runs on the runtime's threads for blocking calls ([`Client::run`]). So does looking up a topic at its first record, and assigning.
//! [`Config::busy_poll`](crate::Config::busy_poll) means nothing here.
//!
//! | file | job |
//! |---|---|
//! | `producer`, `consumer`, `group_consumer`, `queue` | the twins of the blocking ones |
//! | `tests` | over real sockets, in a runtime of one thread |

mod consumer;
mod group_consumer;
mod producer;
mod queue;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

pub use consumer::Consumer;
pub use group_consumer::GroupConsumer;
pub use producer::Producer;
pub use queue::QueueConsumer;

use crate::admin::Shared;
use crate::config::{Config, ConsumerConfig, GroupConfig, ProducerConfig, QueueConsumerConfig};
use crate::error::Error;
use crate::group_listener::GroupListener;

/// A connection to a cluster, as [`crate::Client`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    blocking: Arc<crate::Client>,
}

impl Client {
    /// Connects to the first of the configured servers that answers.
    pub async fn connect(config: Config) -> Result<Client, Error> {
        let blocking = blocking(move || crate::Client::connect(config)).await??;
        Ok(Client { blocking: Arc::new(blocking) })
    }

    /// Runs calls of the blocking client (topics, offsets, trims) on a thread for such. When this future is dropped they go on to their end.
    pub async fn run<R: Send + 'static>(
        &self,
        calls: impl FnOnce(&crate::Client) -> Result<R, Error> + Send + 'static,
    ) -> Result<R, Error> {
        let client = Arc::clone(&self.blocking);
        blocking(move || calls(&client)).await?
    }

    /// A producer with connections of its own. Opens them when it first needs them.
    pub fn producer(&self, config: ProducerConfig) -> Result<Producer, Error> {
        Producer::new(self.blocking.share(), config)
    }

    /// A consumer with connections of its own. Opens them when it first needs them.
    pub fn consumer(&self, config: ConsumerConfig) -> Result<Consumer, Error> {
        Consumer::new(self.blocking.share(), config)
    }

    /// A member of a consumer group, with connections of its own. It joins when it is first polled.
    pub fn group_consumer(&self, config: GroupConfig) -> Result<GroupConsumer, Error> {
        self.group_consumer_with(config, ())
    }

    /// As [`group_consumer`](Self::group_consumer), with callbacks.
    pub fn group_consumer_with(&self, config: GroupConfig, listener: impl GroupListener + 'static) -> Result<GroupConsumer, Error> {
        GroupConsumer::new(self.blocking.share(), config, Box::new(listener))
    }

    /// A consumer of a queue, with connections of its own. The queue is looked up now.
    pub async fn queue_consumer(&self, queue: &str, config: QueueConsumerConfig) -> Result<QueueConsumer, Error> {
        QueueConsumer::new(self.blocking.share(), queue, config).await
    }
}

/// Turns within one poll of a future: then the runtime's thread goes to the others, whatever still comes. Some sixteen times a
/// socket's buffer, so that a busy stream pays for it once per megabyte; without a bound one chatty broker keeps timers and every
/// other task of the thread from running.
const TURNS_PER_POLL: usize = 16;

/// Runs something that blocks. An error when the runtime is going down.
async fn blocking<R: Send + 'static>(run: impl FnOnce() -> R + Send + 'static) -> Result<R, Error> {
    match tokio::task::spawn_blocking(run).await {
        Ok(result) => Ok(result),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::config("the runtime is going down")),
        },
    }
}

/// As [`blocking`], on the administrative connection.
async fn asked<R: Send + 'static>(
    shared: &Arc<Shared>,
    ask: impl FnOnce(&Shared) -> Result<R, Error> + Send + 'static,
) -> Result<R, Error> {
    let shared = Arc::clone(shared);
    blocking(move || ask(&shared)).await?
}

/// The one timer of a producer or consumer.
#[derive(Debug, Default)]
struct Timer(Option<Pin<Box<tokio::time::Sleep>>>);

impl Timer {
    /// Whether the time is over already; else the task is woken when it is.
    fn is_over(&mut self, after: Duration, context: &mut Context<'_>) -> bool {
        // Some thirty years are never, and more is too much for the clock.
        let at = tokio::time::Instant::now() + after.min(Duration::from_secs(1_000_000_000));
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        sleep.as_mut().reset(at);
        sleep.as_mut().poll(context).is_ready()
    }
}
