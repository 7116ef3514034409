/*
 * Sends the lines of standard input to a topic, and tells what became of them.
 *
 *     cc produce.c -o produce $(pkg-config --cflags --libs tramline)
 *     seq 1000 | ./produce numbers
 *
 * The broker is found through TRAMLINE_SERVER (default 127.0.0.1:7410). The topic is created if it does not exist.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <tramline.h>

/* What became of the records so far. */
struct tally {
    unsigned long long acknowledged;
    unsigned long long failed;
};

static void on_delivery(const tramline_delivery_t *delivery, void *user) {
    struct tally *tally = user;
    if (delivery->status == TRAMLINE_OK) {
        tally->acknowledged++;
    } else {
        tally->failed++;
        fprintf(stderr, "line %llu: %s\n", (unsigned long long)delivery->tag, delivery->message);
    }
}

/* Ends the program with the library's sentence unless the call did what was asked. */
static void check(tramline_status_t status, const char *doing) {
    if (status != TRAMLINE_OK) {
        char sentence[1024];
        tramline_last_error(sentence, sizeof sentence);
        fprintf(stderr, "produce: %s: %s (%s)\n", doing, sentence, tramline_status_name(status));
        exit(1);
    }
}

int main(int argc, char **argv) {
    const char *topic = argc > 1 ? argv[1] : "lines";
    const char *servers = getenv("TRAMLINE_SERVER");

    tramline_client_t client;
    check(tramline_client_connect(servers ? servers : "127.0.0.1:7410", NULL, &client), "connecting");
    check(tramline_topic_create(client, topic, 4, NULL, 0, TRAMLINE_TOPIC_IF_NOT_EXISTS, NULL), "creating the topic");

    tramline_producer_options_t options;
    check(tramline_producer_options_defaults(&options, sizeof options), "options");
    options.level = TRAMLINE_LEVEL_DURABLE;
    tramline_producer_t producer;
    check(tramline_producer_open(client, &options, &producer), "opening the producer");

    struct tally tally = {0, 0};
    tramline_record_t record = TRAMLINE_RECORD_INIT;
    record.topic = topic;
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    while ((length = getline(&line, &room, stdin)) >= 0) {
        if (length > 0 && line[length - 1] == '\n') {
            length--;
        }
        record.value = line;
        record.value_len = (size_t)length;
        record.tag++; /* the number of the line: it comes back with the delivery */
        check(tramline_producer_send(producer, &record), "sending");
        /* Nothing moves by itself: this sends what is open as soon as there is room on the wire, and does not wait. */
        check(tramline_producer_poll(producer, 0, NULL), "polling");
        check(tramline_producer_drain(producer, on_delivery, &tally, NULL), "draining");
    }
    free(line);

    check(tramline_producer_flush(producer, 30 * 1000000ull), "flushing");
    check(tramline_producer_drain(producer, on_delivery, &tally, NULL), "draining");
    printf("%llu acknowledged, %llu failed\n", tally.acknowledged, tally.failed);

    check(tramline_producer_close(producer), "closing the producer");
    check(tramline_client_close(client), "closing the client");
    return tally.failed == 0 ? 0 : 1;
}
