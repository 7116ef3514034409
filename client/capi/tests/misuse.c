/*
 * Every wrong use of libtramline gets the status that tramline.h documents, and nothing crashes. Run by tests/capi.rs: misuse HOST:PORT OTHER CLOSED, where OTHER
 * is a server that speaks something else, and nobody listens at CLOSED. Prints "FAILED ..." for each that differs, and at last how many were tried.
 *
 * Not here: a server that goes away (vanish.c), panics (defect.c).
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tramline.h>

#include "expect.h"

static void on_delivery(const tramline_delivery_t *delivery, void *user) {
    (void)delivery;
    (void)user;
}

static int on_record(const tramline_record_view_t *record, void *user) {
    (void)record;
    (void)user;
    return 0;
}

static const tramline_client_t no_client = {0};
static const tramline_producer_t no_producer = {0};
static const tramline_consumer_t no_consumer = {0};
static const char *const bad_text = "ab\xff";

/* All functions with a handle that is none; `words` is what the sentence says. */
static void refused_client(tramline_client_t client, const char *words) {
    uint32_t number;
    tramline_producer_t producer;
    tramline_consumer_t consumer;
    EXPECT(tramline_client_ping(client, NULL), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_topic_create(client, "t", 1, NULL, 0, 0, NULL), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_topic_delete(client, "t"), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_topic_partitions(client, "t", &number), TRAMLINE_E_HANDLE, words);
    memset(&producer, 1, sizeof producer);
    EXPECT(tramline_producer_open(client, NULL, &producer), TRAMLINE_E_HANDLE, words);
    THAT(producer.id == 0);
    memset(&consumer, 1, sizeof consumer);
    EXPECT(tramline_consumer_open(client, NULL, &consumer), TRAMLINE_E_HANDLE, words);
    THAT(consumer.id == 0);
    EXPECT(tramline_client_close(client), TRAMLINE_E_HANDLE, words);
}

static void refused_producer(tramline_producer_t producer, const char *words) {
    tramline_record_t record = TRAMLINE_RECORD_INIT;
    size_t count;
    uint64_t offset;
    tramline_producer_metrics_t metrics;
    record.topic = "t";
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_producer_try_send(producer, &record), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_producer_poll(producer, 0, &count), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_producer_drain(producer, on_delivery, NULL, &count), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_producer_flush(producer, 0), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_producer_outstanding(producer, &count), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_producer_durable_end(producer, "t", 0, &offset), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_producer_trouble(producer), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_producer_metrics(producer, &metrics, sizeof metrics), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_producer_close(producer), TRAMLINE_E_HANDLE, words);
}

static void refused_consumer(tramline_consumer_t consumer, const char *words) {
    size_t count;
    uint64_t offset;
    tramline_consumer_metrics_t metrics;
    EXPECT(tramline_consumer_assign(consumer, "t", 0, TRAMLINE_START_EARLIEST, 0, NULL), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_consumer_unassign(consumer, "t", 0), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_consumer_seek(consumer, "t", 0, TRAMLINE_START_EARLIEST, 0), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_consumer_pause(consumer, "t", 0), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_consumer_resume(consumer, "t", 0), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_consumer_poll(consumer, 0, on_record, NULL, &count), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_consumer_read_to_end(consumer, 0, on_record, NULL, &count), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_consumer_position(consumer, "t", 0, &offset), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_consumer_range(consumer, "t", 0, &offset, &offset), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_consumer_metrics(consumer, &metrics, sizeof metrics), TRAMLINE_E_HANDLE, words);
    EXPECT(tramline_consumer_close(consumer), TRAMLINE_E_HANDLE, words);
}

/* As refused_producer and refused_consumer, for one that is in use: the calls that do not wait for anything. */
static void busy_producer(tramline_producer_t producer) {
    tramline_record_t record = TRAMLINE_RECORD_INIT;
    size_t count;
    record.topic = "misuse";
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_BUSY, "in use");
    EXPECT(tramline_producer_poll(producer, 0, &count), TRAMLINE_E_BUSY, "in use");
    EXPECT(tramline_producer_drain(producer, on_delivery, NULL, &count), TRAMLINE_E_BUSY, "in use");
    EXPECT(tramline_producer_close(producer), TRAMLINE_E_BUSY, "in use");
}

