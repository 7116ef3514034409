//! Cutting standard input into records: whole lines, and the key out of one field.
//!
//! Invariants: the value is the line byte for byte without its `\n` (a `\r` stays, an empty line is an empty record, a last
//! line without `\n` counts); fields are split plainly at the delimiter, quotes mean nothing; a line that has fewer fields
//! than asked for is an error of that line, never a record without key (that would land in any partition and break the order per key).
//! Not here: reading (the thread in `produce.rs`) and sending.

/// The longest line taken, in bytes: what one frame can carry by protocol. Longer input is refused at once instead of being
/// collected without bound; the broker's own limit for a record is usually lower and answers by name.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// Collects bytes and hands out whole lines.
#[derive(Default)]
pub struct LineCutter {
    /// Bytes read and not yet handed out; holds at most one unfinished line between calls.
    pending: Vec<u8>,
}

/// A line is longer than `LINE_BYTES_MAX`.
#[derive(Debug, PartialEq, Eq)]
pub struct LineTooLong;

impl LineCutter {
    /// Takes what was read and calls `line` for each line that is now whole; `line` may stop with an error.
    pub fn feed<E>(&mut self, read: &[u8], mut line: impl FnMut(&[u8]) -> Result<(), E>) -> Result<Result<(), LineTooLong>, E> {
        let mut rest = read;
        while let Some(end) = rest.iter().position(|&b| b == b'\n') {
            let (head, tail) = (&rest[..end], &rest[end + 1..]);
            if self.pending.len() + head.len() > LINE_BYTES_MAX {
                return Ok(Err(LineTooLong));
            }
            if self.pending.is_empty() {
                line(head)?;
            } else {
                self.pending.extend_from_slice(head);
                line(&self.pending)?;
                self.pending.clear();
            }
            rest = tail;
        }
        if self.pending.len() + rest.len() > LINE_BYTES_MAX {
            return Ok(Err(LineTooLong));
        }
        self.pending.extend_from_slice(rest);
        Ok(Ok(()))
    }

    /// The last line, when the input did not end with `\n`.
    pub fn finish(self) -> Option<Vec<u8>> {
        (!self.pending.is_empty()).then_some(self.pending)
    }
}

/// Field `number` (counted from 1) of a line split plainly at `delimiter`; the count of fields when there are fewer.
pub fn field<'a>(line: &'a [u8], number: usize, delimiter: &[u8]) -> Result<&'a [u8], usize> {
    assert!(number >= 1 && !delimiter.is_empty(), "checked when the options were read");
    let mut rest = line;
    let mut index = 1;
    loop {
        let end = find(rest, delimiter);
        if index == number {
            return Ok(&rest[..end.unwrap_or(rest.len())]);
        }
        match end {
            Some(end) => rest = &rest[end + delimiter.len()..],
            None => return Err(index),
        }
        index += 1;
    }
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    if let [byte] = needle {
        return text.iter().position(|b| b == byte);
    }
    text.windows(needle.len()).position(|window| window == needle)
}

/// Reads the value of `--delimiter`: 1 to 16 bytes; `\t` and `\0` stand for tab and zero.
pub fn parse_delimiter(text: &str) -> Result<Vec<u8>, String> {
    let bytes = match text {
        "\\t" => b"\t".to_vec(),
        "\\0" => b"\0".to_vec(),
        _ => text.as_bytes().to_vec(),
    };
    match bytes.len() {
        1..=16 if !bytes.contains(&b'\n') => Ok(bytes),
        _ => Err("the delimiter must be 1 to 16 bytes without a line break; write \\t for a tab".to_owned()),
    }
}

/// Reads `name=value` of `--header` and `--set`: a name that is not empty, then everything after the first `=`.
pub fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("'{text}' is not of the form key=value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut cutter = LineCutter::default();
        let mut lines = Vec::new();
        for piece in pieces {
            cutter
                .feed(piece, |line| -> Result<(), ()> {
                    lines.push(line.to_vec());
                    Ok(())
                })
                .unwrap()
                .unwrap();
        }
        lines.extend(cutter.finish());
        lines
    }

    #[test]
    fn lines_are_the_same_however_the_input_arrives() {
        let text = b"first,1\n\nthird\r\nlast without end";
        let whole = cut(&[text]);
        assert_eq!(whole, vec![b"first,1".to_vec(), b"".to_vec(), b"third\r".to_vec(), b"last without end".to_vec()]);
        for cut_at in 0..=text.len() {
            assert_eq!(cut(&[&text[..cut_at], &text[cut_at..]]), whole, "cut at {cut_at}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(cut(&bytes), whole);
    }

    #[test]
    fn an_end_of_line_at_the_end_adds_no_record() {
        assert_eq!(cut(&[b"a\n"]), vec![b"a".to_vec()]);
        assert!(cut(&[b""]).is_empty());
    }

    #[test]
    fn a_line_without_end_is_refused_at_the_limit() {
        let mut cutter = LineCutter::default();
        let piece = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(cutter.feed(&piece, |_| Ok::<(), ()>(())), Ok(Ok(())));
        assert_eq!(cutter.feed(b"x", |_| Ok::<(), ()>(())), Ok(Err(LineTooLong)));
        assert_eq!(cutter.feed(b"xy\n", |_| Ok::<(), ()>(())), Ok(Err(LineTooLong)));
    }

    #[test]
    fn an_error_of_the_taker_stops_the_cutting() {
        let mut seen = 0;
        let result = LineCutter::default().feed(b"a\nb\nc\n", |line| {
            seen += 1;
            if line == b"b" { Err("stop") } else { Ok(()) }
        });
        assert_eq!((result, seen), (Err("stop"), 2));
    }

    #[test]
    fn fields_are_counted_from_one_and_split_plainly() {
        let line = b"2013,1,\"a,b\",N14228,";
        for (number, expected) in [(1, &b"2013"[..]), (2, b"1"), (3, b"\"a"), (4, b"b\""), (5, b"N14228"), (6, b"")] {
            assert_eq!(field(line, number, b","), Ok(expected), "{number}");
        }
        assert_eq!(field(line, 7, b","), Err(6));
        assert_eq!(field(b"a::b:c", 2, b"::"), Ok(&b"b:c"[..]));
        assert_eq!(field(b"", 1, b","), Ok(&b""[..]));
    }

    #[test]
    fn delimiters_and_pairs_are_checked() {
        assert_eq!(parse_delimiter("\\t"), Ok(b"\t".to_vec()));
        assert_eq!(parse_delimiter(";"), Ok(b";".to_vec()));
        assert!(parse_delimiter("").is_err() && parse_delimiter("12345678901234567").is_err());
        assert_eq!(parse_pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(parse_pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(parse_pair("a").is_err() && parse_pair("=b").is_err());
    }
}
