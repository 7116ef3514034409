//! The protocol's bytes, laid out by hand from `docs/PROTOCOL.md`: frames, the metas the tests need, batches.
//!
//! Why by hand and not with the wire crate: the broker encodes and decodes with that crate, so a mistake made on both
//! sides would be invisible to a test that uses it too. This is the second reader that the specification promises is
//! possible. It also has to write what the wire crate rightly refuses to write.
//!
//! Not here: sockets (`peer`), codecs (tests of compressed batches go through the tools).

/// Request kinds.
pub mod kind {
    pub const HELLO: u8 = 1;
    pub const METADATA: u8 = 2;
    pub const PRODUCE: u8 = 3;
    pub const FETCH: u8 = 4;
    pub const FETCH_CREDIT: u8 = 5;
    pub const FETCH_CANCEL: u8 = 6;
    pub const LIST_OFFSETS: u8 = 7;
    pub const CREATE_TOPIC: u8 = 8;
    pub const ALTER_TOPIC: u8 = 9;
    pub const DELETE_TOPIC: u8 = 10;
    pub const LIST_TOPICS: u8 = 11;
    pub const DESCRIBE_TOPIC: u8 = 12;
    pub const DESCRIBE_OPTIONS: u8 = 13;
    pub const PING: u8 = 14;
    pub const TRIM_PARTITIONS: u8 = 15;
    pub const DESCRIBE_STORAGE: u8 = 16;
    pub const INIT_PRODUCER: u8 = 17;
}

/// Error codes.
pub mod code {
    pub const OK: u16 = 0;
    pub const MALFORMED: u16 = 1;
    pub const UNSUPPORTED_VERSION: u16 = 2;
    pub const UNKNOWN_KIND: u16 = 3;
    pub const FRAME_TOO_LARGE: u16 = 4;
    pub const CHECKSUM_MISMATCH: u16 = 5;
    pub const HELLO_REQUIRED: u16 = 6;
    pub const UNKNOWN_TOPIC: u16 = 8;
    pub const UNKNOWN_PARTITION: u16 = 9;
    pub const TOPIC_EXISTS: u16 = 10;
    pub const INVALID_TOPIC_NAME: u16 = 11;
    pub const INVALID_SETTING: u16 = 12;
    pub const UNKNOWN_SETTING: u16 = 13;
    pub const INVALID_REQUEST: u16 = 14;
    pub const RECORD_TOO_LARGE: u16 = 15;
    pub const BATCH_TOO_LARGE: u16 = 16;
    pub const UNKNOWN_CODEC: u16 = 17;
    pub const UNKNOWN_FLAG: u16 = 18;
    pub const BAD_BATCH: u16 = 19;
    pub const NOT_LEADER: u16 = 20;
    pub const OVERLOADED: u16 = 22;
    pub const DISK_FULL: u16 = 23;
    pub const OFFSET_OUT_OF_RANGE: u16 = 24;
    pub const DAMAGED: u16 = 25;
    pub const TIMED_OUT: u16 = 27;
    pub const LIMIT_EXCEEDED: u16 = 29;
    pub const UNKNOWN_LEVEL: u16 = 30;
    pub const UNKNOWN_STREAM: u16 = 31;
    pub const TOPIC_DELETED: u16 = 33;
    pub const OUT_OF_SEQUENCE: u16 = 34;
    pub const PRODUCER_FENCED: u16 = 35;
    pub const DUPLICATE_TOO_OLD: u16 = 36;
}

/// Durability levels of a produce request.
pub mod level {
    pub const NONE: u8 = 0;
    pub const LEADER: u8 = 1;
    pub const LEADER_DURABLE: u8 = 2;
    pub const REPLICATED: u8 = 3;
    pub const DURABLE: u8 = 4;
}

