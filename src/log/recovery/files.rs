//! File helpers of a start: whole small files, atomic replacement, segment header pages.

use crate::bytes::{BufMut, Slab};
use crate::ids::{FileId, Incarnation, SegmentUid, ShardId};
use crate::log::checkpoint::{CHECKPOINT_NAME, CHECKPOINT_SCHEMA, CHECKPOINT_VERSION, CheckpointV5};
use crate::log::envelope::{self, EnvelopeError, image_bytes};
use crate::log::layout::{BLOCK_ALIGN, SegmentHeader, align_up_usize};
use crate::log::manifest::{MANIFEST_NAME, MANIFEST_SCHEMA, MANIFEST_VERSION, ManifestV2, SegmentRecordV1, serialize};
use crate::log::operation::{segment_file, temporary_file};
use crate::log::plausible::Plausible;
use crate::log::recovered::RecoverError;
use crate::log::recovery::{DiskError, StartDisk};
use rkyv::util::AlignedVec;
use std::collections::BTreeMap;

/// Whether an error number says that this place of the medium cannot be read (EIO, ENODATA, EILSEQ, EREMOTEIO), while others may.
pub(crate) fn is_medium_error(errno: i32) -> bool {
    matches!(errno, 5 | 61 | 84 | 121)
}

/// Largest read and write of a start, in bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// The disk with a buffer of pages beside it.
pub(crate) struct Files<'d> {
    pub(crate) disk: &'d mut dyn StartDisk,
    buffer: BufMut,
    /// Temporary files so far: their ids. Starts high, so that none meets one of the running log.
    temporaries: u64,
    /// Open segment files that nobody needs, and their bytes: the running log removes them.
    pub(crate) leftovers: Vec<(u64, u64)>,
}

/// Ids of a start's temporary files begin here, far above any the running log counts to.
const START_TEMPORARIES: u64 = 1 << 30;

