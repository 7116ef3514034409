//! Something small on the seats of several nodes, that dials, sends what a test wants, hears everything, and may be told to echo or to have no room.
//! All else is what runs of the simulator use: the loop around a seat, processes, disks, the network between nodes.

use crate::config::DiskLook;
use crate::effects::{Effect, Effects, Event, Now};
use crate::ids::{ConnId, IdMap};
use crate::mutants::Mutants;
use crate::shard::{ShardStart, Taken};
use crate::sim::node::ShardAt;
use crate::sim::seat_core::Core;
use crate::sim::totals::Totals;
use crate::sim::world::World;
use crate::sim::{Params, Profile};
use std::any::Any;
use tramline_wire::frame::finish_frame;
use tramline_wire::node::{Kind, Numbers, begin};

/// What a driver hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Opened(u64),
    Dialed {
        dial: u64,
        conn: u64,
    },
    DialFailed {
        dial: u64,
        errno: i32,
    },
    /// The first eight bytes of its meta, and the length of its payload.
    Frame {
        conn: u64,
        what: u64,
        payload_bytes: usize,
    },
    Sent {
        conn: u64,
        queued_bytes: usize,
    },
    Closed(u64),
    Done,
}

#[derive(Default)]
pub(super) struct Driver {
    /// With the driver's own monotonic time.
    pub(super) heard: Vec<(u64, Heard)>,
    pub(super) echoes: bool,
    pub(super) has_no_room: bool,
    numbers: IdMap<ConnId, Numbers>,
}

impl Driver {
    /// Puts a frame into the effects: meta is `what`, and some bytes that nobody looks at.
    fn send(&mut self, conn: ConnId, what: u64, meta_bytes: usize, payload: &[u8], effects: &mut Effects) {
        let number = self.numbers.entry(conn).or_default().advance();
        effects.send(conn, [], |out| {
            let start = begin(out, if payload.is_empty() { Kind::Hello } else { Kind::Append }, number);
            out.extend_from_slice(&what.to_le_bytes());
            out.resize(out.len() + meta_bytes, 0xA5);
            finish_frame(out, start, payload.len()).expect("within the limits");
            out.extend_from_slice(payload);
        });
    }

    pub(super) fn hears(&self) -> Vec<Heard> {
        self.heard.iter().map(|(_, heard)| heard.clone()).collect()
    }

    /// What came in frames, in order.
    pub(super) fn frames(&self) -> Vec<u64> {
        let frame = |(_, heard): &(u64, Heard)| if let Heard::Frame { what, .. } = heard { Some(*what) } else { None };
        self.heard.iter().filter_map(frame).collect()
    }

    /// The latest connection that was opened or dialed.
    pub(super) fn conn(&self) -> u64 {
        let conn = |(_, heard): &(u64, Heard)| match heard {
            Heard::Opened(conn) | Heard::Dialed { conn, .. } => Some(*conn),
            _ => None,
        };
        self.heard.iter().rev().find_map(conn).expect("there is a connection")
    }

    pub(super) fn closed(&self) -> usize {
        self.heard.iter().filter(|(_, heard)| matches!(heard, Heard::Closed(_))).count()
    }
}

impl Core for Driver {
    fn step(&mut self, now: Now, event: Event<'_>, effects: &mut Effects) -> Taken {
        let heard = match event {
            Event::NodeOpened { conn } => Heard::Opened(conn.0),
            Event::Dialed { dial, conn } => Heard::Dialed { dial, conn: conn.0 },
            Event::DialFailed { dial, errno } => Heard::DialFailed { dial, errno },
            Event::NodeFrame { .. } if self.has_no_room => return Taken::Blocked,
            Event::NodeFrame { conn, frame } => {
                let what = u64::from_le_bytes(frame.meta[..8].try_into().expect("eight bytes"));
                if self.echoes {
                    self.send(conn, what, 0, &[], effects);
                }
                Heard::Frame { conn: conn.0, what, payload_bytes: frame.payload.len() }
            }
            Event::Sent { conn, queued_bytes } => Heard::Sent { conn: conn.0, queued_bytes },
            Event::Closed { conn } => Heard::Closed(conn.0),
            Event::Done { .. } => Heard::Done,
            _ => return Taken::Yes,
        };
        self.heard.push((now.mono_us, heard));
        Taken::Yes
    }
    fn is_serving(&self) -> bool {
        true
    }
    fn has_stopped(&self) -> bool {
        false
    }
    fn close_all(&mut self, _effects: &mut Effects) {}
    fn set_disk(&mut self, _look: DiskLook) {}
    fn count(&mut self, _totals: &mut Totals) {}
}

