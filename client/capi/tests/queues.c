/*
 * Queues: what the example does not show, and every wrong use with the status that tramline.h documents. Run by tests/capi.rs; uses TRAMLINE_SERVER. Prints "FAILED ..." for each that differs.
 *
 * Not here: a server that goes away (vanish.c), handles of the other kinds (misuse.c).
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tramline.h>

#include "expect.h"

#define SECOND 1000000ull
#define TIME_US 1700000000000000

/* The broker refuses the call with this code. */
#define REFUSED(call, wanted)                    \
    EXPECT(call, TRAMLINE_E_REFUSED, "");        \
    THAT(tramline_last_code() == (wanted))

static int is_text(const void *data, size_t len, const char *text) {
    return data != NULL && len == strlen(text) && memcmp(data, text, len) == 0;
}

/* Record `number` has the key "key N", so many bytes of value, and each attribute somewhere; 5 is a tombstone. */
static void send(tramline_client_t client, const char *topic, unsigned first, unsigned count) {
    tramline_producer_t producer;
    OK(tramline_producer_open(client, NULL, &producer));
    for (unsigned n = first; n < first + count; n++) {
        char key[32];
        tramline_record_t record = TRAMLINE_RECORD_INIT;
        tramline_header_t headers[2] = {{"n", 1, key, 0}, {NULL, 0, NULL, 0}};
        record.topic = topic;
        record.key = key;
        record.key_len = (size_t)snprintf(key, sizeof key, "key %u", n);
        record.value = n == 5 ? NULL : "vvvvvvvvv";
        record.value_len = n == 5 ? 0 : n;
        headers[0].value_len = record.key_len;
        record.headers = headers;
        record.header_count = n == 1 ? 0 : 2;
        record.timestamp_us = n == 3 ? TRAMLINE_TIMESTAMP_NOW : TIME_US + n;
        record.priority = n;
        record.ttl_ms = n == 3 ? 3600000 : 0;
        record.deliver_at_us = n == 4 ? TIME_US : 0;
        record.group = n == 3 ? "group" : NULL;
        record.group_len = n == 3 ? 5 : 0;
        record.message_id = n == 3 ? "id" : NULL;
        record.message_id_len = n == 3 ? 2 : 0;
        OK(tramline_producer_send(producer, &record));
    }
    OK(tramline_producer_flush(producer, TRAMLINE_FOREVER_US));
    OK(tramline_producer_trouble(producer));
    OK(tramline_producer_close(producer));
}

/* What is kept of a message when the next ones are received. */
struct lease {
    tramline_token_t token;
    uint32_t deliveries;
};

/* Takes exactly one message, which has this number (its key says it). */
static struct lease take(int line, tramline_queue_consumer_t consumer, unsigned number) {
    const tramline_message_t *const *messages;
    struct lease lease = {{0, 0, 0}, 0};
    size_t count = 0;
    char key[32];
    expect_at(line, "receive", tramline_queue_consumer_receive(consumer, 1, 60 * SECOND, &messages, &count), TRAMLINE_OK, "");
    snprintf(key, sizeof key, "key %u", number);
    expect_at(line, "one message", count == 1 ? TRAMLINE_OK : -1, TRAMLINE_OK, "");
    if (count == 1) {
        expect_at(line, key, is_text(messages[0]->key, messages[0]->key_len, key) ? TRAMLINE_OK : -1, TRAMLINE_OK, "");
        lease.token = messages[0]->token;
        lease.deliveries = messages[0]->deliveries;
    }
    return lease;
}
#define TAKE(consumer, number) take(__LINE__, consumer, number)

static int is_same(tramline_token_t one, tramline_token_t other) {
    return one.partition_uid == other.partition_uid && one.offset == other.offset && one.lease == other.lease;
}