impl<'d> Files<'d> {
    pub(crate) fn new(disk: &'d mut dyn StartDisk) -> Files<'d> {
        let buffer = Slab::new(2 * CHUNK_BYTES).take(CHUNK_BYTES).expect("an empty slab has room");
        Files { disk, buffer, temporaries: START_TEMPORARIES, leftovers: Vec::new() }
    }

    fn temporary(&mut self) -> FileId {
        self.temporaries += 1;
        temporary_file(self.temporaries)
    }

    /// Names in a fixed order.
    pub(crate) fn list(&mut self) -> Result<Vec<String>, DiskError> {
        let mut names = self.disk.list()?;
        names.sort_unstable();
        Ok(names)
    }

    /// Syncs and reads a whole file of pages. An end that is no whole page is left out.
    pub(crate) fn read_small(&mut self, name: &str) -> Result<AlignedVec<16>, DiskError> {
        let file = self.temporary();
        let len = self.disk.open(name, file)? as usize & !(BLOCK_ALIGN - 1);
        self.disk.sync(file)?;
        let mut bytes = AlignedVec::new();
        while bytes.len() < len {
            let part = CHUNK_BYTES.min(len - bytes.len());
            self.buffer.set_len(part);
            self.disk.read_at(file, bytes.len() as u64, self.buffer.as_mut_slice())?;
            bytes.extend_from_slice(self.buffer.as_slice());
        }
        self.disk.close(file)?;
        Ok(bytes)
    }

    /// Replaces a file by two images of `payload`.
    fn replace(&mut self, name: &str, schema: u16, version: u16, payload: &[u8]) -> Result<(), DiskError> {
        let temporary_name = format!("{name}.new");
        let header = envelope::seal(schema, version, payload);
        let mut image = vec![0; image_bytes(payload.len())];
        envelope::write_image(&mut image, &header, payload);
        let file = self.temporary();
        if self.disk.list()?.contains(&temporary_name) {
            self.disk.remove(&temporary_name)?;
        }
        self.disk.create(&temporary_name, file, 2 * image.len() as u64)?;
        for copy in 0..2 {
            self.write_pages(file, copy * image.len() as u64, &image)?;
        }
        self.disk.sync(file)?;
        self.disk.close(file)?;
        self.disk.rename(&temporary_name, name)?;
        self.disk.sync_dir()
    }

    pub(crate) fn replace_manifest(&mut self, manifest: &ManifestV2) -> Result<(), DiskError> {
        let payload = serialize(manifest, AlignedVec::new());
        self.replace(MANIFEST_NAME, MANIFEST_SCHEMA, MANIFEST_VERSION, &payload)
    }

    pub(crate) fn replace_checkpoint(&mut self, checkpoint: &CheckpointV5) -> Result<(), DiskError> {
        let payload = serialize(checkpoint, AlignedVec::new());
        self.replace(CHECKPOINT_NAME, CHECKPOINT_SCHEMA, CHECKPOINT_VERSION, &payload)
    }

    /// Writes whole pages through the aligned buffer.
    pub(crate) fn write_pages(&mut self, file: FileId, pos: u64, data: &[u8]) -> Result<(), DiskError> {
        for (number, chunk) in data.chunks(CHUNK_BYTES).enumerate() {
            self.buffer.set_len(align_up_usize(chunk.len(), BLOCK_ALIGN));
            self.buffer.as_mut_slice()[..chunk.len()].copy_from_slice(chunk);
            self.buffer.as_mut_slice()[chunk.len()..].fill(0);
            self.disk.write_at(file, pos + (number * CHUNK_BYTES) as u64, self.buffer.as_slice())?;
        }
        Ok(())
    }

    /// Writes zeros over a whole file.
    pub(crate) fn fill_zero(&mut self, file: FileId, len: u64) -> Result<(), DiskError> {
        self.buffer.set_len(CHUNK_BYTES);
        self.buffer.as_mut_slice().fill(0);
        let mut pos = 0;
        while pos < len {
            let part = (CHUNK_BYTES as u64).min(len - pos);
            self.buffer.set_len(part as usize);
            self.disk.write_at(file, pos, self.buffer.as_slice())?;
            pos += part;
        }
        Ok(())
    }

    /// Reads whole pages into `out`.
    pub(crate) fn read_pages(&mut self, file: FileId, pos: u64, out: &mut [u8]) -> Result<(), DiskError> {
        for (number, chunk) in out.chunks_mut(CHUNK_BYTES).enumerate() {
            self.buffer.set_len(chunk.len());
            self.disk.read_at(file, pos + (number * CHUNK_BYTES) as u64, self.buffer.as_mut_slice())?;
            chunk.copy_from_slice(self.buffer.as_slice());
        }
        Ok(())
    }

    /// Reads whole pages straight into `buf` (aligned); pages that the medium refuses come as zeros and are noted in `unreadable`, once each.
    pub(crate) fn read_what_can_be_read(
        &mut self,
        file: FileId,
        pos: u64,
        buf: &mut [u8],
        unreadable: &mut BTreeMap<(FileId, u64), i32>,
    ) -> Result<(), DiskError> {
        match self.disk.read_at(file, pos, buf) {
            Err(error) if is_medium_error(error.errno) => {}
            other => return other,
        }
        for (number, page) in buf.chunks_mut(BLOCK_ALIGN).enumerate() {
            let at = pos + (number * BLOCK_ALIGN) as u64;
            match self.disk.read_at(file, at, page) {
                Err(error) if is_medium_error(error.errno) => {
                    page.fill(0);
                    unreadable.insert((file, at), error.errno);
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// The same for any memory.
    pub(crate) fn read_copied(
        &mut self,
        file: FileId,
        pos: u64,
        out: &mut [u8],
        unreadable: &mut BTreeMap<(FileId, u64), i32>,
    ) -> Result<(), DiskError> {
        for (number, chunk) in out.chunks_mut(CHUNK_BYTES).enumerate() {
            let mut buffer = Slab::new(CHUNK_BYTES).take(chunk.len()).expect("an empty slab has room");
            self.read_what_can_be_read(file, pos + (number * CHUNK_BYTES) as u64, buffer.as_mut_slice(), unreadable)?;
            chunk.copy_from_slice(buffer.as_slice());
        }
        Ok(())
    }

    /// Compares a segment's header page with the manifest and writes it anew when it does not check. True when it did not.
    pub(crate) fn check_segment_header(&mut self, manifest: &ManifestV2, index: usize) -> Result<bool, RecoverError> {
        let record = &manifest.segments[index];
        let wanted = header_of(manifest, record);
        let mut page = [0; BLOCK_ALIGN];
        let read = self.read_pages(segment_file(record.file), 0, &mut page);
        if let Err(error) = &read
            && !is_medium_error(error.errno)
        {
            read?;
        } else if read.is_ok() && SegmentHeader::decode(&page) == Some(wanted) {
            return Ok(false);
        }
        wanted.encode(&mut page);
        self.write_pages(segment_file(record.file), 0, &page)?;
        Ok(true)
    }
}

/// The header page that belongs to a record of the manifest.
pub(crate) fn header_of(manifest: &ManifestV2, record: &SegmentRecordV1) -> SegmentHeader {
    SegmentHeader {
        shard: ShardId(manifest.shard),
        uid: SegmentUid(record.uid),
        incarnation: Incarnation(record.incarnation),
        first_block_seq: crate::ids::BlockSeq(record.first_seq_bound),
        segment_bytes: record.bytes,
        window_bytes: record.window_bytes,
        log_uid: manifest.log_uid,
    }
}

/// Opens an envelope and reads the archive in it, checked, and what it says looked at.
pub(crate) fn decode_envelope<T>(file: &AlignedVec<16>, schema: u16, version: u16) -> Result<T, String>
where
    T: rkyv::Archive + Plausible,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, rkyv::rancor::Error>>
        + rkyv::Deserialize<T, rkyv::api::high::HighDeserializer<rkyv::rancor::Error>>,
{
    let payload = envelope::open(file, schema, version).map_err(|error| match error {
        EnvelopeError::Damaged { what } => format!("damaged in both copies ({what})"),
        unsupported @ EnvelopeError::Unsupported { .. } => unsupported.to_string(),
    })?;
    let archived = rkyv::access::<T::Archived, rkyv::rancor::Error>(payload).map_err(|error| format!("damaged ({error})"))?;
    let value = rkyv::deserialize::<T, rkyv::rancor::Error>(archived).map_err(|error| format!("damaged ({error})"))?;
    value.check().map_err(|what| format!("whole and names {what}"))?;
    Ok(value)
}
