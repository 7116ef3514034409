//! The proxy's binary between real sockets: what goes in comes out, later or not at all, as it was told.
//!
//! Nothing here depends on how fast the machine is: a delay is checked from below, what has to come has a minute, and that nothing comes is
//! watched for `QUIET`, which a slow machine can only make easier to pass.
//! Not here: the times of single pieces (unit tests of `pipe.rs` and `line.rs`), connections that a firewall redirects (the tests of the cluster's scripts).

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// What has to come comes within this, or never.
const WAIT: Duration = Duration::from_secs(60);
/// How long is looked whether something comes that must not.
const QUIET: Duration = Duration::from_millis(300);

struct Proxy {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Proxy {
    fn start(to: SocketAddr, arguments: &[&str]) -> Proxy {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tramline-proxy"))
            .args(["--listen", "127.0.0.1:0", "--to", &to.to_string()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the proxy starts");
        let mut answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        answers.read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("ready ").unwrap_or_else(|| panic!("{line:?}")).parse().expect("an address");
        Proxy { commands: child.stdin.take(), child, answers, address }
    }

    fn tell(&mut self, command: &str) -> String {
        writeln!(self.commands.as_mut().expect("its input is open"), "{command}").expect("it reads commands");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        line.trim().to_owned()
    }

    fn ok(&mut self, command: &str) {
        assert_eq!(self.tell(command), "ok", "{command}");
    }

    fn status(&mut self, name: &str) -> String {
        let line = self.tell("status");
        let found = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {name} in {line}")).to_owned()
    }

    fn connect(&self) -> TcpStream {
        patient(TcpStream::connect(self.address).expect("the proxy accepts"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn patient(socket: TcpStream) -> TcpStream {
    socket.set_read_timeout(Some(WAIT)).expect("a time-out");
    socket.set_write_timeout(Some(WAIT)).expect("a time-out");
    socket
}

/// A listener, and a proxy in front of it.
fn behind(arguments: &[&str]) -> (Proxy, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    (Proxy::start(listener.local_addr().expect("an address"), arguments), listener)
}

/// A connection through a proxy: the client's end and the server's.
fn through(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = proxy.connect();
    let (server, _) = listener.accept().expect("it connects on");
    (client, patient(server))
}

fn expect(socket: &mut TcpStream, bytes: &[u8]) {
    let mut found = vec![0; bytes.len()];
    socket.read_exact(&mut found).unwrap_or_else(|cause| panic!("{} bytes have to come: {cause}", bytes.len()));
    assert!(found == bytes, "other bytes came");
}

fn expect_nothing(socket: &mut TcpStream) {
    socket.set_read_timeout(Some(QUIET)).expect("a time-out");
    let came = socket.read(&mut [0; 16]);
    assert!(came.as_ref().is_err_and(|cause| [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&cause.kind())), "{came:?} came");
    socket.set_read_timeout(Some(WAIT)).expect("a time-out");
}

fn expect_end(socket: &mut TcpStream) {
    assert_eq!(socket.read(&mut [0; 16]).expect("an orderly end"), 0);
}

fn expect_reset(socket: &mut TcpStream) {
    let came = socket.read(&mut [0; 16]);
    assert!(came.as_ref().is_err_and(|cause| cause.kind() == ErrorKind::ConnectionReset), "{came:?} came");
}

fn reset(socket: TcpStream) {
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("linger");
}

/// Bytes that no part of them repeats soon.
fn noise(bytes: usize, mut state: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend((state >> 16).to_le_bytes());
    }
    out.truncate(bytes);
    out
}

#[test]
fn bytes_keep_their_order_both_ways_at_once() {
    let (proxy, listener) = behind(&["--delay", "1ms", "--jitter", "5ms", "--buffer", "100k", "--seed", "7"]);
    let (client, server) = through(&proxy, &listener);
    std::thread::scope(|scope| {
        for (socket, ours, theirs) in [(&client, 1, 2), (&server, 2, 1)] {
            let (mut to, mut from) = (socket.try_clone().expect("a handle"), socket.try_clone().expect("a handle"));
            scope.spawn(move || {
                // In pieces, so that there are many draws.
                noise(3_000_000, ours).chunks(7_919).for_each(|piece| to.write_all(piece).expect("taken"));
                to.shutdown(Shutdown::Write).expect("its end");
            });
            scope.spawn(move || {
                let mut all = Vec::new();
                from.read_to_end(&mut all).expect("all and the end");
                assert!(all == noise(3_000_000, theirs), "{} bytes came, or in another order", all.len());
            });
        }
    });
}

#[test]
fn a_half_closed_connection_stays_one_and_ends_with_the_other_half() {
    let (mut proxy, listener) = behind(&["--delay", "2ms"]);
    let (mut client, mut server) = through(&proxy, &listener);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    expect(&mut server, b"question");
    expect_end(&mut server);
    assert_eq!(proxy.status("connections"), "1");
    server.write_all(b"answer").unwrap();
    drop(server);
    expect(&mut client, b"answer");
    expect_end(&mut client);
    // The end is told before the place is free; not long before.
    let until = Instant::now() + WAIT;
    while proxy.status("connections") != "0" {
        assert!(Instant::now() < until, "the connection stays");
    }
}

#[test]
fn every_byte_takes_the_delay_and_a_new_one_holds_at_once() {
    let (mut proxy, listener) = behind(&["--delay", "30ms", "--jitter", "1ms"]);
    let (mut client, mut server) = through(&proxy, &listener);
    let mut round = |least: Duration| {
        let began = Instant::now();
        client.write_all(b"ping").unwrap();
        expect(&mut server, b"ping");
        server.write_all(b"pong").unwrap();
        expect(&mut client, b"pong");
        assert!(began.elapsed() >= least, "{:?} for a round trip", began.elapsed());
        began.elapsed()
    };
    for _ in 0..5 {
        round(Duration::from_millis(60));
    }
    proxy.ok("delay up 100ms");
    round(Duration::from_millis(130));
    // Without a delay the best of many is below what it was: a busy machine does not hold up all of them.
    proxy.ok("delay 0ms");
    proxy.ok("jitter 0ms");
    let best = (0..200).map(|_| round(Duration::ZERO)).min().unwrap();
    assert!(best < Duration::from_millis(60), "{best:?}");
}

#[test]
fn a_reset_is_passed_on_either_way_and_a_refusal_as_one() {
    let (proxy, listener) = behind(&["--delay", "1ms"]);
    let (mut client, server) = through(&proxy, &listener);
    reset(server);
    expect_reset(&mut client);
    let (client, mut server) = through(&proxy, &listener);
    reset(client);
    expect_reset(&mut server);
    // Also to a side that sent its end before, and waits.
    let (mut client, server) = through(&proxy, &listener);
    client.shutdown(Shutdown::Write).unwrap();
    reset(server);
    expect_reset(&mut client);
    drop(listener);
    expect_reset(&mut proxy.connect());
}

#[test]
fn a_receiver_that_takes_nothing_stops_its_sender() {
    // Every socket's buffers hold up to 6 MiB here; the sender has 64.
    let (mut proxy, listener) = behind(&["--buffer", "64KiB"]);
    let (mut client, mut server) = through(&proxy, &listener);
    client.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let all = noise(64 << 20, 3);
    let mut sent = 0;
    while sent < all.len() {
        match client.write(&all[sent..]) {
            Ok(bytes) => sent += bytes,
            Err(cause) => {
                assert!([ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&cause.kind()), "{cause}");
                break;
            }
        }
    }
    assert!(sent < 40 << 20, "{sent} bytes were taken from it though nobody reads them");
    // The others are not held up.
    let (mut other, mut its_server) = through(&proxy, &listener);
    other.write_all(b"x").unwrap();
    expect(&mut its_server, b"x");
    // And nothing was lost.
    client.shutdown(Shutdown::Write).unwrap();
    let mut came = Vec::new();
    server.read_to_end(&mut came).unwrap();
    assert!(came == all[..sent], "{} of {sent} bytes", came.len());
    assert_eq!(proxy.status("up_bytes"), (sent + 1).to_string());
}

#[test]
fn a_cut_holds_bytes_ends_and_newcomers_until_it_heals() {
    let (mut proxy, listener) = behind(&[]);
    let (mut client, mut server) = through(&proxy, &listener);
    proxy.ok("cut up");
    client.write_all(b"held").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    expect_nothing(&mut server);
    server.write_all(b"the other way goes").unwrap();
    expect(&mut client, b"the other way goes");
    let mut late = proxy.connect();
    late.write_all(b"late").unwrap();
    assert_eq!((proxy.status("opened"), proxy.status("up_cut"), proxy.status("down_cut")), ("1".into(), "yes".into(), "no".into()));
    proxy.ok("heal");
    expect(&mut server, b"held");
    expect_end(&mut server);
    let (mut its_server, _) = listener.accept().expect("the late one");
    expect(&mut its_server, b"late");

    // A reset is held as well: a cut is silent.
    proxy.ok("cut");
    reset(its_server);
    expect_nothing(&mut late);
    proxy.ok("heal");
    expect_reset(&mut late);
}

#[test]
fn a_stalled_connection_is_silent_and_not_over() {
    let (mut proxy, listener) = behind(&["--stall-after", "10"]);
    let (mut client, mut server) = through(&proxy, &listener);
    client.write_all(b"123456").unwrap();
    expect(&mut server, b"123456");
    server.write_all(b"abcdefgh").unwrap();
    expect(&mut client, b"abcd");
    expect_nothing(&mut client);
    client.write_all(b"789").unwrap();
    expect_nothing(&mut server);
    proxy.ok("heal");
    expect(&mut client, b"efgh");
    expect(&mut server, b"789");
}

#[test]
fn a_rate_holds_for_all_connections_together() {
    let (mut proxy, listener) = behind(&["--rate", "100k"]);
    let mut pairs: Vec<_> = (0..2).map(|_| through(&proxy, &listener)).collect();
    let began = Instant::now();
    let sent = noise(75_000, 9);
    for (client, _) in &mut pairs {
        client.write_all(&sent).unwrap();
    }
    for (_, server) in &mut pairs {
        expect(server, &sent);
    }
    // 150,000 bytes at 100,000 a second.
    assert!(began.elapsed() >= Duration::from_millis(1_490), "{:?}", began.elapsed());
    proxy.ok("rate none");
    let (client, server) = &mut pairs[0];
    client.write_all(&noise(1 << 20, 1)).unwrap();
    expect(server, &noise(1 << 20, 1));
}

#[test]
fn many_connections_at_once_and_one_more_waits() {
    let (mut proxy, listener) = behind(&["--delay", "5ms", "--connections-max", "200"]);
    let mut pairs: Vec<_> = (0..200).map(|_| through(&proxy, &listener)).collect();
    // All are under way at once; each gets its own bytes.
    for (number, (client, _)) in pairs.iter_mut().enumerate() {
        client.write_all(&noise(10_000, number as u64)).unwrap();
    }
    for (number, (_, server)) in pairs.iter_mut().enumerate() {
        expect(server, &noise(10_000, number as u64));
    }
    let mut late = proxy.connect();
    late.write_all(b"late").unwrap();
    assert_eq!((proxy.status("connections"), proxy.status("opened")), ("200".into(), "200".into()));
    drop(pairs.pop());
    let (mut its_server, _) = listener.accept().expect("a place is free");
    expect(&mut its_server, b"late");
    proxy.ok("reset");
    expect_reset(&mut late);
    expect_reset(&mut pairs[0].0);
    assert_eq!(proxy.status("connections"), "0");
}

#[test]
fn wrong_commands_are_refused_and_the_end_of_the_commands_ends_nothing() {
    let (mut proxy, listener) = behind(&[]);
    assert!(proxy.tell("delay").starts_with("error: 'delay' has too many or too few words"));
    assert!(proxy.tell("").starts_with("error: "));
    assert!(proxy.tell(&"x".repeat(5_000)).starts_with("error: a command has at most"));
    proxy.ok("delay 1ms");
    drop(proxy.commands.take());
    let (mut client, mut server) = through(&proxy, &listener);
    client.write_all(b"still there").unwrap();
    expect(&mut server, b"still there");

    let (mut proxy, _listener) = behind(&[]);
    proxy.ok("quit");
    assert_eq!(proxy.child.wait().expect("its end").code(), Some(0));
}

#[test]
fn bad_usage_is_refused_with_two_and_what_cannot_run_with_one() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tramline-proxy")).args(arguments).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for arguments in [
        &[][..],
        &["--listen", "127.0.0.1:0"],
        &["--listen", "nowhere", "--to", "127.0.0.1:1"],
        &["--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--delay", "5"],
        &["--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--rate", "0"],
        &["--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--buffer", "2GiB"],
    ] {
        let (code, told) = run(arguments);
        assert!(code == Some(2) && told.contains("error:"), "{arguments:?}: {code:?} {told}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let (code, told) = run(&["--listen", &address, "--to", "127.0.0.1:1"]);
    assert!(code == Some(1) && told.contains("cannot listen on"), "{told}");
}
