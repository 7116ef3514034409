/*
 * What the examples do not show: keys, headers, tombstones, all codecs, a chosen partition, given times, weaker levels; reading from offsets and times, pauses, stops, metrics.
 * Run by tests/capi.rs, which reads the topic "keys" afterwards. Uses TRAMLINE_SERVER.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tramline.h>

#include "expect.h"

#define TIME_US 1700000000000000

/* Deliveries: each tag once. */
struct fates {
    unsigned char seen[1000];
    size_t count;
    uint32_t level;
};

static void on_delivery(const tramline_delivery_t *delivery, void *user) {
    struct fates *fates = user;
    fates->count++;
    THAT(delivery->status == TRAMLINE_OK && delivery->code == TRAMLINE_CODE_OK && delivery->message == NULL && delivery->message_len == 0);
    THAT(delivery->level == fates->level && (delivery->offset != TRAMLINE_OFFSET_NONE || fates->level == TRAMLINE_LEVEL_NONE));
    THAT(delivery->tag < 1000 && fates->seen[delivery->tag]++ == 0);
    THAT(delivery->topic_len > 0);
}

/* 100 records with each codec, with the keys "key 0" to "key 399". */
static void send_keys(tramline_client_t client) {
    for (uint32_t compression = TRAMLINE_COMPRESSION_NONE; compression <= TRAMLINE_COMPRESSION_SNAPPY; compression++) {
        tramline_producer_options_t options;
        tramline_producer_t producer;
        tramline_producer_metrics_t metrics;
        static struct fates fates;
        size_t waiting;
        char value[1000];
        memset(&fates, 0, sizeof fates);
        memset(value, 'v', sizeof value);
        fates.level = TRAMLINE_LEVEL_DURABLE;
        OK(tramline_producer_options_defaults(&options, sizeof options));
        options.compression = compression;
        OK(tramline_producer_open(client, &options, &producer));
        for (unsigned n = compression * 100; n < compression * 100 + 100; n++) {
            char key[32];
            tramline_record_t record = TRAMLINE_RECORD_INIT;
            tramline_header_t headers[2] = {{"n", 1, key, 0}, {NULL, 0, NULL, 0}};
            record.topic = "keys";
            record.key = key;
            record.key_len = (size_t)snprintf(key, sizeof key, "key %u", n);
            headers[0].value_len = record.key_len;
            record.headers = headers;
            record.header_count = 2;
            if (n % 10 != 9) {
                record.value = value;
                record.value_len = n;
            }
            record.timestamp_us = TIME_US + n;
            record.tag = n;
            record.priority = n % 10;
            record.ttl_ms = n == 5 ? UINT32_MAX : 0;
            record.deliver_at_us = n == 5 ? TIME_US : 0;
            record.group = n == 5 ? "group" : NULL;
            record.group_len = n == 5 ? 5 : 0;
            record.message_id = n == 5 ? "id" : NULL;
            record.message_id_len = n == 5 ? 2 : 0;
            OK(tramline_producer_send(producer, &record));
            memset(key, 0, sizeof key); /* it was copied */
        }
        OK(tramline_producer_flush(producer, TRAMLINE_FOREVER_US));
        OK(tramline_producer_poll(producer, 0, &waiting));
        THAT(waiting == 100);
        OK(tramline_producer_drain(producer, on_delivery, &fates, &waiting));
        THAT(waiting == 100 && fates.count == 100);
        OK(tramline_producer_metrics(producer, &metrics, sizeof metrics));
        THAT(metrics.struct_size == sizeof metrics && metrics.records_taken == 100 && metrics.records_acknowledged == 100 && metrics.records_failed == 0);
        THAT(metrics.batches_sent >= 1 && metrics.bytes_sent > 0 && metrics.connections_opened >= 1 && metrics.held_bytes == 0);
        OK(tramline_producer_close(producer));
    }
}