static void check_message(const tramline_message_t *message, unsigned n) {
    char key[32];
    snprintf(key, sizeof key, "key %u", n);
    THAT(message->struct_size == sizeof *message && message->offset == n && message->token.offset == n && message->token.partition_uid != 0);
    THAT(is_text(message->key, message->key_len, key) && message->partition == 0 && message->deliveries == 1);
    THAT(n == 5 ? message->value == NULL : message->value != NULL);
    THAT(n == 5 ? message->value_len == 0 : message->value_len == n && memcmp(message->value, "vvvvvvvvv", n) == 0);
    THAT(message->header_count == (n == 1 ? 0 : 2));
    if (message->header_count == 2) {
        THAT(is_text(message->headers[0].name, message->headers[0].name_len, "n") && is_text(message->headers[0].value, message->headers[0].value_len, key));
        THAT(message->headers[1].name_len == 0 && message->headers[1].value_len == 0);
    }
    THAT(message->priority == n && message->append_time_us > TIME_US && (n == 3) == (message->timestamp_us != TIME_US + (int64_t)n));
    THAT(message->ttl_ms == (n == 3 ? 3600000 : 0) && message->deliver_at_us == (n == 4 ? TIME_US : 0));
    THAT(n == 3 ? is_text(message->group, message->group_len, "group") : message->group == NULL && message->group_len == 0);
    THAT(n == 3 ? is_text(message->message_id, message->message_id_len, "id") : message->message_id == NULL && message->message_id_len == 0);
}

/* Each message with all it has, the most urgent first; what was received stays while its messages are settled. */
static void receive_all(tramline_client_t client, tramline_queue_consumer_t consumer, struct lease *leases) {
    const tramline_message_t *const *messages;
    size_t count = 0, got = 0;
    send(client, "one", 0, 6);
    while (got < 6 && failed == 0) {
        OK(tramline_queue_consumer_receive(consumer, 100, 60 * SECOND, &messages, &count));
        THAT(count > 0 && count <= 6 - got);
        for (size_t at = 0; at < count; at++) {
            unsigned n = 5 - (unsigned)(got + at);
            check_message(messages[at], n);
            leases[n].token = messages[at]->token;
            if (n == 5) {
                OK(tramline_queue_consumer_ack(consumer, messages[at]->token));
            }
            check_message(messages[at], n);
        }
        got += count;
    }
    OK(tramline_queue_consumer_receive(consumer, 100, 0, &messages, &count));
    THAT(count == 0 && messages == NULL);
}

/* What becomes of a message, one by one; late tokens are refused. */
static void settle_each(tramline_queue_consumer_t consumer, struct lease *leases) {
    struct lease again;
    REFUSED(tramline_queue_consumer_ack(consumer, leases[5].token), TRAMLINE_CODE_UNKNOWN_LEASE);
    /* Failed: again at once, and the old token is another's no more. */
    OK(tramline_queue_consumer_nack(consumer, leases[4].token, 0, "not now"));
    again = TAKE(consumer, 4);
    THAT(again.deliveries == 2 && !is_same(again.token, leases[4].token));
    REFUSED(tramline_queue_consumer_ack(consumer, leases[4].token), TRAMLINE_CODE_LEASE_LOST);
    OK(tramline_queue_consumer_reject(consumer, again.token, "never"));
    REFUSED(tramline_queue_consumer_ack(consumer, again.token), TRAMLINE_CODE_UNKNOWN_LEASE);
    /* Given back: not counted. By the policy, without a reason: counted. */
    OK(tramline_queue_consumer_release(consumer, leases[3].token));
    again = TAKE(consumer, 3);
    THAT(again.deliveries == 1);
    OK(tramline_queue_consumer_nack(consumer, again.token, TRAMLINE_DELAY_BY_POLICY_US, NULL));
    again = TAKE(consumer, 3);
    THAT(again.deliveries == 2);
    leases[3] = again;
    /* Late: its lease is made short, and then somebody else has the message. */
    OK(tramline_queue_consumer_extend(consumer, leases[2].token, 60 * SECOND));
    OK(tramline_queue_consumer_extend(consumer, leases[2].token, SECOND / 10));
    again = TAKE(consumer, 2);
    THAT(again.deliveries == 2);
    REFUSED(tramline_queue_consumer_extend(consumer, leases[2].token, SECOND), TRAMLINE_CODE_LEASE_LOST);
    leases[2] = again;
    /* What the broker does not allow. */
    REFUSED(tramline_queue_consumer_extend(consumer, again.token, SECOND / 10 - 1000), TRAMLINE_CODE_INVALID_ATTRIBUTE);
    REFUSED(tramline_queue_consumer_nack(consumer, again.token, 86400001000, NULL), TRAMLINE_CODE_INVALID_ATTRIBUTE);
}

