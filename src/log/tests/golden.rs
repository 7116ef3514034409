//! Golden bytes: what version 1 writes, byte for byte. A change here is a change of the format and needs a new version beside the old one.

use crate::ids::{BlockSeq, GroupId, Incarnation, LogIndex, Offset, PartitionUid, SegmentUid, ShardId, Term};
use crate::log::checkpoint::{
    CHECKPOINT_SCHEMA, CHECKPOINT_VERSION, CheckpointV5, GroupPositionV3, PartitionPositionV1, ProducerBatchV1, ProducerV1, RunV1,
    ScanStartV1,
};
use crate::log::envelope;
use crate::log::footer::{self, FooterEntry, FooterHeader};
use crate::log::layout::*;
use crate::log::manifest::{FreeFileV1, MANIFEST_SCHEMA, MANIFEST_VERSION, ManifestV2, SegmentRecordV1, StartV1, serialize};
use crate::log::recovery::files::decode_envelope;
use crate::log::types::EntryKind;
use rkyv::util::AlignedVec;

/// Lower-case hexadecimal, zeros at the end left out.
fn hex(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes[..end].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check(what: &str, bytes: &[u8], golden: &str) {
    let golden: String = golden.split_whitespace().collect();
    assert_eq!(hex(bytes), golden, "{what}");
}

#[test]
fn a_block_is_laid_out_as_documented() {
    let mut block = vec![0xAA; 4096];
    block[96..104].copy_from_slice(b"payload!");
    let entry = Entry {
        group: GroupId(3),
        kind: EntryKind::Control,
        index: LogIndex(7),
        term: Term(2),
        content_len: 8,
        fragment_first: 0,
        fragment_count: 1,
    };
    put_entry(&mut block[104..144], &entry);
    let fragment = Fragment { offset: 96, length: 8, entry: 0, kind: FRAGMENT_PAYLOAD, crc: crc32c::crc32c(b"payload!") };
    put_fragment(&mut block[144..160], &fragment);
    let header = BlockHeader {
        shard: ShardId(1),
        flags: 0,
        entry_count: 1,
        fragment_count: 1,
        segment_uid: SegmentUid(5),
        incarnation: Incarnation(4),
        block_seq: BlockSeq(9),
        durable_through: BlockSeq(8),
        length: 176,
        table_pos: 104,
        prev_header_crc: 0x0102_0304,
        pos: 4096,
        utc_us: 1_700_000_000_000_000,
        log_uid: 0x1122_3344_5566_7788,
    };
    finish_block(&mut block, &header);
    check("block", &block, GOLDEN_BLOCK);
    let view = BlockView::parse(&block).expect("what was written parses");
    assert_eq!(view.header, header);
    assert_eq!(view.entries().collect::<Vec<_>>(), [entry]);
    assert_eq!(view.fragments_of(&entry).collect::<Vec<_>>(), [fragment]);
    assert_eq!(view.content(&fragment), b"payload!");
}

#[test]
fn a_segment_header_and_a_footer_are_laid_out_as_documented() {
    let header = SegmentHeader {
        shard: ShardId(1),
        uid: SegmentUid(5),
        incarnation: Incarnation(4),
        first_block_seq: BlockSeq(9),
        segment_bytes: 256 << 20,
        window_bytes: 3 << 20,
        log_uid: 0x1122_3344_5566_7788,
    };
    let mut page = vec![0; 4096];
    header.encode(&mut page);
    check("segment header", &page, GOLDEN_SEGMENT);
    assert_eq!(SegmentHeader::decode(&page), Some(header));

    let entry = FooterEntry {
        partition_uid: PartitionUid(10),
        base_offset: Offset(20),
        newest_ts: 30,
        pos: 4192,
        len: 50,
        last_offset_delta: 6,
        group: GroupId(7),
    };
    let crc = footer::encode_page(&mut page, SegmentUid(5), 0, &[entry]);
    assert_eq!(footer::check_page(&page, SegmentUid(5), 0, 1), Some(crc));
    check("footer page", &page[..48], GOLDEN_FOOTER_ENTRY);
    check("footer page's tail", &page[4080..], GOLDEN_FOOTER_TAIL);
    let header = FooterHeader {
        shard: ShardId(1),
        segment: SegmentUid(5),
        incarnation: Incarnation(4),
        log_uid: 0x1122_3344_5566_7788,
        entry_count: 1,
        position: (256 << 20) - 8192,
        first_block: BlockSeq(9),
        last_block: BlockSeq(99),
        newest_ts: 30,
        data_end: 1 << 20,
        pages_crc: 0x0A0B_0C0D,
    };
    header.encode(&mut page);
    check("footer header", &page, GOLDEN_FOOTER_HEADER);
    assert_eq!(FooterHeader::decode(&page), Some(header));
}

fn image(schema: u16, version: u16, payload: &[u8]) -> AlignedVec<16> {
    let mut image = AlignedVec::new();
    image.resize(envelope::image_bytes(payload.len()), 0);
    envelope::write_image(&mut image, &envelope::seal(schema, version, payload), payload);
    image
}

#[test]
fn a_manifest_is_laid_out_as_it_always_was() {
    let manifest = ManifestV2 {
        cluster_id: [0xC1; 16],
        node: 1,
        shard: 2,
        shards: 3,
        log_uid: 0x1122_3344_5566_7788,
        incarnation: 4,
        starts: vec![StartV1 { incarnation: 4, first_seq: 17 }],
        next_uid: 6,
        next_file: 7,
        has_checkpoint: true,
        segments: vec![SegmentRecordV1 {
            uid: 5,
            file: 1,
            bytes: 256 << 20,
            incarnation: 4,
            first_seq_bound: 9,
            window_bytes: 3 << 20,
            sealed: true,
            footer_entries: 12,
        }],
        sorted_segments: vec![SegmentRecordV1 {
            uid: 3,
            file: 4,
            bytes: 256 << 20,
            incarnation: 3,
            first_seq_bound: 0,
            window_bytes: 0,
            sealed: true,
            footer_entries: 70,
        }],
        free: vec![FreeFileV1 { file: 2, filled: true }],
    };
    let image = image(MANIFEST_SCHEMA, MANIFEST_VERSION, &serialize(&manifest, AlignedVec::new()));
    check("manifest", &image, GOLDEN_MANIFEST);
    assert_eq!(decode_envelope::<ManifestV2>(&image, MANIFEST_SCHEMA, MANIFEST_VERSION), Ok(manifest));
}

#[test]
fn a_checkpoint_is_laid_out_as_it_always_was() {
    let checkpoint = CheckpointV5 {
        shard: 2,
        covers_block: 99,
        groups: vec![GroupPositionV3 {
            group: 1,
            term: 2,
            vote: 3,
            commit: 4,
            applied_index: 5,
            applied_term: 6,
            replica: 7,
            since_block: 8,
            since_applied: 7,
            conf_index: 9,
            voters: vec![7, 10],
            learners: vec![11],
        }],
        partitions: vec![PartitionPositionV1 { uid: 10, topic: 11, group: 1, log_start: 12, next_offset: 13, newest_ts: 14 }],
        runs: vec![RunV1 {
            uid: 10,
            segment: 5,
            first_offset: 12,
            end_offset: 13,
            newest_ts: 14,
            bytes: 15,
            footer_first: 16,
            footer_count: 17,
        }],
        producers: vec![ProducerV1 { partition: 10, id: 18, epoch: 19, batches: 1 }],
        producer_batches: vec![ProducerBatchV1 { first: 20, count: 21, base_offset: 22, append_time: 23 }],
        notes: vec![b"note".to_vec(), b"another".to_vec()],
        control: b"snapshot".to_vec(),
        scan: ScanStartV1 { segment: 6, first_seq: 100, prev_header_crc: 0x0102_0304 },
    };
    let image = image(CHECKPOINT_SCHEMA, CHECKPOINT_VERSION, &serialize(&checkpoint, AlignedVec::new()));
    check("checkpoint", &image, GOLDEN_CHECKPOINT);
    assert_eq!(decode_envelope::<CheckpointV5>(&image, CHECKPOINT_SCHEMA, CHECKPOINT_VERSION), Ok(checkpoint));
}

const GOLDEN_BLOCK: &str = "\
    544c42310100010000000100010000000500000000000000040000000000000009000000000000000800000000000000 \
    b000000068000000040302010010000000401e18240a060088776655443322110000000000000000000000009c1834b6 \
    7061796c6f61642103000000020000000700000000000000020000000000000008000000000000000100000000000000 \
    600000000800000000000200e8e9c7f1544c4531b0000000090000009c1834b6";
const GOLDEN_SEGMENT: &str = "\
    544c53310100010005000000000000000400000000000000090000000000000000000010000000000000300000000000 \
    88776655443322110000000000000000000000000000000000000000000000000000000000000000000000006343d991";
const GOLDEN_FOOTER_ENTRY: &str = "0a0000000000000014000000000000001e0000000000000060100000320000000600000007";
const GOLDEN_FOOTER_TAIL: &str = "0000000001000000000000001c916b13";
const GOLDEN_FOOTER_HEADER: &str = "\
    544c463101000100050000000000000004000000000000008877665544332211010000000100000000e0ff0f00000000 \
    090000000000000063000000000000001e0000000000000000001000000000000d0c0b0a33bfefe5";
const GOLDEN_MANIFEST: &str = "\
    544c455601000200f00000000000000032010800000000000000000090e1e19f04000000000000001100000000000000 \
    050000000000000001000000000000000000001000000000040000000000000009000000000000000000300000000000 \
    010000000c00000003000000000000000400000000000000000000100000000003000000000000000000000000000000 \
    0000000000000000010000004600000002000000000000000100000000000000c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1 \
    01000000020003008877665544332211040000000000000048ffffff0100000006000000000000000700000000000000 \
    010000003cffffff010000006cffffff010000009cffffff01";
const GOLDEN_CHECKPOINT: &str = "\
    544c455602000500a00100000000000032010800000000000000000019d84d7f07000000000000000a00000000000000 \
    0b0000000000000001000000000000000200000000000000030000000000000004000000000000000500000000000000 \
    0600000000000000070000000000000008000000000000000700000000000000090000000000000098ffffff02000000 \
    a0ffffff010000000a000000000000000b0000000000000001000000000000000c000000000000000d00000000000000 \
    0e000000000000000a0000000000000005000000000000000c000000000000000d000000000000000e00000000000000 \
    0f0000000000000010000000110000000a00000000000000120000000000000013000100000000001400000000000000 \
    1500000000000000160000000000000017000000000000006e6f7465616e6f7468657200f4ffffff04000000f0ffffff \
    07000000736e617073686f740000000002000000000000006300000000000000c8feffff0100000020ffffff01000000 \
    48ffffff0100000078ffffff0100000088ffffff01000000acffffff02000000b4ffffff080000000600000000000000 \
    640000000000000004030201";