/* 100 records into partition 1 of the topic "levels" at each level. */
static void send_levels(tramline_client_t client) {
    for (uint32_t level = TRAMLINE_LEVEL_NONE; level <= TRAMLINE_LEVEL_DURABLE; level++) {
        tramline_producer_options_t options;
        tramline_producer_t producer;
        static struct fates fates;
        memset(&fates, 0, sizeof fates);
        OK(tramline_producer_options_defaults(&options, sizeof options));
        options.level = level;
        options.idempotent = 0;
        OK(tramline_producer_open(client, &options, &producer));
        for (unsigned n = 0; n < 100; n++) {
            tramline_record_t record;
            OK(tramline_record_defaults(&record, sizeof record));
            record.topic = "levels";
            record.partition = 1;
            record.value = &n;
            record.value_len = sizeof n;
            record.tag = n;
            OK(tramline_producer_send(producer, &record));
        }
        OK(tramline_producer_flush(producer, TRAMLINE_FOREVER_US));
        /* A single node reaches no more and no less than it was asked for, or the stronger level that is the same there. */
        fates.level = level;
        OK(tramline_producer_drain(producer, on_delivery, &fates, NULL));
        THAT(fates.count == 100);
        if (level == TRAMLINE_LEVEL_DURABLE) {
            uint64_t end;
            OK(tramline_producer_durable_end(producer, "levels", 1, &end));
            THAT(end >= 400 && end != TRAMLINE_OFFSET_NONE);
        }
        OK(tramline_producer_close(producer));
    }
}

/* What a consumer got. */
struct got {
    size_t count;
    size_t stop_at;     /* 0: never */
    uint64_t first;     /* offset of the first record of a call */
    uint64_t next[4];   /* by partition: the offset after the last record */
    int64_t earliest_us;
};

static int on_record(const tramline_record_view_t *record, void *user) {
    struct got *got = user;
    if (got->count++ == 0) {
        got->first = record->offset;
    }
    THAT(record->partition < 4 && record->offset >= got->next[record->partition]);
    THAT(record->append_time_us > TIME_US && record->topic_len > 0 && record->struct_size == sizeof *record);
    if (record->key != NULL) {
        THAT(record->header_count == 2 && record->headers[0].name_len == 1 && record->headers[0].name[0] == 'n');
        THAT(record->headers[0].value_len == record->key_len && memcmp(record->headers[0].value, record->key, record->key_len) == 0);
        THAT(record->headers[1].name_len == 0 && record->headers[1].value_len == 0);
    } else {
        THAT(record->header_count == 0);
    }
    if (record->timestamp_us < got->earliest_us) {
        got->earliest_us = record->timestamp_us;
    }
    got->next[record->partition] = record->offset + 1;
    return got->count == got->stop_at;
}

static struct got nothing(size_t stop_at) {
    struct got got = {0, stop_at, 0, {0, 0, 0, 0}, INT64_MAX};
    return got;
}

static void read_back(tramline_client_t client) {
    tramline_consumer_t consumer;
    tramline_consumer_metrics_t metrics;
    struct got got = nothing(0);
    uint32_t partitions = 0;
    uint64_t offset, first, end;
    size_t count;
    OK(tramline_consumer_open(client, NULL, &consumer));
    OK(tramline_consumer_assign(consumer, "keys", TRAMLINE_PARTITION_ALL, TRAMLINE_START_EARLIEST, 0, &partitions));
    THAT(partitions == 4);
    OK(tramline_consumer_read_to_end(consumer, TRAMLINE_FOREVER_US, on_record, &got, &count));
    THAT(count == 400 && got.count == 400 && got.earliest_us == TIME_US);

    /* One partition: from an offset, stopped in the middle, and on from there. */
    for (uint32_t partition = 0; partition < 4; partition++) {
        OK(tramline_consumer_unassign(consumer, "keys", partition));
    }
    OK(tramline_consumer_assign(consumer, "levels", 1, TRAMLINE_START_OFFSET, 7, &partitions));
    THAT(partitions == 1);
    OK(tramline_consumer_position(consumer, "levels", 1, &offset));
    THAT(offset == 7);
    got = nothing(3);
    OK(tramline_consumer_poll(consumer, TRAMLINE_FOREVER_US, on_record, &got, &count));
    THAT(count == 3 && got.first == 7);
    OK(tramline_consumer_position(consumer, "levels", 1, &offset));
    THAT(offset == 10);
    got = nothing(5);
    OK(tramline_consumer_read_to_end(consumer, TRAMLINE_FOREVER_US, on_record, &got, &count));
    THAT(count == 5 && got.first == 10 && got.next[1] == 15);

    /* Paused: nothing comes, and the end is not waited for. */
    OK(tramline_consumer_pause(consumer, "levels", 1));
    OK(tramline_consumer_pause(consumer, "levels", 1));
    OK(tramline_consumer_poll(consumer, 10000, on_record, &got, &count));
    THAT(count == 0);
    OK(tramline_consumer_read_to_end(consumer, TRAMLINE_FOREVER_US, on_record, &got, &count));
    THAT(count == 0);
    OK(tramline_consumer_resume(consumer, "levels", 1));
    got = nothing(0);
    OK(tramline_consumer_read_to_end(consumer, TRAMLINE_FOREVER_US, on_record, &got, &count));
    THAT(got.first == 15 && got.next[1] == 500 && count == 485);
    OK(tramline_consumer_range(consumer, "levels", 1, &first, &end));
    THAT(first == 0 && end == 500);

    /* By time, latest, and back. */
    OK(tramline_consumer_seek(consumer, "levels", 1, TRAMLINE_START_TIME, TIME_US));
    OK(tramline_consumer_position(consumer, "levels", 1, &offset));
    THAT(offset == 0);
    OK(tramline_consumer_seek(consumer, "levels", 1, TRAMLINE_START_LATEST, 0));
    OK(tramline_consumer_position(consumer, "levels", 1, &offset));
    THAT(offset == 500);
    OK(tramline_consumer_poll(consumer, 1000, on_record, &got, &count));
    THAT(count == 0);
    OK(tramline_consumer_metrics(consumer, &metrics, sizeof metrics));
    THAT(metrics.struct_size == sizeof metrics && metrics.records >= 893 && metrics.bytes_received > 0 && metrics.corrupt_batches == 0);
    OK(tramline_consumer_close(consumer));
}