/// Frame flags.
pub const REPLY: u16 = 1;
/// Further replies follow with this correlation.
pub const MORE: u16 = 2;
/// The meta is an error body.
pub const ERROR: u16 = 4;
/// Size of a frame's header.
pub const HEADER_BYTES: usize = 32;
/// Size of a batch's header.
pub const BATCH_HEADER_BYTES: usize = 112;

/// Appends little-endian fields.
#[derive(Default, Clone)]
pub struct Put(pub Vec<u8>);

impl Put {
    pub fn new() -> Put {
        Put::default()
    }
    pub fn u8(mut self, v: u8) -> Put {
        self.0.push(v);
        self
    }
    pub fn u16(mut self, v: u16) -> Put {
        self.0.extend(v.to_le_bytes());
        self
    }
    pub fn u32(mut self, v: u32) -> Put {
        self.0.extend(v.to_le_bytes());
        self
    }
    pub fn u64(mut self, v: u64) -> Put {
        self.0.extend(v.to_le_bytes());
        self
    }
    pub fn i64(mut self, v: i64) -> Put {
        self.0.extend(v.to_le_bytes());
        self
    }
    pub fn str(self, v: &str) -> Put {
        self.bytes16(v.as_bytes())
    }
    pub fn bytes16(mut self, v: &[u8]) -> Put {
        self = self.u16(v.len() as u16);
        self.0.extend(v);
        self
    }
    pub fn pairs(mut self, v: &[(&str, &str)]) -> Put {
        self = self.u32(v.len() as u32);
        for (key, value) in v {
            self = self.str(key).str(value);
        }
        self
    }
}

/// Takes little-endian fields; panics on a short input, since the broker's replies are what is being tested.
pub struct Get<'a>(pub &'a [u8]);

impl<'a> Get<'a> {
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        assert!(len <= self.0.len(), "{len} bytes wanted, {} left", self.0.len());
        let (head, tail) = self.0.split_at(len);
        self.0 = tail;
        head
    }
    pub fn u8(&mut self) -> u8 {
        self.bytes(1)[0]
    }
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes(2).try_into().expect("two bytes"))
    }
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes(4).try_into().expect("four bytes"))
    }
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes(8).try_into().expect("eight bytes"))
    }
    pub fn i64(&mut self) -> i64 {
        self.u64() as i64
    }
    pub fn bytes16(&mut self) -> &'a [u8] {
        let len = self.u16() as usize;
        self.bytes(len)
    }
    pub fn str(&mut self) -> String {
        String::from_utf8(self.bytes16().to_vec()).expect("UTF-8")
    }
    /// Asserts that nothing is left.
    pub fn end(&self) {
        assert!(self.0.is_empty(), "{} bytes more than the layout has", self.0.len());
    }
}

/// A frame to be sent, each header field free to be wrong.
#[derive(Clone)]
pub struct FrameToSend {
    pub magic: [u8; 4],
    pub kind: u8,
    pub version: u8,
    pub flags: u16,
    pub correlation: u64,
    pub meta: Vec<u8>,
    pub payload: Vec<u8>,
    /// Declared instead of the true length.
    pub meta_len: Option<u32>,
    /// Declared instead of the true length.
    pub payload_len: Option<u32>,
    pub reserved: u32,
    /// XORed into the true checksum.
    pub checksum_error: u32,
}

impl FrameToSend {
    /// A valid request.
    pub fn new(kind: u8, correlation: u64, meta: Vec<u8>, payload: Vec<u8>) -> FrameToSend {
        FrameToSend {
            magic: *b"TRL1",
            kind,
            version: 1,
            flags: 0,
            correlation,
            meta,
            payload,
            meta_len: None,
            payload_len: None,
            reserved: 0,
            checksum_error: 0,
        }
    }

    /// Its bytes. The checksum is right for the header as it is, wrong fields included, unless `checksum_error` says otherwise.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Put(self.magic.to_vec())
            .u8(self.kind)
            .u8(self.version)
            .u16(self.flags)
            .u64(self.correlation)
            .u32(self.meta_len.unwrap_or(self.meta.len() as u32))
            .u32(self.payload_len.unwrap_or(self.payload.len() as u32))
            .u32(self.reserved)
            .0;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&out), &self.meta) ^ self.checksum_error;
        out.extend(crc.to_le_bytes());
        out.extend(&self.meta);
        out.extend(&self.payload);
        out
    }
}

