//! The null sink's side of a connection: bytes in, replies out, no sockets.
//!
//! It speaks what a producer asks (hello, metadata, topics, identities, produce, ping) and believes everything: batches are counted in bytes and
//! thrown away unseen, each is acknowledged at the level asked for as soon as its last byte is here. Offsets in its answers mean nothing.
//! Invariants: a payload is never kept, whatever its size; replies come in the order of requests; an unknown request is refused by its
//! number, like a broker does.
//! Not here: sockets and waiting (`sink.rs`); reading, since there is nothing to read.

use std::collections::BTreeMap;
use tramline_client::ErrorCode;
use tramline_client::wire::error::ErrorBody;
use tramline_client::wire::frame::{self, FLAG_ERROR, FrameHeader, HEADER_BYTES, Limits};
use tramline_client::wire::hello::{ApiVersions, HelloReply, HelloRequest, Node, PingReply};
use tramline_client::wire::kind::Kind;
use tramline_client::wire::level::Level;
use tramline_client::wire::metadata::{MetadataReply, MetadataRequest, PartitionMeta, TopicMeta};
use tramline_client::wire::prim::{DecodeError, List};
use tramline_client::wire::produce::{ProduceReplyWriter, ProduceRequest, ProduceResult};
use tramline_client::wire::producer::{InitProducerReply, InitProducerRequest};
use tramline_client::wire::topics::{CreateFlags, CreateTopicReply, CreateTopicRequest};

/// What the sink tells of itself and its topics, to all connections alike.
pub struct World {
    /// Where clients find it.
    pub host: String,
    /// Likewise.
    pub port: u16,
    /// Name, and number of partitions. A topic's uid is its place from 1.
    topics: Vec<(String, u32)>,
    places: BTreeMap<String, usize>,
    /// Bytes of batches taken.
    pub batch_bytes: u64,
    /// Producer ids given out.
    producers: u64,
}

impl World {
    /// Without topics.
    pub fn new(host: String, port: u16) -> World {
        World { host, port, topics: Vec::new(), places: BTreeMap::new(), batch_bytes: 0, producers: 0 }
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }
}

/// One connection.
#[derive(Default)]
pub struct Session {
    /// Header and meta of the request that is arriving, whole or in part.
    head: Vec<u8>,
    /// Bytes of its payload that have not come yet; known once the head is whole.
    payload_left: Option<u64>,
}

/// Why a connection is closed.
#[derive(Debug)]
pub struct Closed(pub String);

impl Session {
    /// Takes what came and appends what has to be said.
    pub fn receive(&mut self, mut bytes: &[u8], world: &mut World, out: &mut Vec<u8>) -> Result<(), Closed> {
        while !bytes.is_empty() {
            if let Some(left) = &mut self.payload_left {
                let skipped = (*left).min(bytes.len() as u64);
                *left -= skipped;
                world.batch_bytes += skipped;
                bytes = &bytes[skipped as usize..];
            } else {
                let wanted = self.head_bytes()?.saturating_sub(self.head.len()).min(bytes.len());
                self.head.extend_from_slice(&bytes[..wanted]);
                bytes = &bytes[wanted..];
                if self.head.len() >= HEADER_BYTES && self.head.len() == self.head_bytes()? {
                    self.payload_left = Some(u64::from(self.header()?.payload_len));
                }
            }
            if self.payload_left == Some(0) {
                let header = self.header()?;
                answer(&header, &self.head[HEADER_BYTES..], world, out)?;
                self.head.clear();
                self.payload_left = None;
            }
        }
        Ok(())
    }

    /// Bytes of header and meta, as far as known.
    fn head_bytes(&self) -> Result<usize, Closed> {
        Ok(if self.head.len() < HEADER_BYTES { HEADER_BYTES } else { HEADER_BYTES + self.header()?.meta_len as usize })
    }

    fn header(&self) -> Result<FrameHeader, Closed> {
        let (bytes, _) = self.head.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| Closed("half a header".to_owned()))?;
        let refused = |error: frame::FrameError| Closed(error.to_string());
        let header = FrameHeader::decode(bytes).map_err(refused)?;
        header.check_lengths(&Limits::PROTOCOL).map_err(refused)?;
        Ok(header)
    }
}

