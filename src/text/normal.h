/* Normalisers: what is done to a text before it is cut into words, with the place every byte came from. */
#ifndef REALIGN_TEXT_NORMAL_H
#define REALIGN_TEXT_NORMAL_H
#include "added.h"
#include "compose.h"
#include "match.h"

/* A changed text. begin, end: per byte of text, the span of original bytes it stands for; kept only where asked for. A byte that
 * was put in has an empty span. */
typedef struct {
    ra_buf text;
    int64_t *begin, *end;
    size_t capacity; /* room in begin and end */
} ra_mapped;
void ra_mapped_free(ra_mapped *m);
/* Appends bytes that all stand for the original's [begin, end). */
void ra_mapped_add(ra_mapped *m, const void *bytes, size_t n, size_t begin, size_t end, bool places);
/* Appends the original's bytes [from, to) as they are. */
void ra_mapped_copy(ra_mapped *m, const uint8_t *s, size_t from, size_t to, bool places);
/* Rewrites the places of `m`, which lie in the text of `inner`, to those in the original of `inner`. */
void ra_mapped_compose(ra_mapped *m, const ra_mapped *inner);

typedef enum { RA_NFC, RA_NFD, RA_NFKC, RA_NFKD } ra_unicode_form;
/* The Unicode normal forms as Hugging Face's tables have them. False where the text is in that form already: `out` is then as it
 * was. A character made of several stands for all of them. */
bool ra_form_apply(ra_unicode_form form, const ra_unicode *u, const uint8_t *s, size_t n, bool places, ra_compose_work *w,
                   ra_mapped *out);

/* SentencePiece's own normaliser: the compiled map of characters (a double array and the texts it points into), then white space. */
typedef struct {
    uint32_t *unit; /* of the double array */
    size_t units;
    char *texts; /* NUL-terminated, one after the other */
    size_t texts_length;
    bool dummy_prefix, squeeze, escape; /* add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces */
    bool prefix_once;                   /* the dummy prefix only where the whole text begins (legacy: false) */
    ra_added_trie keep;                 /* user-defined pieces, which no rule touches */
} ra_spm_normal;
/* `map`: the bytes of precompiled_charsmap. */
ra_err ra_spm_normal_load_map(ra_spm_normal *p, const char *where, const uint8_t *map, size_t n);
void ra_spm_normal_free(ra_spm_normal *p);
void ra_spm_normal_apply(const ra_spm_normal *p, const uint8_t *s, size_t n, bool first, bool places, ra_mapped *out);

typedef enum {
    RA_NORMAL_FORM,
    RA_NORMAL_LOWERCASE,
    RA_NORMAL_REPLACE,
    RA_NORMAL_PREPEND,
    RA_NORMAL_STRIP,
    RA_NORMAL_SPM
} ra_normal_kind;

typedef struct {
    ra_normal_kind kind;
    ra_unicode_form form;
    ra_matcher match; /* REPLACE */
    char *text;       /* REPLACE's content, PREPEND's prefix */
    size_t length;
    bool left, right; /* STRIP */
    ra_spm_normal *spm;
} ra_normal_step;

enum { RA_NORMAL_STEPS = 16 };
typedef struct {
    ra_normal_step step[RA_NORMAL_STEPS];
    int n;
} ra_normal;
/* A new last step to fill; RA_ERR_UNSUPPORTED where there are too many. */
ra_err ra_normal_add(ra_normal *p, const char *where, ra_normal_kind kind, ra_normal_step **out);
void ra_normal_free(ra_normal *p);

typedef struct {
    ra_mapped text[2];
    ra_compose_work form;
} ra_normal_work;
void ra_normal_work_free(ra_normal_work *w);

/* *out: the normal text, inside `w` until its next use, or NULL where it is `s` itself. `first`: s begins the whole text.
 * RA_ERR_DATA where an expression gives up. */
ra_err ra_normal_run(const ra_normal *p, const ra_unicode *u, ra_match_work *match, ra_normal_work *w, const uint8_t *s, size_t n,
                     bool first, bool places, const ra_mapped **out);

#endif
