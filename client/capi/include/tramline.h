/*
 * tramline.h: the native client of the Tramline message broker, for C (C11 and later) and C++ (11 and later).
 *
 *     cc program.c $(pkg-config --cflags --libs tramline)            with the shared library
 *     cc program.c $(pkg-config --cflags --libs tramline-static)     with the static one
 *
 * Programs to start from: produce.c, consume.c, queue.c and busy_poll.c, installed below share/doc/tramline/examples. docs/C.md is an introduction.
 *
 * RULES FOR EVERY FUNCTION
 *
 * Statuses. A function that can fail returns TRAMLINE_OK (0) or one of TRAMLINE_E_... . Every one can return TRAMLINE_E_ARGUMENT, and every one that takes
 * a handle TRAMLINE_E_HANDLE and TRAMLINE_E_PANIC; the comments below name what can come beside these, and what an argument has to be. After anything but
 * TRAMLINE_OK, tramline_last_error() has the sentence, tramline_last_code() the broker's error code, tramline_last_error_details() the rest, for the thread
 * that made the call, until its next call that fails.
 *
 * Handles are numbers in a struct, not pointers. {0} is the null handle. A null, closed or wrong one is refused with TRAMLINE_E_HANDLE, however long ago
 * it was closed: a number is never given out twice. A client can be used by any number of threads at once. A producer, consumer, member or queue consumer does one call at a
 * time and may move from thread to thread; a second call meanwhile (also one from its own callback) gets TRAMLINE_E_BUSY and does nothing.
 *
 * Nothing runs between calls: the library has no threads of its own. A producer and a queue consumer send and receive inside their calls, a consumer inside its polls, and all
 * wait there as long as their timeouts say. "Threads: any" below means that the function can be called from any thread at any time; "one at a time" means: by one
 * thread at a time per handle.
 *
 * Memory. The library reads what you point at during the call only and keeps no pointer; what it points at is yours to read until the callback returns,
 * what a queue consumer received until it receives again or is closed, and where a function returns a pointer, for good. You free nothing but your own memory. Running out of memory ends the process.
 *
 * Text is UTF-8. "NUL-terminated" says that a string ends with a NUL byte; what is not marked so has a length beside it and no NUL. Bytes are a pointer
 * and a length: a NULL pointer with length 0 means "none", a pointer that is not NULL with length 0 means "empty", which is not the same.
 *
 * Structs that begin with struct_size grow at their end in later versions. Give sizeof, or have the function ..._defaults() set it; then a program
 * that was built with one version of this header runs with a library of another: fields that the older side does not know are 0.
 *
 * Times are microseconds where a name ends in _us: durations, or UTC since 1970 where it says timestamp. TRAMLINE_FOREVER_US waits for ever.
 *
 * Callbacks have to return in the ordinary way: no longjmp, no C++ exception, no ending of the thread from within one. The same holds for thread cancellation
 * and for signal handlers that jump: do not let them leave a function of this library.
 *
 * Signals. The library raises none and changes none: a broker that goes away is an error, no SIGPIPE.
 *
 * fork. Handles opened before a fork belong to the parent: the child opens its own.
 *
 * Defects. No panic of the library's Rust code reaches the caller: it becomes TRAMLINE_E_PANIC, one line goes to standard error, and the handle refuses
 * everything but being closed.
 */
#ifndef TRAMLINE_H
#define TRAMLINE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The version of this header; tramline_version() tells that of the library. */
#define TRAMLINE_HEADER_VERSION "0.1.0"

/* ---------------------------------------------------------------------------------------------------------------- statuses and errors */

/** What a function returns: TRAMLINE_OK or one of TRAMLINE_E_... . More may come in later versions: treat an unknown one as a failure. */
typedef int tramline_status_t;

/** The values of tramline_status_t. */
enum {
    /** Done. */
    TRAMLINE_OK = 0,
    /** An argument is NULL where it must not be, out of range, not UTF-8, or makes no sense with the others. Nothing was done; the same call will fail again. */
    TRAMLINE_E_ARGUMENT = 1,
    /** The handle is null, was closed, or is of another kind. Nothing was done. */
    TRAMLINE_E_HANDLE = 2,
    /** The handle is in use by another call, of another thread or around this one (a callback). Nothing was done; call again later. */
    TRAMLINE_E_BUSY = 3,
    /** No room just now: the producer's buffer (poll and send again), or the number of open handles (65,536 of each kind). Nothing was done. */
    TRAMLINE_E_FULL = 4,
    /** Not done within the time allowed. tramline_last_code() tells the last refusal of a broker, if one was the obstacle. */
    TRAMLINE_E_TIMEOUT = 5,
    /** The broker refused; tramline_last_code() tells why. */
    TRAMLINE_E_REFUSED = 6,
    /** The operating system or the network refused, or the connection broke, and what was asked for did not happen. */
    TRAMLINE_E_IO = 7,
    /** What arrived does not match its checksum or cannot be decompressed. It was not handed out. */
    TRAMLINE_E_CORRUPT = 8,
    /** A defect of this library was caught, now or in an earlier call with this handle: close the handle, and please report it. */
    TRAMLINE_E_PANIC = 9,
    /** The request was sent, no answer came: it may or may not have happened. Look before you repeat it. */
    TRAMLINE_E_UNKNOWN_OUTCOME = 10,
    /** What answers at the address does not speak Tramline's protocol, or breaks its rules. */
    TRAMLINE_E_PROTOCOL = 11
};

/** The broker's error codes, as tramline_last_code() and deliveries tell them. More may come in later versions. */
enum {
    /** Not an error, or an error that does not come from a broker. */
    TRAMLINE_CODE_OK = 0,
    /** The request does not decode: fix the client, and reconnect if the connection was closed. */
    TRAMLINE_CODE_MALFORMED = 1,
    /** The node does not speak this version: use one that its hello reply lists. */
    TRAMLINE_CODE_UNSUPPORTED_VERSION = 2,
    /** The node does not know this request kind: use one that its hello reply lists. */
    TRAMLINE_CODE_UNKNOWN_KIND = 3,
    /** The frame is above the node's limit: send smaller requests (frame_max in the hello reply). */
    TRAMLINE_CODE_FRAME_TOO_LARGE = 4,
    /** The bytes did not arrive as they were sent: reconnect and send again, and look for faulty hardware if it repeats. */
    TRAMLINE_CODE_CHECKSUM_MISMATCH = 5,
    /** The first request of a connection has to be hello: reconnect and say hello. */
    TRAMLINE_CODE_HELLO_REQUIRED = 6,
    /** The node does not accept these credentials: use a mechanism that its hello reply lists, with valid credentials. */
    TRAMLINE_CODE_UNAUTHENTICATED = 7,
    /** No topic of this name: create it, or check the spelling. */
    TRAMLINE_CODE_UNKNOWN_TOPIC = 8,
    /** The node does not know this partition: refresh metadata and try again. May pass by itself. */
    TRAMLINE_CODE_UNKNOWN_PARTITION = 9,
    /** A topic of this name exists: choose another name, or ask with if-not-exists. */
    TRAMLINE_CODE_TOPIC_EXISTS = 10,
    /** This is not a valid topic name: use 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-', not only dots. */
    TRAMLINE_CODE_INVALID_TOPIC_NAME = 11,
    /** The value of a setting is not allowed: the message names it and its range. */
    TRAMLINE_CODE_INVALID_SETTING = 12,
    /** No setting of this name: the options request lists all of them. */
    TRAMLINE_CODE_UNKNOWN_SETTING = 13,
    /** The request contradicts itself or asks for something that does not exist: the message says what. */
    TRAMLINE_CODE_INVALID_REQUEST = 14,
    /** A record, its key or its headers are above the limit: send smaller records or raise the limit. */
    TRAMLINE_CODE_RECORD_TOO_LARGE = 15,
    /** The batch is above the limit: send smaller batches. */
    TRAMLINE_CODE_BATCH_TOO_LARGE = 16,
    /** The node does not know this compression codec: use none, lz4, zstd or snappy. */
    TRAMLINE_CODE_UNKNOWN_CODEC = 17,
    /** A flag is set that the node does not know: use a feature only when the node has it. */
    TRAMLINE_CODE_UNKNOWN_FLAG = 18,
    /** The batch is not laid out as specified: fix the producer. */
    TRAMLINE_CODE_BAD_BATCH = 19,
    /** This node does not lead the partition: go to the address in the reply, or refresh metadata. May pass by itself. */
    TRAMLINE_CODE_NOT_LEADER = 20,
    /** The node is not ready to answer this yet: try again shortly. May pass by itself. */
    TRAMLINE_CODE_NOT_READY = 21,
    /** The node has too much to do: slow down and try again. May pass by itself. */
    TRAMLINE_CODE_OVERLOADED = 22,
    /** The node's disk is nearly full: free or add space, then try again; reading and deleting still work. May pass by itself. */
    TRAMLINE_CODE_DISK_FULL = 23,
    /** The partition has no such offset: start from its log start or its end. */
    TRAMLINE_CODE_OFFSET_OUT_OF_RANGE = 24,
    /** Stored data is damaged here and is not served: skip it, or have it repaired from a replica. */
    TRAMLINE_CODE_DAMAGED = 25,
    /** The storage of this shard failed and it no longer accepts data: try another replica, and look at the node's log. May pass by itself. */
    TRAMLINE_CODE_STORAGE_FAILED = 26,
    /** The asked level was not reached in time; the records may still be stored: try again, idempotently. May pass by itself. */
    TRAMLINE_CODE_TIMED_OUT = 27,
    /** The node is shutting down: go to another node, or reconnect when it is back. May pass by itself. */
    TRAMLINE_CODE_SHUTTING_DOWN = 28,
    /** A limit of the node is reached: the message names it. */
    TRAMLINE_CODE_LIMIT_EXCEEDED = 29,
    /** The node does not know this durability level: use none, leader, leader_durable, replicated or durable. */
    TRAMLINE_CODE_UNKNOWN_LEVEL = 30,
    /** No streaming fetch with this id lives on this connection: it ended, or never began. */
    TRAMLINE_CODE_UNKNOWN_STREAM = 31,
    /** The broker met a defect of its own: look at its log and report it. */
    TRAMLINE_CODE_INTERNAL = 32,
    /** The topic was deleted: refresh metadata before using a topic of the same name. */
    TRAMLINE_CODE_TOPIC_DELETED = 33,
    /** An earlier batch of this producer is missing here: send the missing one first, or begin anew with the next epoch. */
    TRAMLINE_CODE_OUT_OF_SEQUENCE = 34,
    /** The producer has gone on with a higher epoch: this batch was given up. */
    TRAMLINE_CODE_PRODUCER_FENCED = 35,
    /** The batch was stored before, so long ago that its offset is not remembered: take it as stored. */
    TRAMLINE_CODE_DUPLICATE_TOO_OLD = 36,
    /** No such consumer group: check the name, or find the group with the flag that creates it. */
    TRAMLINE_CODE_UNKNOWN_GROUP = 37,
    /** Not a valid name of a consumer group. */
    TRAMLINE_CODE_INVALID_GROUP_NAME = 38,
    /** The group has members: stop them first, or wait until their sessions time out. */
    TRAMLINE_CODE_GROUP_NOT_EMPTY = 39,
    /** The group does not know this member, or has dropped it: give up its partitions and join again. */
    TRAMLINE_CODE_UNKNOWN_MEMBER = 40,
    /** Another process has joined under this member's instance name. */
    TRAMLINE_CODE_MEMBER_FENCED = 41,
    /** The partition belongs to a later owner: give it up, and commit nothing for it. */
    TRAMLINE_CODE_STALE_ASSIGNMENT = 42,
    /** All members of a group have one assignor and one session timeout. */
    TRAMLINE_CODE_GROUP_SETTINGS_DIFFER = 43,
    /** No such queue: check the name, or create it. */
    TRAMLINE_CODE_UNKNOWN_QUEUE = 44,
    /** A queue of this name exists: choose another name, or ask with if-not-exists. */
    TRAMLINE_CODE_QUEUE_EXISTS = 45,
    /** Not a valid name of a queue. */
    TRAMLINE_CODE_INVALID_QUEUE_NAME = 46,
    /** No such lease: the message was settled already, or never leased under this token. */
    TRAMLINE_CODE_UNKNOWN_LEASE = 47,
    /** The lease has run out and its message waits for the next delivery: settle sooner, or extend. */
    TRAMLINE_CODE_LEASE_EXPIRED = 48,
    /** The message was delivered again under a later lease: leave it to its holder. */
    TRAMLINE_CODE_LEASE_LOST = 49,
    /** The queue was deleted: stop receiving. */
    TRAMLINE_CODE_QUEUE_DELETED = 50,
    /** The dead-letter topic leads back to the queue's own topic: choose another. */
    TRAMLINE_CODE_DEAD_LETTER_CIRCLE = 51,
    /** A priority above 9, or a delay, a time to live or the length of a lease out of range. */
    TRAMLINE_CODE_INVALID_ATTRIBUTE = 52,
    /** The queue has no such message, or it is settled. */
    TRAMLINE_CODE_UNKNOWN_MESSAGE = 53,
    /** What the step names lies in more than one replica group: create the topics with co-locate. */
    TRAMLINE_CODE_NOT_CO_LOCATED = 54,
    /** Another node leads now, and what was sent may be stored or not: send it again there, idempotently. */
    TRAMLINE_CODE_LEADERSHIP_LOST = 55,
    /** The cluster's metadata have no leader: a majority of their voters has to run and to reach each other. */
    TRAMLINE_CODE_NO_METADATA_LEADER = 56
};

