//! The ports for other nodes (`--cluster-listen`): there when asked for, one per shard, refused clearly when they cannot be had.
//!
//! Not here: what nodes say to each other (the core), frames (unit tests of the edge).

use common::node::refused;
use common::{Node, Options, Peer, WAIT, temp_dir};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use tramline_wire::frame::finish_frame;
use tramline_wire::node::{self, Kind, Numbers};

fn options(shards: u16, cluster_listen: &str) -> Options {
    let mut options = Options::shards(shards);
    options.arguments.extend(["--cluster-listen".into(), cluster_listen.into()]);
    options
}

/// The ports that a node tells in its log.
fn node_ports(node: &mut Node) -> Vec<u16> {
    loop {
        let log = node.process.stderr();
        if let Some((_, rest)) = log.split_once("listening for other nodes on ")
            && let Some((line, _)) = rest.split_once('\n')
        {
            let (_, ports) = line.split_once("one port per shard: ").expect("the ports");
            let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
            return ports.split(", ").map(|port| digits(port).parse().expect("a port")).collect();
        }
        node.process.watch_quietly(Duration::from_millis(20));
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).expect("the port accepts");
    stream.set_read_timeout(Some(WAIT)).expect("a read timeout");
    stream
}

#[test]
fn each_shard_has_a_port_for_nodes_and_clients_are_served_as_before() {
    let mut node = Node::with(options(2, "127.0.0.1:0"));
    let ports = node_ports(&mut node);
    assert_eq!(ports.len(), 2);
    for port in &ports {
        let mut stream = connect(*port);
        // A cluster of one: the core closes whoever comes, before it has read anything.
        let mut hello = Vec::new();
        let start = node::begin(&mut hello, Kind::Hello, Numbers::new().advance());
        finish_frame(&mut hello, start, 0).expect("an empty frame");
        stream.write_all(&hello).expect("sent");
        assert_eq!(stream.read_to_end(&mut Vec::new()).expect("an orderly end"), 0);
    }
    Peer::connect(node.ready.client).ping();
    assert_eq!(node.metric("tramline_node_connections_opened_total"), 2.0);
    assert_eq!(node.metric("tramline_node_connections"), 0.0);
    let _open = connect(ports[0]);
    node.stop();
}

#[test]
fn without_the_flag_there_is_no_port_for_nodes() {
    let mut node = Node::start();
    Peer::connect(node.ready.client).ping();
    node.stop();
    assert!(!node.process.stderr().contains("listening for other nodes"), "{}", node.process.stderr());
}

#[test]
fn ports_that_cannot_be_had_are_refused_with_the_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let in_use = taken.local_addr().expect("its address").to_string();
    for (shards, address, parts) in [
        (1, in_use.as_str(), &["in use by another process", in_use.as_str()][..]),
        (1, "192.0.2.1:7700", &["does not belong to this machine"]),
        (3, "127.0.0.1:65534", &["no room for a port for each of 3 shards"]),
        (1, "0.0.0.0:7700", &["--advertise"]),
        (1, "somewhere", &["HOST:PORT"]),
    ] {
        let dir = temp_dir("node-ports");
        let (code, text) = refused(dir.path(), &options(shards, address));
        assert_eq!(code, 1, "{text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{address}: {text}");
        assert!(text.contains("cluster-listen") || text.contains("cluster.listen"), "{address}: {text}");
    }
}
