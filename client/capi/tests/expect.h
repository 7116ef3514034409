/*
 * What the programs in this directory expect, and how they say that it is otherwise: "FAILED ..." for each that differs, with the last error's sentence. `tried` and `failed` count.
 *
 * Not here: what is expected (the programs).
 */
#ifndef TRAMLINE_TESTS_EXPECT_H
#define TRAMLINE_TESTS_EXPECT_H

#include <stdio.h>
#include <string.h>
#include <tramline.h>

static int tried, failed;

static void expect_at(int line, const char *what, tramline_status_t status, tramline_status_t expected, const char *words) {
    char sentence[2048] = "";
    tried++;
    if (status != TRAMLINE_OK) {
        tramline_last_error(sentence, sizeof sentence);
    }
    if (status != expected || strstr(sentence, words) == NULL) {
        failed++;
        printf("FAILED line %d: %s\n  is %s, expected %s with \"%s\"\n  %s\n", line, what, tramline_status_name(status), tramline_status_name(expected), words,
               sentence);
    }
}

/* The call returns this status, and its sentence has these words. */
#define EXPECT(call, status, words) expect_at(__LINE__, #call, call, status, words)
#define OK(call) expect_at(__LINE__, #call, call, TRAMLINE_OK, "")
#define THAT(condition) expect_at(__LINE__, #condition, (condition) ? TRAMLINE_OK : -1, TRAMLINE_OK, "")

#endif
