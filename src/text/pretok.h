/* Pre-tokenizers: how a stretch of text is cut into the words that BPE sees. */
#ifndef REALIGN_TEXT_PRETOK_H
#define REALIGN_TEXT_PRETOK_H
#define PCRE2_CODE_UNIT_WIDTH 8
#include "scan.h"
#include "unicode.h"
#include <pcre2.h>
#include <realign/error.h>

typedef enum {
    RA_STEP_SPLIT,       /* by a regular expression: matches and what lies between are pieces */
    RA_STEP_DIGITS,      /* every digit is a piece */
    RA_STEP_DIGIT_RUNS,  /* every run of digits is a piece */
    RA_STEP_PREFIX_SPACE /* a space goes before a piece that has none (ByteLevel's add_prefix_space) */
} ra_step_kind;

typedef struct {
    ra_step_kind kind;
    ra_scan scan;      /* RA_STEP_SPLIT: the expression's scanner, or NULL and `code` */
    pcre2_code *code;  /* compiled with UTF and UCP, JIT where there is one */
    char *pattern;     /* the expression's text */
    bool drop_matches; /* behavior "Removed" */
    bool drop_gaps;    /* the same, inverted */
} ra_step;

enum { RA_STEPS = 16 };
typedef struct {
    ra_step step[RA_STEPS];
    int n;
} ra_pretok;

/* `where` names the file and place in messages. A known pattern takes its hand-written scanner unless `library`. */
ra_err ra_pretok_add_split(ra_pretok *p, const char *where, const char *pattern, bool library);
ra_err ra_pretok_add(ra_pretok *p, const char *where, ra_step_kind kind);
void ra_pretok_free(ra_pretok *p);

/* What one thread matches with. */
typedef struct {
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    ra_buf prefixed; /* a piece with its prefix space */
} ra_pretok_work;
void ra_pretok_work_free(ra_pretok_work *w);

/* Called for each word in order. `lead`: this many bytes at the front of `window` are not in the text; `window` + lead stands for
 * text + `at`. */
typedef struct ra_words ra_words;
struct ra_words {
    ra_err (*word)(ra_words *sink, const uint8_t *word, size_t n);
    const uint8_t *window; /* where the current words lie */
    int64_t at;            /* and its offset in the piece of text being cut */
    int64_t lead;
};
ra_err ra_pretok_run(const ra_pretok *p, const ra_unicode *u, ra_pretok_work *w, const uint8_t *s, size_t n, ra_words *sink);

#endif