/* A token goes to another process as text; one of another queue is none here. */
static void tokens(tramline_client_t client, tramline_queue_consumer_t consumer, const struct lease *leases) {
    tramline_queue_consumer_t other, elsewhere;
    tramline_token_t read_back = {1, 2, 3};
    char text[TRAMLINE_TOKEN_TEXT_BYTES], small[4];
    struct lease foreign;
    THAT(tramline_token_text((tramline_token_t){31, 672, 7}, text, sizeof text) == 8 && strcmp(text, "1f-2a0-7") == 0);
    THAT(tramline_token_text((tramline_token_t){31, 672, 7}, small, sizeof small) == 8 && strcmp(small, "1f-") == 0);
    THAT(tramline_token_text((tramline_token_t){31, 672, 7}, NULL, 9) == 8);
    EXPECT(tramline_token_parse("1f-2a0", &read_back), TRAMLINE_E_ARGUMENT, "no lease token");
    EXPECT(tramline_token_parse("1f-2a0-7 ", &read_back), TRAMLINE_E_ARGUMENT, "no lease token");
    EXPECT(tramline_token_parse("\xff", &read_back), TRAMLINE_E_ARGUMENT, "not UTF-8");
    EXPECT(tramline_token_parse(NULL, &read_back), TRAMLINE_E_ARGUMENT, "text is NULL");
    THAT(is_same(read_back, (tramline_token_t){1, 2, 3}));
    EXPECT(tramline_token_parse("1-2-3", NULL), TRAMLINE_E_ARGUMENT, "out is NULL");

    THAT(tramline_token_text(leases[2].token, text, sizeof text) < sizeof text);
    OK(tramline_token_parse(text, &read_back));
    THAT(is_same(read_back, leases[2].token));
    OK(tramline_queue_consumer_open(client, "work", NULL, &other));
    OK(tramline_queue_consumer_ack(other, read_back));
    OK(tramline_queue_consumer_close(other, TRAMLINE_FOREVER_US));

    /* A second queue of the same topic has each message for itself; a queue of another topic knows not even the partition. */
    OK(tramline_queue_create(client, "copy", "one", TRAMLINE_START_EARLIEST, 0, NULL, 0, 0, NULL));
    OK(tramline_queue_consumer_open(client, "copy", NULL, &other));
    foreign = TAKE(other, 5);
    REFUSED(tramline_queue_consumer_ack(other, leases[1].token), TRAMLINE_CODE_UNKNOWN_LEASE);
    REFUSED(tramline_queue_consumer_ack(consumer, foreign.token), TRAMLINE_CODE_UNKNOWN_LEASE);
    OK(tramline_queue_consumer_open(client, "pair", NULL, &elsewhere));
    EXPECT(tramline_queue_consumer_ack(elsewhere, foreign.token), TRAMLINE_E_REFUSED, "another queue's");
    OK(tramline_queue_consumer_ack(other, foreign.token));
    OK(tramline_queue_consumer_close(elsewhere, TRAMLINE_FOREVER_US));
    /* Those that wait hear that their queue is gone. */
    OK(tramline_queue_delete(client, "copy"));
    REFUSED(tramline_queue_delete(client, "copy"), TRAMLINE_CODE_UNKNOWN_QUEUE);
    REFUSED(tramline_queue_consumer_ack(other, foreign.token), TRAMLINE_CODE_UNKNOWN_QUEUE);
    OK(tramline_queue_consumer_close(other, TRAMLINE_FOREVER_US));
}

