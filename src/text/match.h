/* What normalisers, pre-tokenizers and decoders look for in a text: a regular expression, a literal, or a class of characters. */
#ifndef REALIGN_TEXT_MATCH_H
#define REALIGN_TEXT_MATCH_H
#define PCRE2_CODE_UNIT_WIDTH 8
#include "unicode.h"
#include <pcre2.h>
#include <realign/error.h>

typedef enum {
    RA_MATCH_REGEX,
    RA_MATCH_LITERAL,
    RA_MATCH_SPACE,      /* a character of White_Space */
    RA_MATCH_DIGIT,      /* a character that is numeric */
    RA_MATCH_PUNCTUATION /* ASCII punctuation, or of a category P* */
} ra_match_kind;

typedef struct {
    ra_match_kind kind;
    pcre2_code *code; /* compiled with UTF and UCP, JIT where there is one */
    char *text;       /* the expression or the literal */
    size_t length;
} ra_matcher;

/* `where` names the file in messages. An expression means what it means to Oniguruma, which Hugging Face compiles with. */
ra_err ra_matcher_regex(ra_matcher *m, const char *where, const char *pattern);
void ra_matcher_literal(ra_matcher *m, const char *text, size_t n); /* n > 0 */
void ra_matcher_free(ra_matcher *m);

/* What one thread matches with. */
typedef struct {
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
} ra_match_work;
void ra_match_work_free(ra_match_work *w);

/* A walk over the matches of one text, left to right; `{0}` begins it. An empty match right behind a match does not count. */
typedef struct {
    size_t from, last_end;
    bool matched;      /* there was one before */
    size_t begin, end; /* the match found */
} ra_match_walk;
/* *found is false at the end. RA_ERR_DATA where an expression gives up on the text. */
ra_err ra_match_next(const ra_matcher *m, const ra_unicode *u, ra_match_work *w, const uint8_t *s, size_t n, ra_match_walk *walk,
                     bool *found);

#endif