/// Answers a request whose bytes are all here.
fn answer(header: &FrameHeader, meta: &[u8], world: &mut World, out: &mut Vec<u8>) -> Result<(), Closed> {
    let before = out.len();
    let start = frame::begin_reply(out, header, 0);
    let said = match header.kind() {
        Some(Kind::Hello) => hello(meta, world, out),
        Some(Kind::Metadata) => metadata(meta, world, out),
        Some(Kind::Produce) => produce(meta, out),
        Some(Kind::CreateTopic) => create_topic(meta, world, out),
        Some(Kind::Ping) => {
            PingReply {}.encode(out);
            Ok(Said::Reply)
        }
        Some(Kind::InitProducer) => init_producer(meta, world, out),
        Some(other) => Ok(Said::Refusal(ErrorCode::UnknownKind, format!("a null sink does not know {other}"))),
        None => Ok(Said::Refusal(ErrorCode::UnknownKind, format!("a null sink does not know kind {}", header.kind))),
    };
    match said.map_err(|error| Closed(format!("a body that does not decode: {error}")))? {
        Said::Nothing => out.truncate(before),
        Said::Reply if frame::finish_frame(out, start, 0).is_ok() => {}
        Said::Reply => refuse(header, ErrorCode::LimitExceeded, "the answer is longer than a frame may be", before, out)?,
        Said::Refusal(code, sentence) => refuse(header, code, &sentence, before, out)?,
    }
    Ok(())
}

enum Said {
    Nothing,
    Reply,
    Refusal(ErrorCode, String),
}

fn refuse(header: &FrameHeader, code: ErrorCode, sentence: &str, before: usize, out: &mut Vec<u8>) -> Result<(), Closed> {
    out.truncate(before);
    let start = frame::begin_reply(out, header, FLAG_ERROR);
    ErrorBody::new(code, sentence, "").encode(out);
    frame::finish_frame(out, start, 0).map(|_| ()).map_err(|error| Closed(error.to_string()))
}

fn hello(meta: &[u8], world: &World, out: &mut Vec<u8>) -> Result<Said, DecodeError> {
    HelloRequest::decode(meta)?;
    let apis = [Kind::Hello, Kind::Metadata, Kind::Produce, Kind::CreateTopic, Kind::Ping, Kind::InitProducer].map(|kind| ApiVersions {
        kind: kind.as_u8(),
        min: kind.versions().0,
        max: kind.versions().1,
    });
    let ports = [world.port];
    let nodes = [Node { node: 1, host: &world.host, port: world.port, shard_ports: List::of(&ports) }];
    HelloReply {
        protocol: tramline_client::wire::PROTOCOL_MAX,
        feature_level: 1,
        cluster_id: [0; 16],
        node: 1,
        shard: 0,
        frame_max: frame::FRAME_BYTES_MAX_DEFAULT,
        fetch_frame: 128 << 10,
        keepalive_ms: 0,
        idle_timeout_ms: 0,
        apis: List::of(&apis),
        mechanisms: List::default(),
        challenge: &[],
        nodes: List::of(&nodes),
    }
    .encode(out);
    Ok(Said::Reply)
}

fn metadata(meta: &[u8], world: &World, out: &mut Vec<u8>) -> Result<Said, DecodeError> {
    let request = MetadataRequest::decode(meta)?;
    let asked: Vec<&str> = if request.topics.is_empty() {
        world.topics.iter().map(|(name, _)| name.as_str()).collect()
    } else {
        request.topics.iter().collect()
    };
    let partitions_of = |place: Option<usize>| -> Vec<PartitionMeta> {
        let count = place.map_or(0, |place| world.topics[place].1);
        let uid = |index| (place.map_or(0, |place| place as u64 + 1) << 32) | u64::from(index);
        let partition = |index| PartitionMeta { index, uid: uid(index), group: 1, leader_node: 1, leader_shard: 0, term: 1 };
        (0..count).map(partition).collect()
    };
    let found: Vec<(Option<usize>, Vec<PartitionMeta>)> =
        asked.iter().map(|name| world.place(name)).map(|place| (place, partitions_of(place))).collect();
    let topics: Vec<TopicMeta<'_>> = asked
        .iter()
        .zip(&found)
        .map(|(name, (place, partitions))| TopicMeta {
            error: if place.is_some() { ErrorCode::Ok } else { ErrorCode::UnknownTopic },
            name,
            topic_uid: place.map_or(0, |place| place as u64 + 1),
            partitions: List::of(partitions),
        })
        .collect();
    let ports = [world.port];
    let nodes = [Node { node: 1, host: &world.host, port: world.port, shard_ports: List::of(&ports) }];
    MetadataReply { view_epoch: world.topics.len() as u64 + 1, nodes: List::of(&nodes), topics: List::of(&topics) }.encode(out);
    Ok(Said::Reply)
}

