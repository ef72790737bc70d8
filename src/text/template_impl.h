/* The inside of chat templates: a row per template that is rendered natively, and the recognition of a tokenizer's own. */
#ifndef REALIGN_TEXT_TEMPLATE_IMPL_H
#define REALIGN_TEXT_TEMPLATE_IMPL_H
#include "tok.h"

#include <string.h>

/* What a row writes to: the text, and the span of bytes that is the last assistant turn with its closing token. */
typedef struct {
    ra_buf *text;
    bool has_response;
    size_t response_begin, response_end;
} ra_page;

/* One call to render: the conversation as it came. */
typedef struct {
    const ra_message *message;
    int n;
    bool add_generation_prompt;
} ra_talk;

enum { RA_TEMPLATE_TOKENS = 3, RA_TEMPLATE_MARKS = 3 };

/* Where the BOS comes from. */
typedef enum {
    RA_BOS_OF_TEMPLATE,  /* the text begins with it, if the tokenizer has one (or has none at all) */
    RA_BOS_REQUIRED,     /* the original fails without */
    RA_BOS_OF_TOKENIZER, /* only where the tokenizer itself would add one */
} ra_bos_rule;

typedef struct ra_template_row ra_template_row;
struct ra_template_row {
    const char *name;
    const char *closing; /* the token that ends a turn; NULL: the tokenizer's EOS */
    bool eos_optional;   /* with closing NULL: nothing closes a turn where there is no EOS */
    bool dated;          /* writes today's date */
    bool trims;          /* contents lose the white space around them */
    ra_bos_rule bos;
    const char *token[RA_TEMPLATE_TOKENS]; /* texts that the tokenizer must have as one token each */
    const char *mark[RA_TEMPLATE_MARKS];   /* what Jinja texts of this kind hold, for a hint where one is not known */
    const char *system;                    /* the system turn where the conversation brings none; NULL: none */
    ra_err (*render)(const ra_template *tpl, const ra_talk *talk, ra_page *page);
};

extern const ra_template_row RA_TEMPLATE_ROWS[];
extern const int RA_TEMPLATE_ROW_COUNT;
const ra_template_row *ra_template_row_find(const char *name);

enum { RA_TEMPLATE_STOPS = 16 };
struct ra_template {
    const ra_template_row *row;
    const ra_tokenizer *t;
    char *system;  /* row->system, or what the tokenizer's own template has in its place; NULL: none */
    char *date;    /* NULL where the row is not dated */
    char *bos;     /* text of the tokenizer's BOS; "" where it has none */
    char *closing; /* text of the closing token; "" where there is none */
    int32_t stop[RA_TEMPLATE_STOPS];
    int n_stop;
};

/* ---- for renderers ---- */

static inline bool ra_message_is(const ra_message *m, const char *role)
{
    return strcmp(m->role, role) == 0;
}

/* Is message i the one whose tokens are the response? */
static inline bool ra_talk_responds(const ra_talk *talk, int i)
{
    return i == talk->n - 1 && ra_message_is(&talk->message[i], "assistant");
}

static inline void ra_page_begin(ra_page *page, bool response)
{
    if (response) page->has_response = true, page->response_begin = page->text->length;
}

static inline void ra_page_end(ra_page *page, bool response)
{
    if (response) page->response_end = page->text->length;
}

void ra_page_add_stripped(ra_page *page, const char *content); /* as Python's str.strip() */
/* RA_ERR_DATA: a role that the original passes by without a word, or that nothing is known of. */
ra_err ra_template_refuse_role(const ra_template *tpl, const ra_talk *talk, int i, const char *accepted);
/* RA_ERR_DATA with the words that the original raises. */
ra_err ra_template_raise(const ra_template *tpl, int i, const char *words);

ra_err ra_render_chatml(const ra_template *tpl, const ra_talk *talk, ra_page *page);
ra_err ra_render_qwen25(const ra_template *tpl, const ra_talk *talk, ra_page *page);
ra_err ra_render_qwen_lf(const ra_template *tpl, const ra_talk *talk, ra_page *page);
ra_err ra_render_llama3(const ra_template *tpl, const ra_talk *talk, ra_page *page);
ra_err ra_render_llama3_open(const ra_template *tpl, const ra_talk *talk, ra_page *page);
ra_err ra_render_llama31(const ra_template *tpl, const ra_talk *talk, ra_page *page);
ra_err ra_render_gemma(const ra_template *tpl, const ra_talk *talk, ra_page *page);
ra_err ra_render_llama2(const ra_template *tpl, const ra_talk *talk, ra_page *page);
ra_err ra_render_mistral(const ra_template *tpl, const ra_talk *talk, ra_page *page);
ra_err ra_render_mistral_v1(const ra_template *tpl, const ra_talk *talk, ra_page *page);
ra_err ra_render_zephyr(const ra_template *tpl, const ra_talk *talk, ra_page *page);
ra_err ra_render_alpaca(const ra_template *tpl, const ra_talk *talk, ra_page *page);
ra_err ra_render_plain(const ra_template *tpl, const ra_talk *talk, ra_page *page);

/* ---- recognition ---- */

/* `out`: the text's tokens and what shows between its tags; white space that Jinja drops, comments, kinds of quotes, escapes and
 * ['x'] for .x are gone. Texts with one normal form render alike. False where Jinja would refuse the text or it uses what is not
 * looked at. */
bool ra_jinja_normal_form(const char *text, ra_buf *out);
/* Hash of the normal form, with the default ChatML system text taken out into *system (NULL where there is none; free with
 * free); 0 where there is no normal form. */
uint64_t ra_jinja_fingerprint(const char *text, char **system);
/* The row for a template's text, NULL where it is not known. *system as above. */
const ra_template_row *ra_template_recognise(const char *text, uint64_t *fingerprint, char **system);
/* A row that shares words with a text that is not known; NULL where none does. */
const ra_template_row *ra_template_nearest(const char *text);

#endif
