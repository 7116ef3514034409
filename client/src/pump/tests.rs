//! The producer's turn over a socket that a test plays.

use std::io;
use std::time::Duration;

use tramline_wire::error::ErrorCode;
use tramline_wire::frame::FLAG_REPLY;
use tramline_wire::kind::Kind;
use tramline_wire::level::Level;
use tramline_wire::produce::{ProduceReplyWriter, ProduceResult};

use super::{Received, Slot, Wire, exchange};
use crate::config::ProducerConfig;
use crate::core::links::Lanes;
use crate::core::producer::ProducerCore;
use crate::core::{Conn, Now};
use crate::error::Error;
use crate::fake::{FakeBroker, frame_of};
use crate::producer::Record;

/// Takes everything, and has so many pongs before it has nothing more, or the answer to the first request.
#[derive(Debug, Default)]
struct Talker {
    pongs: usize,
    answer: Vec<u8>,
}

impl Wire for Talker {
    type Watch = ();
    fn begin(_: &str) -> Result<Talker, Error> {
        Ok(Talker::default())
    }
    fn address(&self) -> &str {
        "talker:1"
    }
    fn is_connecting(&self) -> bool {
        false
    }
    fn finish(&mut self) -> Result<bool, Error> {
        Ok(true)
    }
    fn flush(&mut self, conn: &mut Conn) -> io::Result<usize> {
        let count = (conn.out().queued() - conn.out().written()) as usize;
        conn.out_mut().advance(count);
        Ok(count)
    }
    fn fill(&mut self, conn: &mut Conn, _: bool) -> io::Result<Received> {
        let bytes = match self.pongs.checked_sub(1) {
            Some(left) => {
                self.pongs = left;
                frame_of(Kind::Ping, FLAG_REPLY, 1 << 40, &[], |_| {})
            }
            None => std::mem::take(&mut self.answer),
        };
        if bytes.is_empty() {
            return Ok(Received::Empty);
        }
        conn.room()[..bytes.len()].copy_from_slice(&bytes);
        conn.received(bytes.len());
        Ok(Received::Some(bytes.len()))
    }
    fn look((): &mut (), _: &mut [Option<Slot<Talker>>]) {}
}

/// A core with one record, whose request is as good as written, and its partition's uid.
fn sending() -> (ProducerCore, u64, Now) {
    let mut broker = FakeBroker::new();
    let uid = broker.create("t", 1)[0];
    let config = ProducerConfig { idempotent: false, delivery_timeout: Duration::from_secs(2), ..ProducerConfig::default() };
    let mut core = ProducerCore::new(config, 500_000, 16 << 20, 0).expect("a valid configuration");
    let now = Now { mono_us: 1, utc_us: 0 };
    Lanes::learn(&mut core, &broker.view(), now);
    let topic = core.topic("t").expect("known");
    core.push(|| now, topic, &Record { topic: "t", value: Some(b"v"), ..Record::default() }).expect("taken");
    core.step(now);
    core.on_connected(0, "talker:1", 8 << 20, 0, now);
    core.fill_windows(now);
    (core, uid, now)
}

#[test]
fn a_peer_that_talks_and_never_answers_is_given_up() {
    let (mut core, _, mut now) = sending();
    let mut slot = Slot { socket: Talker { pongs: usize::MAX, ..Talker::default() }, received_us: 0 };
    while exchange(&mut slot, &mut core, 0, now).is_ok() {
        assert!(now.mono_us < 4_000_000, "still used");
        now.mono_us += 10_000;
        core.step(now);
    }
}

#[test]
fn an_overdue_answer_that_lies_behind_others_counts() {
    let (mut core, partition_uid, mut now) = sending();
    let result = ProduceResult { partition_uid, error: ErrorCode::Ok, base_offset: 7, append_time_us: 0, durable_end: 8 };
    let answer = frame_of(Kind::Produce, FLAG_REPLY, 1, &[], |out| {
        let mut writer = ProduceReplyWriter::begin(out, Level::Durable, 0);
        writer.push(out, &result);
        writer.finish(out);
    });
    let mut slot = Slot { socket: Talker { pongs: 0, answer: Vec::new() }, received_us: 0 };
    exchange(&mut slot, &mut core, 0, now).expect("written");
    now.mono_us += 60_000_000; // the caller was away
    core.step(now);
    slot.socket = Talker { pongs: 20, answer };
    exchange(&mut slot, &mut core, 0, now).expect("answered");
    let mut offsets = Vec::new();
    core.drain(|delivery| offsets.push(delivery.offset));
    assert_eq!(offsets, [Some(7)]);
}