/// Batches of a producer that may be under way in a partition: the most requests that the load generator lets wait. The sink tells none from
/// another, so any number is as true.
const BATCHES_KEPT: u16 = 1024;
/// An hour: no run of a null sink pauses for so long.
const EXPIRY_MS: u32 = 3_600_000;

fn init_producer(meta: &[u8], world: &mut World, out: &mut Vec<u8>) -> Result<Said, DecodeError> {
    InitProducerRequest::decode(meta)?;
    world.producers += 1;
    InitProducerReply { producer_id: world.producers, batches_kept: BATCHES_KEPT, expiry_ms: EXPIRY_MS }.encode(out);
    Ok(Said::Reply)
}

fn produce(meta: &[u8], out: &mut Vec<u8>) -> Result<Said, DecodeError> {
    let request = ProduceRequest::decode(meta)?;
    if request.level == Level::None {
        return Ok(Said::Nothing);
    }
    let mut writer = ProduceReplyWriter::begin(out, request.level, 0);
    for entry in request.entries.iter() {
        let result =
            ProduceResult { partition_uid: entry.partition_uid, error: ErrorCode::Ok, base_offset: 0, append_time_us: 0, durable_end: 0 };
        writer.push(out, &result);
    }
    writer.finish(out);
    Ok(Said::Reply)
}