/* What a member heard: records, and partitions that came, went, were lost. */
struct heard {
    size_t records;
    size_t parts[3];
    uint64_t commits;
    tramline_member_t member;
};

static int on_members_record(const tramline_record_view_t *record, void *user) {
    struct heard *heard = user;
    THAT(record->topic_len == 4 && memcmp(record->topic, "keys", 4) == 0);
    heard->records++;
    return 0;
}

static void on_parts(int what, tramline_member_part_t *parts, size_t count, void *user) {
    struct heard *heard = user;
    tramline_status_t status;
    THAT(what >= TRAMLINE_PARTS_ASSIGNED && what <= TRAMLINE_PARTS_LOST && count > 0);
    heard->parts[what] += count;
    for (size_t n = 0; n < count; n++) {
        THAT(parts[n].topic_len == 4 && memcmp(parts[n].topic, "keys", 4) == 0 && parts[n].partition < 4);
        THAT(parts[n].commit_offset == TRAMLINE_OFFSET_NONE && (parts[n].position == TRAMLINE_OFFSET_NONE) == (what != TRAMLINE_PARTS_REVOKED));
        if (what == TRAMLINE_PARTS_REVOKED && heard->commits != TRAMLINE_OFFSET_NONE) {
            parts[n].commit_offset = heard->commits;
        }
    }
    /* While it is being closed its handle is one no more. */
    status = tramline_member_commit(heard->member);
    THAT(status == (what == TRAMLINE_PARTS_REVOKED ? TRAMLINE_E_HANDLE : TRAMLINE_E_BUSY));
}