/// A record to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rec {
    pub key: Option<Vec<u8>>,
    /// `None` is a null value (a tombstone).
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    /// Microseconds after the batch's first timestamp.
    pub time_delta_us: i32,
}

impl Rec {
    /// A record with a value only.
    pub fn value(value: impl Into<Vec<u8>>) -> Rec {
        Rec { value: Some(value.into()), ..Rec::default() }
    }
}

/// The producer's timestamp of batches made here, unless a test says otherwise: 2025-01-01T00:00:00Z.
pub const TIME_US: i64 = 1_735_689_600_000_000;

/// Where the fields of a batch's header are.
pub mod at {
    pub const CODEC: usize = 5;
    pub const FLAGS: usize = 8;
    pub const RECORD_COUNT: usize = 12;
    pub const BODY_LEN: usize = 20;
    pub const VALUES_LEN: usize = 28;
    pub const PRODUCER_ID: usize = 48;
    pub const BODY_CRC: usize = 64;
    pub const BASE_OFFSET: usize = 80;
}

/// A batch of an idempotent producer: id, epoch, and the number of its first record.
pub fn marked_batch((id, epoch, sequence): (u64, u16, u32), records: &[Rec]) -> Vec<u8> {
    let mut batch = batch(TIME_US, records);
    let mark = Put::new().u64(id).u16(epoch).u16(0).u32(sequence).0;
    batch[at::PRODUCER_ID..at::BODY_CRC].copy_from_slice(&mark);
    seal(&mut batch);
    batch
}

/// An uncompressed batch as a producer sends it: the leader's region is zero.
pub fn batch(first_timestamp_us: i64, records: &[Rec]) -> Vec<u8> {
    let mut index = Put::new();
    let mut values = Vec::new();
    for (delta, record) in records.iter().enumerate() {
        let flags =
            u16::from(record.key.is_some()) | (u16::from(!record.headers.is_empty()) << 1) | (u16::from(record.value.is_none()) << 2);
        let value = record.value.as_deref().unwrap_or_default();
        index = index.u16(flags).u16(delta as u16).u32(record.time_delta_us as u32).u32(value.len() as u32);
        if let Some(key) = &record.key {
            index = index.bytes16(key);
        }
        values.extend(value);
        if !record.headers.is_empty() {
            let mut headers = Put::new().u16(record.headers.len() as u16);
            for (name, value) in &record.headers {
                headers = headers.str(name).u32(value.len() as u32);
                headers.0.extend(value);
            }
            index = index.u32(headers.0.len() as u32);
            values.extend(headers.0);
        }
    }
    let tombstones = records.iter().any(|r| r.value.is_none());
    let newest = records.iter().map(|r| i64::from(r.time_delta_us)).max().unwrap_or(0);
    let mut out = Put(b"TRB1".to_vec())
        .u8(1) // version
        .u8(0) // codec: none
        .u8(1) // checksum: crc32c
        .u8(0)
        .u16(if tombstones { 8 } else { 0 })
        .u16(0) // encryption key
        .u32(records.len() as u32)
        .u32(records.len().saturating_sub(1) as u32)
        .u32((index.0.len() + values.len()) as u32)
        .u32(index.0.len() as u32)
        .u32(values.len() as u32)
        .i64(first_timestamp_us)
        .i64(first_timestamp_us + newest)
        .u64(0) // producer
        .u16(0)
        .u16(0)
        .u32(0)
        .u32(0) // body checksum, below
        .0;
    out.resize(BATCH_HEADER_BYTES, 0);
    out.extend(index.0);
    out.extend(values);
    seal(&mut out);
    out
}