/** Bytes of tramline_error_t.topic, its NUL included. */
#define TRAMLINE_ERROR_TOPIC_BYTES 256
/** Not an offset: none is known. */
#define TRAMLINE_OFFSET_NONE UINT64_MAX
/** Not a partition: the error concerns none. */
#define TRAMLINE_PARTITION_NONE UINT32_MAX
/** A timeout that never ends. */
#define TRAMLINE_FOREVER_US UINT64_MAX

/** The last error of a thread, for programs; filled by tramline_last_error_details(). */
typedef struct {
    /** Set to the size that was asked for. */
    size_t struct_size;
    /** Offset at which reading of the partition stands, or TRAMLINE_OFFSET_NONE. */
    uint64_t offset;
    /** Offset from which the partition can be read again (seek there), or TRAMLINE_OFFSET_NONE. */
    uint64_t resume_offset;
    /** Status that the call returned; TRAMLINE_OK when no call of this thread failed yet. */
    tramline_status_t status;
    /** The broker's error code, TRAMLINE_CODE_OK when the error does not come from a broker. */
    uint32_t code;
    /** 1: the same call may succeed later without a change; 0: it will not, or repeating it may do the thing twice. */
    uint32_t retriable;
    /** The partition that the error concerns, or TRAMLINE_PARTITION_NONE. */
    uint32_t partition;
    /** The topic that the error concerns, NUL-terminated; empty when it concerns none. */
    char topic[TRAMLINE_ERROR_TOPIC_BYTES];
} tramline_error_t;

/**
 * The version of the library, such as "0.1.0".
 *
 * Returns: a NUL-terminated string that stays for good.
 * Threads: any.
 */
const char *tramline_version(void);

/**
 * Whether a defect of the library is caught (TRAMLINE_E_PANIC). It is in a library built by scripts/install_capi.sh; one that was built with the wrong
 * profile ends the process instead.
 *
 * Returns: 1 or 0.
 * Threads: any.
 */
int tramline_catches_panics(void);

/**
 * The sentence of the last error of this thread: what happened and what to do. Writes it with a NUL into `buffer`, cut at a character where it does not fit.
 * Calls that succeed leave it alone.
 *
 * buffer, buffer_len: where it goes, and the bytes that have room there; NULL or 0 writes nothing.
 * Returns: the bytes of the whole sentence, without NUL; 0 when no call of this thread failed yet. It was cut if this is >= buffer_len.
 * Threads: any; each has its own.
 */
size_t tramline_last_error(char *buffer, size_t buffer_len);

/**
 * The broker's error code of the last error of this thread: TRAMLINE_CODE_..., or TRAMLINE_CODE_OK when it does not come from a broker.
 *
 * Returns: the code.
 * Threads: any; each has its own.
 */
uint32_t tramline_last_code(void);

/**
 * All about the last error of this thread.
 *
 * out, out_size: the struct that is filled, and its sizeof.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT when out is NULL or out_size is below 8 or above 4,096.
 * Threads: any; each has its own.
 */
tramline_status_t tramline_last_error_details(tramline_error_t *out, size_t out_size);

/**
 * The name of a status, such as "TRAMLINE_E_FULL"; "unknown status" for a number that is none.
 *
 * Returns: a NUL-terminated string that stays for good.
 * Threads: any.
 */
const char *tramline_status_name(tramline_status_t status);

/**
 * The name of a broker's error code, such as "unknown_topic"; "unknown code" for a number that this version does not know.
 *
 * buffer, buffer_len: as in tramline_last_error().
 * Returns: the bytes of the name, without NUL. The longest known has 19.
 * Threads: any.
 */
size_t tramline_code_name(uint32_t code, char *buffer, size_t buffer_len);

/* ------------------------------------------------------------------------------------------------------------------ clients and topics */

/** A client: knows the cluster, has one connection for administration, makes producers and consumers. */
typedef struct {
    /** 0: the null handle. Anything else is the library's. */
    uint64_t id;
} tramline_client_t;

/** Settings of a client; its producers and consumers inherit them. A value outside of its range is refused (TRAMLINE_E_ARGUMENT). */
typedef struct {
    /** sizeof(tramline_client_options_t). */
    size_t struct_size;
    /** Shown in the broker's logs, NUL-terminated, at most 255 bytes. NULL: "tramline-client". */
    const char *client_name;
    /** Longest wait for one TCP connection and its hello: 10 ms to 5 min. Default 5 s. */
    uint64_t connect_timeout_us;
    /** How long a request of a producer or consumer may go unanswered before its connection is given up: 100 ms to 10 min. Default 5 s. */
    uint64_t request_timeout_us;
    /** Longest time for one call of administration with all its retries; after so long a consumer tells what keeps it from reading.
     *  100 ms to 1 h. Default 30 s. */
    uint64_t call_timeout_us;
    /** 1: spin on the sockets instead of sleeping in poll(2); saves some 60 us per round trip and costs a core. Default 0. */
    uint32_t busy_poll;
    /** 1: while spinning, sched_yield after each look that finds nothing (0.3 us); leave it on unless the core is isolated. Default 1. */
    uint32_t yield_when_empty;
    /** Largest frame accepted from a broker, in bytes: 2 MiB (enough for topics as they come) to 17 MiB (all that the protocol allows,
     *  the default). Bounds the receive buffer of every connection. */
    uint32_t frame_bytes_max;
    /** 0. */
    uint32_t reserved;
} tramline_client_options_t;

/** A setting of a topic, as in `tramctl topic options`. */
typedef struct {
    /** NUL-terminated, such as "retention.ms". At most 65,535 bytes. */
    const char *key;
    /** NUL-terminated, such as "86400000". At most 65,535 bytes. */
    const char *value;
} tramline_setting_t;

