/*
 * The lowest latency: one record at a time, from send to its acknowledgement and from send to its consumer, on sockets that are polled without sleeping.
 *
 *     cc -O2 busy_poll.c -o busy_poll $(pkg-config --cflags --libs tramline)
 *     ./busy_poll latency 10000
 *
 * The broker is found through TRAMLINE_SERVER (default 127.0.0.1:7410). The topic is created with one partition if it does not exist. Best with a core of its own for
 * this program (taskset), besides those of the broker.
 */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tramline.h>

static void check(tramline_status_t status, const char *doing) {
    if (status != TRAMLINE_OK) {
        char sentence[1024];
        tramline_last_error(sentence, sizeof sentence);
        fprintf(stderr, "busy_poll: %s: %s (%s)\n", doing, sentence, tramline_status_name(status));
        exit(1);
    }
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* What happened to the record that is under way. */
struct state {
    uint64_t sent_ns;
    uint64_t acknowledged_ns; /* 0: not yet */
    uint64_t arrived_ns;      /* 0: not yet */
    int failed;
};

static void on_delivery(const tramline_delivery_t *delivery, void *user) {
    struct state *state = user;
    state->acknowledged_ns = now_ns();
    if (delivery->status != TRAMLINE_OK) {
        fprintf(stderr, "busy_poll: %s\n", delivery->message);
        state->failed = 1;
    }
}

static int on_record(const tramline_record_view_t *record, void *user) {
    struct state *state = user;
    uint64_t sent_ns;
    if (record->value_len == sizeof sent_ns) {
        memcpy(&sent_ns, record->value, sizeof sent_ns);
        /* Records of others, and of earlier runs, have another time. */
        if (sent_ns == state->sent_ns) {
            state->arrived_ns = now_ns();
        }
    }
    return 0;
}

static int by_size(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

static void tell(const char *what, uint64_t *took_ns, size_t count) {
    qsort(took_ns, count, sizeof *took_ns, by_size);
    printf("%-12s p50 %8.1f us, p99 %8.1f us, max %8.1f us\n", what, (double)took_ns[count / 2] / 1e3, (double)took_ns[count * 99 / 100] / 1e3,
           (double)took_ns[count - 1] / 1e3);
}

int main(int argc, char **argv) {
    const char *topic = argc > 1 ? argv[1] : "latency";
    long asked = argc > 2 ? strtol(argv[2], NULL, 10) : 10000;
    if (asked < 1 || asked > 100000000) {
        fprintf(stderr, "busy_poll: the number of records is between 1 and 100,000,000\n");
        return 2;
    }
    size_t count = (size_t)asked;
    const char *servers = getenv("TRAMLINE_SERVER");

    tramline_client_options_t options;
    check(tramline_client_options_defaults(&options, sizeof options), "options");
    options.client_name = "busy_poll";
    options.busy_poll = 1;
    options.yield_when_empty = 1; /* see tramline.h: 0 only on an isolated core */
    tramline_client_t client;
    check(tramline_client_connect(servers ? servers : "127.0.0.1:7410", &options, &client), "connecting");
    check(tramline_topic_create(client, topic, 1, NULL, 0, TRAMLINE_TOPIC_IF_NOT_EXISTS, NULL), "creating the topic");

    tramline_consumer_t consumer;
    check(tramline_consumer_open(client, NULL, &consumer), "opening the consumer");
    check(tramline_consumer_assign(consumer, topic, TRAMLINE_PARTITION_ALL, TRAMLINE_START_LATEST, 0, NULL), "assigning");
    tramline_producer_t producer;
    check(tramline_producer_open(client, NULL, &producer), "opening the producer");

    uint64_t *to_ack_ns = malloc(count * sizeof *to_ack_ns);
    uint64_t *to_consumer_ns = malloc(count * sizeof *to_consumer_ns);
    if (to_ack_ns == NULL || to_consumer_ns == NULL) {
        fprintf(stderr, "busy_poll: no memory for %zu times\n", count);
        return 1;
    }
    struct state state = {0, 0, 0, 0};
    tramline_record_t record = TRAMLINE_RECORD_INIT;
    record.topic = topic;
    record.partition = 0;
    record.value = &state.sent_ns;
    record.value_len = sizeof state.sent_ns;
    for (size_t n = 0; n < count; n++) {
        memset(&state, 0, sizeof state);
        state.sent_ns = now_ns();
        check(tramline_producer_send(producer, &record), "sending");
        /* Both are driven by this thread, in turn and without waiting: what comes first is seen first. */
        while ((state.acknowledged_ns == 0 || state.arrived_ns == 0) && !state.failed) {
            size_t deliveries;
            check(tramline_producer_poll(producer, 0, &deliveries), "polling the producer");
            if (deliveries > 0) {
                check(tramline_producer_drain(producer, on_delivery, &state, NULL), "draining");
            }
            check(tramline_consumer_poll(consumer, 0, on_record, &state, NULL), "polling the consumer");
        }
        if (state.failed) {
            return 1;
        }
        to_ack_ns[n] = state.acknowledged_ns - state.sent_ns;
        to_consumer_ns[n] = state.arrived_ns - state.sent_ns;
    }

    printf("%zu records of 8 bytes, one at a time\n", count);
    tell("to the ack", to_ack_ns, count);
    tell("to consumer", to_consumer_ns, count);
    free(to_ack_ns);
    free(to_consumer_ns);
    check(tramline_producer_close(producer), "closing the producer");
    check(tramline_consumer_close(consumer), "closing the consumer");
    check(tramline_client_close(client), "closing the client");
    return 0;
}
