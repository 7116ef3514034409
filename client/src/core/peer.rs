//! One connection's life, without its socket: addresses in turn, dialling, hello, open, lost.
//!
//! ```text
//! Closed --begin--> Dialling --on_dialled--> Greeting --hello answered--> Open
//!    ^                 |                        |                          |
//!    +---- no address is left                   +-- refused, late, wrong node: the next address        lost
//! ```
//! Each address gets `connect_timeout` for both steps. The driver dials what [`Peer::take_dial`] says, without waiting for it, and tells how it ended; whoever
//! owns the peer calls [`Peer::is_late`] when time goes by.
//!
//! Not here: when to connect and how long to wait between attempts (the cores), reading names (the transport).

use tramline_wire::kind::Kind;

use super::{Conn, Now};
use crate::error::Error;
use crate::link::{HelloInfo, read_hello, read_reply, refusal, write_hello};

/// What a connection needs to be opened.
#[derive(Debug, Clone)]
pub(crate) struct Greeting {
    pub client_name: String,
    pub connect_timeout_us: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Closed,
    /// `told`: the driver knows.
    Dialling {
        told: bool,
        until_us: u64,
    },
    Greeting {
        correlation: u64,
        until_us: u64,
    },
    Open,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Peer {
    stage: Stage,
    /// Tried now, or last.
    address: String,
    /// To be tried after it, the next one last.
    rest: Vec<String>,
    /// The node that has to answer, if it matters.
    node: Option<u32>,
}

impl Peer {
    pub(crate) fn new(node: Option<u32>) -> Peer {
        Peer { stage: Stage::Closed, address: String::new(), rest: Vec::new(), node }
    }

    /// The node that has to answer from now on: the lane may have been another's.
    pub(crate) fn expect_node(&mut self, node: u32) {
        self.node = Some(node);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Where it is connected to, or was last.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Starts with the first of these addresses, best first. False when there is none.
    pub(crate) fn begin(&mut self, mut addresses: Vec<String>, greeting: &Greeting, now: Now) -> bool {
        addresses.reverse();
        self.rest = addresses;
        self.next(greeting, now)
    }

    fn next(&mut self, greeting: &Greeting, now: Now) -> bool {
        let Some(address) = self.rest.pop() else {
            self.stage = Stage::Closed;
            return false;
        };
        self.address = address;
        self.stage = Stage::Dialling { told: false, until_us: now.mono_us.saturating_add(greeting.connect_timeout_us) };
        true
    }

    /// The address to dial, once per attempt.
    pub(crate) fn take_dial(&mut self) -> Option<&str> {
        let Stage::Dialling { told: told @ false, .. } = &mut self.stage else { return None };
        *told = true;
        Some(&self.address)
    }

    /// The socket is connected: says hello.
    pub(crate) fn on_dialled(&mut self, conn: &mut Conn, greeting: &Greeting) {
        let Stage::Dialling { until_us, .. } = self.stage else { return };
        conn.reset();
        // The name is cut to 255 bytes, so hello cannot be above a limit.
        if let Ok(correlation) = conn.request(Kind::Hello, |meta| write_hello(&greeting.client_name, meta)) {
            self.stage = Stage::Greeting { correlation, until_us };
        }
    }

    /// Bytes arrived before the hello was answered. An error: this address will not do.
    pub(crate) fn on_received(&mut self, conn: &mut Conn) -> Result<Option<HelloInfo>, Error> {
        let Stage::Greeting { correlation, .. } = self.stage else { return Ok(None) };
        let (hello, length) = match conn.peek() {
            Ok(None) => return Ok(None),
            Ok(Some((frame, _))) if frame.header.correlation == 0 && frame.header.is_error() => {
                return Err(refusal("say hello", &self.address, frame.meta));
            }
            Ok(Some((frame, _))) if frame.header.correlation != correlation => {
                return Err(Error::protocol(&self.address, "it answered something else than hello"));
            }
            Ok(Some((frame, length))) => (read_reply("say hello", &self.address, Kind::Hello, &frame, read_hello)?, length),
            Err(error) => return Err(Error::protocol(&self.address, error.to_string())),
        };
        conn.consume(length);
        let info = hello.accept(&self.address)?;
        if let Some(node) = self.node
            && node != info.node
        {
            let message = format!("node {} answers where node {node} was looked for", info.node);
            return Err(Error::protocol(&self.address, message));
        }
        self.stage = Stage::Open;
        Ok(Some(info))
    }

    /// Whoever has just answered is not the one that was looked for: the attempt failed, and is told as such by whoever gets this error.
    pub(crate) fn refuse(&mut self, message: &str) -> Error {
        self.stage = Stage::Greeting { correlation: 0, until_us: 0 };
        Error::protocol(&self.address, message)
    }

    /// The attempt failed: goes on with the next address, if there is one; false: closed.
    pub(crate) fn on_failed(&mut self, conn: &mut Conn, greeting: &Greeting, now: Now) -> bool {
        conn.reset();
        self.next(greeting, now)
    }

    /// An open connection is gone, or not wanted any more.
    pub(crate) fn close(&mut self) {
        self.stage = Stage::Closed;
        self.rest.clear();
    }

    /// Until when the attempt under way may last.
    pub(crate) fn until_us(&self) -> u64 {
        match self.stage {
            Stage::Dialling { until_us, .. } | Stage::Greeting { until_us, .. } => until_us,
            Stage::Closed | Stage::Open => u64::MAX,
        }
    }

    /// The error of an attempt that took too long; `None`: it did not.
    pub(crate) fn is_late(&self, now: Now) -> Option<Error> {
        (self.until_us() <= now.mono_us).then(|| {
            let doing = if matches!(self.stage, Stage::Greeting { .. }) { "no hello came in time from" } else { "cannot connect to" };
            Error::io(doing, &self.address, std::io::ErrorKind::TimedOut.into())
        })
    }
}