/** Flag of tramline_topic_create(): a topic that exists is fine, whatever its settings and partitions. */
#define TRAMLINE_TOPIC_IF_NOT_EXISTS 1u

/**
 * Fills the settings of a client with their defaults.
 *
 * options, options_size: the struct that is filled, and its sizeof.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT when options is NULL or options_size is below 8 or above 4,096.
 * Threads: any.
 */
tramline_status_t tramline_client_options_defaults(tramline_client_options_t *options, size_t options_size);

/**
 * Connects to the first of the servers that answers. Each is tried once, for connect_timeout_us at most: whoever waits for a broker to start calls again.
 *
 * servers: NUL-terminated, "host:port", several separated by commas: "10.0.0.1:7410,10.0.0.2:7410". Not NULL.
 * options: settings, or NULL for the defaults.
 * out: where the handle goes; the null handle after an error. Not NULL.
 * Returns: TRAMLINE_OK; TRAMLINE_E_IO (nobody listens, no such host, the connection broke), TRAMLINE_E_TIMEOUT, TRAMLINE_E_PROTOCOL (it is no Tramline
 * broker), TRAMLINE_E_REFUSED, TRAMLINE_E_FULL (65,536 clients are open).
 * Threads: any.
 */
tramline_status_t tramline_client_connect(const char *servers, const tramline_client_options_t *options, tramline_client_t *out);

/**
 * Closes a client. Its producers and consumers are not closed and go on; calls that run in other threads end as they would have.
 *
 * Returns: TRAMLINE_OK; TRAMLINE_E_HANDLE when it is closed already.
 * Threads: any.
 */
tramline_status_t tramline_client_close(tramline_client_t client);

/**
 * Asks the broker for a sign of life.
 *
 * round_trip_us: where its time goes, or NULL.
 * Returns: TRAMLINE_OK; TRAMLINE_E_TIMEOUT (nobody answered within call_timeout_us, with retries), TRAMLINE_E_REFUSED, TRAMLINE_E_PROTOCOL.
 * Threads: any.
 */
tramline_status_t tramline_client_ping(tramline_client_t client, uint64_t *round_trip_us);

/**
 * Creates a topic.
 *
 * topic: NUL-terminated name of 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-', not only dots.
 * partitions: their number, at least 1.
 * settings, setting_count: an array of settings and its length (at most 65,535); NULL and 0 for the defaults.
 * flags: 0 or TRAMLINE_TOPIC_IF_NOT_EXISTS.
 * partitions_now: where the number of partitions that the topic has goes, or NULL.
 * Returns: TRAMLINE_OK; TRAMLINE_E_REFUSED (TRAMLINE_CODE_TOPIC_EXISTS, TRAMLINE_CODE_INVALID_TOPIC_NAME, TRAMLINE_CODE_INVALID_SETTING, ...),
 * TRAMLINE_E_TIMEOUT, TRAMLINE_E_PROTOCOL, TRAMLINE_E_UNKNOWN_OUTCOME (the broker went away before it answered; not with TRAMLINE_TOPIC_IF_NOT_EXISTS, which is repeated).
 * Threads: any.
 */
tramline_status_t tramline_topic_create(tramline_client_t client, const char *topic, uint32_t partitions, const tramline_setting_t *settings,
                                        size_t setting_count, uint32_t flags, uint32_t *partitions_now);

/**
 * Deletes a topic and all its records.
 *
 * topic: NUL-terminated name.
 * Returns: TRAMLINE_OK; TRAMLINE_E_REFUSED (TRAMLINE_CODE_UNKNOWN_TOPIC, ...), TRAMLINE_E_TIMEOUT, TRAMLINE_E_PROTOCOL, TRAMLINE_E_UNKNOWN_OUTCOME (the broker went
 * away before it answered).
 * Threads: any.
 */
tramline_status_t tramline_topic_delete(tramline_client_t client, const char *topic);

/**
 * The number of partitions of a topic; they are counted from 0.
 *
 * topic: NUL-terminated name.
 * partitions: where the number goes. Not NULL.
 * Returns: TRAMLINE_OK; TRAMLINE_E_REFUSED (TRAMLINE_CODE_UNKNOWN_TOPIC, ...), TRAMLINE_E_TIMEOUT, TRAMLINE_E_PROTOCOL.
 * Threads: any.
 */
tramline_status_t tramline_topic_partitions(tramline_client_t client, const char *topic, uint32_t *partitions);

/* ---------------------------------------------------------------------------------------------------------------------------- producers */

/** A producer: takes records, puts them into batches, sends them, tells what became of each. It has connections of its own. */
typedef struct {
    /** 0: the null handle. Anything else is the library's. */
    uint64_t id;
} tramline_producer_t;

/** What has to be true before the broker acknowledges a record: tramline_producer_options_t.level. The order of the numbers is the order of strength. */
enum {
    /** Nothing: records are handed to the operating system; no offsets, no errors. */
    TRAMLINE_LEVEL_NONE = 0,
    /** It is in the leader's memory. */
    TRAMLINE_LEVEL_LEADER = 1,
    /** It is on the leader's stable storage. */
    TRAMLINE_LEVEL_LEADER_DURABLE = 2,
    /** A majority of the replicas received it. */
    TRAMLINE_LEVEL_REPLICATED = 3,
    /** It is on stable storage at a majority of the replicas. The default. */
    TRAMLINE_LEVEL_DURABLE = 4
};

/** How batches are compressed: tramline_producer_options_t.compression. */
enum {
    /** Not at all. The default. */
    TRAMLINE_COMPRESSION_NONE = 0,
    /** LZ4. */
    TRAMLINE_COMPRESSION_LZ4 = 1,
    /** Zstandard. */
    TRAMLINE_COMPRESSION_ZSTD = 2,
    /** Snappy. */
    TRAMLINE_COMPRESSION_SNAPPY = 3
};

/** Where records go that name no partition: tramline_producer_options_t.partitioner. */
enum {
    /** By the hash of the key, the same in every client; without a key, to one partition until its batch closes, then to the next. The default. */
    TRAMLINE_PARTITIONER_HASH = 0,
    /** Each record to the next partition, whatever its key. Small batches. */
    TRAMLINE_PARTITIONER_ROUND_ROBIN = 1,
    /** All records to one partition until its batch closes, then to the next, whatever their keys. */
    TRAMLINE_PARTITIONER_STICKY = 2
};

/** Settings of a producer. */
typedef struct {
    /** sizeof(tramline_producer_options_t). */
    size_t struct_size;
    /** Longest time from send to a record's fate, retries included: 10 ms to 12 h. Default 30 s. At most half of the node's
     *  `producer.expiry`. */
    uint64_t delivery_timeout_us;
    /** A batch closes when it holds this many bytes: 1 to limit_batch_bytes. Default 65,536. A larger record travels alone. */
    uint64_t batch_bytes;
    /** How long a batch may wait for more records once it could be sent: 0 (at the next call) to half of delivery_timeout_us, at most
     *  60 s. Default 0. */
    uint64_t linger_us;
    /** Requests sent and unanswered per connection: 1 to 1,024. Default 5. */
    uint64_t max_in_flight;
    /** Bytes of records held, sent ones included, until they are acknowledged: batch_bytes to 64 GiB. Default 32 MiB. */
    uint64_t buffer_bytes;
    /** Most bytes of batches in one request: 1 to 14 MiB; a batch above it travels alone. Default 1 MiB. */
    uint64_t request_bytes;
    /** TRAMLINE_LEVEL_... . Default TRAMLINE_LEVEL_DURABLE. */
    uint32_t level;
    /** 1: what got no answer is sent again and stored once; 0: it fails with TRAMLINE_E_UNKNOWN_OUTCOME. Default 1. */
    uint32_t idempotent;
    /** TRAMLINE_COMPRESSION_... . Default TRAMLINE_COMPRESSION_NONE. */
    uint32_t compression;
    /** TRAMLINE_PARTITIONER_... . Default TRAMLINE_PARTITIONER_HASH. */
    uint32_t partitioner;
    /** The broker's limits, by which send refuses a record that would be refused there. Raise them together with the broker's settings.
     *  Bytes of a batch: 1 KiB to 14 MiB. Default 1,048,576. */
    uint32_t limit_batch_bytes;
    /** Bytes of a batch's values before compression: 1 KiB to 64 MiB. Default 16 MiB. */
    uint32_t limit_values_bytes;
    /** Bytes of a record: key, value and headers: 1 to below limit_batch_bytes. Default 1,000,000. */
    uint32_t limit_record_bytes;
    /** Bytes of a key: at most 65,535. Default 4,096. */
    uint32_t limit_key_bytes;
    /** Headers of a record: at most 65,535. Default 64. */
    uint32_t limit_headers;
    /** Bytes of a record's headers: at most limit_record_bytes. Default 65,536. */
    uint32_t limit_headers_bytes;
} tramline_producer_options_t;

/** A header of a record: a name and a value. */
typedef struct {
    /** UTF-8, not NUL-terminated. May be NULL with name_len 0: an empty name. */
    const char *name;
    /** Bytes of the name, at most 65,535. */
    size_t name_len;
    /** Any bytes. May be NULL with value_len 0: an empty value. */
    const void *value;
    /** Bytes of the value. */
    size_t value_len;
} tramline_header_t;

/** Not a partition: the partitioner chooses. */
#define TRAMLINE_PARTITION_ANY UINT32_MAX
/** Not a time: the time of the call. */
#define TRAMLINE_TIMESTAMP_NOW INT64_MIN