/* A member that reads all, commits by hand, and goes; and the next one. */
static void share(tramline_client_t client) {
    const char *topics[] = {"keys"};
    tramline_member_options_t options;
    tramline_member_t member;
    struct heard heard = {0, {0, 0, 0}, TRAMLINE_OFFSET_NONE, {0}};
    uint64_t offset, position;
    size_t count;
    OK(tramline_member_options_defaults(&options, sizeof options));
    THAT(options.session_timeout_us == 30000000 && options.auto_commit == 1);
    options.auto_commit = 0;
    options.instance_id = "only";
    OK(tramline_member_open(client, "readers", topics, 1, &options, &member));
    heard.member = member;
    while (heard.records < 400 && failed == 0) {
        OK(tramline_member_poll(member, 60000000, on_members_record, on_parts, &heard, &count));
        THAT(count > 0);
    }
    THAT(heard.records == 400 && heard.parts[TRAMLINE_PARTS_ASSIGNED] == 4);
    OK(tramline_member_committed(member, "keys", 2, &offset));
    THAT(offset == TRAMLINE_OFFSET_NONE);
    OK(tramline_member_commit(member));
    OK(tramline_member_committed(member, "keys", 2, &offset));
    OK(tramline_member_position(member, "keys", 2, &position));
    THAT(offset == position && offset > 1);
    OK(tramline_member_commit_offset(member, "keys", 2, offset - 1, "all but one"));
    OK(tramline_member_pause(member, "keys", 2));
    OK(tramline_member_resume(member, "keys", 2));
    OK(tramline_member_seek(member, "keys", 1, TRAMLINE_START_LATEST, 0));
    THAT(tramline_member_seek(member, "keys", 9, TRAMLINE_START_LATEST, 0) == TRAMLINE_E_ARGUMENT);
    THAT(tramline_member_commit_offset(member, "keys", 9, 1, NULL) == TRAMLINE_E_ARGUMENT);
    THAT(tramline_member_commit_offset(member, "keys", 2, offset + 1000, NULL) == TRAMLINE_E_REFUSED);
    THAT(tramline_last_code() == TRAMLINE_CODE_OFFSET_OUT_OF_RANGE);
    OK(tramline_member_close(member, 60000000, NULL, NULL));
    THAT(tramline_member_commit(member) == TRAMLINE_E_HANDLE && tramline_member_close(member, 0, NULL, NULL) == TRAMLINE_E_HANDLE);

    /* It comes back under its name, reads the one that is left, and says at the end where the next one is to begin. */
    heard.records = 0;
    OK(tramline_member_open(client, "readers", topics, 1, &options, &member));
    heard.member = member;
    /* Each shard says for itself where its partitions begin. */
    while ((heard.records < 1 || heard.parts[TRAMLINE_PARTS_ASSIGNED] < 8) && failed == 0) {
        OK(tramline_member_poll(member, 10000, on_members_record, on_parts, &heard, NULL));
    }
    THAT(heard.records == 1 && heard.parts[TRAMLINE_PARTS_ASSIGNED] == 8 && heard.parts[TRAMLINE_PARTS_LOST] == 0);
    OK(tramline_member_stop_auto_commit(member));
    heard.commits = 3;
    OK(tramline_member_leave(member, 60000000, on_parts, &heard));
    THAT(heard.parts[TRAMLINE_PARTS_REVOKED] == 4);

    /* What makes no sense. */
    options.assignor = 7;
    THAT(tramline_member_open(client, "readers", topics, 1, &options, &member) == TRAMLINE_E_ARGUMENT && member.id == 0);
    options.assignor = TRAMLINE_ASSIGNOR_UNIFORM;
    options.auto_offset_reset = 3;
    THAT(tramline_member_open(client, "readers", topics, 1, &options, &member) == TRAMLINE_E_ARGUMENT);
    options.auto_offset_reset = TRAMLINE_RESET_NONE;
    THAT(tramline_member_open(client, "readers", topics, 0, &options, &member) == TRAMLINE_E_ARGUMENT);
    THAT(tramline_member_open(client, NULL, topics, 1, &options, &member) == TRAMLINE_E_ARGUMENT);
    OK(tramline_member_open(client, "newcomers", topics, 1, &options, &member));
    heard.member = member;
    THAT(tramline_member_poll(member, 60000000, on_members_record, on_parts, &heard, &count) == TRAMLINE_E_ARGUMENT);
    while (heard.parts[TRAMLINE_PARTS_ASSIGNED] < 12 && failed == 0) {
        tramline_member_poll(member, 10000, on_members_record, on_parts, &heard, &count); /* one error for each partition */
        THAT(count == 0);
    }
    OK(tramline_member_position(member, "keys", 0, &position));
    THAT(position == TRAMLINE_OFFSET_NONE);
    THAT(tramline_member_poll(member, 0, NULL, NULL, NULL, NULL) == TRAMLINE_E_ARGUMENT);
    tramline_member_leave(member, 60000000, NULL, NULL); /* tells of the other partitions without an offset */
}

int main(void) {
    tramline_client_t client;
    tramline_client_options_t options;
    tramline_setting_t setting = {"retention.ms", "86400000"};
    uint64_t round_trip_us = UINT64_MAX;
    OK(tramline_client_options_defaults(&options, sizeof options));
    options.client_name = "everything";
    OK(tramline_client_connect(getenv("TRAMLINE_SERVER"), &options, &client));
    OK(tramline_client_ping(client, &round_trip_us));
    THAT(round_trip_us < 60000000);
    OK(tramline_topic_create(client, "keys", 4, NULL, 0, 0, NULL));
    OK(tramline_topic_create(client, "levels", 2, &setting, 1, 0, NULL));
    send_keys(client);
    send_levels(client);
    read_back(client);
    share(client);
    OK(tramline_client_close(client));
    printf("%d failed\n", failed);
    return failed == 0 ? 0 : 1;
}
