/* What a judge model reads: policy, conversation, reply and question in one user turn of its own template. */
#ifndef RA_JUDGE_TEXT_H
#define RA_JUDGE_TEXT_H
#include <realign/oracle.h>
#include <realign/tokenizer.h>

typedef struct {
    const ra_tokenizer *t;
    ra_template *tpl;
    bool plain;    /* no chat template: the text itself ends where the answer begins */
    char *opening; /* up to the conversation, policy included */
    char *question;
    int32_t limit; /* tokens */
    int32_t *root; /* ids that every conversation's text begins with */
    int32_t root_count;
} ra_judge_form;

typedef struct {
    ra_rendered rendered;
    int32_t branch;     /* tokens up to the reply: the same for all replies to a conversation */
    bool cut;           /* the conversation lost its beginning */
    bool spelled_apart; /* a special token in the conversation or the reply was broken up */
    bool too_long;      /* RA_ERR_DATA because of its length */
} ra_judge_page;

/* `template`: "auto" or a known name. `yes`, `no`: the words the question asks for. The tokenizer is borrowed. Free in every case. */
ra_err ra_judge_form_open(const ra_tokenizer *t, const char *template, const char *policy, const char *yes, const char *no,
                          int32_t limit, ra_judge_form *out);
void ra_judge_form_close(ra_judge_form *f);
/* Overwrites *out, which begins as {0} and is freed with ra_judge_page_free. RA_ERR_DATA: this item cannot be asked about; the message says why. */
ra_err ra_judge_page_write(const ra_judge_form *f, const ra_oracle_item *item, ra_judge_page *out);
void ra_judge_page_free(ra_judge_page *page);
#endif