/** A record to send. Begin with TRAMLINE_RECORD_INIT or tramline_record_defaults(); the topic has to be set. */
typedef struct {
    /** sizeof(tramline_record_t). */
    size_t struct_size;
    /** Name of the topic, NUL-terminated. Not NULL. */
    const char *topic;
    /** Any bytes; NULL: no key. */
    const void *key;
    /** Bytes of the key; 0 with NULL. */
    size_t key_len;
    /** Any bytes; NULL: a tombstone, which is a record that says that its key is gone. For an empty value give a pointer that is not NULL. */
    const void *value;
    /** Bytes of the value; 0 with NULL. */
    size_t value_len;
    /** An array of headers; may be NULL when header_count is 0. */
    const tramline_header_t *headers;
    /** Headers, at most limit_headers. */
    size_t header_count;
    /** Time of creation, UTC microseconds since 1970, or TRAMLINE_TIMESTAMP_NOW. */
    int64_t timestamp_us;
    /** Comes back with the delivery; the library does not look at it. */
    uint64_t tag;
    /** Number of the partition, or TRAMLINE_PARTITION_ANY. */
    uint32_t partition;
    /** 0. */
    uint32_t reserved;
    /** For queues, as all that follows: not to be delivered before, UTC microseconds since 1970; 0: at once. */
    int64_t deliver_at_us;
    /** Message group: order is kept within it. NULL: none. Chooses the partition where there is no key. */
    const void *group;
    /** Bytes of the group; 0 with NULL. */
    size_t group_len;
    /** Message id: what has it within the queue's dedup window is delivered once. NULL: none. Chooses the partition where there is neither key nor group. */
    const void *message_id;
    /** Bytes of the message id; 0 with NULL. */
    size_t message_id_len;
    /** Time to live from timestamp_us, in milliseconds; 0: for ever. */
    uint32_t ttl_ms;
    /** 0 to 9; higher is sooner. */
    uint32_t priority;
} tramline_record_t;

/** An empty record to begin with (C only): tramline_record_t record = TRAMLINE_RECORD_INIT; */
#define TRAMLINE_RECORD_INIT \
    { .struct_size = sizeof(tramline_record_t), .timestamp_us = TRAMLINE_TIMESTAMP_NOW, .partition = TRAMLINE_PARTITION_ANY }

/** The fate of a record. Valid until the callback returns, with all it points at. */
typedef struct {
    /** sizeof(tramline_delivery_t) in the library. Fields behind it are not there. */
    size_t struct_size;
    /** The record's tag. */
    uint64_t tag;
    /** The record's topic, not NUL-terminated. */
    const char *topic;
    /** Bytes of the topic. */
    size_t topic_len;
    /** Why it was not acknowledged, NUL-terminated; NULL when it was. */
    const char *message;
    /** Bytes of the message, without NUL. */
    size_t message_len;
    /** The record's offset in its partition; TRAMLINE_OFFSET_NONE after an error, at TRAMLINE_LEVEL_NONE, and where only that it is stored is known. */
    uint64_t offset;
    /** Partition that it went to. */
    uint32_t partition;
    /** TRAMLINE_OK: acknowledged. TRAMLINE_E_UNKNOWN_OUTCOME: it may be stored. Any other: it is not stored. */
    tramline_status_t status;
    /** The broker's error code, or TRAMLINE_CODE_OK. */
    uint32_t code;
    /** TRAMLINE_LEVEL_... reached; TRAMLINE_LEVEL_NONE after an error. */
    uint32_t level;
} tramline_delivery_t;

/** A function of yours that gets deliveries. `user` is what was given to tramline_producer_drain(). It has to return in the ordinary way. */
typedef void (*tramline_delivery_fn)(const tramline_delivery_t *delivery, void *user);

/** What a producer has done since it was opened; filled by tramline_producer_metrics(). All but held_bytes only grow. */
typedef struct {
    /** Set to the size that was asked for. */
    size_t struct_size;
    /** Records that send took. */
    uint64_t records_taken;
    /** Records acknowledged (at TRAMLINE_LEVEL_NONE: written). */
    uint64_t records_acknowledged;
    /** Records that ended with an error. */
    uint64_t records_failed;
    /** Bytes of batches put into requests, as they travel, repetitions included. */
    uint64_t bytes_sent;
    /** Batches put into requests, repetitions included. */
    uint64_t batches_sent;
    /** Of these, repetitions. */
    uint64_t batches_sent_again;
    /** Batches that the broker had stored so long ago that it knew no offset any more. */
    uint64_t duplicates_too_old;
    /** Produce requests. */
    uint64_t requests_sent;
    /** Batches refused in a way that may pass. */
    uint64_t refusals;
    /** Times that the batches of a partition got a new epoch. */
    uint64_t epochs_raised;
    /** Connections opened. */
    uint64_t connections_opened;
    /** Connections that could not be opened or broke. */
    uint64_t connections_lost;
    /** Times that newer metadata came. */
    uint64_t metadata_refreshes;
    /** Times that a record found the buffer full. */
    uint64_t buffer_full;
    /** Microseconds of pauses that brokers asked for, over all connections. */
    uint64_t throttled_us;
    /** Bytes held now: open, waiting and in flight. */
    uint64_t held_bytes;
} tramline_producer_metrics_t;

/**
 * Fills the settings of a producer with their defaults.
 *
 * options, options_size: the struct that is filled, and its sizeof.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT when options is NULL or options_size is below 8 or above 4,096.
 * Threads: any.
 */
tramline_status_t tramline_producer_options_defaults(tramline_producer_options_t *options, size_t options_size);

/**
 * Fills a record to send: nothing but TRAMLINE_TIMESTAMP_NOW and TRAMLINE_PARTITION_ANY. TRAMLINE_RECORD_INIT is the same without a call.
 *
 * record, record_size: the struct that is filled, and its sizeof.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT when record is NULL or record_size is below 8 or above 4,096.
 * Threads: any.
 */
tramline_status_t tramline_record_defaults(tramline_record_t *record, size_t record_size);

/**
 * Opens a producer. Nothing is sent before it has records.
 *
 * options: settings, or NULL for the defaults.
 * out: where the handle goes; the null handle after an error. Not NULL.
 * Returns: TRAMLINE_OK; TRAMLINE_E_FULL (65,536 producers are open).
 * Threads: any.
 */
tramline_status_t tramline_producer_open(tramline_client_t client, const tramline_producer_options_t *options, tramline_producer_t *out);

/**
 * Closes a producer and drops what it holds: call tramline_producer_flush() and tramline_producer_drain() first.
 *
 * Returns: TRAMLINE_OK; TRAMLINE_E_HANDLE when it is closed already; TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_producer_close(tramline_producer_t producer);

/**
 * Takes a record: copies it into the open batch of its partition. When the buffer is full, waits for acknowledgements, at most delivery_timeout_us. TRAMLINE_OK
 * means taken; what becomes of it is told by tramline_producer_drain(), once for each record. The records of a partition are stored in the order of send.
 *
 * record: not NULL; it and all it points at may be used again when this returns.
 * Returns: TRAMLINE_OK; otherwise the record was not taken: TRAMLINE_E_FULL, TRAMLINE_E_BUSY, TRAMLINE_E_ARGUMENT (also: no such partition, above a limit), and when the topic is
 * looked up at its first record: TRAMLINE_E_REFUSED (TRAMLINE_CODE_UNKNOWN_TOPIC), TRAMLINE_E_TIMEOUT, TRAMLINE_E_PROTOCOL.
 * Threads: one at a time.
 */
tramline_status_t tramline_producer_send(tramline_producer_t producer, const tramline_record_t *record);

/**
 * As tramline_producer_send(), but when the buffer is full, returns TRAMLINE_E_FULL at once. (The first record of a topic waits for the topic to be looked up.)
 *
 * record: as there.
 * Returns: as there.
 * Threads: one at a time.
 */
tramline_status_t tramline_producer_try_send(tramline_producer_t producer, const tramline_record_t *record);

/**
 * Sends what is due, receives acknowledgements, and waits for the first delivery, at most timeout_us; does not wait when no record is outstanding. Call it often, with 0
 * between two records if you like: nothing moves between calls.
 *
 * timeout_us: 0 (do not wait) to TRAMLINE_FOREVER_US.
 * deliveries: where the number of deliveries that wait for tramline_producer_drain() goes, or NULL.
 * Returns: TRAMLINE_OK, also when the time is over; TRAMLINE_E_BUSY, TRAMLINE_E_IO (waiting itself failed).
 * Threads: one at a time.
 */
tramline_status_t tramline_producer_poll(tramline_producer_t producer, uint64_t timeout_us, size_t *deliveries);

/**
 * Hands out the fate of records, each once, in the order in which it became known. Does not wait and moves no bytes. Drain regularly: fates are kept until then.
 *
 * each, user: your function and what it gets as its second argument. Not NULL; user may be anything.
 * deliveries: where the number handed out goes, or NULL.
 * Returns: TRAMLINE_OK; TRAMLINE_E_BUSY.
 * Threads: one at a time; `each` runs in the calling thread.
 */
tramline_status_t tramline_producer_drain(tramline_producer_t producer, tramline_delivery_fn each, void *user, size_t *deliveries);

/**
 * Sends all that was taken, whatever the linger, and waits until the fate of each record is known. It then waits in tramline_producer_drain().
 *
 * timeout_us: 0 to TRAMLINE_FOREVER_US; longer than delivery_timeout_us is never needed.
 * Returns: TRAMLINE_OK (every fate is known, good or bad); TRAMLINE_E_TIMEOUT, TRAMLINE_E_BUSY, TRAMLINE_E_IO (waiting itself failed).
 * Threads: one at a time.
 */
tramline_status_t tramline_producer_flush(tramline_producer_t producer, uint64_t timeout_us);