/* Many at once: each has a result of its own, and the call says the first that is bad. */
static void settle_many(tramline_queue_consumer_t consumer, const struct lease *leases) {
    tramline_settlement_t many[4];
    tramline_settled_t results[4];
    memset(many, 0, sizeof many);
    many[0].token = leases[0].token;
    many[0].action = TRAMLINE_SETTLE_ACK;
    many[1].token = leases[5].token; /* it is done */
    many[1].action = TRAMLINE_SETTLE_RELEASE;
    many[2].token = leases[1].token;
    many[2].action = TRAMLINE_SETTLE_EXTEND;
    many[2].time_us = 60 * SECOND;
    many[3].token = leases[3].token;
    many[3].action = TRAMLINE_SETTLE_REJECT;
    many[3].reason = "it is the third";
    REFUSED(tramline_queue_consumer_settle(consumer, many, 4, results), TRAMLINE_CODE_UNKNOWN_LEASE);
    for (int n = 0; n < 4; n++) {
        THAT(results[n].status == (n == 1 ? TRAMLINE_E_REFUSED : TRAMLINE_OK));
        THAT(results[n].code == (n == 1 ? TRAMLINE_CODE_UNKNOWN_LEASE : TRAMLINE_CODE_OK));
    }
    /* Nothing of it is sent where one makes no sense, and each result says so. */
    many[0].token = leases[1].token;
#define BAD(at, field, bad, words)                                                                         \
    {                                                                                                      \
        tramline_settlement_t kept = many[at];                                                             \
        many[at].field = bad;                                                                              \
        memset(results, 0, sizeof results);                                                                \
        EXPECT(tramline_queue_consumer_settle(consumer, many, 4, results), TRAMLINE_E_ARGUMENT, words);    \
        THAT(results[0].status == TRAMLINE_E_ARGUMENT && results[3].status == TRAMLINE_E_ARGUMENT);        \
        many[at] = kept;                                                                                   \
    }
    BAD(2, action, 0, "the action of a settlement is 0");
    BAD(2, action, 6, "the action of a settlement is 6");
    BAD(3, reserved, 1, "reserved");
    BAD(1, time_us, 1, "only a nack and an extend have a time");
    BAD(3, time_us, 1, "only a nack and an extend have a time");
    BAD(1, reason, "why", "only a nack and a reject have one");
    BAD(2, reason, "why", "only a nack and a reject have one");
    BAD(3, reason, "\xff", "reason is not UTF-8");
    BAD(2, time_us, TRAMLINE_FOREVER_US, "at most 49 days");
    EXPECT(tramline_queue_consumer_settle(consumer, NULL, 1, results), TRAMLINE_E_ARGUMENT, "the array is NULL");
    EXPECT(tramline_queue_consumer_settle(consumer, many, 65536, NULL), TRAMLINE_E_ARGUMENT, "the most is 65535");
    OK(tramline_queue_consumer_settle(consumer, NULL, 0, NULL));
    /* That it was not sent is true: the lease is as it was. */
    OK(tramline_queue_consumer_settle(consumer, many, 1, NULL));
    REFUSED(tramline_queue_consumer_ack(consumer, leases[1].token), TRAMLINE_CODE_UNKNOWN_LEASE);
}

/* Two partitions, of two shards: one call settles in both; closing gives back what nobody was handed. */
static void over_two_partitions(tramline_client_t client) {
    tramline_queue_consumer_t consumer, next;
    tramline_queue_consumer_metrics_t metrics;
    const tramline_message_t *const *messages;
    static tramline_settlement_t many[300];
    static tramline_settled_t results[300];
    size_t count, held = 0;
    int seen[2] = {0, 0};
    for (int n = 0; n < 50; n++) {
        send(client, "two", 4, 6); /* without 3, whose message id is delivered once */
    }
    OK(tramline_queue_consumer_open(client, "pair", NULL, &consumer));
    while (held < 300 && failed == 0) {
        OK(tramline_queue_consumer_receive(consumer, 7, 60 * SECOND, &messages, &count));
        THAT(count >= 1 && count <= 7);
        for (size_t n = 0; n < count && held < 300; n++) {
            many[held++] = (tramline_settlement_t){messages[n]->token, NULL, 0, TRAMLINE_SETTLE_ACK, 0};
            seen[messages[n]->partition & 1]++;
        }
    }
    THAT(held == 300 && seen[0] > 0 && seen[1] > 0);
    memset(results, 1, sizeof results);
    OK(tramline_queue_consumer_settle(consumer, many, held, results));
    for (size_t n = 0; n < held; n++) {
        THAT(results[n].status == TRAMLINE_OK && results[n].code == TRAMLINE_CODE_OK);
    }
    OK(tramline_queue_consumer_metrics(consumer, &metrics, sizeof metrics));
    THAT(metrics.struct_size == sizeof metrics && metrics.messages == 300 && metrics.settled == 300 && metrics.receives_sent > 0);
    THAT(metrics.refusals == 0 && metrics.corrupt_batches == 0 && metrics.connections_opened >= 1 && metrics.bytes_received > 0);
    /* Handed out, and left when it closes: the lease stays, and so does the token. */
    send(client, "two", 7, 1);
    struct lease lease = TAKE(consumer, 7);
    OK(tramline_queue_consumer_close(consumer, TRAMLINE_FOREVER_US));
    OK(tramline_queue_consumer_open(client, "pair", NULL, &next));
    OK(tramline_queue_consumer_receive(next, 1, 0, &messages, &count));
    THAT(count == 0);
    OK(tramline_queue_consumer_ack(next, lease.token));
    OK(tramline_queue_consumer_close(next, 10 * SECOND));
}