/// Makes the body checksum right again after a field of the producer's region or the body was changed.
pub fn seal(batch: &mut [u8]) {
    let crc = body_crc(batch);
    batch[at::BODY_CRC..at::BODY_CRC + 4].copy_from_slice(&crc.to_le_bytes());
}

fn body_crc(batch: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&batch[..at::BODY_CRC]), &batch[BATCH_HEADER_BYTES..])
}

/// A record as it came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub offset: u64,
    pub timestamp_us: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

/// A batch as it came back, both checksums verified.
#[derive(Debug)]
pub struct Stored {
    pub partition_uid: u64,
    pub base_offset: u64,
    pub end_offset: u64,
    pub term: u64,
    pub append_time_us: i64,
    /// Its length in bytes, header included.
    pub len: usize,
    pub records: Vec<Got>,
}

/// Reads one stored batch at the start of `bytes`. Only uncompressed ones.
pub fn read_batch(bytes: &[u8]) -> Stored {
    let mut head = Get(bytes);
    assert_eq!(head.bytes(4), b"TRB1");
    assert_eq!((head.u8(), head.u8(), head.u8(), head.u8()), (1, 0, 1, 0), "version, codec, checksum kind, reserved");
    let (flags, encryption) = (head.u16(), head.u16());
    assert_eq!((flags & !0b11000, encryption), (0, 0), "flags, encryption key");
    let (count, last_delta) = (head.u32(), head.u32());
    let (body_len, index_len, values_len) = (head.u32() as usize, head.u32() as usize, head.u32() as usize);
    assert_eq!(body_len, index_len + values_len);
    let (first_timestamp, _newest) = (head.i64(), head.i64());
    let _producer = (head.u64(), head.u16(), head.u16(), head.u32());
    let crc = head.u32();
    assert_eq!(head.u32(), 0, "reserved");
    let (partition_uid, base_offset, term, append_time_us) = (head.u64(), head.u64(), head.u64(), head.i64());
    let header_crc = head.u32();
    assert_eq!(head.u32(), 0, "reserved");
    let len = BATCH_HEADER_BYTES + body_len;
    assert_eq!(body_crc(&bytes[..len]), crc, "body checksum of the batch at offset {base_offset}");
    assert_eq!(crc32c::crc32c(&bytes[..104]), header_crc, "header checksum of the batch at offset {base_offset}");
    let mut index = Get(&bytes[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + index_len]);
    let mut values = Get(&bytes[BATCH_HEADER_BYTES + index_len..len]);
    let mut records = Vec::new();
    for _ in 0..count {
        let flags = index.u16();
        assert_eq!(flags & !0b111, 0, "record attributes are not sent by these tests");
        let (delta, time_delta, value_len) = (index.u16(), index.u32() as i32, index.u32() as usize);
        let key = (flags & 1 != 0).then(|| index.bytes16().to_vec());
        let headers_len = if flags & 2 != 0 { index.u32() as usize } else { 0 };
        let value = values.bytes(value_len).to_vec();
        let mut headers = Vec::new();
        if headers_len > 0 {
            let mut rest = Get(values.bytes(headers_len));
            for _ in 0..rest.u16() {
                let name = rest.str();
                let len = rest.u32() as usize;
                headers.push((name, rest.bytes(len).to_vec()));
            }
            rest.end();
        }
        records.push(Got {
            offset: base_offset + u64::from(delta),
            timestamp_us: if flags_say_append_time(bytes) { append_time_us } else { first_timestamp + i64::from(time_delta) },
            key,
            value: (flags & 4 == 0).then_some(value),
            headers,
        });
    }
    index.end();
    values.end();
    Stored { partition_uid, base_offset, end_offset: base_offset + u64::from(last_delta) + 1, term, append_time_us, len, records }
}

fn flags_say_append_time(batch: &[u8]) -> bool {
    u16::from_le_bytes([batch[at::FLAGS], batch[at::FLAGS + 1]]) & 16 != 0
}