/**
 * Records taken whose fate is not known yet.
 *
 * records: where the number goes. Not NULL.
 * Returns: TRAMLINE_OK; TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_producer_outstanding(tramline_producer_t producer, size_t *records);

/**
 * The offset below which everything in a partition is durable, as of the newest answer: tells when a weaker acknowledgement has become a strong one.
 *
 * topic, partition: NUL-terminated name, and number.
 * offset: where it goes; TRAMLINE_OFFSET_NONE when no answer told it yet. Not NULL.
 * Returns: TRAMLINE_OK; TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_producer_durable_end(tramline_producer_t producer, const char *topic, uint32_t partition, uint64_t *offset);

/**
 * What keeps the producer from delivering just now. Records do not fail before their delivery_timeout_us is over, so this is how to notice earlier that a broker
 * is gone.
 *
 * Returns: TRAMLINE_OK when all is well or no record waits; else the status of the obstacle (TRAMLINE_E_IO, TRAMLINE_E_REFUSED, TRAMLINE_E_TIMEOUT, ...), whose sentence
 * tramline_last_error() has; TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_producer_trouble(tramline_producer_t producer);

/**
 * What the producer has done so far.
 *
 * out, out_size: the struct that is filled, and its sizeof.
 * Returns: TRAMLINE_OK; TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_producer_metrics(tramline_producer_t producer, tramline_producer_metrics_t *out, size_t out_size);

/* ---------------------------------------------------------------------------------------------------------------------------- consumers */

/** A consumer: reads partitions that it was told to read. It has connections of its own, and keeps positions only in memory. */
typedef struct {
    /** 0: the null handle. Anything else is the library's. */
    uint64_t id;
} tramline_consumer_t;

/** Where reading starts: the argument `start`, with `at` beside it. */
enum {
    /** At the first record that can still be read; at is 0. */
    TRAMLINE_START_EARLIEST = 0,
    /** After the last committed record, so only what comes later; at is 0. */
    TRAMLINE_START_LATEST = 1,
    /** At the offset `at`. */
    TRAMLINE_START_OFFSET = 2,
    /** At the first record whose timestamp is `at` or later: UTC microseconds since 1970; at the end when there is none. */
    TRAMLINE_START_TIME = 3
};

/** Not a partition: all that the topic has. */
#define TRAMLINE_PARTITION_ALL UINT32_MAX

/** Settings of a consumer. */
typedef struct {
    /** sizeof(tramline_consumer_options_t). */
    size_t struct_size;
    /** Bytes of batches that the broker may send ahead of what was handed out, per connection: 4 KiB to 1 GiB. Default 1 MiB. */
    uint32_t credit_bytes;
    /** Most bytes of one partition in one reply, from where on the others have their turn: 4 KiB to 16 MiB. Default 131,072. */
    uint32_t partition_bytes_max;
    /** 1: check the checksums of every batch (some 45 us per MiB). Default 1. */
    uint32_t verify_checksums;
    /** Largest uncompressed size of a batch's values that is accepted, in bytes: 1 KiB to 1 GiB. Default 64 MiB. */
    uint32_t batch_values_bytes_max;
} tramline_consumer_options_t;

/** A record that arrived. Valid until the callback returns, with all it points at: copy what you keep. */
typedef struct {
    /** sizeof(tramline_record_view_t) in the library. Fields behind it are not there. */
    size_t struct_size;
    /** Its topic, not NUL-terminated. */
    const char *topic;
    /** Bytes of the topic. */
    size_t topic_len;
    /** Its key; NULL when it has none (not NULL when it is empty). */
    const void *key;
    /** Bytes of the key. */
    size_t key_len;
    /** Its value; NULL for a tombstone (not NULL when it is empty). */
    const void *value;
    /** Bytes of the value. */
    size_t value_len;
    /** Its headers, in the order in which they were given. */
    const tramline_header_t *headers;
    /** Headers. */
    size_t header_count;
    /** Its offset in its partition. They rise, and may have gaps. */
    uint64_t offset;
    /** Its timestamp, UTC microseconds since 1970: the producer's, or the append time where the topic says so. */
    int64_t timestamp_us;
    /** When the broker appended it, UTC microseconds since 1970. */
    int64_t append_time_us;
    /** Its partition. */
    uint32_t partition;
    /** 0. */
    uint32_t reserved;
} tramline_record_view_t;

/**
 * A function of yours that gets records. `user` is what was given with it. It has to return in the ordinary way: 0 to go on, anything else to end the call after
 * this record, which counts as handed out.
 */
typedef int (*tramline_record_fn)(const tramline_record_view_t *record, void *user);

/** What a consumer has done since it was opened; filled by tramline_consumer_metrics(). The numbers only grow. */
typedef struct {
    /** Set to the size that was asked for. */
    size_t struct_size;
    /** Records handed out. */
    uint64_t records;
    /** Bytes of batches that arrived, as they travel. */
    uint64_t bytes_received;
    /** Replies with batches. */
    uint64_t replies_received;
    /** Times that a stream was started, at first or anew. */
    uint64_t streams_started;
    /** Times that credit was given back. */
    uint64_t credit_grants;
    /** Times that a partition could not be read, for now or for good. */
    uint64_t refusals;
    /** Batches whose checksum or structure is wrong, none of which was handed out. */
    uint64_t corrupt_batches;
    /** Connections opened. */
    uint64_t connections_opened;
    /** Connections that could not be opened or broke. */
    uint64_t connections_lost;
    /** Times that newer metadata came. */
    uint64_t metadata_refreshes;
} tramline_consumer_metrics_t;

/**
 * Fills the settings of a consumer with their defaults.
 *
 * options, options_size: the struct that is filled, and its sizeof.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT when options is NULL or options_size is below 8 or above 4,096.
 * Threads: any.
 */
tramline_status_t tramline_consumer_options_defaults(tramline_consumer_options_t *options, size_t options_size);

/**
 * Opens a consumer, which reads nothing yet.
 *
 * options: settings, or NULL for the defaults.
 * out: where the handle goes; the null handle after an error. Not NULL.
 * Returns: TRAMLINE_OK; TRAMLINE_E_FULL (65,536 consumers are open).
 * Threads: any.
 */
tramline_status_t tramline_consumer_open(tramline_client_t client, const tramline_consumer_options_t *options, tramline_consumer_t *out);

/**
 * Closes a consumer. Nothing is remembered: where to start again is yours to keep.
 *
 * Returns: TRAMLINE_OK; TRAMLINE_E_HANDLE when it is closed already; TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_consumer_close(tramline_consumer_t consumer);

/**
 * Reads a partition, or all that the topic has now. Asks the broker where that is; records come with the next poll. A partition that is being read already goes
 * on there. One consumer reads at most 4,096 partitions of one shard.
 *
 * topic: NUL-terminated name.
 * partition: its number, or TRAMLINE_PARTITION_ALL.
 * start, at: TRAMLINE_START_..., and the offset or time where it needs one, else 0.
 * partitions: where the number of partitions goes that this call was about, or NULL.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT (also: no such partition), TRAMLINE_E_REFUSED (TRAMLINE_CODE_UNKNOWN_TOPIC, ...), TRAMLINE_E_TIMEOUT, TRAMLINE_E_PROTOCOL, TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_consumer_assign(tramline_consumer_t consumer, const char *topic, uint32_t partition, int start, uint64_t at,
                                           uint32_t *partitions);

/**
 * Reads a partition no more.
 *
 * topic, partition: NUL-terminated name, and number.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT (also: it is not being read), TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_consumer_unassign(tramline_consumer_t consumer, const char *topic, uint32_t partition);

/**
 * Goes on reading a partition elsewhere; also starts one again that stopped with an error. Paused stays paused.
 *
 * topic, partition: NUL-terminated name, and number.
 * start, at: TRAMLINE_START_..., and the offset or time where it needs one, else 0.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT (also: it is not being read), TRAMLINE_E_REFUSED, TRAMLINE_E_TIMEOUT, TRAMLINE_E_PROTOCOL, TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_consumer_seek(tramline_consumer_t consumer, const char *topic, uint32_t partition, int start, uint64_t at);

/**
 * Stops handing out the records of a partition and keeps its position. Pausing twice is fine. For pauses of a second, not between two records.
 *
 * topic, partition: NUL-terminated name, and number.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT (also: it is not being read), TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_consumer_pause(tramline_consumer_t consumer, const char *topic, uint32_t partition);

/**
 * Goes on with a paused partition: nothing is lost or repeated. One that is not paused stays as it is.
 *
 * topic, partition: NUL-terminated name, and number.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT (also: it is not being read), TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_consumer_resume(tramline_consumer_t consumer, const char *topic, uint32_t partition);

/**
 * Hands out records that have arrived; waits for the first, at most timeout_us. The records of a partition come in order of offset.
 *
 * An error is about one partition (tramline_last_error_details() names it; it stops until a seek if the error will not pass by itself) or one broker (which is tried again): the
 * others go on at the next call. It comes before any record of the same call, and may come one call after records that arrived with it.
 *
 * timeout_us: 0 (do not wait) to TRAMLINE_FOREVER_US.
 * each, user: your function and what it gets as its second argument. Not NULL; user may be anything.
 * records: where the number handed out goes, also after an error, or NULL.
 * Returns: TRAMLINE_OK, also when the time is over; TRAMLINE_E_REFUSED (such as TRAMLINE_CODE_OFFSET_OUT_OF_RANGE), TRAMLINE_E_CORRUPT, TRAMLINE_E_TIMEOUT and TRAMLINE_E_IO (a
 * broker cannot be reached for longer than call_timeout_us), TRAMLINE_E_PROTOCOL, TRAMLINE_E_BUSY.
 * Threads: one at a time; `each` runs in the calling thread.
 */
tramline_status_t tramline_consumer_poll(tramline_consumer_t consumer, uint64_t timeout_us, tramline_record_fn each, void *user, size_t *records);

