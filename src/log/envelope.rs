//! The envelope around rkyv archives on disk: who wrote what, in which version, whole or not.
//!
//! ```text
//!   0 magic "TLEV" | 4 schema u16 | 6 version u16 | 8 length u64 (of the payload) | 16 archive format u32 | 20 zero | 28 crc32c u32
//!  32 payload (so at a multiple of 16), then zeros up to a multiple of 4096 = one image
//! ```
//! crc32c covers bytes 0..28 and the payload. A file holds the image twice: a flipped bit or an unreadable sector in one copy does
//! not cost the shard its manifest. (Atomic replacement protects against torn writes, not against rot.)
//!
//! Not here: the types inside (`manifest.rs`, `checkpoint.rs`), writing (`replace.rs`).

use crate::log::layout::{BLOCK_ALIGN, align_up_usize, put, u16_at, u32_at, u64_at};
use rkyv::util::AlignedVec;
use std::fmt;

/// Bytes before the payload.
pub const ENVELOPE_BYTES: usize = 32;
/// The archive format: rkyv 0.8, little-endian, 32-bit relative pointers, aligned. Changing a feature of rkyv changes this number.
pub const ARCHIVE_FORMAT: u32 = 0x0008_0132;
const MAGIC: [u8; 4] = *b"TLEV";
const CRC_AT: usize = 28;
const _: () = assert!(ENVELOPE_BYTES.is_multiple_of(16) && CRC_AT + 4 == ENVELOPE_BYTES);

/// Why an envelope was not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvelopeError {
    /// The envelope is damaged or cut.
    Damaged {
        /// What did not fit.
        what: &'static str,
    },
    /// A whole envelope of a version or format this program does not know.
    Unsupported {
        /// Schema found.
        schema: u16,
        /// Version found.
        version: u16,
        /// Archive format found.
        format: u32,
    },
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EnvelopeError::Damaged { what } => write!(f, "damaged ({what})"),
            EnvelopeError::Unsupported { schema, version, format } => {
                write!(f, "of schema {schema}, version {version}, format {format:#x}, which this program does not know")
            }
        }
    }
}

/// Bytes of one image around a payload.
pub fn image_bytes(payload_len: usize) -> usize {
    align_up_usize(ENVELOPE_BYTES + payload_len, BLOCK_ALIGN)
}

/// The header for `payload`.
pub fn seal(schema: u16, version: u16, payload: &[u8]) -> [u8; ENVELOPE_BYTES] {
    // To put two checksums together takes some microseconds: more than the second one itself, of most payloads.
    with_crc(schema, version, payload.len(), |crc| crc32c::crc32c_append(crc, payload))
}

/// The header for a payload of which only the length and the CRC-32C are at hand.
pub fn seal_known(schema: u16, version: u16, payload_len: usize, payload_crc: u32) -> [u8; ENVELOPE_BYTES] {
    with_crc(schema, version, payload_len, |crc| crc32c::crc32c_combine(crc, payload_crc, payload_len))
}

/// `over_payload` goes on from the checksum of what stands before it.
fn with_crc(schema: u16, version: u16, payload_len: usize, over_payload: impl FnOnce(u32) -> u32) -> [u8; ENVELOPE_BYTES] {
    let mut header = [0; ENVELOPE_BYTES];
    put(&mut header, 0, &MAGIC);
    put(&mut header, 4, &schema.to_le_bytes());
    put(&mut header, 6, &version.to_le_bytes());
    put(&mut header, 8, &(payload_len as u64).to_le_bytes());
    put(&mut header, 16, &ARCHIVE_FORMAT.to_le_bytes());
    let crc = over_payload(crc32c::crc32c(&header[..CRC_AT]));
    put(&mut header, CRC_AT, &crc.to_le_bytes());
    header
}

/// Writes header, payload and zeros over the whole of `image`.
pub fn write_image(image: &mut [u8], header: &[u8; ENVELOPE_BYTES], payload: &[u8]) {
    assert_eq!(image.len(), image_bytes(payload.len()));
    put(image, 0, header);
    put(image, ENVELOPE_BYTES, payload);
    image[ENVELOPE_BYTES + payload.len()..].fill(0);
}

/// The payload of a whole file, from the first good copy. `file` must be aligned to 16 (an `AlignedVec` is).
pub fn open(file: &AlignedVec<16>, schema: u16, version: u16) -> Result<&[u8], EnvelopeError> {
    let half = file.len() / 2;
    if half == 0 || half % BLOCK_ALIGN != 0 || file.len() % 2 != 0 {
        // One copy may still be whole at the front of a file that was cut behind it.
        return open_image(file, schema, version);
    }
    open_image(&file[..half], schema, version).or_else(|first| match open_image(&file[half..], schema, version) {
        Ok(payload) => Ok(payload),
        Err(EnvelopeError::Damaged { .. }) => Err(first),
        Err(other) => Err(other),
    })
}

/// The schema that an image says it has; `None` where it is no envelope. Whether the rest of it is right tells `open_image`.
pub fn schema_of(image: &[u8]) -> Option<u16> {
    (image.len() >= ENVELOPE_BYTES && image[..4] == MAGIC).then(|| u16_at(image, 4))
}

/// The payload of one image, e.g. a metadata command in the log.
pub fn open_image(image: &[u8], schema: u16, version: u16) -> Result<&[u8], EnvelopeError> {
    let damaged = |what| Err(EnvelopeError::Damaged { what });
    if image.len() < ENVELOPE_BYTES || image[..4] != MAGIC {
        return damaged("magic");
    }
    let length = u64_at(image, 8);
    if length > (image.len() - ENVELOPE_BYTES) as u64 {
        return damaged("length");
    }
    let payload = &image[ENVELOPE_BYTES..ENVELOPE_BYTES + length as usize];
    if crc32c::crc32c_append(crc32c::crc32c(&image[..CRC_AT]), payload) != u32_at(image, CRC_AT) {
        return damaged("checksum");
    }
    let found = (u16_at(image, 4), u16_at(image, 6), u32_at(image, 16));
    if found != (schema, version, ARCHIVE_FORMAT) {
        return Err(EnvelopeError::Unsupported { schema: found.0, version: found.1, format: found.2 });
    }
    Ok(payload)
}
