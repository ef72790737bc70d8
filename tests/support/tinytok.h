/* A small byte-level BPE tokenizer for tests: the 256 bytes (ids 0 to 255 in byte order), a few merges, and what a test
 * wants around them. */
#ifndef TESTS_SUPPORT_TINYTOK_H
#define TESTS_SUPPORT_TINYTOK_H
#include <realign/mem.h>
#include <stdbool.h>
#include <stddef.h>

/* JSON texts; NULL takes the default in brackets. */
typedef struct {
    const char *normalizer;     /* [null] */
    const char *pre_tokenizer;  /* [ByteLevel with its regular expression] */
    const char *post_processor; /* [null] */
    const char *decoder;        /* [ByteLevel] */
    const char *added;          /* [[]] */
    const char *type;           /* model.type ["BPE"] */
    const char *model_extra;    /* more members of model, each ending in a comma [none] */
    const char *chat_template;  /* tokenizer_config.json's [none] */
    const char *bos, *eos;      /* tokenizer_config.json's [none] */
    bool merge_pairs;           /* merges as ["a", "b"], else "a b" */
    int missing_byte;           /* this byte has no token; 0: all have */
} tinytok;

/* Number of merges, and the id of the token that merge k makes (256 + k). */
int tinytok_merges(void);
/* The two byte strings of merge k. */
void tinytok_merge(int k, const char **left, const char **right);

/* The text of tokenizer.json; free with free. */
char *tinytok_json(const tinytok *spec);
/* Writes tokenizer.json and tokenizer_config.json below `dir`. */
void tinytok_write(const char *dir, const tinytok *spec);
/* The same vocabulary as a GGUF file without blocks; added tokens <s> (control, id 281) and <user> (user-defined, id 282).
 * `pre` NULL: no such key. `merges`: false leaves them out. Appends to `out`. */
void tinytok_gguf(ra_buf *out, const char *model, const char *pre, bool merges);
/* The same vocabulary as tiktoken writes it: base64 and rank a line. Appends to `out`. */
void tinytok_tiktoken(ra_buf *out);
/* A text in the alphabet of byte-level tokens; free with free. */
char *tinytok_alphabet(const void *bytes, size_t n);

#endif
