//! A broker of a hundred lines for the tests of the loops in this crate: keeps batches in memory, answers at once.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use tramline_wire::batch::{BatchView, Batches, LeaderStamp, stamp_leader};
use tramline_wire::error::ErrorCode;
use tramline_wire::fetch::{
    FetchCancelReply, FetchCancelRequest, FetchCreditRequest, FetchFlags, FetchReplyWriter, FetchRequest, FetchResult,
};
use tramline_wire::frame::{self, FLAG_MORE, FrameHeader, Limits, Need};
use tramline_wire::hello::HelloReply;
use tramline_wire::kind::Kind;
use tramline_wire::prim::List;
use tramline_wire::produce::{ProduceReplyWriter, ProduceRequest, ProduceResult};

/// Stamped batches of each partition, one after the other.
type Store = Arc<Mutex<HashMap<u64, Vec<u8>>>>;

/// Starts one and returns its address. It ends with the test's process.
pub fn start() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let store = Store::default();
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let store = store.clone();
            std::thread::spawn(move || serve(socket, &store));
        }
    });
    address
}

/// A stream under way.
struct Stream {
    request: FrameHeader,
    uid: u64,
    next: u64,
    credit: i64,
}

fn serve(mut socket: TcpStream, store: &Store) {
    socket.set_nodelay(true).expect("a TCP socket");
    let mut input = Vec::new();
    let mut stream: Option<Stream> = None;
    let mut chunk = vec![0; 256 << 10];
    loop {
        let mut out = Vec::new();
        let mut taken = 0;
        while let Need::Whole(found, len) = frame::peek(&input[taken..], &Limits::default()).expect("a client of ours") {
            let header = found.header;
            taken += len;
            match header.kind() {
                Some(Kind::Hello) => reply(&mut out, &header, 0, &[], |meta| hello().encode(meta)),
                Some(Kind::Produce) => produce(&mut out, &header, found.meta, found.payload, store),
                Some(Kind::Fetch) => {
                    let request = FetchRequest::decode(found.meta).expect("a fetch");
                    let entry = request.entries.iter().next().expect("one partition");
                    stream =
                        Some(Stream { request: header, uid: entry.partition_uid, next: entry.offset, credit: request.credit_bytes.into() });
                }
                Some(Kind::FetchCredit) => {
                    let credit = FetchCreditRequest::decode(found.meta).expect("a credit");
                    let stream = stream.as_mut().filter(|stream| stream.request.correlation == credit.stream);
                    stream.expect("a live stream").credit += i64::from(credit.credit_bytes);
                }
                Some(Kind::FetchCancel) => {
                    let cancel = FetchCancelRequest::decode(found.meta).expect("a cancel");
                    let ended = stream.take().filter(|stream| stream.request.correlation == cancel.stream).expect("a live stream");
                    reply(&mut out, &ended.request, 0, &[], |meta| FetchReplyWriter::begin(meta, 0).finish(meta));
                    reply(&mut out, &header, 0, &[], |meta| FetchCancelReply {}.encode(meta));
                }
                other => panic!("the fake broker does not know {other:?}"),
            }
        }
        input.drain(..taken);
        if let Some(stream) = stream.as_mut() {
            advance(&mut out, stream, store);
        }
        if socket.write_all(&out).is_err() {
            return;
        }
        match socket.read(&mut chunk) {
            Ok(n) if n > 0 => input.extend_from_slice(&chunk[..n]),
            _ => return,
        }
    }
}

fn hello() -> HelloReply<'static> {
    HelloReply {
        protocol: 1,
        feature_level: 1,
        cluster_id: [1; 16],
        node: 1,
        shard: 0,
        frame_max: 8 << 20,
        fetch_frame: 128 << 10,
        keepalive_ms: 30_000,
        idle_timeout_ms: 600_000,
        apis: List::default(),
        mechanisms: List::default(),
        challenge: &[],
        nodes: List::default(),
    }
}

fn reply(out: &mut Vec<u8>, request: &FrameHeader, flags: u16, payload: &[u8], meta: impl FnOnce(&mut Vec<u8>)) {
    let start = frame::begin_reply(out, request, flags);
    meta(out);
    frame::finish_frame(out, start, payload.len()).expect("small");
    out.extend_from_slice(payload);
}

fn produce(out: &mut Vec<u8>, header: &FrameHeader, meta: &[u8], payload: &[u8], store: &Store) {
    let request = ProduceRequest::decode(meta).expect("a produce");
    let mut results = Vec::new();
    for (entry, batch) in request.batches(payload).expect("lengths agree") {
        BatchView::parse_exact(batch).and_then(|view| view.verify_body()).expect("a sound batch");
        let mut store = store.lock().expect("no other thread panicked");
        let kept = store.entry(entry.partition_uid).or_default();
        let base_offset = Batches::new(kept).last().map_or(0, |last| last.expect("ours").next_offset());
        let at = kept.len();
        kept.extend_from_slice(batch);
        stamp_leader(&mut kept[at..], &LeaderStamp { partition_uid: entry.partition_uid, base_offset, term: 1, append_time_us: 1 });
        results.push(ProduceResult {
            partition_uid: entry.partition_uid,
            error: ErrorCode::Ok,
            base_offset,
            append_time_us: 1,
            durable_end: base_offset + 1,
        });
    }
    reply(out, header, 0, &[], |meta| {
        let mut writer = ProduceReplyWriter::begin(meta, request.level, 0);
        results.iter().for_each(|result| writer.push(meta, result));
        writer.finish(meta);
    });
}

fn advance(out: &mut Vec<u8>, stream: &mut Stream, store: &Store) {
    let store = store.lock().expect("no other thread panicked");
    let Some(kept) = store.get(&stream.uid) else { return };
    for batch in Batches::new(kept) {
        let batch = batch.expect("ours");
        if stream.credit <= 0 {
            return;
        }
        if batch.next_offset() <= stream.next {
            continue;
        }
        stream.next = batch.next_offset();
        stream.credit -= batch.len() as i64;
        let result = FetchResult {
            partition_uid: stream.uid,
            error: ErrorCode::Ok,
            flags: FetchFlags::default(),
            payload_bytes: batch.len() as u32,
            log_start: 0,
            committed_end: stream.next,
            last_stable: stream.next,
            next_offset: stream.next,
        };
        reply(out, &stream.request, FLAG_MORE, batch.bytes(), |meta| {
            let mut writer = FetchReplyWriter::begin(meta, 0);
            writer.push(meta, &result);
            writer.finish(meta);
        });
    }
}
