//! Messages to standard error: level and form from the settings, repeated ones limited, nobody waits for a slow reader.
//!
//! ```text
//!   any room: tracing::warn!(..) -> limit (per call site) -> form (text or JSON) -> bounded queue -> thread "tramline-log" -> stderr
//! ```
//!
//! Invariants
//! - A call site writes at most `BURST` messages per `WINDOW` (informational ones `BURST_INFO`); the rest are counted, and the count is
//!   told once the window has passed. Debug and trace messages are not limited: who asks for them wants them.
//! - A thread that logs never waits for standard error: when the queue is full the message is counted as suppressed. A shard must not stand still
//!   because a terminal does.
//!
//! Not here: what is worth a message (each room).

use crate::config::{LogFormat, Settings};
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Messages of one call site that are written per window: enough to see that something differs between them, too few to fill a disk.
const BURST: u64 = 10;
/// The same for informational messages, which may name each of many shards or topics once.
const BURST_INFO: u64 = 200;
/// The window.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines that may wait for standard error; at 200 bytes each this is some 200 KB.
const QUEUE_LINES: usize = 1024;
/// How long `flush` waits for standard error.
const FLUSH_WAIT: Duration = Duration::from_secs(1);

static SUPPRESSED: AtomicU64 = AtomicU64::new(0);
static OUTPUT: OnceLock<SyncSender<Line>> = OnceLock::new();
static LIMITS: OnceLock<Limits> = OnceLock::new();

/// Messages counted instead of written since the start.
pub fn suppressed() -> u64 {
    SUPPRESSED.load(Ordering::Relaxed)
}

/// Starts logging. Only the first call of a process has an effect; returns whether this was it.
pub fn init(level: &str, format: LogFormat) -> bool {
    let (sender, receiver) = sync_channel(QUEUE_LINES);
    if OUTPUT.set(sender).is_err() {
        return false;
    }
    let spawned = std::thread::Builder::new().name("tramline-log".to_owned()).spawn(move || write_lines(&receiver, &mut io::stderr()));
    if let Err(error) = spawned {
        // Without the thread every message would be lost; say so once, plainly.
        let _ = writeln!(io::stderr(), "cannot start the log thread ({error}); no messages will be written");
    }
    let level: LevelFilter = level.parse().unwrap_or(LevelFilter::INFO);
    let limit = Limit(LIMITS.get_or_init(Limits::default));
    let text = tracing_subscriber::fmt::layer().with_writer(Output).with_ansi(false).with_target(false);
    let set = match format {
        LogFormat::Text => tracing::subscriber::set_global_default(tracing_subscriber::registry().with(level).with(limit).with(text)),
        LogFormat::Json => {
            let json = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(Output).with_target(true);
            tracing::subscriber::set_global_default(tracing_subscriber::registry().with(level).with(limit).with(json))
        }
    };
    set.is_ok()
}

/// Tells how often each limited message was repeated in windows that have passed. The housekeeping thread calls it every few seconds.
pub fn report_repeats() {
    let Some(limits) = LIMITS.get() else { return };
    for (place, level, count) in limits.take_passed(Instant::now()) {
        // One call site for all reports, so it is under a limit of its own.
        tracing::info!("{count} more messages like the {level} one from {place} in {} s were not written", WINDOW.as_secs());
    }
}

/// Waits until what was logged so far has been written, one second at most. To be called before the process ends.
pub fn flush() {
    let Some(output) = OUTPUT.get() else { return };
    let (done, written) = sync_channel(1);
    if output.try_send(Line::Flush(done)).is_ok() {
        // Too late is as good as never: the process ends either way.
        let _ = written.recv_timeout(FLUSH_WAIT);
    }
}

/// Warns when clients of other machines can connect and nothing asks who they are.
pub fn warn_if_exposed(settings: &Settings) {
    if settings.is_exposed() {
        tracing::warn!(
            "listening on {}, beyond this machine, without authentication: anybody who reaches the port can read, write and delete. Restrict it by a firewall, or listen on 127.0.0.1",
            settings.listen
        );
    }
    if let Some(address) = settings.cluster_listen.filter(|address| !address.ip().is_loopback()) {
        tracing::warn!(
            "listening for other nodes on {address}, beyond this machine, without authentication: whoever reaches the port can pass for a node. Let only the cluster's nodes through"
        );
    }
    if !settings.admin_listen.ip().is_loopback() {
        tracing::warn!("the admin pages on {} can be read by anybody who reaches the port", settings.admin_listen);
    }
}

enum Line {
    Text(Vec<u8>),
    Flush(SyncSender<()>),
}