fn create_topic(meta: &[u8], world: &mut World, out: &mut Vec<u8>) -> Result<Said, DecodeError> {
    let request = CreateTopicRequest::decode(meta)?;
    let place = world.place(request.name);
    if place.is_some() && !request.flags.has(CreateFlags::IF_NOT_EXISTS) {
        return Ok(Said::Refusal(ErrorCode::TopicExists, format!("topic {:?} exists already", request.name)));
    }
    let created = place.is_none();
    let place = place.unwrap_or_else(|| {
        world.topics.push((request.name.to_owned(), request.partitions.max(1)));
        world.places.insert(request.name.to_owned(), world.topics.len() - 1);
        world.topics.len() - 1
    });
    CreateTopicReply { topic_uid: place as u64 + 1, created, partitions: world.topics[place].1 }.encode(out);
    Ok(Said::Reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tramline_client::wire::frame::{Frame, Need};
    use tramline_client::wire::produce::ProduceEntry;

    fn world() -> World {
        let mut world = World::new("127.0.0.1".to_owned(), 7);
        let topic = CreateTopicRequest { name: "t", partitions: 2, replication: 0, flags: CreateFlags(0), settings: List::default() };
        create_topic(&body(|out| topic.encode(out)), &mut world, &mut Vec::new()).unwrap();
        world
    }

    fn body(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        bytes
    }

    fn request(kind: Kind, correlation: u64, meta: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let start = frame::begin_request(&mut bytes, kind, correlation);
        bytes.extend_from_slice(meta);
        frame::finish_frame(&mut bytes, start, payload.len()).unwrap();
        bytes.extend_from_slice(payload);
        bytes
    }

    fn produce_request(correlation: u64, level: Level, payload: &[u8]) -> Vec<u8> {
        let entries = [ProduceEntry { partition_uid: (1 << 32) | 1, batch_len: payload.len() as u32 }];
        let meta = body(|out| ProduceRequest { level, timeout_ms: 1, entries: List::of(&entries) }.encode(out));
        request(Kind::Produce, correlation, &meta, payload)
    }

    fn frames(mut out: &[u8], mut each: impl FnMut(Frame<'_>)) {
        while let Need::Whole(frame, length) = frame::peek(out, &Limits::PROTOCOL).unwrap() {
            each(frame);
            out = &out[length..];
        }
        assert!(out.is_empty());
    }

    #[test]
    fn batches_are_acknowledged_unseen_however_they_are_cut() {
        let bytes = [
            produce_request(1, Level::Durable, b"this is no batch"),
            produce_request(2, Level::None, b"nobody waits for this"),
            produce_request(3, Level::Leader, &[7; 5000]),
            request(Kind::Ping, 4, &[], &[]),
        ]
        .concat();
        for piece in [1, 7, 32, 100, bytes.len()] {
            let (mut session, mut world, mut out) = (Session::default(), world(), Vec::new());
            for part in bytes.chunks(piece) {
                session.receive(part, &mut world, &mut out).unwrap();
            }
            let mut seen = Vec::new();
            frames(&out, |frame| seen.push((frame.header.correlation, frame.header.kind())));
            assert_eq!(seen, [(1, Some(Kind::Produce)), (3, Some(Kind::Produce)), (4, Some(Kind::Ping))], "{piece}");
            assert_eq!(world.batch_bytes, 16 + 21 + 5000);
        }
    }

    #[test]
    fn an_acknowledgement_waits_for_the_last_byte() {
        let bytes = produce_request(1, Level::Durable, b"payload");
        let (mut session, mut world, mut out) = (Session::default(), world(), Vec::new());
        session.receive(&bytes[..bytes.len() - 1], &mut world, &mut out).unwrap();
        assert!(out.is_empty());
        session.receive(&bytes[bytes.len() - 1..], &mut world, &mut out).unwrap();
        frames(&out, |frame| {
            let reply = tramline_client::wire::produce::ProduceReply::decode(frame.meta).unwrap();
            let results: Vec<_> = reply.results.iter().map(|result| (result.partition_uid, result.error)).collect();
            assert_eq!((reply.level_reached, results), (Level::Durable, vec![((1 << 32) | 1, ErrorCode::Ok)]));
        });
    }

    #[test]
    fn unknown_requests_are_refused_and_the_connection_goes_on() {
        let (mut session, mut world, mut out) = (Session::default(), world(), Vec::new());
        let mut unknown = request(Kind::Ping, 1, &[], &[]);
        unknown[4] = 200;
        session.receive(&unknown, &mut world, &mut out).unwrap();
        session.receive(&request(Kind::ListTopics, 2, &[], &[]), &mut world, &mut out).unwrap();
        session.receive(&request(Kind::Ping, 3, &[], &[]), &mut world, &mut out).unwrap();
        let mut seen = Vec::new();
        frames(&out, |frame| {
            let code = frame.header.is_error().then(|| ErrorBody::decode(frame.meta).unwrap().code().unwrap());
            seen.push((frame.header.correlation, code));
        });
        assert_eq!(seen, [(1, Some(ErrorCode::UnknownKind)), (2, Some(ErrorCode::UnknownKind)), (3, None)]);
    }

    #[test]
    fn each_producer_gets_an_identity_of_its_own() {
        let (mut world, mut ids) = (world(), Vec::new());
        for _ in 0..3 {
            let mut out = Vec::new();
            Session::default().receive(&request(Kind::InitProducer, 1, &[], &[]), &mut world, &mut out).unwrap();
            frames(&out, |frame| ids.push(InitProducerReply::decode(frame.meta).unwrap().producer_id));
        }
        assert_eq!(ids, [1, 2, 3]);
    }

    #[test]
    fn topics_are_what_was_created() {
        let (mut session, mut world, mut out) = (Session::default(), world(), Vec::new());
        let names = ["t", "u"];
        let meta = body(|out| MetadataRequest { topics: List::of(&names) }.encode(out));
        session.receive(&request(Kind::Metadata, 1, &meta, &[]), &mut world, &mut out).unwrap();
        frames(&out, |frame| {
            let reply = MetadataReply::decode(frame.meta).unwrap();
            let topics: Vec<_> = reply.topics.iter().map(|topic| (topic.name.to_owned(), topic.error, topic.partitions.len())).collect();
            assert_eq!(topics, [("t".to_owned(), ErrorCode::Ok, 2), ("u".to_owned(), ErrorCode::UnknownTopic, 0)]);
        });
        let again = |flags| {
            body(|out| CreateTopicRequest { name: "t", partitions: 9, replication: 0, flags, settings: List::default() }.encode(out))
        };
        for (flags, is_error) in [(CreateFlags(0), true), (CreateFlags::IF_NOT_EXISTS, false)] {
            out.clear();
            session.receive(&request(Kind::CreateTopic, 2, &again(flags), &[]), &mut world, &mut out).unwrap();
            frames(&out, |frame| {
                assert_eq!(frame.header.is_error(), is_error);
                let created =
                    (!is_error).then(|| CreateTopicReply::decode(frame.meta).unwrap()).map(|reply| (reply.created, reply.partitions));
                assert_eq!(created, (!is_error).then_some((false, 2)), "it was there");
            });
        }
    }

    #[test]
    fn what_is_no_frame_closes_the_connection() {
        for bytes in [b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n".to_vec(), request(Kind::Hello, 1, b"x", &[])] {
            assert!(Session::default().receive(&bytes, &mut world(), &mut Vec::new()).is_err());
        }
    }
}
