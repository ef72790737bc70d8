/* Decoders: how the texts of tokens become one text again. */
#ifndef REALIGN_TEXT_DECODER_H
#define REALIGN_TEXT_DECODER_H
#include "match.h"

typedef enum {
    RA_DECODE_BYTE_LEVEL,    /* all texts together, out of GPT-2's alphabet */
    RA_DECODE_REPLACE,       /* in each text */
    RA_DECODE_BYTE_FALLBACK, /* runs of <0x..> to characters; a run that is not UTF-8 to as many U+FFFD, as Hugging Face does */
    RA_DECODE_BYTE_PIECES,   /* the same, but only what is not UTF-8 becomes U+FFFD, as SentencePiece does */
    RA_DECODE_FUSE,          /* all texts become one */
    RA_DECODE_STRIP,         /* a character at both ends of each text, so often at most */
    RA_DECODE_FIRST_MARK,    /* the mark that SentencePiece put in front goes */
    RA_DECODE_METASPACE      /* the mark becomes a space, and goes where it was put in front */
} ra_decode_kind;

typedef struct {
    ra_decode_kind kind;
    ra_matcher match; /* REPLACE */
    char *text;       /* REPLACE: content; STRIP: the character; FIRST_MARK, METASPACE: the mark */
    size_t length;
    int64_t start, stop; /* STRIP */
    bool prepended;      /* METASPACE */
    bool again;          /* FIRST_MARK: the next text's, too, where the first was nothing else */
} ra_decode_step;

enum { RA_DECODE_STEPS = 16 };
typedef struct {
    ra_decode_step step[RA_DECODE_STEPS];
    int n;
    bool spaced; /* no decoder at all: texts with a space between */
} ra_decoder;

ra_err ra_decoder_add(ra_decoder *d, const char *where, ra_decode_kind kind, ra_decode_step **out);
void ra_decoder_free(ra_decoder *d);

/* Texts one after the other. */
typedef struct {
    ra_buf bytes;
    size_t *end; /* (n) */
    size_t n, capacity;
} ra_texts;
void ra_texts_add(ra_texts *t, const void *bytes, size_t n);
void ra_texts_free(ra_texts *t);

/* Appends the decoded text, made valid UTF-8. `texts` is used up. */
ra_err ra_decoder_run(const ra_decoder *d, const ra_unicode *u, ra_texts *texts, ra_buf *out);

#endif
