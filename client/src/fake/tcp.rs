//! The fake broker behind real sockets: one thread, all connections, poll(2).

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::FakeBroker;
use crate::config::Config;
use crate::transport::{Interest, WaitMode, wait};

/// Stops its thread when dropped.
#[derive(Debug)]
pub(crate) struct FakeServer {
    pub address: String,
    broker: Arc<Mutex<FakeBroker>>,
    stop: Arc<AtomicBool>,
    /// Cuts all connections once.
    cut: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeServer {
    /// A broker with two shards, all on the one port.
    pub(crate) fn start() -> FakeServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("non-blocking");
        let port = listener.local_addr().expect("an address").port();
        let mut broker = FakeBroker::new();
        broker.port = port;
        broker.shard_ports = vec![port, port];
        let broker = Arc::new(Mutex::new(broker));
        let (stop, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (broker, stop, cut) = (Arc::clone(&broker), Arc::clone(&stop), Arc::clone(&cut));
            std::thread::spawn(move || serve(&listener, &broker, &stop, &cut))
        };
        FakeServer { address: format!("127.0.0.1:{port}"), broker, stop, cut, thread: Some(thread) }
    }

    pub(crate) fn broker(&self) -> MutexGuard<'_, FakeBroker> {
        self.broker.lock().expect("the server's thread did not panic")
    }

    pub(crate) fn config(&self) -> Config {
        Config { request_timeout: Duration::from_secs(10), ..Config::new(&self.address) }
    }

    /// Closes all connections; returns when it is done.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        self.wake();
        while self.cut.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }

    fn wake(&self) {
        // The connection is refused only when the thread is gone, and then there is nobody to wake.
        drop(TcpStream::connect(&self.address));
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the fake broker met something it does not accept");
        }
    }
}

struct Peer {
    id: u32,
    stream: TcpStream,
    out: Vec<u8>,
    closed: bool,
}

fn serve(listener: &TcpListener, broker: &Mutex<FakeBroker>, stop: &AtomicBool, cut: &AtomicBool) {
    let mut peers: Vec<Peer> = Vec::new();
    let mut next_id = 0;
    while !stop.load(Ordering::SeqCst) {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).expect("non-blocking");
            next_id += 1;
            peers.push(Peer { id: next_id, stream, out: Vec::new(), closed: false });
        }
        let mut broker = broker.lock().expect("no test panicked with the lock");
        let cutting = cut.load(Ordering::SeqCst);
        if cutting {
            peers.iter_mut().for_each(|peer| peer.closed = true);
        }
        for peer in &mut peers {
            read(peer, &mut broker);
        }
        for peer in &mut peers {
            peer.out.extend_from_slice(&broker.take_output(peer.id));
            write(peer, &mut broker);
            if peer.closed {
                broker.disconnect(peer.id);
            }
        }
        drop(broker);
        peers.retain(|peer| !peer.closed);
        if cutting {
            cut.store(false, Ordering::SeqCst);
        }
        let interests = peers.iter().map(|peer| Interest::new(&peer.stream, !peer.out.is_empty()));
        let mut interests = interests.chain(std::iter::once(Interest::new(listener, false)));
        // The time only matters when a test changes the broker behind the thread's back (releases held answers).
        wait(WaitMode::Sleep, Duration::from_millis(1), &mut interests).expect("poll works");
    }
}

fn read(peer: &mut Peer, broker: &mut FakeBroker) {
    let mut room = [0; 65_536];
    while !peer.closed {
        match peer.stream.read(&mut room) {
            Ok(0) => peer.closed = true,
            Ok(count) => broker.receive(peer.id, &room[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => peer.closed = true,
        }
    }
}

fn write(peer: &mut Peer, broker: &mut FakeBroker) {
    // So often at most, else a flooded peer that reads quickly keeps all others waiting, and the test that wants the lock.
    for _ in 0..16 {
        if peer.out.is_empty() {
            peer.out = broker.chatter(peer.id);
        }
        while !peer.closed && !peer.out.is_empty() {
            match peer.stream.write(&peer.out) {
                Ok(count) => drop(peer.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => peer.closed = true,
            }
        }
    }
    // Something is left, so that the thread does not wait before it goes on.
    peer.out = broker.chatter(peer.id);
}
