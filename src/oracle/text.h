/* What rules can ask about a text: forms to search in, and counts. Everything is deterministic and defined in doc/policies.md. */
#ifndef RA_ORACLE_TEXT_H
#define RA_ORACLE_TEXT_H
#include <realign/mem.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum {
    RA_COUNT_WORDS,
    RA_COUNT_SENTENCES,
    RA_COUNT_CHARACTERS,
    RA_COUNT_LINES,
    RA_COUNT_PARAGRAPHS,
    RA_COUNT_LIST_ITEMS,
    RA_COUNT_QUESTION_MARKS,
    RA_COUNT_EXCLAMATION_MARKS,
    RA_COUNT_KINDS
} ra_count_kind;
extern const char *const ra_count_names[RA_COUNT_KINDS]; /* "words" ...: the keys of a policy file */

/* One text under judgement. Forms are made when first asked for. */
typedef struct {
    ra_buf text;                   /* valid UTF-8: bytes that are not become U+FFFD; white space at both ends is cut */
    ra_buf straight, folded;       /* quotation marks made straight; that with case folded (and composed) */
    int64_t count[RA_COUNT_KINDS]; /* -1: not yet counted */
    bool has_straight, has_folded;
} ra_subject;

void ra_subject_set(ra_subject *s, const char *text); /* NULL counts as "" */
void ra_subject_free(ra_subject *s);
const ra_buf *ra_subject_form(ra_subject *s, bool fold);
int64_t ra_subject_count(ra_subject *s, ra_count_kind kind);
/* Appends `text` in the form that ra_subject_form gives. */
void ra_text_form(const char *text, size_t n, bool fold, ra_buf *out);

#endif
