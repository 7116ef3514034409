/*
 * A panic in the middle of the library does not reach the program. Run by tests/capi.rs with a library that was built with the feature `defect`: defect HOST:PORT.
 */
#include <stdio.h>
#include <string.h>
#include <tramline.h>

#include "expect.h"

/* In no header: it is in no library that is installed. */
tramline_status_t tramline_defect(tramline_producer_t producer);

int main(int argc, char **argv) {
    tramline_client_t client;
    tramline_producer_t broken, whole;
    tramline_record_t record = TRAMLINE_RECORD_INIT;
    char sentence[512];
    size_t count;
    if (argc != 2) {
        return 2;
    }
    THAT(tramline_client_connect(argv[1], NULL, &client) == TRAMLINE_OK);
    THAT(tramline_topic_create(client, "defect", 1, NULL, 0, 0, NULL) == TRAMLINE_OK);
    THAT(tramline_producer_open(client, NULL, &broken) == TRAMLINE_OK);
    THAT(tramline_producer_open(client, NULL, &whole) == TRAMLINE_OK);
    record.topic = "defect";
    THAT(tramline_producer_send(broken, &record) == TRAMLINE_OK);

    THAT(tramline_defect(broken) == TRAMLINE_E_PANIC);
    tramline_last_error(sentence, sizeof sentence);
    THAT(strstr(sentence, "a defect on purpose") != NULL);
    /* From then on it refuses everything but being closed; the others do not notice. */
    THAT(tramline_producer_send(broken, &record) == TRAMLINE_E_PANIC);
    THAT(tramline_producer_outstanding(broken, &count) == TRAMLINE_E_PANIC);
    tramline_last_error(sentence, sizeof sentence);
    THAT(strstr(sentence, "earlier") != NULL);
    THAT(tramline_producer_send(whole, &record) == TRAMLINE_OK);
    THAT(tramline_producer_flush(whole, TRAMLINE_FOREVER_US) == TRAMLINE_OK);
    THAT(tramline_producer_close(broken) == TRAMLINE_OK);
    THAT(tramline_producer_close(broken) == TRAMLINE_E_HANDLE);
    THAT(tramline_defect(broken) == TRAMLINE_E_HANDLE);
    THAT(tramline_producer_close(whole) == TRAMLINE_OK);
    THAT(tramline_client_close(client) == TRAMLINE_OK);
    printf("%d failed\n", failed);
    return failed == 0 ? 0 : 1;
}
