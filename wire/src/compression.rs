//! Compression of a batch's values, and decompression with a bound.
//!
//! lz4 is the block format, its size taken from the batch header; zstd one frame at level 3 (beyond it, time doubles for a
//! few per cent); snappy the raw format. Decompression never makes more room than the batch declares, and refuses a
//! declaration above the caller's maximum before it makes any.
//!
//! Only with the feature `codecs`: whoever speaks the protocol without looking into compressed values needs none of the libraries.
//!
//! Not here: when a batch is stored uncompressed although a codec is set (the builder's decision: when it is not smaller).

use std::fmt;
use std::io;

use crate::codec::Codec;

const ZSTD_LEVEL: i32 = 3;

/// Compressor states, reused from batch to batch.
pub struct Compressor {
    codec: Codec,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    snap: snap::raw::Encoder,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("codec", &self.codec).finish_non_exhaustive()
    }
}

impl Compressor {
    /// For one codec. Fails where zstd finds no memory.
    pub fn new(codec: Codec) -> io::Result<Compressor> {
        let zstd = if codec == Codec::Zstd { Some(zstd::bulk::Compressor::new(ZSTD_LEVEL)?) } else { None };
        Ok(Compressor { codec, zstd, snap: snap::raw::Encoder::new() })
    }

    /// The codec it was made for.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Appends the compressed values to `out`, which is as before after an error.
    pub fn compress(&mut self, values: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        let start = out.len();
        let bound = match self.codec {
            Codec::None => {
                out.extend_from_slice(values);
                return Ok(());
            }
            Codec::Lz4 => lz4_flex::block::get_maximum_output_size(values.len()),
            Codec::Zstd => zstd::zstd_safe::compress_bound(values.len()),
            Codec::Snappy => snap::raw::max_compress_len(values.len()),
        };
        out.resize(start + bound, 0);
        let room = &mut out[start..];
        let result = match (self.codec, &mut self.zstd) {
            (Codec::Lz4, _) => lz4_flex::block::compress_into(values, room).map_err(CodecError::new),
            (Codec::Snappy, _) => self.snap.compress(values, room).map_err(CodecError::new),
            (_, Some(zstd)) => zstd.compress_to_buffer(values, room).map_err(CodecError::new),
            (_, None) => Err(CodecError { message: "this compressor was made for another codec".to_string() }),
        };
        match result {
            Ok(length) => {
                out.truncate(start + length);
                Ok(())
            }
            Err(error) => {
                out.truncate(start);
                Err(error)
            }
        }
    }
}

/// Decompressor states and the room they decompress into, reused from batch to batch.
pub struct Decompressor {
    values: Vec<u8>,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    snap: snap::raw::Decoder,
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").field("room", &self.values.len()).finish_non_exhaustive()
    }
}

impl Default for Decompressor {
    fn default() -> Decompressor {
        Decompressor::new()
    }
}

impl Decompressor {
    /// Without room yet.
    pub fn new() -> Decompressor {
        Decompressor { values: Vec::new(), zstd: None, snap: snap::raw::Decoder::new() }
    }

    /// The values: as stored for codec none, else decompressed to exactly `values_len` bytes.
    pub fn decompress<'a>(
        &'a mut self,
        codec: Codec,
        stored: &'a [u8],
        values_len: u32,
        values_bytes_max: u32,
    ) -> Result<&'a [u8], CodecError> {
        // Whatever the codec: who sets the maximum sizes what comes behind by it.
        if values_len > values_bytes_max {
            let message = format!(
                "the batch declares {values_len} bytes of values, at most {values_bytes_max} are accepted (batch_values_bytes_max)"
            );
            return Err(CodecError { message });
        }
        if codec == Codec::None {
            return Ok(stored);
        }
        let wanted = values_len as usize;
        if self.values.len() < wanted {
            self.values.resize(wanted, 0);
        }
        let room = &mut self.values[..wanted];
        let length = match codec {
            Codec::None => wanted,
            Codec::Lz4 => lz4_flex::block::decompress_into(stored, room).map_err(CodecError::new)?,
            Codec::Snappy => self.snap.decompress(stored, room).map_err(CodecError::new)?,
            Codec::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(zstd::bulk::Decompressor::new().map_err(CodecError::new)?),
                };
                zstd.decompress_to_buffer(stored, room).map_err(CodecError::new)?
            }
        };
        if length != wanted {
            return Err(CodecError { message: format!("the values decompress to {length} bytes, the batch declares {wanted}") });
        }
        Ok(&self.values[..wanted])
    }
}

/// Why a codec failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecError {
    message: String,
}

impl CodecError {
    fn new(cause: impl fmt::Display) -> CodecError {
        CodecError { message: cause.to_string() }
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COMPRESSING: [Codec; 3] = [Codec::Lz4, Codec::Zstd, Codec::Snappy];

    fn round_trip(codec: Codec, values: &[u8]) -> Vec<u8> {
        let mut out = b"kept".to_vec();
        Compressor::new(codec).expect("a compressor").compress(values, &mut out).expect("compresses");
        assert_eq!(&out[..4], b"kept");
        let mut decompressor = Decompressor::new();
        decompressor.decompress(codec, &out[4..], values.len() as u32, 1 << 20).expect("decompresses").to_vec()
    }

    #[test]
    fn a_declaration_above_the_maximum_makes_no_room() {
        for codec in COMPRESSING {
            let mut decompressor = Decompressor::new();
            assert!(decompressor.decompress(codec, &[0; 100], u32::MAX, 1 << 20).is_err());
            assert_eq!(decompressor.values.len(), 0);
        }
    }

    #[test]
    fn the_maximum_holds_for_values_that_are_not_compressed_too() {
        let mut decompressor = Decompressor::new();
        assert!(decompressor.decompress(Codec::None, &[0; 100], 100, 99).is_err());
        assert_eq!(decompressor.decompress(Codec::None, &[0; 100], 100, 100).map(<[u8]>::len), Ok(100));
    }

    #[test]
    fn values_of_another_size_than_declared_are_refused() {
        for codec in COMPRESSING {
            let mut out = Vec::new();
            Compressor::new(codec).expect("a compressor").compress(&[7; 1000], &mut out).expect("compresses");
            for declared in [0, 999, 1001] {
                let result = Decompressor::new().decompress(codec, &out, declared, 1 << 20).map(<[u8]>::len);
                assert!(result.is_err(), "{codec} {declared}: {result:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_codec_gives_back_what_went_in(values in proptest::collection::vec(0u8..8, 0..4000)) {
            for codec in COMPRESSING {
                prop_assert_eq!(&round_trip(codec, &values), &values);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(stored in proptest::collection::vec(any::<u8>(), 0..300), declared in 0u32..5000) {
            let mut decompressor = Decompressor::new();
            for codec in COMPRESSING {
                let _ = decompressor.decompress(codec, &stored, declared, 4096);
            }
        }
    }
}