static void busy_consumer(tramline_consumer_t consumer) {
    uint64_t offset;
    EXPECT(tramline_consumer_poll(consumer, 0, on_record, NULL, NULL), TRAMLINE_E_BUSY, "in use");
    EXPECT(tramline_consumer_position(consumer, "misuse", 0, &offset), TRAMLINE_E_BUSY, "in use");
    EXPECT(tramline_consumer_close(consumer), TRAMLINE_E_BUSY, "in use");
}

struct handles {
    tramline_client_t client;
    tramline_producer_t producer;
    tramline_consumer_t consumer;
    int calls;
};

static void *other_thread_while_producing(void *user) {
    struct handles *handles = user;
    THAT(tramline_last_code() == TRAMLINE_CODE_OK); /* each thread has its own last error */
    busy_producer(handles->producer);
    return NULL;
}

static void *other_thread_while_consuming(void *user) {
    struct handles *handles = user;
    busy_consumer(handles->consumer);
    OK(tramline_client_ping(handles->client, NULL)); /* a client is shared */
    return NULL;
}

static void within_drain(const tramline_delivery_t *delivery, void *user) {
    struct handles *handles = user;
    pthread_t thread;
    handles->calls++;
    THAT(delivery->struct_size == sizeof *delivery && delivery->status == TRAMLINE_OK && delivery->message == NULL);
    busy_producer(handles->producer);
    THAT(pthread_create(&thread, NULL, other_thread_while_producing, handles) == 0 && pthread_join(thread, NULL) == 0);
}

static int within_poll(const tramline_record_view_t *record, void *user) {
    struct handles *handles = user;
    pthread_t thread;
    uint64_t round_trip_us = 0;
    handles->calls++;
    THAT(record->struct_size == sizeof *record && record->value_len == 5 && memcmp(record->value, "value", 5) == 0);
    busy_consumer(handles->consumer);
    OK(tramline_client_ping(handles->client, &round_trip_us)); /* another handle is free */
    THAT(pthread_create(&thread, NULL, other_thread_while_consuming, handles) == 0 && pthread_join(thread, NULL) == 0);
    return 1; /* ends the call after this record */
}

static void servers(const char *server, const char *other, const char *closed) {
    tramline_client_t client;
    tramline_client_options_t options;
    THAT(tramline_last_error(NULL, 0) == 0 && tramline_last_code() == TRAMLINE_CODE_OK);
    EXPECT(tramline_client_connect(NULL, NULL, &client), TRAMLINE_E_ARGUMENT, "servers is NULL");
    EXPECT(tramline_client_connect(server, NULL, NULL), TRAMLINE_E_ARGUMENT, "out is NULL");
    EXPECT(tramline_client_connect(bad_text, NULL, &client), TRAMLINE_E_ARGUMENT, "not UTF-8 from byte 2 on");
    EXPECT(tramline_client_connect("", NULL, &client), TRAMLINE_E_ARGUMENT, "no server address");
    EXPECT(tramline_client_connect("localhost", NULL, &client), TRAMLINE_E_ARGUMENT, "host:port");
    EXPECT(tramline_client_connect("localhost:seven", NULL, &client), TRAMLINE_E_ARGUMENT, "host:port");
    EXPECT(tramline_client_connect("localhost:0", NULL, &client), TRAMLINE_E_ARGUMENT, "host:port");
    EXPECT(tramline_client_connect(":7410", NULL, &client), TRAMLINE_E_ARGUMENT, "host:port");
    client.id = 7;
    EXPECT(tramline_client_connect(closed, NULL, &client), TRAMLINE_E_IO, "nothing listens there");
    THAT(client.id == 0);
    EXPECT(tramline_client_connect(other, NULL, &client), TRAMLINE_E_PROTOCOL, "does not speak this protocol");

    OK(tramline_client_options_defaults(&options, sizeof options));
    THAT(options.struct_size == sizeof options && options.connect_timeout_us == 5000000);
    options.connect_timeout_us = 999;
    EXPECT(tramline_client_connect(server, &options, &client), TRAMLINE_E_ARGUMENT, "connect_timeout must be between 10ms and 300s");
    OK(tramline_client_options_defaults(&options, sizeof options));
    options.call_timeout_us = TRAMLINE_FOREVER_US;
    EXPECT(tramline_client_connect(server, &options, &client), TRAMLINE_E_ARGUMENT, "call_timeout must be between 100ms and 3600s");
    OK(tramline_client_options_defaults(&options, sizeof options));
    options.busy_poll = 2;
    EXPECT(tramline_client_connect(server, &options, &client), TRAMLINE_E_ARGUMENT, "busy_poll is 2");
    OK(tramline_client_options_defaults(&options, sizeof options));
    options.client_name = bad_text;
    EXPECT(tramline_client_connect(server, &options, &client), TRAMLINE_E_ARGUMENT, "client_name is not UTF-8");
    OK(tramline_client_options_defaults(&options, sizeof options));
    options.reserved = 1;
    EXPECT(tramline_client_connect(server, &options, &client), TRAMLINE_E_ARGUMENT, "reserved");
    memset(&options, 0, sizeof options);
    EXPECT(tramline_client_connect(server, &options, &client), TRAMLINE_E_ARGUMENT, "struct_size 0");
    memset(&options, 0xff, sizeof options);
    EXPECT(tramline_client_connect(server, &options, &client), TRAMLINE_E_ARGUMENT, "struct_size");
    EXPECT(tramline_client_options_defaults(NULL, sizeof options), TRAMLINE_E_ARGUMENT, "options is NULL");
    EXPECT(tramline_client_options_defaults(&options, 0), TRAMLINE_E_ARGUMENT, "sizeof");
    EXPECT(tramline_client_options_defaults(&options, SIZE_MAX), TRAMLINE_E_ARGUMENT, "sizeof");
    /* The second server is taken when the first is not there. */
    char both[256];
    snprintf(both, sizeof both, "%s, %s", closed, server);
    OK(tramline_client_connect(both, NULL, &client));
    OK(tramline_client_close(client));
}