/**
 * Hands out records until every partition being read, and not paused, has been read up to its end as it is when this is called. What was added meanwhile may come along.
 *
 * timeout_us: 0 to TRAMLINE_FOREVER_US; when it is over, TRAMLINE_E_TIMEOUT, and a second call goes on.
 * each, user, records: as in tramline_consumer_poll().
 * Returns: TRAMLINE_OK, also when `each` ended it; else as tramline_consumer_poll().
 * Threads: one at a time; `each` runs in the calling thread.
 */
tramline_status_t tramline_consumer_read_to_end(tramline_consumer_t consumer, uint64_t timeout_us, tramline_record_fn each, void *user,
                                                size_t *records);

/**
 * The offset that a partition goes on with: remember it to start there again.
 *
 * topic, partition: NUL-terminated name, and number.
 * offset: where it goes. Not NULL.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT (also: it is not being read), TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_consumer_position(tramline_consumer_t consumer, const char *topic, uint32_t partition, uint64_t *offset);

/**
 * What a partition has, as of the newest reply: its first offset that can be read, and the offset after its last committed record.
 *
 * topic, partition: NUL-terminated name, and number.
 * log_start, committed_end: where they go, or NULL; TRAMLINE_OFFSET_NONE before the first reply.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT (also: it is not being read), TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_consumer_range(tramline_consumer_t consumer, const char *topic, uint32_t partition, uint64_t *log_start,
                                          uint64_t *committed_end);

/**
 * What the consumer has done so far.
 *
 * out, out_size: the struct that is filled, and its sizeof.
 * Returns: TRAMLINE_OK; TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_consumer_metrics(tramline_consumer_t consumer, tramline_consumer_metrics_t *out, size_t out_size);

/* ------------------------------------------------------------------------------------------------------------- members of groups */

/** A member of a consumer group: reads the partitions that the group gives it, and remembers in the group how far it has read. It lives inside of its calls: one that does not poll
 *  for the session timeout is dropped. It has connections of its own. */
typedef struct {
    /** 0: the null handle. Anything else is the library's. */
    uint64_t id;
} tramline_member_t;

/** How partitions are divided among members: tramline_member_options_t.assignor. */
enum {
    /** Evenly, and of the ways to do that the one that moves the fewest partitions. The default. */
    TRAMLINE_ASSIGNOR_STICKY = 0,
    /** Evenly, by the order of members alone. */
    TRAMLINE_ASSIGNOR_UNIFORM = 1
};

/** Where a member begins where nothing is committed, or what is committed is gone: tramline_member_options_t.auto_offset_reset. */
enum {
    /** At the first record that still exists. The default. */
    TRAMLINE_RESET_EARLIEST = 0,
    /** Behind the last record: what was produced before is left out. */
    TRAMLINE_RESET_LATEST = 1,
    /** Nowhere: poll fails with a sentence that says so, and the partition is not read before a seek. */
    TRAMLINE_RESET_NONE = 2
};

/** What a tramline_parts_fn is told of. */
enum {
    /** These partitions are the member's from now on, in addition to those it has. */
    TRAMLINE_PARTS_ASSIGNED = 0,
    /** These are given up, the others go on: the last chance to commit them, by setting commit_offset. */
    TRAMLINE_PARTS_REVOKED = 1,
    /** These are another's already; what was not committed is read again there. */
    TRAMLINE_PARTS_LOST = 2
};

/** Settings of a member. Session timeout and assignor are the same for all members of a group. */
typedef struct {
    /** sizeof(tramline_member_options_t). */
    size_t struct_size;
    /** Makes it a static member, which keeps its partitions over a restart: NUL-terminated, 1 to 249 bytes. NULL: an ordinary one. */
    const char *instance_id;
    /** A member that is not heard of for so long is dropped: 1 s to 1 h; longer than the work between two polls. Default 30 s. */
    uint64_t session_timeout_us;
    /** Time between two commits by itself: 10 ms to 1 h. Default 5 s. */
    uint64_t auto_commit_interval_us;
    /** TRAMLINE_ASSIGNOR_... . Default TRAMLINE_ASSIGNOR_STICKY. */
    uint32_t assignor;
    /** TRAMLINE_RESET_... . Default TRAMLINE_RESET_EARLIEST. */
    uint32_t auto_offset_reset;
    /** 1: commits by itself what was handed out before a later call of poll (at least once). Default 1. */
    uint32_t auto_commit;
    /** As in tramline_consumer_options_t. Default 1 MiB. */
    uint32_t credit_bytes;
    /** As in tramline_consumer_options_t. Default 131,072. */
    uint32_t partition_bytes_max;
    /** As in tramline_consumer_options_t. Default 1. */
    uint32_t verify_checksums;
    /** As in tramline_consumer_options_t. Default 64 MiB. */
    uint32_t batch_values_bytes_max;
    /** 0. */
    uint32_t reserved;
} tramline_member_options_t;

/** A partition that comes or goes. Valid until the callback returns. */
typedef struct {
    /** Its topic, not NUL-terminated. */
    const char *topic;
    /** Bytes of the topic. */
    size_t topic_len;
    /** With TRAMLINE_PARTS_REVOKED: the offset that would have been handed out next; else, and where reading never began, TRAMLINE_OFFSET_NONE. */
    uint64_t position;
    /** Yours to set with TRAMLINE_PARTS_REVOKED: the offset to commit before the partition goes, in place of what auto_commit would. It is TRAMLINE_OFFSET_NONE, which commits nothing
     *  but that. */
    uint64_t commit_offset;
    /** Its number. */
    uint32_t partition;
    /** 0. */
    uint32_t reserved;
} tramline_member_part_t;

/** A function of yours that hears of partitions: `what` is TRAMLINE_PARTS_..., `user` what was given with it. It has to return in the ordinary way. */
typedef void (*tramline_parts_fn)(int what, tramline_member_part_t *parts, size_t count, void *user);

/**
 * Fills the settings of a member with their defaults.
 *
 * options, options_size: the struct that is filled, and its sizeof.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT when options is NULL or options_size is below 8 or above 4,096.
 * Threads: any.
 */
tramline_status_t tramline_member_options_defaults(tramline_member_options_t *options, size_t options_size);

/**
 * Opens a member. It joins when it is first polled.
 *
 * group: NUL-terminated name of the group, by the rules of topics' names; it is created where there is none.
 * topics, topic_count: an array of 1 to 100 NUL-terminated names; a topic that does not exist yet counts once it does.
 * options: settings, or NULL for the defaults.
 * out: where the handle goes; the null handle after an error. Not NULL.
 * Returns: TRAMLINE_OK; TRAMLINE_E_FULL.
 * Threads: any.
 */
tramline_status_t tramline_member_open(tramline_client_t client, const char *group, const char *const *topics, size_t topic_count,
                                       const tramline_member_options_t *options, tramline_member_t *out);

/**
 * Hands out records of the member's partitions; waits for the first, at most timeout_us. Joining, heartbeats, `changed` and commits all happen in here.
 *
 * timeout_us: 0 (do not wait) to TRAMLINE_FOREVER_US.
 * each: your function for records, as for a consumer. Not NULL.
 * changed: your function for partitions that come and go, or NULL.
 * user: what both get; may be anything.
 * records: where the number handed out goes, also after an error, or NULL.
 * Returns: TRAMLINE_OK, also when the time is over; as tramline_consumer_poll(); TRAMLINE_E_ARGUMENT also where nothing is committed and auto_offset_reset is TRAMLINE_RESET_NONE.
 * TRAMLINE_E_REFUSED with TRAMLINE_CODE_MEMBER_FENCED (another process has its instance_id), TRAMLINE_CODE_GROUP_SETTINGS_DIFFER and others that will not pass end the
 * membership: each call from then on says so.
 * Threads: one at a time; both functions run in the calling thread.
 */
tramline_status_t tramline_member_poll(tramline_member_t member, uint64_t timeout_us, tramline_record_fn each, tramline_parts_fn changed,
                                       void *user, size_t *records);

/**
 * Commits everything that was handed out, and waits until it is on stable storage. For "at most once" call it before you work on the records, for "at least once" after.
 *
 * Returns: TRAMLINE_OK; after anything else at least one partition is not committed, or it is not known: TRAMLINE_E_REFUSED (TRAMLINE_CODE_STALE_ASSIGNMENT: another member has
 * it), TRAMLINE_E_TIMEOUT, TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_member_commit(tramline_member_t member);

/**
 * Commits an offset of a partition, and waits until it is on stable storage.
 *
 * topic, partition: NUL-terminated name, and number; it has to be the member's.
 * offset: the next one to read: one past the last record that is done.
 * metadata: a NUL-terminated text that is kept with it, at most 4,096 bytes, or NULL.
 * Returns: TRAMLINE_OK; as tramline_member_commit().
 * Threads: one at a time.
 */
tramline_status_t tramline_member_commit_offset(tramline_member_t member, const char *topic, uint32_t partition, uint64_t offset,
                                                const char *metadata);

