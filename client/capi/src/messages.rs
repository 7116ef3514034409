//! What a queue's consumer received, as C sees it: messages, and an array of pointers to them.
//!
//! ```text
//! pointers ──> views ──> headers ──> names, values      all of it is kept until the next receive
//!                └─────────────────> keys, values, ...
//! ```
//!
//! An array of pointers, because the struct of a message grows at its end: a program that knows a smaller one would count wrong in an array of structs.
//!
//! Invariants: nothing that is pointed at is changed, moved or freed while this lives. Not here: receiving (`queue_consumer`).

use std::ffi::c_void;

use tramline_client::{LeaseToken, Message};

use crate::layout::{Header, MessageView, Token};

/// See the module's page.
#[derive(Default)]
pub struct Received {
    /// Own the bytes. They are not touched after the views are made.
    _messages: Vec<Message>,
    _headers: Vec<Header>,
    _views: Vec<MessageView>,
    pointers: Vec<*const MessageView>,
}

// SAFETY: the pointers point into what the same struct owns, which goes where it goes; nothing else of it is bound to a thread.
unsafe impl Send for Received {}

impl Received {
    /// Makes the views of messages.
    pub fn new(messages: Vec<Message>) -> Received {
        let headers: Vec<Header> = messages.iter().flat_map(|message| &message.headers).map(header).collect();
        let mut views = Vec::with_capacity(messages.len());
        let mut first = 0;
        for message in &messages {
            let end = first + message.headers.len();
            views.push(view(message, &headers[first..end]));
            first = end;
        }
        let pointers = views.iter().map(std::ptr::from_ref).collect();
        Received { _messages: messages, _headers: headers, _views: views, pointers }
    }

    /// Where the array begins, and how many there are; null when there is none.
    pub fn array(&self) -> (*const *const MessageView, usize) {
        match self.pointers.is_empty() {
            true => (std::ptr::null(), 0),
            false => (self.pointers.as_ptr(), self.pointers.len()),
        }
    }
}

fn header((name, value): &(String, Vec<u8>)) -> Header {
    Header { name: name.as_ptr().cast(), name_len: name.len(), value: value.as_ptr().cast(), value_len: value.len() }
}

/// A pointer that is null only where there is nothing, not where it is empty.
fn parts(bytes: Option<&Vec<u8>>) -> (*const c_void, usize) {
    bytes.map_or((std::ptr::null(), 0), |bytes| (bytes.as_ptr().cast(), bytes.len()))
}

fn view(message: &Message, headers: &[Header]) -> MessageView {
    let attributes = &message.attributes;
    let ((key, key_len), (value, value_len)) = (parts(message.key.as_ref()), parts(message.value.as_ref()));
    let (group, group_len) = parts(attributes.group.as_ref());
    let (message_id, message_id_len) = parts(attributes.message_id.as_ref());
    let LeaseToken { partition_uid, offset, lease } = message.token;
    MessageView {
        struct_size: size_of::<MessageView>(),
        key,
        key_len,
        value,
        value_len,
        headers: headers.as_ptr(),
        header_count: headers.len(),
        group,
        group_len,
        message_id,
        message_id_len,
        token: Token { partition_uid, offset, lease },
        offset: message.offset,
        timestamp_us: message.timestamp_us,
        append_time_us: message.append_time_us,
        deliver_at_us: attributes.deliver_at_us.unwrap_or(0),
        partition: message.partition,
        deliveries: message.deliveries,
        ttl_ms: attributes.ttl_ms.unwrap_or(0),
        priority: u32::from(attributes.priority.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tramline_client::MessageAttributes;

    fn message(offset: u64, headers: &[(&str, &str)]) -> Message {
        Message {
            partition: 3,
            offset,
            timestamp_us: 5,
            append_time_us: 6,
            key: Some(Vec::new()),
            value: None,
            headers: headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect(),
            attributes: MessageAttributes::default(),
            deliveries: 2,
            token: LeaseToken { partition_uid: 7, offset, lease: 9 },
        }
    }

    #[test]
    fn each_message_has_its_own_headers_also_after_a_move() {
        let received = Box::new(Received::new(vec![message(0, &[("a", "1"), ("", "")]), message(1, &[]), message(2, &[("b", "22")])]));
        let (pointers, count) = received.array();
        assert_eq!(count, 3);
        // SAFETY: three pointers to views that live as long as `received`, whose headers and bytes do as well.
        let seen = |at: usize| unsafe {
            let view = *(*pointers.add(at));
            let headers = std::slice::from_raw_parts(view.headers, view.header_count);
            let text = |data: *const u8, len| String::from_utf8(std::slice::from_raw_parts(data, len).to_vec()).expect("UTF-8");
            let headers: Vec<_> =
                headers.iter().map(|of| (text(of.name.cast(), of.name_len), text(of.value.cast(), of.value_len))).collect();
            (view.offset, view.token.lease, headers)
        };
        let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
        assert_eq!(seen(0), (0, 9, vec![pair("a", "1"), pair("", "")]));
        assert_eq!(seen(1), (1, 9, Vec::new()));
        assert_eq!(seen(2), (2, 9, vec![pair("b", "22")]));
    }

    #[test]
    fn none_is_null_and_empty_is_not() {
        let received = Received::new(vec![message(0, &[])]);
        // SAFETY: one pointer to a view that lives as long as `received`.
        let view = unsafe { **received.array().0 };
        assert!(!view.key.is_null() && view.key_len == 0 && view.value.is_null());
        assert!(view.group.is_null() && view.message_id.is_null() && view.struct_size == size_of::<MessageView>());
        assert!(Received::default().array().0.is_null());
    }
}