fn write_lines(receiver: &Receiver<Line>, to: &mut impl Write) {
    while let Ok(line) = receiver.recv() {
        match line {
            // Nobody is left to be told that standard error is gone.
            Line::Text(text) => drop(to.write_all(&text)),
            Line::Flush(done) => drop(done.send(())),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Output;

/// One message being formed; goes to the queue when complete.
struct Message(Vec<u8>);

impl Write for Message {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        let Some(output) = OUTPUT.get() else { return };
        match output.try_send(Line::Text(std::mem::take(&mut self.0))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                SUPPRESSED.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Message;
    fn make_writer(&'a self) -> Message {
        Message(Vec::with_capacity(256))
    }
}

/// Messages per call site in its current window.
#[derive(Debug, Default)]
struct Limits {
    sites: Mutex<HashMap<Identifier, Site>>,
}

#[derive(Debug)]
struct Site {
    place: String,
    level: Level,
    window_began: Instant,
    seen: u64,
    suppressed: u64,
}

impl Limits {
    /// Whether a message of this call site may be written now.
    fn allow(&self, metadata: &Metadata<'_>, now: Instant) -> bool {
        let burst = match *metadata.level() {
            Level::ERROR | Level::WARN => BURST,
            Level::INFO => BURST_INFO,
            _ => return true,
        };
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let site = sites.entry(metadata.callsite()).or_insert_with(|| Site {
            place: format!("{}:{}", metadata.file().unwrap_or("?"), metadata.line().unwrap_or(0)),
            level: *metadata.level(),
            window_began: now,
            seen: 0,
            suppressed: 0,
        });
        if now.duration_since(site.window_began) >= WINDOW {
            (site.window_began, site.seen) = (now, 0);
        }
        site.seen += 1;
        if site.seen > burst {
            site.suppressed += 1;
            SUPPRESSED.fetch_add(1, Ordering::Relaxed);
        }
        site.seen <= burst
    }

    /// Place, level and number of suppressed messages of call sites whose window has passed.
    fn take_passed(&self, now: Instant) -> Vec<(String, Level, u64)> {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = sites.values_mut().filter(|site| site.suppressed > 0 && now.duration_since(site.window_began) >= WINDOW);
        passed.map(|site| (site.place.clone(), site.level, std::mem::take(&mut site.suppressed))).collect()
    }
}

struct Limit(&'static Limits);

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.0.allow(event.metadata(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Counts what passes the limit, at a time of the test's choosing.
    struct Probe {
        limits: Limits,
        now: Mutex<Instant>,
        passed: AtomicU64,
    }

    impl<S: Subscriber> Layer<S> for Shared {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let now = *self.0.now.lock().unwrap();
            if self.0.limits.allow(event.metadata(), now) {
                self.0.passed.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    struct Shared(Arc<Probe>);

    #[test]
    fn a_call_site_is_limited_per_window_and_the_rest_is_told() {
        let start = Instant::now();
        let probe = Arc::new(Probe { limits: Limits::default(), now: Mutex::new(start), passed: AtomicU64::new(0) });
        let subscriber = tracing_subscriber::registry().with(Shared(Arc::clone(&probe)));
        tracing::subscriber::with_default(subscriber, || {
            let complain = |times: u64| (0..times).for_each(|i| tracing::warn!("again {i}"));
            complain(25);
            tracing::warn!("another place is not held back");
            assert_eq!(probe.passed.load(Ordering::SeqCst), BURST + 1);
            assert!(probe.limits.take_passed(start).is_empty(), "the window has not passed");
            let later = start + WINDOW;
            let told = probe.limits.take_passed(later);
            assert_eq!(told.len(), 1);
            assert_eq!((told[0].1, told[0].2), (Level::WARN, 15));
            assert!(told[0].0.contains("logging.rs:"), "{}", told[0].0);
            assert!(probe.limits.take_passed(later).is_empty(), "told once");
            *probe.now.lock().unwrap() = later;
            complain(1);
            assert_eq!(probe.passed.load(Ordering::SeqCst), BURST + 2);
        });
    }

    #[test]
    fn lines_are_written_in_order_and_flush_waits_for_them() {
        let (sender, receiver) = sync_channel(8);
        let (done, written) = sync_channel(1);
        for line in [Line::Text(b"a\n".to_vec()), Line::Text(b"b\n".to_vec()), Line::Flush(done)] {
            sender.try_send(line).map_err(|_| "full").unwrap();
        }
        drop(sender);
        let mut out = Vec::new();
        write_lines(&receiver, &mut out);
        assert_eq!(out, b"a\nb\n");
        written.try_recv().unwrap();
    }
}