/**
 * From now on nothing is committed by itself, also not when the member is closed: for who met an error while working on what was handed out, and leaves it to others.
 *
 * Returns: TRAMLINE_OK; TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_member_stop_auto_commit(tramline_member_t member);

/**
 * What the group has committed of a partition, whoever has it.
 *
 * topic, partition: NUL-terminated name, and number.
 * offset: where it goes; TRAMLINE_OFFSET_NONE where nothing is committed. Not NULL.
 * Returns: TRAMLINE_OK; TRAMLINE_E_REFUSED, TRAMLINE_E_TIMEOUT, TRAMLINE_E_PROTOCOL, TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_member_committed(tramline_member_t member, const char *topic, uint32_t partition, uint64_t *offset);

/**
 * Goes on elsewhere in a partition of the member's. Nothing is committed by it.
 *
 * topic, partition, start, at: as in tramline_consumer_seek().
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT (also: it is not the member's), TRAMLINE_E_REFUSED, TRAMLINE_E_TIMEOUT, TRAMLINE_E_PROTOCOL, TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_member_seek(tramline_member_t member, const char *topic, uint32_t partition, int start, uint64_t at);

/**
 * As tramline_consumer_pause(). A partition that is given up and comes back is not paused.
 *
 * topic, partition: NUL-terminated name, and number.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT (also: it is not the member's), TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_member_pause(tramline_member_t member, const char *topic, uint32_t partition);

/**
 * As tramline_consumer_resume().
 *
 * topic, partition: NUL-terminated name, and number.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT (also: it is not the member's), TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_member_resume(tramline_member_t member, const char *topic, uint32_t partition);

/**
 * The offset that is handed out next in a partition of the member's.
 *
 * topic, partition: NUL-terminated name, and number.
 * offset: where it goes; TRAMLINE_OFFSET_NONE where it waits for a seek. Not NULL.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT (also: it is not the member's), TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_member_position(tramline_member_t member, const char *topic, uint32_t partition, uint64_t *offset);

/**
 * Gives all partitions up in good order (`changed`, the last commit) and leaves, so that others go on at once. A static member keeps its partitions until its session times out,
 * for whoever comes back under its name. The handle is closed whatever is returned, and for `changed` already. (A program that ends without it is missed by its group after the session timeout.)
 *
 * timeout_us: 0 to TRAMLINE_FOREVER_US.
 * changed, user: as in tramline_member_poll().
 * Returns: TRAMLINE_OK; TRAMLINE_E_TIMEOUT, or what the last commit said; TRAMLINE_E_BUSY (the handle is not closed then).
 * Threads: one at a time; `changed` runs in the calling thread.
 */
tramline_status_t tramline_member_close(tramline_member_t member, uint64_t timeout_us, tramline_parts_fn changed, void *user);

/**
 * As tramline_member_close(), and a static member does not come back: its partitions go to others at once.
 *
 * timeout_us, changed, user: as there.
 * Returns: TRAMLINE_OK; as there.
 * Threads: one at a time; `changed` runs in the calling thread.
 */
tramline_status_t tramline_member_leave(tramline_member_t member, uint64_t timeout_us, tramline_parts_fn changed, void *user);

/* ---------------------------------------------------------------------------------------------------------------------------- queues */

/** Flag of tramline_queue_create(): a queue that exists already is fine. */
#define TRAMLINE_QUEUE_IF_NOT_EXISTS 1
/** Not a delay of a nack: the queue's retry policy says when the message is delivered again. */
#define TRAMLINE_DELAY_BY_POLICY_US UINT64_MAX
/** Bytes that are enough for the text of any token, its NUL included. */
#define TRAMLINE_TOKEN_TEXT_BYTES 51

/**
 * A consumer of a queue: leases messages and settles them. A message is its own until the lease is over, and is delivered again unless it was settled by then. It has connections of its
 * own. One that is not closed, or dies, keeps its leases until they are over.
 */
typedef struct {
    /** 0: the null handle. Anything else is the library's. */
    uint64_t id;
} tramline_queue_consumer_t;

/** Settings of a queue consumer. */
typedef struct {
    /** sizeof(tramline_queue_consumer_options_t). */
    size_t struct_size;
    /** Who this is: shown while it holds messages, and the name by which an exclusive queue knows its holder; NUL-terminated, 1 to 255 bytes. NULL: a name that no other one has. */
    const char *consumer;
    /** How long leases last: 100 ms to 12 h, whole milliseconds. 0 (the default): as the queue says. */
    uint64_t visibility_us;
    /** Most bytes of batches in one reply, except that one batch is always sent whole: 4 KiB to 1 MiB. Default 1 MiB. */
    uint32_t max_bytes;
    /** As in tramline_consumer_options_t. Default 1. */
    uint32_t verify_checksums;
    /** As in tramline_consumer_options_t. Default 64 MiB. */
    uint32_t batch_values_bytes_max;
    /** 0. */
    uint32_t reserved;
} tramline_queue_consumer_options_t;

/**
 * The right to settle one delivery of a message. It belongs to no handle and no connection: another process can use it with a consumer of the same queue, and it survives a
 * restart of the broker. Its numbers are the broker's; copy it as you like.
 */
typedef struct {
    /** The partition, by its uid. */
    uint64_t partition_uid;
    /** The message. */
    uint64_t offset;
    /** The lease. */
    uint64_t lease;
} tramline_token_t;

/** A message under a lease. Valid, with all it points at, until its queue consumer receives again or is closed: copy what you keep. */
typedef struct {
    /** sizeof(tramline_message_t) in the library. Fields behind it are not there. */
    size_t struct_size;
    /** Its key; NULL when it has none (not NULL when it is empty). */
    const void *key;
    /** Bytes of the key. */
    size_t key_len;
    /** Its value; NULL for a tombstone (not NULL when it is empty). */
    const void *value;
    /** Bytes of the value. */
    size_t value_len;
    /** Its headers, in the order in which they were given. */
    const tramline_header_t *headers;
    /** Headers. */
    size_t header_count;
    /** Its message group; NULL when it has none. */
    const void *group;
    /** Bytes of the group. */
    size_t group_len;
    /** Its message id; NULL when it has none. */
    const void *message_id;
    /** Bytes of the message id. */
    size_t message_id_len;
    /** What settles it. */
    tramline_token_t token;
    /** Its offset in its partition. */
    uint64_t offset;
    /** Its timestamp, UTC microseconds since 1970: the producer's, or the append time where the topic says so. */
    int64_t timestamp_us;
    /** When the broker appended it, UTC microseconds since 1970. */
    int64_t append_time_us;
    /** It was not to be delivered before, UTC microseconds since 1970; 0: at once. */
    int64_t deliver_at_us;
    /** Its partition. */
    uint32_t partition;
    /** How often it was delivered, this time included. */
    uint32_t deliveries;
    /** Its time to live from timestamp_us, in milliseconds; 0: for ever. */
    uint32_t ttl_ms;
    /** 0 to 9; higher is sooner. */
    uint32_t priority;
} tramline_message_t;

/** What becomes of a message: tramline_settlement_t.action. 0 is none of them. */
enum {
    /** It is done, and never delivered again. */
    TRAMLINE_SETTLE_ACK = 1,
    /** It failed: it is delivered again after time_us, or is dead when it was delivered max.deliveries times. */
    TRAMLINE_SETTLE_NACK = 2,
    /** Its lease ends time_us from now. */
    TRAMLINE_SETTLE_EXTEND = 3,
    /** It is given back as if it had not been delivered. */
    TRAMLINE_SETTLE_RELEASE = 4,
    /** It can never be done: dead at once. */
    TRAMLINE_SETTLE_REJECT = 5
};

/** One of many for tramline_queue_consumer_settle(). Fill it with zeros first. */
typedef struct {
    /** Which delivery. */
    tramline_token_t token;
    /** With NACK and REJECT: why, NUL-terminated, at most 256 bytes, or NULL; kept with the message. Else NULL. */
    const char *reason;
    /** With NACK: the delay, as in tramline_queue_consumer_nack(). With EXTEND: the length, as in tramline_queue_consumer_extend(). Else 0. */
    uint64_t time_us;
    /** TRAMLINE_SETTLE_... . */
    uint32_t action;
    /** 0. */
    uint32_t reserved;
} tramline_settlement_t;

/** What became of one of many. */
typedef struct {
    /** TRAMLINE_OK: done. Else as the function for one message says. */
    tramline_status_t status;
    /** The broker's error code, or TRAMLINE_CODE_OK. */
    uint32_t code;
} tramline_settled_t;

/** What a queue consumer has done since it was opened; filled by tramline_queue_consumer_metrics(). The numbers only grow. */
typedef struct {
    /** Set to the size that was asked for. */
    size_t struct_size;
    /** Messages handed out. */
    uint64_t messages;
    /** Messages that were leased and given back without being handed out. */
    uint64_t given_back;
    /** Bytes of batches that arrived, as they travel, with the messages of others in them. */
    uint64_t bytes_received;
    /** Receive requests. */
    uint64_t receives_sent;
    /** Settlements that were done, those of messages given back included. */
    uint64_t settled;
    /** Receives, partitions and settlements that were refused, for now or for good. */
    uint64_t refusals;
    /** Replies of which a batch was wrong; its messages come back when their leases are over. */
    uint64_t corrupt_batches;
    /** Connections opened. */
    uint64_t connections_opened;
    /** Connections that could not be opened or broke. */
    uint64_t connections_lost;
    /** Times that newer metadata came. */
    uint64_t metadata_refreshes;
} tramline_queue_consumer_metrics_t;

/**
 * Creates a queue on a topic. Messages are sent with a producer, as records of the topic; tramline_record_t has what concerns queues at its end.
 *
 * queue: NUL-terminated name, by the rules of topics' names.
 * topic: NUL-terminated name of a topic that exists.
 * start, time_us: where it begins in each partition: TRAMLINE_START_EARLIEST, TRAMLINE_START_LATEST, or TRAMLINE_START_TIME with UTC microseconds since 1970; else time_us is 0.
 * settings, setting_count: an array of settings (docs/SETTINGS.md), or NULL and 0.
 * flags: 0 or TRAMLINE_QUEUE_IF_NOT_EXISTS, with which an existing queue is left as it is, whatever its topic and settings.
 * queue_uid: where the uid of the queue goes, which no other queue ever has; or NULL.
 * Returns: TRAMLINE_OK; TRAMLINE_E_REFUSED (TRAMLINE_CODE_QUEUE_EXISTS, TRAMLINE_CODE_INVALID_QUEUE_NAME, TRAMLINE_CODE_UNKNOWN_TOPIC, TRAMLINE_CODE_INVALID_SETTING, ...), TRAMLINE_E_TIMEOUT, TRAMLINE_E_UNKNOWN_OUTCOME,
 * TRAMLINE_E_PROTOCOL.
 * Threads: any.
 */
