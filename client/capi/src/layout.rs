//! The structs that cross the border, laid out as C does.
//!
//! Invariants: every struct and field is in `include/tramline.h` under the same name, at the same offset, with the same size (`header_tests.rs` asks a C
//! compiler); no implicit padding; every struct but the handles and the elements of arrays begins with its size, so that it can grow at its end; no field has a bit pattern that
//! is not a value (no `bool`, no enum, no reference), so that any bytes a caller gives can be looked at.
//!
//! Not here: what the fields mean in detail (the header), how they are checked (`client`, `producer`, `consumer` and the others).

use std::ffi::{c_char, c_int, c_void};

use crate::constants::ERROR_TOPIC_BYTES;

/// A struct that begins with its size, and whose other side may know an older or a newer one.
///
/// # Safety
/// The first field is `struct_size: usize`; every bit pattern is a value; there is no padding. `BYTES_FIRST` is at least that of the first field.
pub unsafe trait Plain: Copy {
    /// Bytes of its first layout: a caller's may be any between it and the newest, and what it does not have is 0.
    const BYTES_FIRST: usize = size_of::<Self>();
}

/// A struct of the header, for the comparison with C.
#[cfg(test)]
pub struct Shape {
    /// Name in C.
    pub name: &'static str,
    /// Bytes.
    pub size: usize,
    /// Name, offset and bytes of each field.
    pub fields: &'static [(&'static str, usize, usize)],
}

macro_rules! c_structs {
    ($($(#[$doc:meta])* $c_name:literal $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Debug, Clone, Copy)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

            // No implicit padding: what is copied to a caller has no byte that nobody wrote.
            const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$type>())*);
        )*

        /// All of them.
        #[cfg(test)]
        pub const SHAPES: &[Shape] = &[$(Shape {
            name: $c_name,
            size: size_of::<$name>(),
            fields: &[$((stringify!($field), std::mem::offset_of!($name, $field), size_of::<$type>()),)*],
        },)*];
    };
}

