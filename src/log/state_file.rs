//! The state file: what a shard knows of its queues, beside the checkpoint, which would be put together in one turn.
//!
//! ```text
//! payload of the envelope (schema 22, version 2): 0 generation u64 | 8 zero u64, then per item: 0 length u32 | 4 item | zeros up to a multiple of 4
//! ```
//! Put together in pieces, over many turns, while what it describes goes on changing: its items are notes as they stand in the log, which may be taken in
//! again. It is begun behind the last block that the next checkpoint covers, and durable before that one is written; the checkpoint names its generation.
//! One file, `queues`, replaced atomically (`replace.rs`).
//!
//! Not here: what the items say (subscription/queue).

use crate::log::envelope::{self, ENVELOPE_BYTES};
use rkyv::util::AlignedVec;

/// The state file.
pub const STATE_NAME: &str = "queues";
/// Schema number of the state file in its envelope.
pub const STATE_SCHEMA: u16 = 22;
const STATE_VERSION: u16 = 2;
const HEAD_BYTES: usize = 16;

/// A state file being put together.
#[derive(Debug)]
pub struct StateBuilder {
    payload: AlignedVec<16>,
    crc: u32,
}

impl StateBuilder {
    /// An empty one; `bytes` is about how large it will be: a vector that grows moves all that it holds.
    pub fn new(generation: u64, bytes: usize) -> StateBuilder {
        let mut payload = AlignedVec::with_capacity(bytes + HEAD_BYTES);
        payload.extend_from_slice(&generation.to_le_bytes());
        payload.extend_from_slice(&[0; 8]);
        let crc = crc32c::crc32c(&payload);
        StateBuilder { payload, crc }
    }

    /// Adds an item.
    pub fn push(&mut self, item: &[u8]) {
        let start = self.payload.len();
        self.payload.extend_from_slice(&(item.len() as u32).to_le_bytes());
        self.payload.extend_from_slice(item);
        let padding = self.payload.len().next_multiple_of(4) - self.payload.len();
        self.payload.extend_from_slice(&[0; 4][..padding]);
        self.crc = crc32c::crc32c_append(self.crc, &self.payload[start..]);
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.payload.len()
    }

    pub(crate) fn seal(self) -> ([u8; ENVELOPE_BYTES], AlignedVec<16>) {
        (envelope::seal_known(STATE_SCHEMA, STATE_VERSION, self.payload.len(), self.crc), self.payload)
    }
}

/// A state file that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateFile {
    /// Its generation.
    pub generation: u64,
    /// Its items, in order.
    pub items: Vec<Vec<u8>>,
}

impl StateFile {
    /// Reads a whole file; checked throughout. The error says what is wrong with it.
    pub fn read(file: &AlignedVec<16>) -> Result<StateFile, String> {
        let payload = envelope::open(file, STATE_SCHEMA, STATE_VERSION).map_err(|error| error.to_string())?;
        let (head, mut rest) = payload.split_at_checked(HEAD_BYTES).ok_or("shorter than its head")?;
        let generation = u64::from_le_bytes(*head.first_chunk().expect("16 bytes"));
        let mut items = Vec::new();
        while !rest.is_empty() {
            let (len, behind) = rest.split_first_chunk::<4>().ok_or("cut in the middle of an item")?;
            let len = u32::from_le_bytes(*len) as usize;
            let (item, behind) = behind.split_at_checked(len).ok_or("cut in the middle of an item")?;
            items.push(item.to_vec());
            rest = behind.split_at_checked((4 + len).next_multiple_of(4) - 4 - len).ok_or("cut in the middle of an item")?.1;
        }
        Ok(StateFile { generation, items })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(builder: StateBuilder) -> AlignedVec<16> {
        let (header, payload) = builder.seal();
        let mut image = AlignedVec::new();
        image.resize(envelope::image_bytes(payload.len()), 9);
        envelope::write_image(&mut image, &header, &payload);
        image
    }

    #[test]
    fn what_was_put_in_comes_out_and_damage_is_told() {
        let mut builder = StateBuilder::new(7, 0);
        let items: Vec<Vec<u8>> = (0..20_usize).map(|n| vec![n as u8; n * n]).collect();
        items.iter().for_each(|item| builder.push(item));
        let image = image(builder);
        assert_eq!(StateFile::read(&image), Ok(StateFile { generation: 7, items }));
        for at in (0..3000).step_by(7) {
            let mut damaged = image.clone();
            damaged[at] ^= 1;
            let read = StateFile::read(&damaged);
            assert!(read.is_err() || at >= 2500 && damaged[..2500] == image[..2500], "byte {at}");
        }
    }
}