tramline_status_t tramline_queue_create(tramline_client_t client, const char *queue, const char *topic, int start, uint64_t time_us,
                                        const tramline_setting_t *settings, size_t setting_count, uint32_t flags, uint64_t *queue_uid);

/**
 * Deletes a queue. The messages stay in the topic; who waits for some hears of it.
 *
 * queue: NUL-terminated name.
 * Returns: TRAMLINE_OK; TRAMLINE_E_REFUSED (TRAMLINE_CODE_UNKNOWN_QUEUE, ...), TRAMLINE_E_TIMEOUT, TRAMLINE_E_UNKNOWN_OUTCOME, TRAMLINE_E_PROTOCOL.
 * Threads: any.
 */
tramline_status_t tramline_queue_delete(tramline_client_t client, const char *queue);

/**
 * Writes a token as text, with a NUL, into `buffer`: its numbers in hexadecimal with dashes between them, such as "1f-2a0-7". tramctl reads and writes the same.
 *
 * buffer, buffer_len: where it goes, and the bytes that have room there: TRAMLINE_TOKEN_TEXT_BYTES are always enough. NULL or 0 writes nothing.
 * Returns: the bytes of the text, without NUL.
 * Threads: any.
 */
size_t tramline_token_text(tramline_token_t token, char *buffer, size_t buffer_len);

/**
 * Reads the text of a token.
 *
 * text: NUL-terminated, exactly as tramline_token_text() writes it.
 * out: where the token goes; left alone after an error. Not NULL.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT (also: it is no token).
 * Threads: any.
 */
tramline_status_t tramline_token_parse(const char *text, tramline_token_t *out);

/**
 * Fills the settings of a queue consumer with their defaults.
 *
 * options, options_size: the struct that is filled, and its sizeof.
 * Returns: TRAMLINE_OK; TRAMLINE_E_ARGUMENT when options is NULL or options_size is below 8 or above 4,096.
 * Threads: any.
 */
tramline_status_t tramline_queue_consumer_options_defaults(tramline_queue_consumer_options_t *options, size_t options_size);

/**
 * Opens a consumer of a queue, of all its partitions. Nothing is leased before it receives.
 *
 * queue: NUL-terminated name.
 * options: settings, or NULL for the defaults.
 * out: where the handle goes; the null handle after an error. Not NULL.
 * Returns: TRAMLINE_OK; TRAMLINE_E_FULL (65,536 are open), TRAMLINE_E_REFUSED (TRAMLINE_CODE_UNKNOWN_QUEUE, ...), TRAMLINE_E_TIMEOUT, TRAMLINE_E_PROTOCOL.
 * Threads: any.
 */
tramline_status_t tramline_queue_consumer_open(tramline_client_t client, const char *queue, const tramline_queue_consumer_options_t *options,
                                               tramline_queue_consumer_t *out);

/**
 * Leases messages, and waits for the first of them. Each has to be settled before its lease is over, so take as many as are done by then. What was received before is gone after it, also
 * after an error; its tokens can be used further on.
 *
 * max_messages: 1 to 4,096.
 * wait_us: how long the brokers wait for the first: 0 (take what is there) to 1 h. The way of their answers comes on top; an owner that does not answer at all costs at most
 * request_timeout_us more.
 * messages: where the address of an array of pointers goes; NULL where there is no message. It, the messages and what they point at stay until this consumer receives again or is closed.
 * Not NULL.
 * count: where the number of messages goes. Not NULL.
 * Returns: TRAMLINE_OK, also without a message; an error concerns one partition or one broker, which is tried again, and messages that came with it are handed out by the next call:
 * TRAMLINE_E_REFUSED (after TRAMLINE_CODE_QUEUE_DELETED and TRAMLINE_CODE_UNKNOWN_QUEUE nothing comes any more), TRAMLINE_E_CORRUPT, TRAMLINE_E_TIMEOUT, TRAMLINE_E_IO, TRAMLINE_E_PROTOCOL, TRAMLINE_E_BUSY.
 * Threads: one at a time; what was received can be read in any.
 */
tramline_status_t tramline_queue_consumer_receive(tramline_queue_consumer_t consumer, uint32_t max_messages, uint64_t wait_us,
                                                  const tramline_message_t *const **messages, size_t *count);

/**
 * The message is done: after TRAMLINE_OK, which waits for stable storage, it is never delivered again.
 *
 * token: of the message, from this consumer, another one of the queue, or tramline_token_parse().
 * Returns: TRAMLINE_OK; TRAMLINE_E_REFUSED with TRAMLINE_CODE_LEASE_EXPIRED or TRAMLINE_CODE_LEASE_LOST (its lease was over: it will be, or was, delivered again) or TRAMLINE_CODE_UNKNOWN_LEASE (it was
 * settled before, or never leased so, or by another queue) or TRAMLINE_CODE_UNKNOWN_QUEUE (the queue was deleted), TRAMLINE_E_UNKNOWN_OUTCOME (it may be done), TRAMLINE_E_TIMEOUT (within call_timeout_us it was not), TRAMLINE_E_IO (waiting
 * itself failed), TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_queue_consumer_ack(tramline_queue_consumer_t consumer, tramline_token_t token);

/**
 * The message failed: it is delivered again after the delay, or is dead when it was delivered max.deliveries times.
 *
 * token: as in tramline_queue_consumer_ack().
 * delay_us: 0 (at once) to 24 h, in whole milliseconds, rounded up; or TRAMLINE_DELAY_BY_POLICY_US.
 * reason: NUL-terminated, at most 256 bytes; kept with the message. NULL: none.
 * Returns: TRAMLINE_OK; as tramline_queue_consumer_ack(); TRAMLINE_E_REFUSED also with TRAMLINE_CODE_INVALID_ATTRIBUTE (the delay is out of range).
 * Threads: one at a time.
 */
tramline_status_t tramline_queue_consumer_nack(tramline_queue_consumer_t consumer, tramline_token_t token, uint64_t delay_us, const char *reason);

/**
 * The lease of the message ends so long from now, sooner or later than before.
 *
 * token: as in tramline_queue_consumer_ack().
 * length_us: 100 ms to 12 h, in whole milliseconds, rounded up.
 * Returns: TRAMLINE_OK; as tramline_queue_consumer_ack(); TRAMLINE_E_REFUSED also with TRAMLINE_CODE_INVALID_ATTRIBUTE (the length is out of range).
 * Threads: one at a time.
 */
tramline_status_t tramline_queue_consumer_extend(tramline_queue_consumer_t consumer, tramline_token_t token, uint64_t length_us);

/**
 * Gives the message back as if it had not been delivered.
 *
 * token: as in tramline_queue_consumer_ack().
 * Returns: TRAMLINE_OK; as tramline_queue_consumer_ack().
 * Threads: one at a time.
 */
tramline_status_t tramline_queue_consumer_release(tramline_queue_consumer_t consumer, tramline_token_t token);

/**
 * The message can never be done: it is dead at once.
 *
 * token: as in tramline_queue_consumer_ack().
 * reason: NUL-terminated, at most 256 bytes; kept with the message. NULL: none.
 * Returns: TRAMLINE_OK; as tramline_queue_consumer_ack().
 * Threads: one at a time.
 */
tramline_status_t tramline_queue_consumer_reject(tramline_queue_consumer_t consumer, tramline_token_t token, const char *reason);

/**
 * Settles many messages, in one request per broker's shard. Each stands for itself: one that is refused does not stop the others.
 *
 * settlements, count: an array of at most 65,535; NULL and 0 do nothing.
 * results: where as many results go, in the order of settlements; or NULL.
 * Returns: TRAMLINE_OK when all are done; else the status of the first that is not, of which tramline_last_error() tells, and `results` tells of each, as tramline_queue_consumer_ack(). After
 * TRAMLINE_E_ARGUMENT, TRAMLINE_E_HANDLE and TRAMLINE_E_BUSY none was sent, and each result says so too (where the array cannot be read, `results` is left alone).
 * Threads: one at a time.
 */
tramline_status_t tramline_queue_consumer_settle(tramline_queue_consumer_t consumer, const tramline_settlement_t *settlements, size_t count,
                                                 tramline_settled_t *results);

/**
 * Ends in good order: gives back what was leased and not handed out. What was handed out is yours to settle, also later, by its token. The handle is closed whatever is returned.
 *
 * timeout_us: 0 to TRAMLINE_FOREVER_US.
 * Returns: TRAMLINE_OK; TRAMLINE_E_TIMEOUT and TRAMLINE_E_IO (what was not given back comes back when its lease is over); TRAMLINE_E_BUSY (the handle is not closed then).
 * Threads: one at a time.
 */
tramline_status_t tramline_queue_consumer_close(tramline_queue_consumer_t consumer, uint64_t timeout_us);

/**
 * What the queue consumer has done so far.
 *
 * out, out_size: the struct that is filled, and its sizeof.
 * Returns: TRAMLINE_OK; TRAMLINE_E_BUSY.
 * Threads: one at a time.
 */
tramline_status_t tramline_queue_consumer_metrics(tramline_queue_consumer_t consumer, tramline_queue_consumer_metrics_t *out, size_t out_size);

#ifdef __cplusplus
}
#endif

#endif
