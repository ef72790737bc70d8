/* Pre-tokenizers: how a stretch of text is cut into the words that BPE sees. */
#ifndef REALIGN_TEXT_PRETOK_H
#define REALIGN_TEXT_PRETOK_H
#include "normal.h"
#include "scan.h"

typedef enum {
    RA_STEP_SPLIT,        /* by the matches of something */
    RA_STEP_PREFIX_SPACE, /* a space goes before a piece that has none (ByteLevel's add_prefix_space) */
    RA_STEP_METASPACE     /* spaces become a mark, and one goes in front */
} ra_step_kind;

/* What becomes of matches (with `invert`: of what lies between them). */
typedef enum {
    RA_SPLIT_ISOLATED,
    RA_SPLIT_REMOVED,
    RA_SPLIT_WITH_PREVIOUS,
    RA_SPLIT_WITH_NEXT,
    RA_SPLIT_CONTIGUOUS
} ra_behaviour;
typedef enum { RA_PREPEND_ALWAYS, RA_PREPEND_FIRST, RA_PREPEND_NEVER } ra_prepend;

typedef struct {
    ra_step_kind kind;
    ra_scan scan;     /* SPLIT: the expression's own scanner, every byte part of a piece; NULL: `match` */
    ra_matcher match; /* its text is kept beside a scanner too, for the hash */
    ra_behaviour behaviour;
    bool invert;
    char mark[4]; /* METASPACE: the mark's UTF-8 */
    int mark_length;
    ra_prepend prepend;
} ra_step;

enum { RA_STEPS = 16 };
typedef struct {
    ra_step step[RA_STEPS];
    int n;
} ra_pretok;

/* A new last step to fill; RA_ERR_UNSUPPORTED where there are too many. `where` names the file in messages. */
ra_err ra_pretok_add(ra_pretok *p, const char *where, ra_step_kind kind, ra_step **out);
/* An Isolated Split; a known pattern takes its hand-written scanner unless `library`. */
ra_err ra_pretok_add_split(ra_pretok *p, const char *where, const char *pattern, bool library);
void ra_pretok_free(ra_pretok *p);

/* What one thread cuts with: a text for each step that changes its piece. */
typedef struct {
    ra_match_work match;
    ra_mapped changed[RA_STEPS];
} ra_pretok_work;
void ra_pretok_work_free(ra_pretok_work *w);

/* Called for each word in order. */
typedef struct ra_words ra_words;
struct ra_words {
    ra_err (*word)(ra_words *sink, const uint8_t *word, size_t n);
    bool places;             /* are places asked for? */
    const uint8_t *window;   /* the text in which the current words lie: the piece that was cut, */
    const ra_mapped *mapped; /* or this, made from the piece; NULL: the piece itself */
};
/* Offsets in the piece of a place in the window, as a beginning and as an end. */
int64_t ra_words_begin(const ra_words *sink, const uint8_t *p);
int64_t ra_words_end(const ra_words *sink, const uint8_t *p);

/* `first`: s begins the whole text. */
ra_err ra_pretok_run(const ra_pretok *p, const ra_unicode *u, ra_pretok_work *w, const uint8_t *s, size_t n, bool first,
                     ra_words *sink);

#endif
