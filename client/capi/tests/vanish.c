/*
 * A server that goes away under a program that uses everything: each call returns a documented status, each record gets its fate, the program lives. Run by tests/capi.rs:
 * vanish HOST:PORT. Says "ready" when all is well and the server may be killed, and goes on when a line comes.
 *
 * Not here: what the client does about it when the server comes back (the Rust client's tests).
 */
#include <stdio.h>
#include <string.h>
#include <tramline.h>

#include "expect.h"

struct fates {
    int acknowledged;
    int timed_out;
    int other;
};

static void on_delivery(const tramline_delivery_t *delivery, void *user) {
    struct fates *fates = user;
    if (delivery->status == TRAMLINE_OK) {
        fates->acknowledged++;
        THAT(delivery->offset != TRAMLINE_OFFSET_NONE && delivery->level == TRAMLINE_LEVEL_DURABLE && delivery->message == NULL);
        return;
    }
    /* Sent and not answered, or never sent. */
    if (delivery->status == TRAMLINE_E_UNKNOWN_OUTCOME || delivery->status == TRAMLINE_E_TIMEOUT) {
        fates->timed_out++;
    } else {
        fates->other++;
        printf("a delivery: %s: %s\n", tramline_status_name(delivery->status), delivery->message);
    }
    THAT(delivery->offset == TRAMLINE_OFFSET_NONE && delivery->message != NULL && strlen(delivery->message) == delivery->message_len);
    THAT(delivery->tag >= 2);
}

static int on_record(const tramline_record_view_t *record, void *user) {
    (void)record;
    ++*(int *)user;
    return 0;
}

