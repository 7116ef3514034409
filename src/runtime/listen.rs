//! Listening on an address, waiting for a predecessor to leave it.
//!
//! Invariants: SO_REUSEADDR is set (a port in TIME_WAIT is free), SO_REUSEPORT is not: with it a second node would start on the same port
//! and take half of the connections. Shards that share a port share one listening socket (`TcpListener::try_clone`).
//!
//! Not here: accepting.

use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// Connections that may wait to be accepted. A reconnecting fleet arrives at once; the kernel cuts this to net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// How often a port in use is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// Why an address cannot be listened on.
#[derive(Debug)]
pub struct ListenError {
    setting: &'static str,
    flag: &'static str,
    address: SocketAddr,
    waited: Duration,
    source: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ListenError { setting, flag, address, waited, source } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => write!(
                f,
                "address {address} ({setting}) is in use by another process (waited {} s); stop that process, or choose another address with {flag}",
                waited.as_secs()
            ),
            io::ErrorKind::AddrNotAvailable => {
                write!(f, "address {address} ({setting}) does not belong to this machine; choose one that does with {flag}")
            }
            io::ErrorKind::PermissionDenied => {
                write!(f, "no right to listen on {address} ({setting}); choose a port above 1023 with {flag}")
            }
            _ => write!(f, "cannot listen on {address} ({setting}): {source}; choose another address with {flag}"),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Listens on `address`, trying for `wait` while it is in use. `setting` and `flag` name it in the error. Blocks: for start-up only.
pub fn listen(setting: &'static str, flag: &'static str, address: SocketAddr, wait: Duration) -> Result<TcpListener, ListenError> {
    let started = Instant::now();
    let mut told = wait.is_zero();
    loop {
        match try_listen(address) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && started.elapsed() < wait => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!("{setting}={address} is in use: waiting up to {} s for it", wait.as_secs());
                }
                std::thread::sleep(RETRY);
            }
            Err(source) => return Err(ListenError { setting, flag, address, waited: started.elapsed(), source }),
        }
    }
}

fn try_listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_refused_with_the_flag_to_change() {
        let any = "127.0.0.1:0".parse().unwrap();
        let first = listen("listen", "--listen", any, Duration::ZERO).unwrap();
        let taken = first.local_addr().unwrap();
        let refusal = listen("listen", "--listen", taken, Duration::ZERO).unwrap_err().to_string();
        assert!(refusal.contains("in use by another process") && refusal.contains("--listen"), "{refusal}");
        drop(first);
        listen("listen", "--listen", taken, Duration::from_secs(5)).unwrap();
        let foreign = listen("admin.listen", "--admin", "192.0.2.1:9".parse().unwrap(), Duration::ZERO).unwrap_err().to_string();
        assert!(foreign.contains("does not belong to this machine"), "{foreign}");
    }
}