fn begin_driver(_start: ShardStart, _effects: &mut Effects) -> Result<Box<dyn Core>, String> {
    Ok(Box::new(Driver::default()))
}

/// Nodes with drivers on their seats.
pub(super) struct Bench {
    pub(super) world: World,
}

/// Parameters of `nodes` nodes with one shard each, whose disks and clocks do what they should.
pub(super) fn params(seed: u64, nodes: usize) -> Params {
    Params { nodes, cut_every_us: 0, ..Params::draw(seed, Profile::Calm) }
}

/// The only shard of a node.
pub(super) fn at(node: usize) -> ShardAt {
    ShardAt { node, shard: 0 }
}

impl Bench {
    pub(super) fn new(seed: u64, params: Params) -> Bench {
        let mut world = World::new(seed, params, Mutants::default(), true);
        // Faults are those of the test.
        world.quiet = true;
        for node in 0..world.nodes.len() {
            world.nodes[node].begin = begin_driver;
            world.start(node);
        }
        Bench { world }
    }

    pub(super) fn driver(&mut self, node: usize) -> &mut Driver {
        let core: &mut dyn Any = &mut *self.world.nodes[node].seats[0].core;
        core.downcast_mut().expect("a driver sits there")
    }

    /// So much time passes.
    pub(super) fn run(&mut self, us: u64) {
        let until_us = self.world.now_us + us;
        while self.world.next(until_us).is_some() {}
        self.world.now_us = until_us;
    }

    /// The driver of a node puts something into its effects, which are carried out.
    pub(super) fn does(&mut self, node: usize, what: impl FnOnce(&mut Driver, &mut Effects)) {
        let seat = &mut self.world.nodes[node].seats[0];
        let core: &mut dyn Any = &mut *seat.core;
        what(core.downcast_mut().expect("a driver sits there"), &mut seat.effects);
        self.world.carry(at(node));
    }

    pub(super) fn dial(&mut self, from: usize, to: usize, dial: u64) {
        let address = format!("10.0.0.{}:7700", to + 1).parse().expect("an address");
        self.does(from, |_, effects| effects.push(Effect::Dial { dial, address }));
    }

    pub(super) fn send(&mut self, node: usize, conn: u64, what: u64) {
        self.does(node, |driver, effects| driver.send(ConnId(conn), what, 0, &[], effects));
    }

    /// The same with a payload, which the first frame of a connection must not have.
    pub(super) fn send_with(&mut self, node: usize, conn: u64, what: u64, payload_bytes: usize) {
        self.does(node, |driver, effects| driver.send(ConnId(conn), what, 0, &vec![7; payload_bytes], effects));
    }

    pub(super) fn send_long(&mut self, node: usize, conn: u64, what: u64, meta_bytes: usize) {
        self.does(node, |driver, effects| driver.send(ConnId(conn), what, meta_bytes, &[], effects));
    }

    /// Bytes that are no frame, or not the next one.
    pub(super) fn send_raw(&mut self, node: usize, conn: u64, bytes: &[u8]) {
        self.does(node, |_, effects| effects.send(ConnId(conn), [], |out| out.extend_from_slice(bytes)));
    }

    pub(super) fn close(&mut self, node: usize, conn: u64) {
        self.does(node, |_, effects| effects.push(Effect::Close { conn: ConnId(conn), reason: "a test" }));
    }

    /// A connection from one node to another; answers its numbers at both ends.
    pub(super) fn connect(&mut self, from: usize, to: usize) -> (u64, u64) {
        self.dial(from, to, 1);
        self.run(5000);
        (self.driver(from).conn(), self.driver(to).conn())
    }

    /// What both ends of a connection have, at once: the queue, and what was sent and not read.
    pub(super) fn queued_and_unread_bytes(&mut self, conn: u64) -> (usize, usize) {
        let (wire, side) = self.world.peers.conns[&conn];
        let pipe = &self.world.peers.wires[&wire].pipes[side];
        (pipe.queued_bytes(), pipe.unread_bytes())
    }
}