static void refused(tramline_queue_consumer_t consumer, tramline_status_t status, const char *words) {
    const tramline_message_t *const *messages;
    tramline_settlement_t settlement = {{1, 2, 3}, NULL, 0, TRAMLINE_SETTLE_ACK, 0};
    tramline_settled_t result = {TRAMLINE_OK, 0};
    tramline_queue_consumer_metrics_t metrics;
    size_t count = 7;
    EXPECT(tramline_queue_consumer_receive(consumer, 1, 0, &messages, &count), status, words);
    THAT(count == 0 && messages == NULL);
    EXPECT(tramline_queue_consumer_ack(consumer, settlement.token), status, words);
    EXPECT(tramline_queue_consumer_nack(consumer, settlement.token, 0, NULL), status, words);
    EXPECT(tramline_queue_consumer_extend(consumer, settlement.token, SECOND), status, words);
    EXPECT(tramline_queue_consumer_release(consumer, settlement.token), status, words);
    EXPECT(tramline_queue_consumer_reject(consumer, settlement.token, NULL), status, words);
    EXPECT(tramline_queue_consumer_settle(consumer, &settlement, 1, &result), status, words);
    THAT(result.status == status);
    EXPECT(tramline_queue_consumer_metrics(consumer, &metrics, sizeof metrics), status, words);
    EXPECT(tramline_queue_consumer_close(consumer, 0), status, words);
}

