//! How a record is written by `consume`: the value, key and value, or a JSON object on one line.
//!
//! Invariants: value mode writes exactly the bytes and one `\n`, nothing added or escaped; in JSON, bytes that are UTF-8 are a
//! string under `key`/`value`, others are base64 under `key_base64`/`value_base64`, so that nothing is lost or guessed.

use crate::args::Print;
use crate::start::time_text;
use serde_json::{Map, Value, json};

/// One record, borrowed from the batch it came in.
pub struct Printed<'a> {
    /// Name of the topic, where several may be read.
    pub topic: Option<&'a str>,
    /// Index of the partition.
    pub partition: u32,
    /// Record number in the partition.
    pub offset: u64,
    /// UTC microseconds.
    pub timestamp_us: i64,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; none for a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values, in order, repeats kept.
    pub headers: Vec<(&'a str, &'a [u8])>,
}

/// Appends the record's text to `out`. A missing key or value is written as nothing, except in JSON, where it is `null`.
pub fn print(record: &Printed<'_>, how: Print, out: &mut Vec<u8>) {
    match how {
        Print::Value => out.extend_from_slice(record.value.unwrap_or_default()),
        Print::KeyValue => {
            out.extend_from_slice(record.key.unwrap_or_default());
            out.push(b'\t');
            out.extend_from_slice(record.value.unwrap_or_default());
        }
        Print::Json => {
            let mut object = Map::new();
            if let Some(topic) = record.topic {
                object.insert("topic".into(), json!(topic));
            }
            object.insert("partition".into(), json!(record.partition));
            object.insert("offset".into(), json!(record.offset));
            object.insert("timestamp".into(), json!(time_text(record.timestamp_us)));
            insert_bytes(&mut object, "key", record.key);
            insert_bytes(&mut object, "value", record.value);
            insert_headers(&mut object, record.headers.iter().copied());
            out.extend_from_slice(Value::Object(object).to_string().as_bytes());
        }
    }
    out.push(b'\n');
}

/// Headers as a list under `headers`.
pub fn insert_headers<'a>(object: &mut Map<String, Value>, headers: impl Iterator<Item = (&'a str, &'a [u8])>) {
    let headers = headers.map(|(name, value)| {
        let mut header = Map::new();
        header.insert("name".into(), json!(name));
        insert_bytes(&mut header, "value", Some(value));
        Value::Object(header)
    });
    object.insert("headers".into(), headers.collect());
}

/// Bytes as text under `name`, or as base64 under `name_base64`; `null` for none.
pub fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => object.insert(name.into(), Value::Null),
        Some((_, Ok(text))) => object.insert(name.into(), json!(text)),
        Some((bytes, Err(_))) => object.insert(format!("{name}_base64"), json!(base64(bytes))),
    };
}

/// Base64 with the usual alphabet and padding (RFC 4648, section 4).
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = u32::from(chunk[0]) << 16 | u32::from(*chunk.get(1).unwrap_or(&0)) << 8 | u32::from(*chunk.get(2).unwrap_or(&0));
        for place in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * place)) as usize & 63] as char;
            text.push(if place <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(record: &Printed<'_>, how: Print) -> String {
        let mut out = Vec::new();
        print(record, how, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    fn record<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Printed<'a> {
        Printed { topic: None, partition: 3, offset: 9, timestamp_us: 1_000_000, key, value, headers: vec![("h", b"1"), ("h", &[0xff])] }
    }

    #[test]
    fn value_mode_writes_the_bytes_and_a_newline() {
        let mut out = Vec::new();
        print(&record(None, Some(b"a\xff\tb")), Print::Value, &mut out);
        assert_eq!(out, b"a\xff\tb\n");
        assert_eq!(printed(&record(Some(b"k"), None), Print::Value), "\n");
    }

    #[test]
    fn key_and_value_are_separated_by_a_tab() {
        assert_eq!(printed(&record(Some(b"k"), Some(b"v")), Print::KeyValue), "k\tv\n");
        assert_eq!(printed(&record(None, Some(b"v")), Print::KeyValue), "\tv\n");
    }

    #[test]
    fn json_keeps_text_as_text_and_other_bytes_as_base64() {
        let line = printed(&record(Some(b"\xff\x00"), Some("grün\n".as_bytes())), Print::Json);
        assert_eq!(line.matches('\n').count(), 1);
        let object: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&object["partition"], &object["offset"]), (&json!(3), &json!(9)));
        assert_eq!(object["timestamp"], "1970-01-01T00:00:01.000000Z");
        assert_eq!((&object["key_base64"], &object["value"]), (&json!("/wA="), &json!("grün\n")));
        assert_eq!(object["headers"], json!([{"name": "h", "value": "1"}, {"name": "h", "value_base64": "/w=="}]));
        assert!(object.get("topic").is_none());
        let of_group = Printed { topic: Some("t"), ..record(None, None) };
        let object: Value = serde_json::from_str(&printed(&of_group, Print::Json)).unwrap();
        assert_eq!(object["topic"], "t");
        assert_eq!((&object["key"], &object["value"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn base64_matches_the_examples_of_the_rfc() {
        for (text, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }
}