static void topics(tramline_client_t client) {
    tramline_setting_t setting = {"retention.ms", "60000"};
    uint32_t partitions = 0;
    tramline_error_t error;
    EXPECT(tramline_topic_create(client, NULL, 1, NULL, 0, 0, NULL), TRAMLINE_E_ARGUMENT, "topic is NULL");
    EXPECT(tramline_topic_create(client, bad_text, 1, NULL, 0, 0, NULL), TRAMLINE_E_ARGUMENT, "not UTF-8");
    EXPECT(tramline_topic_create(client, "misuse", 1, NULL, 1, 0, NULL), TRAMLINE_E_ARGUMENT, "the array is NULL");
    EXPECT(tramline_topic_create(client, "misuse", 1, &setting, SIZE_MAX, 0, NULL), TRAMLINE_E_ARGUMENT, "the most is 65535");
    EXPECT(tramline_topic_create(client, "misuse", 1, NULL, 0, 2, NULL), TRAMLINE_E_ARGUMENT, "flags is 0x2");
    EXPECT(tramline_topic_create(client, "..", 1, NULL, 0, 0, NULL), TRAMLINE_E_REFUSED, "invalid_topic_name");
    THAT(tramline_last_code() == TRAMLINE_CODE_INVALID_TOPIC_NAME);
    EXPECT(tramline_topic_create(client, "misuse", 0, NULL, 0, 0, NULL), TRAMLINE_E_REFUSED, "");
    setting.value = "soon";
    EXPECT(tramline_topic_create(client, "misuse", 1, &setting, 1, 0, NULL), TRAMLINE_E_REFUSED, "");
    THAT(tramline_last_code() == TRAMLINE_CODE_INVALID_SETTING);
    setting.value = NULL;
    EXPECT(tramline_topic_create(client, "misuse", 1, &setting, 1, 0, NULL), TRAMLINE_E_ARGUMENT, "a setting's value is NULL");
    setting.value = "60000";
    OK(tramline_topic_create(client, "misuse", 2, &setting, 1, 0, &partitions));
    THAT(partitions == 2);
    EXPECT(tramline_topic_create(client, "misuse", 2, NULL, 0, 0, NULL), TRAMLINE_E_REFUSED, "topic_exists");
    OK(tramline_topic_create(client, "misuse", 9, NULL, 0, TRAMLINE_TOPIC_IF_NOT_EXISTS, &partitions));
    THAT(partitions == 2);
    OK(tramline_topic_partitions(client, "misuse", &partitions));
    EXPECT(tramline_topic_partitions(client, "misuse", NULL), TRAMLINE_E_ARGUMENT, "partitions is NULL");
    EXPECT(tramline_topic_partitions(client, "nowhere", &partitions), TRAMLINE_E_REFUSED, "unknown_topic");
    EXPECT(tramline_topic_delete(client, "nowhere"), TRAMLINE_E_REFUSED, "unknown_topic");
    OK(tramline_last_error_details(&error, sizeof error));
    THAT(error.struct_size == sizeof error && error.status == TRAMLINE_E_REFUSED && error.code == TRAMLINE_CODE_UNKNOWN_TOPIC);
    THAT(error.retriable == 0 && error.partition == TRAMLINE_PARTITION_NONE && error.offset == TRAMLINE_OFFSET_NONE && error.topic[0] == 0);
    EXPECT(tramline_last_error_details(NULL, sizeof error), TRAMLINE_E_ARGUMENT, "out is NULL");
    OK(tramline_topic_create(client, "gone", 1, NULL, 0, 0, NULL));
    OK(tramline_topic_delete(client, "gone"));
    EXPECT(tramline_topic_delete(client, "gone"), TRAMLINE_E_REFUSED, "unknown_topic");
}