static void arguments(tramline_client_t client, tramline_queue_consumer_t consumer) {
    const tramline_message_t *const *messages;
    tramline_token_t token = {1, 2, 3};
    tramline_queue_consumer_options_t options;
    tramline_queue_consumer_t opened = {7};
    char long_text[258];
    size_t count;
    memset(long_text, 'x', 257);
    long_text[257] = 0;
    EXPECT(tramline_queue_consumer_options_defaults(NULL, sizeof options), TRAMLINE_E_ARGUMENT, "options is NULL");
    EXPECT(tramline_queue_consumer_options_defaults(&options, 0), TRAMLINE_E_ARGUMENT, "sizeof");
#define REFUSED_OPTION(field, bad, words)                                                    \
    OK(tramline_queue_consumer_options_defaults(&options, sizeof options));                  \
    options.field = bad;                                                                     \
    EXPECT(tramline_queue_consumer_open(client, "work", &options, &opened), TRAMLINE_E_ARGUMENT, words)
    REFUSED_OPTION(consumer, "", "consumer's bytes must be between 1 and 255");
    REFUSED_OPTION(consumer, long_text, "between 1 and 255, it is 257");
    REFUSED_OPTION(consumer, "\xff", "consumer is not UTF-8");
    REFUSED_OPTION(visibility_us, 99999, "visibility must be between 100ms and");
    REFUSED_OPTION(max_bytes, 0, "max_bytes");
    REFUSED_OPTION(verify_checksums, 2, "verify_checksums is 2");
    REFUSED_OPTION(batch_values_bytes_max, 1, "batch_values_bytes_max");
    REFUSED_OPTION(reserved, 1, "reserved");
    REFUSED_OPTION(struct_size, 0, "struct_size 0");
    THAT(opened.id == 0);
    EXPECT(tramline_queue_consumer_open(client, "work", NULL, NULL), TRAMLINE_E_ARGUMENT, "out is NULL");
    EXPECT(tramline_queue_consumer_open(client, NULL, NULL, &opened), TRAMLINE_E_ARGUMENT, "queue is NULL");
    REFUSED(tramline_queue_consumer_open(client, "nowhere", NULL, &opened), TRAMLINE_CODE_UNKNOWN_QUEUE);

    EXPECT(tramline_queue_consumer_receive(consumer, 0, 0, &messages, &count), TRAMLINE_E_ARGUMENT, "max_messages must be between 1 and 4096");
    EXPECT(tramline_queue_consumer_receive(consumer, 4097, 0, &messages, &count), TRAMLINE_E_ARGUMENT, "max_messages");
    EXPECT(tramline_queue_consumer_receive(consumer, 1, TRAMLINE_FOREVER_US, &messages, &count), TRAMLINE_E_ARGUMENT, "wait must be between 0ns and 3600s");
    EXPECT(tramline_queue_consumer_receive(consumer, 1, 0, NULL, &count), TRAMLINE_E_ARGUMENT, "messages is NULL");
    EXPECT(tramline_queue_consumer_receive(consumer, 1, 0, &messages, NULL), TRAMLINE_E_ARGUMENT, "count is NULL");
    EXPECT(tramline_queue_consumer_nack(consumer, token, TRAMLINE_DELAY_BY_POLICY_US - 1, NULL), TRAMLINE_E_ARGUMENT, "at most 49 days");
    EXPECT(tramline_queue_consumer_nack(consumer, token, 0, long_text), TRAMLINE_E_ARGUMENT, "at most 256 bytes");
    EXPECT(tramline_queue_consumer_reject(consumer, token, long_text), TRAMLINE_E_ARGUMENT, "at most 256 bytes");
    EXPECT(tramline_queue_consumer_reject(consumer, token, "\xff"), TRAMLINE_E_ARGUMENT, "reason is not UTF-8");
    EXPECT(tramline_queue_consumer_extend(consumer, token, TRAMLINE_FOREVER_US), TRAMLINE_E_ARGUMENT, "at most 49 days");
    EXPECT(tramline_queue_consumer_metrics(consumer, NULL, 0), TRAMLINE_E_ARGUMENT, "out is NULL");

    EXPECT(tramline_queue_create(client, NULL, "one", TRAMLINE_START_EARLIEST, 0, NULL, 0, 0, NULL), TRAMLINE_E_ARGUMENT, "queue is NULL");
    EXPECT(tramline_queue_create(client, "q", NULL, TRAMLINE_START_EARLIEST, 0, NULL, 0, 0, NULL), TRAMLINE_E_ARGUMENT, "topic is NULL");
    EXPECT(tramline_queue_create(client, "q", "one", TRAMLINE_START_OFFSET, 3, NULL, 0, 0, NULL), TRAMLINE_E_ARGUMENT, "TRAMLINE_START_OFFSET");
    EXPECT(tramline_queue_create(client, "q", "one", TRAMLINE_START_LATEST, 3, NULL, 0, 0, NULL), TRAMLINE_E_ARGUMENT, "at is 3");
    EXPECT(tramline_queue_create(client, "q", "one", TRAMLINE_START_LATEST, 0, NULL, 1, 0, NULL), TRAMLINE_E_ARGUMENT, "the array is NULL");
    EXPECT(tramline_queue_create(client, "q", "one", TRAMLINE_START_LATEST, 0, NULL, 0, 2, NULL), TRAMLINE_E_ARGUMENT, "flags is 0x2");
    EXPECT(tramline_queue_delete(client, NULL), TRAMLINE_E_ARGUMENT, "queue is NULL");
    REFUSED(tramline_queue_create(client, "q", "nowhere", TRAMLINE_START_LATEST, 0, NULL, 0, 0, NULL), TRAMLINE_CODE_UNKNOWN_TOPIC);
    REFUSED(tramline_queue_create(client, "..", "one", TRAMLINE_START_LATEST, 0, NULL, 0, 0, NULL), TRAMLINE_CODE_INVALID_QUEUE_NAME);
    EXPECT(tramline_queue_create((tramline_client_t){0}, "q", "one", TRAMLINE_START_LATEST, 0, NULL, 0, 0, NULL), TRAMLINE_E_HANDLE, "null");
    EXPECT(tramline_queue_delete((tramline_client_t){0}, "q"), TRAMLINE_E_HANDLE, "null");
    EXPECT(tramline_queue_consumer_open((tramline_client_t){consumer.id}, "work", NULL, &opened), TRAMLINE_E_HANDLE, "handle of a queue consumer, a client");
}

