/* Tokenizers: exact token ids of the model's own fast tokenizer. A tokenizer is immutable after opening and may be used by
 * many threads at once. Text is UTF-8. Not collective throughout. */
#ifndef REALIGN_TOKENIZER_H
#define REALIGN_TOKENIZER_H
#include <realign/error.h>
#include <realign/mem.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct ra_tokenizer ra_tokenizer;

/* `model`: a directory, or a file: tokenizer.json, SentencePiece's or tiktoken's tokenizer.model, *.tiktoken, vocab.json (with
 * merges.txt beside it), or a GGUF file; told by content. Errors name the file: RA_ERR_IO, RA_ERR_FORMAT (damaged, with the place),
 * RA_ERR_UNSUPPORTED (what is not supported, and what is known). doc/tokenizers.md says what is read, and what lies beside. */
ra_err ra_tokenizer_open(const char *model, ra_tokenizer **out);
void ra_tokenizer_close(ra_tokenizer *t);

/* Growable id and offset arrays; `{0}` is empty; free with ra_ids_free. Offsets are exact to the byte, inside characters too.
 * Where a normaliser changed the text, every token of the changed stretch (a character with its marks) spans all of it; what it put
 * in (a prefix) has an empty span; bytes that have no token and were dropped are not counted, so later spans stay right. */
typedef struct {
    int32_t *id;
    int64_t *begin, *end; /* byte offsets into the text that was encoded, [begin, end); filled only where asked for */
    int64_t count, capacity;
} ra_ids;
void ra_ids_free(ra_ids *ids);
void ra_ids_clear(ra_ids *ids);

enum {
    RA_ENCODE_ADD_SPECIAL = 1, /* BOS and the like, as the post-processor says */
    RA_ENCODE_PLAIN = 2, /* special-token text inside the input is ordinary text; added tokens that are not special still count */
    RA_ENCODE_OFFSETS = 4
};

/* Appends the ids of `text` to `out`. Text that is not UTF-8 is RA_ERR_DATA naming the first bad byte's offset. An error
 * leaves `out` as it was. */
ra_err ra_tokenizer_encode(const ra_tokenizer *t, const char *text, size_t length, int flags, ra_ids *out);
/* Appends the text of the ids. Special tokens are written out unless `skip_special`. Ids without a token have no text (models
 * have more rows than tokens); a negative id is RA_ERR_DATA; bytes that are no UTF-8 become U+FFFD. */
ra_err ra_tokenizer_decode(const ra_tokenizer *t, const int32_t *ids, int64_t n, bool skip_special, ra_buf *out);

int32_t ra_tokenizer_vocabulary_size(const ra_tokenizer *t);       /* highest id + 1 */
int32_t ra_tokenizer_bos(const ra_tokenizer *t);                   /* -1: none */
int32_t ra_tokenizer_eos(const ra_tokenizer *t);                   /* -1: none */
int32_t ra_tokenizer_id(const ra_tokenizer *t, const char *token); /* -1: unknown */
const char *ra_tokenizer_source(const ra_tokenizer *t);            /* the file it was read from */
const char *ra_tokenizer_kind(const ra_tokenizer *t);              /* "byte-level BPE" and the like, for a reader */
/* RA_ERR_DATA where the tokenizer has ids beyond the `rows` of the model's embedding; `model` is for the message. Rows without a token
 * are no error: they stay part of softmax and KL. */
ra_err ra_tokenizer_check_rows(const ra_tokenizer *t, int64_t rows, const char *model);
/* Hash over everything that decides ids: a key for caches. */
uint64_t ra_tokenizer_hash(const ra_tokenizer *t);
/* The chat template's own text (tokenizer_config.json, chat_template.jinja or GGUF), NULL where there is none. */
const char *ra_tokenizer_chat_template(const ra_tokenizer *t);

/* ---- chat templates: known ones, recognised by their text, rendered natively ---- */
typedef struct {
    const char *role;    /* "system", "user", "assistant" */
    const char *content; /* UTF-8 */
} ra_message;

typedef struct ra_template ra_template;

/* `name`: "auto" (recognise the tokenizer's own; an unknown one is RA_ERR_UNSUPPORTED, naming `template:` and the known names) or a
 * name of doc/templates.md. RA_ERR_ARG for another name, or where the tokenizer lacks a token that the template needs (a base
 * model's), which it would take apart. The tokenizer must outlive the template. */
ra_err ra_template_open(const char *name, const ra_tokenizer *t, ra_template **out);
void ra_template_close(ra_template *tpl);
const char *ra_template_name(const ra_template *tpl);

/* Llama-3.1 and 3.2 write the date of the conversation into the system turn: RA_TEMPLATE_DATE unless set here. RA_ERR_ARG where the
 * template writes none. */
#define RA_TEMPLATE_DATE "26 Jul 2024"
ra_err ra_template_set_date(ra_template *tpl, const char *date);
const char *ra_template_date(const ra_template *tpl); /* NULL where it writes none */

typedef struct {
    ra_buf text;
    ra_ids ids;
    int64_t response_start, response_end; /* token indices of the last assistant turn with its closing token; -1 without one */
    bool boundary_inside_token;           /* the prompt's end fell inside a token; that token counts as template */
    bool response_blank; /* nothing of the answer's own is in it: its content is empty, or trimming left nothing */
} ra_rendered;
void ra_rendered_free(ra_rendered *r);

/* Renders and tokenises the whole conversation once (no double BOS); finds the response by offsets (METHOD section 8, trap 1).
 * `add_generation_prompt` ends the text with the assistant's header. Roles a template refuses are RA_ERR_DATA. */
ra_err ra_template_render(const ra_template *tpl, const ra_message *messages, int n, bool add_generation_prompt,
                          ra_rendered *out);
/* Ids that end a response when generating (the turn's closing token, EOS). Owned by tpl; returns the count. */
int ra_template_stop_ids(const ra_template *tpl, const int32_t **ids);

#endif
