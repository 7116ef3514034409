//! Real records: the lines of a file, held in memory, with the checksum of each and the number of its key.
//!
//! Invariants: a line is a record without its line end (also `\r\n`); a file is at most `FILE_BYTES_MAX` when unpacked, and not empty;
//! keys are numbered in the order in which they first come, so a run with the same file has the same numbers.
//! Not here: the stamp in front of each (`payload.rs`), which line is next (`pick.rs`).

use crate::payload::{STAMP_BYTES, Stamp, put_stamp};
use flate2::read::MultiGzDecoder;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

/// Largest file, unpacked: it is held in memory once, whatever the number of threads.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Longest line: the largest value, 16 MiB, without its stamp.
const LINE_BYTES_MAX: usize = (16 << 20) - STAMP_BYTES;
/// Longest key: the broker's own limit as it comes.
const KEY_BYTES_MAX: usize = 4096;

/// One line of the file.
#[derive(Clone, Copy, Debug)]
struct Line {
    first: u32,
    length: u32,
    crc: u32,
    /// Number of its key; zero without keys.
    key: u32,
}

/// See the module's page.
#[derive(Debug)]
pub struct Lines {
    text: Vec<u8>,
    lines: Vec<Line>,
    /// Of each key: where it stands for the first time.
    keys: Vec<(u32, u32)>,
}

impl Lines {
    /// Reads a file; one whose name ends with `.gz` is unpacked. `key_field` is the number of a column, from 1, separated by commas.
    pub fn load(path: &str, key_field: Option<u32>) -> Result<Lines, String> {
        let unreadable = |cause: std::io::Error| format!("{path} (--records) cannot be read: {cause}");
        let file = File::open(path).map_err(unreadable)?;
        let mut reader: Box<dyn Read> = if path.ends_with(".gz") { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut text = Vec::new();
        reader.by_ref().take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(format!(
                "{path} (--records) has more than {} MiB; cut it, it is sent round and round anyway",
                FILE_BYTES_MAX >> 20
            ));
        }
        Lines::new(text, key_field).map_err(|why| format!("{path} (--records) {why}"))
    }

    /// From the file's content, or the end of the sentence that begins with its name.
    pub fn new(text: Vec<u8>, key_field: Option<u32>) -> Result<Lines, String> {
        let mut lines = Vec::new();
        let mut keys = Vec::new();
        let mut numbers: HashMap<&[u8], u32> = HashMap::new();
        let mut first = 0usize;
        while first < text.len() {
            let end = text[first..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| first + at);
            let line = text[first..end].strip_suffix(b"\r").unwrap_or(&text[first..end]);
            let number = lines.len() + 1;
            if line.len() > LINE_BYTES_MAX {
                return Err(format!("has a line {number} of {} bytes; allowed is at most {LINE_BYTES_MAX}", line.len()));
            }
            let mut key = 0;
            if let Some(field) = key_field {
                let (at, bytes) = column(line, field).ok_or_else(|| format!("has no column {field} (--key-field) in line {number}"))?;
                if bytes.len() > KEY_BYTES_MAX {
                    return Err(format!("has a key of {} bytes in line {number}; allowed is at most {KEY_BYTES_MAX}", bytes.len()));
                }
                key = *numbers.entry(bytes).or_insert_with(|| {
                    keys.push(((first + at) as u32, bytes.len() as u32));
                    keys.len() as u32 - 1
                });
            }
            lines.push(Line { first: first as u32, length: line.len() as u32, crc: crc32c::crc32c(line), key });
            first = end + 1;
        }
        drop(numbers);
        if lines.is_empty() {
            return Err("is empty; give at least one line".to_owned());
        }
        Ok(Lines { text, lines, keys })
    }

    /// Number of lines.
    pub fn count(&self) -> u32 {
        self.lines.len() as u32
    }

    /// Number of different keys; zero without a key field.
    pub fn key_count(&self) -> u32 {
        self.keys.len() as u32
    }

    /// Bytes of the value that a line becomes.
    pub fn value_bytes(&self, line: u32) -> u32 {
        self.lines[line as usize].length + STAMP_BYTES as u32
    }

    /// The largest of these.
    pub fn value_bytes_max(&self) -> u32 {
        self.lines.iter().map(|line| line.length).max().unwrap_or(0) + STAMP_BYTES as u32
    }

    /// Mean of these.
    pub fn value_bytes_mean(&self) -> u64 {
        self.lines.iter().map(|line| u64::from(line.length)).sum::<u64>() / self.lines.len() as u64 + STAMP_BYTES as u64
    }