static void *waits(void *user) {
    tramline_queue_consumer_t *consumer = user;
    const tramline_message_t *const *messages;
    size_t count = 0;
    tramline_status_t status;
    do { /* the other thread may look at it just now */
        status = tramline_queue_consumer_receive(*consumer, 1, 600 * SECOND, &messages, &count);
    } while (status == TRAMLINE_E_BUSY);
    OK(status);
    THAT(count == 1);
    return NULL;
}

/* While one thread waits in a receive, nobody else gets in. */
static void in_use(tramline_client_t client, tramline_queue_consumer_t consumer) {
    tramline_queue_consumer_metrics_t metrics;
    pthread_t thread;
    THAT(pthread_create(&thread, NULL, waits, &consumer) == 0);
    while (tramline_queue_consumer_metrics(consumer, &metrics, sizeof metrics) == TRAMLINE_OK) {
    }
    refused(consumer, TRAMLINE_E_BUSY, "in use");
    send(client, "one", 8, 1);
    THAT(pthread_join(thread, NULL) == 0);
}

int main(void) {
    tramline_client_t client;
    tramline_queue_consumer_t consumer;
    tramline_queue_consumer_options_t options;
    tramline_setting_t settings[] = {{"retry.initial.ms", "10"}, {"retry.max.ms", "10"}};
    struct lease leases[6];
    uint64_t uid = 0, same = 1;
    memset(leases, 0, sizeof leases);
    setvbuf(stdout, NULL, _IOLBF, 0);
    OK(tramline_client_connect(getenv("TRAMLINE_SERVER"), NULL, &client));
    OK(tramline_topic_create(client, "one", 1, NULL, 0, 0, NULL));
    OK(tramline_topic_create(client, "two", 2, NULL, 0, 0, NULL));
    OK(tramline_queue_create(client, "work", "one", TRAMLINE_START_EARLIEST, 0, settings, 2, 0, &uid));
    OK(tramline_queue_create(client, "work", "one", TRAMLINE_START_LATEST, 0, NULL, 0, TRAMLINE_QUEUE_IF_NOT_EXISTS, &same));
    THAT(uid != 0 && uid == same);
    REFUSED(tramline_queue_create(client, "work", "one", TRAMLINE_START_EARLIEST, 0, NULL, 0, 0, NULL), TRAMLINE_CODE_QUEUE_EXISTS);
    OK(tramline_queue_create(client, "pair", "two", TRAMLINE_START_TIME, TIME_US, NULL, 0, 0, NULL));

    OK(tramline_queue_consumer_options_defaults(&options, sizeof options));
    THAT(options.struct_size == sizeof options && options.consumer == NULL && options.visibility_us == 0 && options.max_bytes == 1 << 20);
    options.consumer = "queues.c";
    options.visibility_us = 600 * SECOND;
    OK(tramline_queue_consumer_open(client, "work", &options, &consumer));
    receive_all(client, consumer, leases);
    settle_each(consumer, leases);
    tokens(client, consumer, leases);
    settle_many(consumer, leases);
    over_two_partitions(client);
    arguments(client, consumer);
    in_use(client, consumer);
    OK(tramline_queue_consumer_close(consumer, TRAMLINE_FOREVER_US));

    refused(consumer, TRAMLINE_E_HANDLE, "was closed");
    refused((tramline_queue_consumer_t){0}, TRAMLINE_E_HANDLE, "the handle is null");
    refused((tramline_queue_consumer_t){client.id}, TRAMLINE_E_HANDLE, "the handle of a client, a queue consumer is needed");
    OK(tramline_client_close(client));
    printf("%d tried, %d failed\n", tried, failed);
    return failed == 0 ? 0 : 1;
}