static void producers(tramline_client_t client) {
    tramline_producer_options_t options;
    tramline_producer_t producer;
    tramline_record_t record;
    tramline_header_t header = {"name", 4, NULL, 0};
    uint64_t offset;
    size_t count;
    EXPECT(tramline_producer_open(client, NULL, NULL), TRAMLINE_E_ARGUMENT, "out is NULL");
#define BAD(field, bad, words)                                             \
    OK(tramline_producer_options_defaults(&options, sizeof options)); \
    options.field = bad;                                                   \
    EXPECT(tramline_producer_open(client, &options, &producer), TRAMLINE_E_ARGUMENT, words)
    BAD(level, 5, "level is 5");
    BAD(level, 256, "level is 256");
    BAD(compression, 4, "compression is 4");
    BAD(partitioner, 3, "partitioner is 3");
    BAD(idempotent, 2, "idempotent is 2");
    BAD(batch_bytes, 0, "batch_bytes must be between 1 and");
    BAD(batch_bytes, UINT64_MAX, "batch_bytes must be between 1 and");
    BAD(buffer_bytes, 1, "buffer_bytes (at least batch_bytes) must be between 65536 and");
    BAD(max_in_flight, 0, "max_in_flight");
    BAD(request_bytes, 0, "request_bytes");
    BAD(delivery_timeout_us, 0, "delivery_timeout");
    BAD(linger_us, UINT64_MAX, "linger_us");
    BAD(linger_us, 15000001, "linger_us (at most half of delivery_timeout)");
    BAD(limit_values_bytes, 0, "limits.values_bytes_max must be between 1024 and");
    BAD(limit_record_bytes, UINT32_MAX, "limits.record_bytes_max");
    BAD(struct_size, 1, "struct_size 1");

    OK(tramline_producer_options_defaults(&options, sizeof options));
    options.buffer_bytes = 1000;
    options.batch_bytes = 1000;
    options.linger_us = 1000000; /* what is sent first stays until a flush */
    OK(tramline_producer_open(client, &options, &producer));
    EXPECT(tramline_producer_send(producer, NULL), TRAMLINE_E_ARGUMENT, "record is NULL");
    memset(&record, 0, sizeof record);
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_ARGUMENT, "struct_size 0");
    OK(tramline_record_defaults(&record, sizeof record));
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_ARGUMENT, "topic is NULL");
    record.topic = bad_text;
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_ARGUMENT, "topic is not UTF-8");
    record.topic = "nowhere";
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_REFUSED, "unknown_topic");
    record.topic = "misuse";
    record.key_len = 1;
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_ARGUMENT, "the key is NULL but its length is 1");
    record.key = "k";
    record.key_len = SIZE_MAX;
    EXPECT(tramline_producer_try_send(producer, &record), TRAMLINE_E_ARGUMENT, "more than any object");
    record.key_len = 1;
    record.value = "v";
    record.value_len = (size_t)-2;
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_ARGUMENT, "more than any object");
    record.value_len = 1;
    record.priority = 10;
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_ARGUMENT, "priority is 10: it is 0 to 9");
    record.priority = 0;
    record.group_len = 1;
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_ARGUMENT, "the group is NULL but its length is 1");
    record.group_len = 0;
    record.message_id_len = 1;
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_ARGUMENT, "the message id is NULL but its length is 1");
    record.message_id_len = 0;
    record.header_count = 1;
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_ARGUMENT, "the array is NULL");
    record.headers = &header;
    record.header_count = 65536;
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_ARGUMENT, "the most is 65535");
    record.header_count = 1;
    header.value_len = 3;
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_ARGUMENT, "a header's value is NULL");
    header.value_len = 0;
    header.name = bad_text;
    header.name_len = 3;
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_ARGUMENT, "a header's name is not UTF-8");
    record.header_count = 0;
    record.partition = 2;
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_ARGUMENT, "no partition 2");
    record.partition = TRAMLINE_PARTITION_ANY;
    record.reserved = 1;
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_ARGUMENT, "reserved");
    record.reserved = 0;
    char *large = calloc(2, 1 << 20);
    record.value = large;
    record.value_len = 2 << 20;
    EXPECT(tramline_producer_send(producer, &record), TRAMLINE_E_ARGUMENT, "too large");
    OK(tramline_producer_outstanding(producer, &count));
    THAT(count == 0);
    EXPECT(tramline_producer_outstanding(producer, NULL), TRAMLINE_E_ARGUMENT, "records is NULL");
    EXPECT(tramline_producer_durable_end(producer, "misuse", 0, NULL), TRAMLINE_E_ARGUMENT, "offset is NULL");
    EXPECT(tramline_producer_durable_end(producer, NULL, 0, &offset), TRAMLINE_E_ARGUMENT, "topic is NULL");
    OK(tramline_producer_durable_end(producer, "nowhere", 0, &offset));
    THAT(offset == TRAMLINE_OFFSET_NONE);
    EXPECT(tramline_producer_drain(producer, NULL, NULL, &count), TRAMLINE_E_ARGUMENT, "the callback is NULL");
    EXPECT(tramline_producer_metrics(producer, NULL, 0), TRAMLINE_E_ARGUMENT, "out is NULL");
    OK(tramline_producer_poll(producer, TRAMLINE_FOREVER_US, NULL)); /* nothing is outstanding, so it does not wait */
    /* Full: the first one stays in its batch (linger), a second one finds no room. */
    record.value_len = 600;
    OK(tramline_producer_try_send(producer, &record));
    EXPECT(tramline_producer_try_send(producer, &record), TRAMLINE_E_FULL, "full");
    EXPECT(tramline_producer_flush(producer, 0), TRAMLINE_E_TIMEOUT, "not acknowledged");
    OK(tramline_producer_flush(producer, TRAMLINE_FOREVER_US));
    OK(tramline_producer_trouble(producer));
    free(large);
    /* What it holds is dropped with it. */
    record.value = "lost";
    record.value_len = 4;
    OK(tramline_producer_try_send(producer, &record));
    OK(tramline_producer_close(producer));
    refused_producer(producer, "was closed");
}