c_structs! {
    /// A client. Id 0 is the null handle.
    "tramline_client_t" ClientHandle { /** Number, 0 for none. */ id: u64, }

    /// A producer.
    "tramline_producer_t" ProducerHandle { /** Number, 0 for none. */ id: u64, }

    /// A consumer.
    "tramline_consumer_t" ConsumerHandle { /** Number, 0 for none. */ id: u64, }

    /// A member of a group.
    "tramline_member_t" MemberHandle { /** Number, 0 for none. */ id: u64, }

    /// A consumer of a queue.
    "tramline_queue_consumer_t" QueueConsumerHandle { /** Number, 0 for none. */ id: u64, }

    /// Settings of a client.
    "tramline_client_options_t" ClientOptions {
        /** Bytes of the struct as the caller knows it. */ struct_size: usize,
        /** NUL-terminated. */ client_name: *const c_char,
        /** Microseconds. */ connect_timeout_us: u64,
        /** Microseconds. */ request_timeout_us: u64,
        /** Microseconds. */ call_timeout_us: u64,
        /** 0 or 1. */ busy_poll: u32,
        /** 0 or 1. */ yield_when_empty: u32,
        /** Bytes. */ frame_bytes_max: u32,
        /** 0. */ reserved: u32,
    }

    /// A setting of a topic.
    "tramline_setting_t" Setting {
        /** NUL-terminated. */ key: *const c_char,
        /** NUL-terminated. */ value: *const c_char,
    }

    /// A header of a record.
    "tramline_header_t" Header {
        /** UTF-8, not NUL-terminated. */ name: *const c_char,
        /** Bytes. */ name_len: usize,
        /** Any bytes. */ value: *const c_void,
        /** Bytes. */ value_len: usize,
    }

    /// Settings of a producer.
    "tramline_producer_options_t" ProducerOptions {
        /** Bytes of the struct as the caller knows it. */ struct_size: usize,
        /** Microseconds. */ delivery_timeout_us: u64,
        /** Bytes. */ batch_bytes: u64,
        /** Microseconds. */ linger_us: u64,
        /** Requests per connection. */ max_in_flight: u64,
        /** Bytes. */ buffer_bytes: u64,
        /** Bytes. */ request_bytes: u64,
        /** `LEVEL_...`. */ level: u32,
        /** 0 or 1. */ idempotent: u32,
        /** `COMPRESSION_...`. */ compression: u32,
        /** `PARTITIONER_...`. */ partitioner: u32,
        /** Bytes. */ limit_batch_bytes: u32,
        /** Bytes. */ limit_values_bytes: u32,
        /** Bytes. */ limit_record_bytes: u32,
        /** Bytes. */ limit_key_bytes: u32,
        /** Count. */ limit_headers: u32,
        /** Bytes. */ limit_headers_bytes: u32,
    }

    /// A record to send.
    "tramline_record_t" NewRecord {
        /** Bytes of the struct as the caller knows it. */ struct_size: usize,
        /** NUL-terminated. */ topic: *const c_char,
        /** Null: no key. */ key: *const c_void,
        /** Bytes. */ key_len: usize,
        /** Null: a tombstone. */ value: *const c_void,
        /** Bytes. */ value_len: usize,
        /** `header_count` of them. */ headers: *const Header,
        /** Count. */ header_count: usize,
        /** UTC microseconds or `TIMESTAMP_NOW`. */ timestamp_us: i64,
        /** Comes back with the delivery. */ tag: u64,
        /** Number or `PARTITION_ANY`. */ partition: u32,
        /** 0. */ reserved: u32,
        /** UTC microseconds; 0: at once. */ deliver_at_us: i64,
        /** Null: no group. */ group: *const c_void,
        /** Bytes. */ group_len: usize,
        /** Null: no id. */ message_id: *const c_void,
        /** Bytes. */ message_id_len: usize,
        /** Milliseconds; 0: for ever. */ ttl_ms: u32,
        /** 0 to 9. */ priority: u32,
    }

    /// The fate of a record.
    "tramline_delivery_t" DeliveryView {
        /** Bytes of the struct as the library knows it. */ struct_size: usize,
        /** The record's. */ tag: u64,
        /** UTF-8, not NUL-terminated. */ topic: *const c_char,
        /** Bytes. */ topic_len: usize,
        /** NUL-terminated; null when there is no error. */ message: *const c_char,
        /** Bytes. */ message_len: usize,
        /** Or `OFFSET_NONE`. */ offset: u64,
        /** Number. */ partition: u32,
        /** `OK` or why not. */ status: c_int,
        /** The broker's error code or 0. */ code: u32,
        /** Reached. */ level: u32,
    }

    /// What a producer has done.
    "tramline_producer_metrics_t" ProducerCounts {
        /** Bytes of the struct as filled. */ struct_size: usize,
        /** Count. */ records_taken: u64,
        /** Count. */ records_acknowledged: u64,
        /** Count. */ records_failed: u64,
        /** Bytes. */ bytes_sent: u64,
        /** Count. */ batches_sent: u64,
        /** Count. */ batches_sent_again: u64,
        /** Count. */ duplicates_too_old: u64,
        /** Count. */ requests_sent: u64,
        /** Count. */ refusals: u64,
        /** Count. */ epochs_raised: u64,
        /** Count. */ connections_opened: u64,
        /** Count. */ connections_lost: u64,
        /** Count. */ metadata_refreshes: u64,
        /** Count. */ buffer_full: u64,
        /** Microseconds. */ throttled_us: u64,
        /** Bytes held now. */ held_bytes: u64,
    }

    /// Settings of a consumer.
    "tramline_consumer_options_t" ConsumerOptions {
        /** Bytes of the struct as the caller knows it. */ struct_size: usize,
        /** Bytes. */ credit_bytes: u32,
        /** Bytes. */ partition_bytes_max: u32,
        /** 0 or 1. */ verify_checksums: u32,
        /** Bytes. */ batch_values_bytes_max: u32,
    }

    /// Settings of a member of a group.
    "tramline_member_options_t" MemberOptions {
        /** Bytes of the struct as the caller knows it. */ struct_size: usize,
        /** NUL-terminated or null. */ instance_id: *const c_char,
        /** Microseconds. */ session_timeout_us: u64,
        /** Microseconds. */ auto_commit_interval_us: u64,
        /** `ASSIGNOR_...`. */ assignor: u32,
        /** `RESET_...`. */ auto_offset_reset: u32,
        /** 0 or 1. */ auto_commit: u32,
        /** Bytes. */ credit_bytes: u32,
        /** Bytes. */ partition_bytes_max: u32,
        /** 0 or 1. */ verify_checksums: u32,
        /** Bytes. */ batch_values_bytes_max: u32,
        /** 0. */ reserved: u32,
    }

    /// A partition that comes or goes.
    "tramline_member_part_t" MemberPart {
        /** UTF-8, not NUL-terminated. */ topic: *const c_char,
        /** Bytes. */ topic_len: usize,
        /** Or `OFFSET_NONE`. */ position: u64,
        /** The caller's answer, or `OFFSET_NONE`. */ commit_offset: u64,
        /** Number. */ partition: u32,
        /** 0. */ reserved: u32,
    }

    /// A record that arrived.
    "tramline_record_view_t" RecordView {
        /** Bytes of the struct as the library knows it. */ struct_size: usize,
        /** UTF-8, not NUL-terminated. */ topic: *const c_char,
        /** Bytes. */ topic_len: usize,
        /** Null: no key. */ key: *const c_void,
        /** Bytes. */ key_len: usize,
        /** Null: a tombstone. */ value: *const c_void,
        /** Bytes. */ value_len: usize,
        /** `header_count` of them. */ headers: *const Header,
        /** Count. */ header_count: usize,
        /** Offset. */ offset: u64,
        /** UTC microseconds. */ timestamp_us: i64,
        /** UTC microseconds. */ append_time_us: i64,
        /** Number. */ partition: u32,
        /** 0. */ reserved: u32,
    }

    /// What a consumer has done.
    "tramline_consumer_metrics_t" ConsumerCounts {
        /** Bytes of the struct as filled. */ struct_size: usize,
        /** Count. */ records: u64,
        /** Bytes. */ bytes_received: u64,
        /** Count. */ replies_received: u64,
        /** Count. */ streams_started: u64,
        /** Count. */ credit_grants: u64,
        /** Count. */ refusals: u64,
        /** Count. */ corrupt_batches: u64,
        /** Count. */ connections_opened: u64,
        /** Count. */ connections_lost: u64,
        /** Count. */ metadata_refreshes: u64,
    }

    /// Settings of a queue's consumer.
    "tramline_queue_consumer_options_t" QueueConsumerOptions {
        /** Bytes of the struct as the caller knows it. */ struct_size: usize,
        /** NUL-terminated; null: made up. */ consumer: *const c_char,
        /** Microseconds; 0: as the queue says. */ visibility_us: u64,
        /** Bytes. */ max_bytes: u32,
        /** 0 or 1. */ verify_checksums: u32,
        /** Bytes. */ batch_values_bytes_max: u32,
        /** 0. */ reserved: u32,
    }

    /// The right to settle one delivery of a message.
    "tramline_token_t" Token {
        /** The partition. */ partition_uid: u64,
        /** The message. */ offset: u64,
        /** The lease. */ lease: u64,
    }

    /// A message under a lease.
    "tramline_message_t" MessageView {
        /** Bytes of the struct as the library knows it. */ struct_size: usize,
        /** Null: no key. */ key: *const c_void,
        /** Bytes. */ key_len: usize,
        /** Null: a tombstone. */ value: *const c_void,
        /** Bytes. */ value_len: usize,
        /** `header_count` of them. */ headers: *const Header,
        /** Count. */ header_count: usize,
        /** Null: no group. */ group: *const c_void,
        /** Bytes. */ group_len: usize,
        /** Null: no id. */ message_id: *const c_void,
        /** Bytes. */ message_id_len: usize,
        /** What settles it. */ token: Token,
        /** Offset. */ offset: u64,
        /** UTC microseconds. */ timestamp_us: i64,
        /** UTC microseconds. */ append_time_us: i64,
        /** UTC microseconds; 0: at once. */ deliver_at_us: i64,
        /** Number. */ partition: u32,
        /** Count, this one included. */ deliveries: u32,
        /** Milliseconds; 0: for ever. */ ttl_ms: u32,
        /** 0 to 9. */ priority: u32,
    }

    /// What becomes of a message.
    "tramline_settlement_t" Settlement {
        /** Which delivery. */ token: Token,
        /** NUL-terminated; null: none. */ reason: *const c_char,
        /** Microseconds, where the action has a time. */ time_us: u64,
        /** `SETTLE_...`. */ action: u32,
        /** 0. */ reserved: u32,
    }

    /// What became of a settlement.
    "tramline_settled_t" Settled {
        /** `OK` or why not. */ status: c_int,
        /** The broker's error code or 0. */ code: u32,
    }

    /// What a queue's consumer has done.
    "tramline_queue_consumer_metrics_t" QueueConsumerCounts {
        /** Bytes of the struct as filled. */ struct_size: usize,
        /** Count. */ messages: u64,
        /** Count. */ given_back: u64,
        /** Bytes. */ bytes_received: u64,
        /** Count. */ receives_sent: u64,
        /** Count. */ settled: u64,
        /** Count. */ refusals: u64,
        /** Count. */ corrupt_batches: u64,
        /** Count. */ connections_opened: u64,
        /** Count. */ connections_lost: u64,
        /** Count. */ metadata_refreshes: u64,
    }

    /// The last error of a thread, for programs.
    "tramline_error_t" ErrorView {
        /** Bytes of the struct as filled. */ struct_size: usize,
        /** Offset at which reading stands, or `OFFSET_NONE`. */ offset: u64,
        /** Where reading can go on, or `OFFSET_NONE`. */ resume_offset: u64,
        /** Status. */ status: c_int,
        /** The broker's error code or 0. */ code: u32,
        /** 0 or 1. */ retriable: u32,
        /** Or `PARTITION_NONE`. */ partition: u32,
        /** NUL-terminated; empty when no topic is concerned. */ topic: [c_char; ERROR_TOPIC_BYTES],
    }
}

macro_rules! plain {
    ($($name:ident $(from $grown:ident)?),* $(,)?) => { $(
        const _: () = assert!(std::mem::offset_of!($name, struct_size) == 0);
        // SAFETY: the size comes first (asserted above), all fields are integers, raw pointers and arrays of integers, and `c_structs`
        // asserts that there is no padding.
        unsafe impl Plain for $name {
            $(const BYTES_FIRST: usize = std::mem::offset_of!($name, $grown);)?
        }
    )* };
}
plain!(
    ClientOptions,
    ProducerOptions,
    NewRecord from deliver_at_us,
    ProducerCounts,
    ConsumerOptions,
    MemberOptions,
    ConsumerCounts,
    QueueConsumerOptions,
    QueueConsumerCounts,
    ErrorView,
);