    /// The number of a line's key.
    pub fn key_of(&self, line: u32) -> u32 {
        self.lines[line as usize].key
    }

    /// The bytes of a key.
    pub fn key(&self, number: u32) -> &[u8] {
        let (first, length) = self.keys[number as usize];
        &self.text[first as usize..][..length as usize]
    }
}

/// A column and where it begins.
fn column(line: &[u8], field: u32) -> Option<(usize, &[u8])> {
    let mut at = 0;
    for (number, bytes) in (1u32..).zip(line.split(|byte| *byte == b',')) {
        if number == field {
            return Some((at, bytes));
        }
        at += bytes.len() + 1;
    }
    None
}

/// Makes values of lines: the stamp and a copy of the line behind it.
pub struct LineMaker {
    lines: Arc<Lines>,
    value: Vec<u8>,
}

impl LineMaker {
    /// Of these lines.
    pub fn new(lines: Arc<Lines>) -> LineMaker {
        LineMaker { lines, value: vec![0; STAMP_BYTES] }
    }

    /// The value of a line with this stamp, valid until the next call.
    pub fn make(&mut self, stamp: &Stamp, line: u32) -> &[u8] {
        let line = &self.lines.lines[line as usize];
        self.value.truncate(STAMP_BYTES);
        self.value.extend_from_slice(&self.lines.text[line.first as usize..][..line.length as usize]);
        put_stamp(&mut self.value, stamp, line.crc);
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::read;
    use std::io::Write;

    const TABLE: &[u8] = b"1,EWR,N14228\n2,LGA,N24211\r\n3,EWR,\n\n4,JFK,N619AA";

    fn value(maker: &mut LineMaker, line: u32) -> Vec<u8> {
        let stamp = Stamp { stream: 3, keyed: true, run: 1, sequence: 9, intended_utc_ns: 5 };
        let value = maker.make(&stamp, line).to_vec();
        assert_eq!(read(&value), Ok(stamp), "line {line}");
        value[STAMP_BYTES..].to_vec()
    }

    #[test]
    fn each_line_is_a_value_with_a_good_stamp() {
        let lines = Arc::new(Lines::new(TABLE.to_vec(), None).unwrap());
        assert_eq!((lines.count(), lines.key_count(), lines.value_bytes(0), lines.value_bytes(3)), (5, 0, 60, 48));
        let mut maker = LineMaker::new(Arc::clone(&lines));
        assert_eq!(value(&mut maker, 1), b"2,LGA,N24211");
        assert_eq!(value(&mut maker, 3), b"");
        assert_eq!(value(&mut maker, 4), b"4,JFK,N619AA");
        assert_eq!(lines.value_bytes_mean(), 48 + (12 + 12 + 6 + 12) / 5);
    }

    #[test]
    fn keys_are_the_different_values_of_a_column() {
        let lines = Lines::new(b"a,x\nb,y\nc,x\nd,\n".to_vec(), Some(2)).unwrap();
        assert_eq!(lines.key_count(), 3);
        assert_eq!((0..4).map(|line| lines.key(lines.key_of(line))).collect::<Vec<_>>(), [&b"x"[..], b"y", b"x", b""]);
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        for (text, field, part) in [
            (&b""[..], None, "is empty"),
            (b"a,b\nc\n", Some(2), "no column 2 (--key-field) in line 2"),
            (b"a,b\n", Some(3), "no column 3"),
        ] {
            assert!(Lines::new(text.to_vec(), field).unwrap_err().contains(part), "{part}");
        }
        let long = [b"a,".to_vec(), vec![b'k'; KEY_BYTES_MAX + 1]].concat();
        assert!(Lines::new(long, Some(2)).unwrap_err().contains("key of 4097 bytes in line 1"));
        assert!(Lines::new(vec![b'x'; LINE_BYTES_MAX + 1], None).unwrap_err().contains("line 1"));
        assert!(Lines::load("/nonexistent/r.csv", None).unwrap_err().contains("/nonexistent/r.csv (--records) cannot be read"));
    }

    #[test]
    fn packed_files_are_unpacked_by_their_name() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(TABLE).unwrap();
        let packed = Lines::load(&write("t.csv.gz", &encoder.finish().unwrap()), Some(1)).unwrap();
        assert_eq!((packed.count(), packed.key_count(), packed.key(1)), (5, 5, &b"2"[..]));
        assert_eq!(packed.text, Lines::load(&write("t.csv", TABLE), Some(1)).unwrap().text);
        assert!(Lines::load(&write("plain.gz", TABLE), None).unwrap_err().contains("cannot be read"));
    }
}