static void consumers(tramline_client_t client) {
    tramline_consumer_options_t options;
    tramline_consumer_t consumer;
    tramline_error_t error;
    uint64_t offset;
    size_t count;
    EXPECT(tramline_consumer_open(client, NULL, NULL), TRAMLINE_E_ARGUMENT, "out is NULL");
    OK(tramline_consumer_options_defaults(&options, sizeof options));
    options.credit_bytes = 0;
    EXPECT(tramline_consumer_open(client, &options, &consumer), TRAMLINE_E_ARGUMENT, "credit_bytes");
    OK(tramline_consumer_options_defaults(&options, sizeof options));
    options.verify_checksums = 7;
    EXPECT(tramline_consumer_open(client, &options, &consumer), TRAMLINE_E_ARGUMENT, "verify_checksums is 7");
    OK(tramline_consumer_open(client, NULL, &consumer));
    /* Nothing is assigned: there is nothing to wait for at the end, and a poll waits in vain. */
    OK(tramline_consumer_read_to_end(consumer, TRAMLINE_FOREVER_US, on_record, NULL, &count));
    THAT(count == 0);
    OK(tramline_consumer_poll(consumer, 1000, on_record, NULL, &count));
    EXPECT(tramline_consumer_poll(consumer, 0, NULL, NULL, &count), TRAMLINE_E_ARGUMENT, "the callback is NULL");
    EXPECT(tramline_consumer_assign(consumer, NULL, 0, TRAMLINE_START_EARLIEST, 0, NULL), TRAMLINE_E_ARGUMENT, "topic is NULL");
    EXPECT(tramline_consumer_assign(consumer, "misuse", 0, 4, 0, NULL), TRAMLINE_E_ARGUMENT, "start is 4");
    EXPECT(tramline_consumer_assign(consumer, "misuse", 0, -1, 0, NULL), TRAMLINE_E_ARGUMENT, "start is -1");
    EXPECT(tramline_consumer_assign(consumer, "misuse", 0, TRAMLINE_START_LATEST, 3, NULL), TRAMLINE_E_ARGUMENT, "at is 3");
    EXPECT(tramline_consumer_assign(consumer, "misuse", 0, TRAMLINE_START_OFFSET, TRAMLINE_OFFSET_NONE, NULL), TRAMLINE_E_ARGUMENT, "no offset");
    EXPECT(tramline_consumer_assign(consumer, "misuse", 0, TRAMLINE_START_TIME, UINT64_MAX - 1, NULL), TRAMLINE_E_ARGUMENT, "no time");
    EXPECT(tramline_consumer_assign(consumer, "misuse", 2, TRAMLINE_START_EARLIEST, 0, NULL), TRAMLINE_E_ARGUMENT, "no partition 2");
    OK(tramline_last_error_details(&error, sizeof error));
    THAT(error.partition == 2 && strcmp(error.topic, "misuse") == 0);
    EXPECT(tramline_consumer_assign(consumer, "nowhere", TRAMLINE_PARTITION_ALL, TRAMLINE_START_EARLIEST, 0, NULL), TRAMLINE_E_REFUSED, "unknown_topic");
    EXPECT(tramline_consumer_seek(consumer, "misuse", 0, TRAMLINE_START_EARLIEST, 0), TRAMLINE_E_ARGUMENT, "not being read");
    EXPECT(tramline_consumer_pause(consumer, "misuse", 0), TRAMLINE_E_ARGUMENT, "not being read");
    EXPECT(tramline_consumer_resume(consumer, "misuse", 0), TRAMLINE_E_ARGUMENT, "not being read");
    EXPECT(tramline_consumer_unassign(consumer, "misuse", 0), TRAMLINE_E_ARGUMENT, "not being read");
    EXPECT(tramline_consumer_position(consumer, "misuse", 0, &offset), TRAMLINE_E_ARGUMENT, "not being read");
    EXPECT(tramline_consumer_range(consumer, "misuse", 0, &offset, NULL), TRAMLINE_E_ARGUMENT, "not being read");
    /* An offset that is not there: told by the poll, with the place from which reading can go on. */
    OK(tramline_consumer_assign(consumer, "misuse", 0, TRAMLINE_START_OFFSET, 1000000, NULL));
    EXPECT(tramline_consumer_position(consumer, "misuse", 0, NULL), TRAMLINE_E_ARGUMENT, "offset is NULL");
    EXPECT(tramline_consumer_poll(consumer, TRAMLINE_FOREVER_US, on_record, NULL, &count), TRAMLINE_E_REFUSED, "offset_out_of_range");
    OK(tramline_last_error_details(&error, sizeof error));
    THAT(count == 0 && error.code == TRAMLINE_CODE_OFFSET_OUT_OF_RANGE && error.partition == 0 && error.offset == 1000000);
    THAT(error.resume_offset != TRAMLINE_OFFSET_NONE && strcmp(error.topic, "misuse") == 0);
    OK(tramline_consumer_seek(consumer, "misuse", 0, TRAMLINE_START_OFFSET, error.resume_offset));
    OK(tramline_consumer_poll(consumer, 0, on_record, NULL, &count));
    EXPECT(tramline_consumer_metrics(consumer, NULL, 0), TRAMLINE_E_ARGUMENT, "out is NULL");
    OK(tramline_consumer_close(consumer));
    refused_consumer(consumer, "was closed");
}

