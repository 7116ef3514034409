//! Connections of the admin pages: a bounded number, none of which may be silent for long.
//!
//! Invariants: at most `CONNECTIONS_MAX` are open, further ones wait in the kernel's backlog; a connection on which nothing
//! can be read or written for `SILENCE` is ended, whether it is between two requests or in the middle of one.
//!
//! Not here: the pages (`admin/`).

use axum::serve::Listener;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;

/// Scrapers and people, and room for the forgetful among them.
const CONNECTIONS_MAX: usize = 128;
/// Longer than the pauses of most scrapers (15 s), which thus keep their connection; the others connect anew.
const SILENCE: Duration = Duration::from_secs(30);

/// Hands out bounded connections.
pub(super) struct AdminListener {
    inner: TcpListener,
    places: Arc<Semaphore>,
    silence: Duration,
}

impl AdminListener {
    pub(super) fn new(inner: TcpListener) -> AdminListener {
        AdminListener { inner, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)), silence: SILENCE }
    }
}

impl Listener for AdminListener {
    type Io = Bounded;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Bounded, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
        // axum's listener waits and tries again when the process is out of descriptors.
        let (stream, peer) = Listener::accept(&mut self.inner).await;
        let mut stream = TimeoutStream::new(stream);
        stream.set_read_timeout(Some(self.silence));
        stream.set_write_timeout(Some(self.silence));
        (Bounded { stream: Box::pin(stream), _place: place }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// One connection and its place.
pub(super) struct Bounded {
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Bounded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn half_a_request_is_ended_and_its_place_is_free_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap();
        let inner = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = inner.local_addr().unwrap();
        let places = Arc::new(Semaphore::new(1));
        let listener = AdminListener { inner, places: Arc::clone(&places), silence: Duration::from_millis(100) };
        let pages = axum::Router::new().route("/", axum::routing::get(async || "page"));
        std::thread::spawn(move || runtime.block_on(axum::serve(listener, pages).into_future()));
        let mut half = std::net::TcpStream::connect(address).unwrap();
        half.write_all(b"GET / HTTP/1.1\r\nHost").unwrap();
        half.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut rest = Vec::new();
        // Ended by the server, with or without an answer; a time-out of ours would be an error of another kind.
        match half.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
        }
        let mut whole = std::net::TcpStream::connect(address).unwrap();
        whole.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        whole.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut answer = String::new();
        whole.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("page"), "{answer}");
    }
}
