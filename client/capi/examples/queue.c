/*
 * A worker of a queue: takes the lines that are in it, prints those that are done, and says of the others what went wrong.
 *
 *     cc queue.c -o queue $(pkg-config --cflags --libs tramline)
 *     ./queue lines
 *
 * Creates the queue on the topic of the same name (produce.c fills it) where it does not exist. A line that is empty can never be done; one that begins with "flaky" fails at its first
 * delivery. Any number of workers may run at once. It ends when nothing has come for two seconds. The broker is found through TRAMLINE_SERVER (default 127.0.0.1:7410).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tramline.h>

/* So many are taken at once: all of them have to be done before their leases are over. */
#define PORTION 50

static void check(tramline_status_t status, const char *doing) {
    if (status != TRAMLINE_OK) {
        char sentence[1024];
        tramline_last_error(sentence, sizeof sentence);
        fprintf(stderr, "queue: %s: %s (%s)\n", doing, sentence, tramline_status_name(status));
        exit(1);
    }
}

/* Does the work of one message, and says what becomes of it. */
static tramline_settlement_t work(const tramline_message_t *message) {
    tramline_settlement_t settlement;
    memset(&settlement, 0, sizeof settlement);
    settlement.token = message->token;
    if (message->value_len == 0) {
        settlement.action = TRAMLINE_SETTLE_REJECT;
        settlement.reason = "an empty line";
    } else if (message->value_len >= 5 && memcmp(message->value, "flaky", 5) == 0 && message->deliveries == 1) {
        settlement.action = TRAMLINE_SETTLE_NACK;
        settlement.time_us = 100000; /* once more in 100 ms */
        settlement.reason = "not the first time";
    } else {
        settlement.action = TRAMLINE_SETTLE_ACK;
    }
    return settlement;
}

/* Whether the message came too late to be settled: somebody else has it, or will have it. */
static int is_late(tramline_settled_t settled) {
    return settled.status == TRAMLINE_E_REFUSED &&
           (settled.code == TRAMLINE_CODE_LEASE_EXPIRED || settled.code == TRAMLINE_CODE_LEASE_LOST || settled.code == TRAMLINE_CODE_UNKNOWN_LEASE);
}

int main(int argc, char **argv) {
    const char *queue = argc > 1 ? argv[1] : "lines";
    const char *servers = getenv("TRAMLINE_SERVER");
    uint64_t done = 0, failed = 0, rejected = 0, late = 0;

    tramline_client_t client;
    check(tramline_client_connect(servers ? servers : "127.0.0.1:7410", NULL, &client), "connecting");
    check(tramline_queue_create(client, queue, queue, TRAMLINE_START_EARLIEST, 0, NULL, 0, TRAMLINE_QUEUE_IF_NOT_EXISTS, NULL), "creating the queue");
    tramline_queue_consumer_t consumer;
    check(tramline_queue_consumer_open(client, queue, NULL, &consumer), "opening the consumer");

    for (;;) {
        const tramline_message_t *const *messages;
        tramline_settlement_t settlements[PORTION];
        tramline_settled_t settled[PORTION];
        size_t count;
        check(tramline_queue_consumer_receive(consumer, PORTION, 2000000, &messages, &count), "receiving");
        if (count == 0) {
            break;
        }
        for (size_t n = 0; n < count; n++) {
            settlements[n] = work(messages[n]);
        }
        /* One request for all of them; its status is that of the first that failed, and each has its own. The messages stay until the next receive. */
        tramline_status_t status = tramline_queue_consumer_settle(consumer, settlements, count, settled);
        for (size_t n = 0; n < count; n++) {
            if (is_late(settled[n])) {
                late++;
            } else if (settled[n].status != TRAMLINE_OK) {
                check(status, "settling");
            } else if (settlements[n].action == TRAMLINE_SETTLE_ACK) {
                done++;
                printf("%" PRIu32 "/%" PRIu64 "\t%.*s\n", messages[n]->partition, messages[n]->offset, (int)messages[n]->value_len, (const char *)messages[n]->value);
            } else if (settlements[n].action == TRAMLINE_SETTLE_NACK) {
                failed++;
            } else {
                rejected++;
            }
        }
    }
    fprintf(stderr, "%" PRIu64 " done, %" PRIu64 " failed once, %" PRIu64 " rejected, %" PRIu64 " too late\n", done, failed, rejected, late);

    check(tramline_queue_consumer_close(consumer, 10 * 1000000ull), "closing the consumer");
    check(tramline_client_close(client), "closing the client");
    return fflush(stdout) == 0 ? 0 : 1;
}