static void in_use(tramline_client_t client) {
    struct handles handles = {client, {0}, {0}, 0};
    tramline_record_t record = TRAMLINE_RECORD_INIT;
    size_t count;
    uint64_t offset = 0;
    OK(tramline_topic_create(client, "in-use", 1, NULL, 0, 0, NULL));
    OK(tramline_producer_open(client, NULL, &handles.producer));
    record.topic = "in-use";
    record.value = "value";
    record.value_len = 5;
    OK(tramline_producer_send(handles.producer, &record));
    OK(tramline_producer_send(handles.producer, &record));
    OK(tramline_producer_flush(handles.producer, TRAMLINE_FOREVER_US));
    OK(tramline_producer_drain(handles.producer, within_drain, &handles, &count));
    THAT(count == 2 && handles.calls == 2);
    OK(tramline_consumer_open(client, NULL, &handles.consumer));
    OK(tramline_consumer_assign(handles.consumer, "in-use", 0, TRAMLINE_START_EARLIEST, 0, NULL));
    handles.calls = 0;
    OK(tramline_consumer_poll(handles.consumer, TRAMLINE_FOREVER_US, within_poll, &handles, &count));
    THAT(count == 1 && handles.calls == 1);
    OK(tramline_consumer_position(handles.consumer, "in-use", 0, &offset));
    THAT(offset == 1);
    OK(tramline_consumer_read_to_end(handles.consumer, TRAMLINE_FOREVER_US, within_poll, &handles, &count));
    THAT(count == 1 && handles.calls == 2);
    OK(tramline_producer_close(handles.producer));
    OK(tramline_consumer_close(handles.consumer));
}

