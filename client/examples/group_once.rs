//! A member of a group that works through a topic at most once, or at least once: the two recipes.
//!
//! ```text
//! cargo run --release -p tramline-client --example group_once -- at-least-once workers numbers
//! ```
//! Work is a line on standard output. Kill it and start it again: at least once repeats some lines and leaves none out, at most once the other way round. It ends when
//! nothing has come for some seconds. The broker is found through `TRAMLINE_SERVER` (default 127.0.0.1:7410).

use std::error::Error;
use std::io::Write;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tramline_client::{Client, Config, GroupConfig, GroupConsumer};

/// So many records are taken at once: what a crash repeats, or leaves out, at most.
const PORTION: usize = 20;
/// It ends when nothing has come for so long; longer than a group waits for a member that crashed.
const IDLE: Duration = Duration::from_secs(5);
const SESSION: Duration = Duration::from_secs(2);

/// Takes up to a portion of records. They are handed out, and nothing is committed yet.
fn take(member: &mut GroupConsumer) -> Result<Vec<Vec<u8>>, tramline_client::Error> {
    let mut taken = Vec::new();
    member.poll_until(Duration::from_millis(100), |record| {
        taken.push(record.value.unwrap_or_default().to_vec());
        if taken.len() < PORTION { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(taken)
}

fn work(taken: &[Vec<u8>]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for value in taken {
        out.write_all(value)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [how, group, topic] = arguments.as_slice() else { return Err("usage: group_once at-least-once|at-most-once GROUP TOPIC".into()) };
    let client = Client::connect(Config::from_env())?;
    let config = GroupConfig { auto_commit: false, session_timeout: SESSION, ..GroupConfig::new(group, &[topic]) };
    let mut member = client.group_consumer(config)?;
    let mut heard = Instant::now();
    while heard.elapsed() < IDLE {
        let taken = take(&mut member)?;
        if taken.is_empty() {
            continue;
        }
        heard = Instant::now();
        match how.as_str() {
            // Committed when it is done. A commit that is refused means that another member does it again.
            "at-least-once" => {
                work(&taken)?;
                member.commit_sync()?;
            }
            // Committed before it is begun. A commit that is refused, or whose outcome is not known, means that nothing of it may be done.
            "at-most-once" => {
                member.commit_sync()?;
                work(&taken)?;
            }
            _ => return Err(format!("{how}: at-least-once or at-most-once").into()),
        }
    }
    member.close(Duration::from_secs(10))?;
    Ok(())
}
