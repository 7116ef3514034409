/*
 * Prints the records of a topic, from the earliest to the end as it is when this starts: partition/offset, key, value, headers, separated by tabs.
 *
 *     cc consume.c -o consume $(pkg-config --cflags --libs tramline)
 *     ./consume numbers
 *
 * The broker is found through TRAMLINE_SERVER (default 127.0.0.1:7410).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <tramline.h>

/* A record and all it points at are the library's, and gone when this returns: use them here, or copy them. */
static int on_record(const tramline_record_view_t *record, void *user) {
    FILE *out = user;
    fprintf(out, "%" PRIu32 "/%" PRIu64 "\t", record->partition, record->offset);
    /* NULL and empty are not the same: no key, and a key of no bytes. */
    if (record->key != NULL) {
        fwrite(record->key, 1, record->key_len, out);
    } else {
        fputc('-', out);
    }
    fputc('\t', out);
    if (record->value != NULL) {
        fwrite(record->value, 1, record->value_len, out);
    } else {
        fputs("(tombstone)", out);
    }
    for (size_t n = 0; n < record->header_count; n++) {
        const tramline_header_t *header = &record->headers[n];
        fprintf(out, "\t%.*s=%.*s", (int)header->name_len, header->name, (int)header->value_len, (const char *)header->value);
    }
    fputc('\n', out);
    return ferror(out); /* anything but 0 ends the call: nobody reads what we write */
}

static void check(tramline_status_t status, const char *doing) {
    if (status != TRAMLINE_OK) {
        char sentence[1024];
        tramline_last_error(sentence, sizeof sentence);
        fprintf(stderr, "consume: %s: %s (%s)\n", doing, sentence, tramline_status_name(status));
        exit(1);
    }
}

int main(int argc, char **argv) {
    const char *topic = argc > 1 ? argv[1] : "lines";
    const char *servers = getenv("TRAMLINE_SERVER");

    tramline_client_t client;
    check(tramline_client_connect(servers ? servers : "127.0.0.1:7410", NULL, &client), "connecting");
    tramline_consumer_t consumer;
    check(tramline_consumer_open(client, NULL, &consumer), "opening the consumer");
    check(tramline_consumer_assign(consumer, topic, TRAMLINE_PARTITION_ALL, TRAMLINE_START_EARLIEST, 0, NULL), "assigning");

    size_t count = 0;
    check(tramline_consumer_read_to_end(consumer, 60 * 1000000ull, on_record, stdout, &count), "reading");
    fprintf(stderr, "%zu records\n", count);

    check(tramline_consumer_close(consumer), "closing the consumer");
    check(tramline_client_close(client), "closing the client");
    return fflush(stdout) == 0 ? 0 : 1;
}