int main(int argc, char **argv) {
    tramline_client_t client;
    tramline_producer_t producer;
    tramline_consumer_t consumer;
    struct sigaction action;
    char small[4];
    if (argc != 4) {
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    THAT(strcmp(tramline_version(), TRAMLINE_HEADER_VERSION) == 0);
    THAT(tramline_catches_panics() == 1);
    servers(argv[1], argv[2], argv[3]);
    OK(tramline_client_connect(argv[1], NULL, &client));
    /* A broker that goes away, as it does below, would end the program. */
    THAT(sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL);

    refused_client(no_client, "null");
    refused_producer(no_producer, "null");
    refused_consumer(no_consumer, "null");
    topics(client);
    producers(client);
    consumers(client);
    in_use(client);

    /* Handles of other kinds, of garbage, and of the same slot in another life. */
    OK(tramline_producer_open(client, NULL, &producer));
    OK(tramline_consumer_open(client, NULL, &consumer));
    refused_client((tramline_client_t){producer.id}, "the handle of a producer, a client is needed");
    refused_producer((tramline_producer_t){consumer.id}, "the handle of a consumer, a producer is needed");
    refused_consumer((tramline_consumer_t){client.id}, "the handle of a client, a consumer is needed");
    refused_client((tramline_client_t){UINT64_MAX}, "is no handle");
    refused_client((tramline_client_t){client.id ^ ((uint64_t)1 << 32)}, "was closed, or never opened");
    refused_producer((tramline_producer_t){producer.id ^ 0xffffffff}, "was closed, or never opened");
    refused_producer((tramline_producer_t){(uint64_t)(uintptr_t)&producer}, "no handle");
    refused_consumer((tramline_consumer_t){consumer.id ^ 0x40}, "was closed, or never opened");

    /* Closing the client leaves the others alone. */
    OK(tramline_client_close(client));
    refused_client(client, "was closed");
    OK(tramline_consumer_assign(consumer, "misuse", TRAMLINE_PARTITION_ALL, TRAMLINE_START_EARLIEST, 0, NULL));
    OK(tramline_consumer_close(consumer));
    OK(tramline_producer_close(producer));

    /* The last error, cut. */
    EXPECT(tramline_producer_close(producer), TRAMLINE_E_HANDLE, "was closed");
    memset(small, 'x', sizeof small);
    THAT(tramline_last_error(small, sizeof small) > sizeof small && small[3] == 0 && memcmp(small, "thi", 3) == 0);
    THAT(tramline_last_error(NULL, 99) > 0);
    THAT(tramline_code_name(TRAMLINE_CODE_UNKNOWN_TOPIC, NULL, 0) == strlen("unknown_topic"));
    THAT(strcmp(tramline_status_name(99), "unknown status") == 0);

    printf("%d tried, %d failed\n", tried, failed);
    return failed == 0 ? 0 : 1;
}