int main(int argc, char **argv) {
    tramline_client_t client, another;
    tramline_producer_t producer;
    tramline_consumer_t consumer;
    tramline_queue_consumer_t worker;
    const tramline_message_t *const *messages;
    tramline_token_t token = {0, 0, 0};
    tramline_client_options_t client_options;
    tramline_producer_options_t producer_options;
    tramline_record_t record = TRAMLINE_RECORD_INIT;
    struct fates fates = {0, 0, 0};
    int records = 0;
    size_t count;
    char line[16];
    if (argc != 2) {
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    tramline_client_options_defaults(&client_options, sizeof client_options);
    client_options.connect_timeout_us = 500000;
    client_options.request_timeout_us = 500000;
    client_options.call_timeout_us = 500000;
    THAT(tramline_client_connect(argv[1], &client_options, &client) == TRAMLINE_OK);
    THAT(tramline_topic_create(client, "vanish", 1, NULL, 0, 0, NULL) == TRAMLINE_OK);
    tramline_producer_options_defaults(&producer_options, sizeof producer_options);
    producer_options.delivery_timeout_us = 1000000;
    THAT(tramline_producer_open(client, &producer_options, &producer) == TRAMLINE_OK);
    THAT(tramline_consumer_open(client, NULL, &consumer) == TRAMLINE_OK);
    THAT(tramline_consumer_assign(consumer, "vanish", TRAMLINE_PARTITION_ALL, TRAMLINE_START_EARLIEST, 0, NULL) == TRAMLINE_OK);
    record.topic = "vanish";
    record.value = "here";
    record.value_len = 4;
    record.tag = 1;
    THAT(tramline_producer_send(producer, &record) == TRAMLINE_OK);
    THAT(tramline_producer_flush(producer, TRAMLINE_FOREVER_US) == TRAMLINE_OK);
    THAT(tramline_producer_drain(producer, on_delivery, &fates, NULL) == TRAMLINE_OK && fates.acknowledged == 1);
    THAT(tramline_consumer_poll(consumer, TRAMLINE_FOREVER_US, on_record, &records, &count) == TRAMLINE_OK && count == 1 && records == 1);
    THAT(tramline_queue_create(client, "vanish", "vanish", TRAMLINE_START_EARLIEST, 0, NULL, 0, 0, NULL) == TRAMLINE_OK);
    THAT(tramline_queue_consumer_open(client, "vanish", NULL, &worker) == TRAMLINE_OK);
    THAT(tramline_queue_consumer_receive(worker, 1, 60000000, &messages, &count) == TRAMLINE_OK && count == 1);
    if (count == 1) {
        token = messages[0]->token;
    }

    puts("ready");
    if (fgets(line, sizeof line, stdin) == NULL) {
        return 2;
    }

    record.tag = 2;
    THAT(tramline_producer_send(producer, &record) == TRAMLINE_OK);
    record.tag = 3;
    THAT(tramline_producer_send(producer, &record) == TRAMLINE_OK);
    THAT(tramline_producer_flush(producer, 100000) == TRAMLINE_E_TIMEOUT);
    THAT(tramline_producer_trouble(producer) == TRAMLINE_E_IO);
    THAT(tramline_producer_outstanding(producer, &count) == TRAMLINE_OK && count == 2);
    THAT(tramline_producer_flush(producer, TRAMLINE_FOREVER_US) == TRAMLINE_OK);
    THAT(tramline_producer_drain(producer, on_delivery, &fates, NULL) == TRAMLINE_OK);
    THAT(fates.acknowledged == 1 && fates.timed_out == 2 && fates.other == 0);

    /* Told once the broker was not reached for call_timeout_us. */
    tramline_status_t status;
    do {
        status = tramline_consumer_poll(consumer, TRAMLINE_FOREVER_US, on_record, &records, &count);
        THAT(count == 0);
    } while (status == TRAMLINE_OK);
    THAT(status == TRAMLINE_E_IO || status == TRAMLINE_E_TIMEOUT);
    THAT(tramline_consumer_read_to_end(consumer, TRAMLINE_FOREVER_US, on_record, &records, &count) == TRAMLINE_E_TIMEOUT && count == 0);
    THAT(tramline_consumer_seek(consumer, "vanish", 0, TRAMLINE_START_EARLIEST, 0) == TRAMLINE_E_TIMEOUT);

    /* It was sent, or not; a message that was received is there all the same. */
    status = tramline_queue_consumer_ack(worker, token);
    THAT(status == TRAMLINE_E_TIMEOUT || status == TRAMLINE_E_UNKNOWN_OUTCOME);
    THAT(messages[0]->value_len == 4 && memcmp(messages[0]->value, "here", 4) == 0);
    do {
        status = tramline_queue_consumer_receive(worker, 1, 1000000, &messages, &count);
        THAT(count == 0 && messages == NULL);
    } while (status == TRAMLINE_OK);
    THAT(status == TRAMLINE_E_IO || status == TRAMLINE_E_TIMEOUT);
    status = tramline_queue_consumer_close(worker, 100000);
    THAT(status == TRAMLINE_OK || status == TRAMLINE_E_TIMEOUT);
    THAT(tramline_queue_consumer_ack(worker, token) == TRAMLINE_E_HANDLE);

    THAT(tramline_client_ping(client, NULL) == TRAMLINE_E_TIMEOUT);
    tramline_error_t error;
    THAT(tramline_last_error_details(&error, sizeof error) == TRAMLINE_OK && error.retriable == 1);
    THAT(tramline_topic_create(client, "another", 1, NULL, 0, 0, NULL) == TRAMLINE_E_TIMEOUT);
    THAT(tramline_topic_delete(client, "vanish") == TRAMLINE_E_TIMEOUT);
    THAT(tramline_client_connect(argv[1], &client_options, &another) == TRAMLINE_E_IO);

    THAT(tramline_producer_close(producer) == TRAMLINE_OK);
    THAT(tramline_consumer_close(consumer) == TRAMLINE_OK);
    THAT(tramline_client_close(client) == TRAMLINE_OK);
    printf("%d failed\n", failed);
    return failed == 0 ? 0 : 1;
}
