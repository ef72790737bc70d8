/* The inside of chat templates: a row per template that is rendered natively, and the recognition of a tokenizer's own. */
#ifndef REALIGN_TEXT_TEMPLATE_IMPL_H
#define REALIGN_TEXT_TEMPLATE_IMPL_H
#include "tok.h"

/* What a row writes to: the text, and the span of bytes that is the last assistant turn with its closing token. */
typedef struct {
    ra_buf *text;
    bool has_response;
    size_t response_begin, response_end;
} ra_page;

typedef struct ra_template_row ra_template_row;
struct ra_template_row {
    const char *name;
    const char *closing; /* the token that ends a turn; NULL: the tokenizer's EOS, if any */
    const char *system;  /* the system turn where the conversation brings none; NULL: none */
    ra_err (*render)(const ra_template *tpl, const ra_message *messages, int n, bool add_generation_prompt, ra_page *page);
};

extern const ra_template_row RA_TEMPLATE_ROWS[];
extern const int RA_TEMPLATE_ROW_COUNT;
const ra_template_row *ra_template_row_find(const char *name);

enum { RA_TEMPLATE_STOPS = 16 };
struct ra_template {
    const ra_template_row *row;
    const ra_tokenizer *t;
    char *system;  /* row->system, or what the tokenizer's own template has in its place; NULL: none */
    char *bos;     /* text of the tokenizer's BOS; "" where it has none */
    char *closing; /* text of the closing token; "" where there is none */
    int32_t stop[RA_TEMPLATE_STOPS];
    int n_stop;
};

/* A template's text without what does not show: white space between and inside tags, comments, kinds of quotes, ['x'] for .x,
 * and with the default ChatML system text taken out into *system (NULL where there is none; free with free). Two texts with
 * the same hash render alike. */
uint64_t ra_jinja_fingerprint(const char *text, char **system);
/* The row for a template's text, NULL where it is not known. */
const ra_template_row *ra_template_recognise(const char *text, uint64_t *fingerprint, char **system);

#endif
