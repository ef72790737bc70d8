/* Chat templates: opening, and rendering with the response found by offsets (METHOD section 8, trap 1). */
#include "template_impl.h"
#include "unicode.h"

#include <realign/yamldoc.h>
#include <stdlib.h>
#include <string.h>

static char *known_names(void)
{
    ra_buf names = {0};
    for (int i = 0; i < RA_TEMPLATE_ROW_COUNT; i++) ra_buf_addf(&names, "%s%s", i ? ", " : "", RA_TEMPLATE_ROWS[i].name);
    return names.data;
}

static ra_err find_named(ra_template *tpl, const char *name, const char *known)
{
    tpl->row = ra_template_row_find(name);
    if (tpl->row) return RA_OK;
    const char *names[64] = {"auto"};
    int n = 1;
    for (int i = 0; i < RA_TEMPLATE_ROW_COUNT && n < 64; i++) names[n++] = RA_TEMPLATE_ROWS[i].name;
    const char *nearest = ra_nearest_name(name, names, n);
    return ra_fail(RA_ERR_ARG, "template: no template \"%s\"%s%s%s; known: auto, %s", name, nearest ? "; did you mean " : "",
                   nearest ? nearest : "", nearest ? "?" : "", known);
}

static ra_err find_own(ra_template *tpl, const char *known)
{
    const char *own = ra_tokenizer_chat_template(tpl->t);
    if (!own) {
        return ra_fail(RA_ERR_UNSUPPORTED,
                       "%s has no chat template; set template: to one of %s (plain or alpaca for a base model)", tpl->t->source,
                       known);
    }
    uint64_t fingerprint;
    tpl->row = ra_template_recognise(own, &fingerprint, &tpl->system);
    if (tpl->row) return RA_OK;
    const ra_template_row *nearest = ra_template_nearest(own);
    ra_buf hint = {0};
    ra_buf_adds(&hint, "");
    if (nearest) ra_buf_addf(&hint, " It has most in common with %s.", nearest->name);
    ra_err err = ra_fail(RA_ERR_UNSUPPORTED,
                         "the chat template of %s (fingerprint %016llx) is not a known one.%s If one of these renders the same, "
                         "set template: to it: %s",
                         tpl->t->source, (unsigned long long)fingerprint, hint.data, known);
    ra_buf_free(&hint);
    return err;
}

/* Text that the tokenizer takes apart would be trained on as text: a base model's tokenizer under an instruct model's template. */
static ra_err check_tokens(const ra_template *tpl)
{
    ra_ids ids = {0};
    ra_err err = RA_OK;
    for (int i = 0; err == RA_OK && i < RA_TEMPLATE_TOKENS && tpl->row->token[i]; i++) {
        const char *token = tpl->row->token[i];
        ra_ids_clear(&ids);
        err = ra_tokenizer_encode(tpl->t, token, strlen(token), 0, &ids);
        if (err == RA_OK && ids.count != 1) {
            err = ra_fail(
                RA_ERR_ARG,
                "template %s needs the token %s, which the tokenizer of %s does not have (it makes %lld tokens of it); set "
                "template: to one that needs none, such as plain or alpaca for a base model",
                tpl->row->name, token, tpl->t->source, (long long)ids.count);
        }
    }
    ra_ids_free(&ids);
    return err;
}

static void add_stop(ra_template *tpl, int32_t id)
{
    for (int i = 0; i < tpl->n_stop; i++) {
        if (tpl->stop[i] == id) return;
    }
    if (id >= 0 && tpl->n_stop < RA_TEMPLATE_STOPS) tpl->stop[tpl->n_stop++] = id;
}

static char *token_text(const ra_tokenizer *t, int32_t id)
{
    ra_buf text = {0};
    if (id >= 0) ra_tokenizer_decode(t, &id, 1, false, &text);
    return text.data ? text.data : ra_strdup("");
}

/* BOS, closing token and stops, as the row and the tokenizer have them. */
static ra_err settle(ra_template *tpl)
{
    const ra_template_row *row = tpl->row;
    const ra_tokenizer *t = tpl->t;
    RA_TRY(check_tokens(tpl));
    int32_t closing = row->closing ? ra_tokenizer_id(t, row->closing) : t->eos;
    if (closing < 0 && !row->eos_optional) {
        return ra_fail(RA_ERR_ARG, "template %s ends turns with EOS, which the tokenizer of %s does not name (eos_token)",
                       row->name, t->source);
    }
    if (t->bos < 0 && row->bos == RA_BOS_REQUIRED) {
        return ra_fail(RA_ERR_ARG, "template %s begins turns with BOS, which the tokenizer of %s does not name (bos_token)",
                       row->name, t->source);
    }
    bool bos = row->bos != RA_BOS_OF_TOKENIZER || (t->n_prefix && t->prefix[0] == t->bos);
    tpl->bos = token_text(t, bos ? t->bos : -1);
    tpl->closing = token_text(t, closing);
    if (!tpl->system && row->system) tpl->system = ra_strdup(row->system);
    if (row->dated) tpl->date = ra_strdup(RA_TEMPLATE_DATE);
    add_stop(tpl, closing);
    add_stop(tpl, t->eos);
    for (int i = 0; i < t->n_stop; i++) add_stop(tpl, t->stop[i]);
    return RA_OK;
}

ra_err ra_template_open(const char *name, const ra_tokenizer *t, ra_template **out)
{
    *out = NULL;
    ra_template *tpl = ra_calloc(1, sizeof *tpl);
    tpl->t = t;
    char *known = known_names();
    ra_err err = strcmp(name, "auto") ? find_named(tpl, name, known) : find_own(tpl, known);
    if (err == RA_OK) err = settle(tpl);
    free(known);
    if (err != RA_OK) {
        ra_template_close(tpl);
        return err;
    }
    *out = tpl;
    return RA_OK;
}

ra_err ra_template_set_date(ra_template *tpl, const char *date)
{
    if (!tpl->date) return ra_fail(RA_ERR_ARG, "template_date: the template %s writes no date", tpl->row->name);
    for (const char *p = date; *p; p++) {
        if ((unsigned char)*p < ' ')
            return ra_fail(RA_ERR_ARG, "template_date: one line of text is accepted, such as %s", RA_TEMPLATE_DATE);
    }
    free(tpl->date);
    tpl->date = ra_strdup(date);
    return RA_OK;
}

const char *ra_template_date(const ra_template *tpl)
{
    return tpl->date;
}

void ra_template_close(ra_template *tpl)
{
    if (!tpl) return;
    free(tpl->system);
    free(tpl->date);
    free(tpl->bos);
    free(tpl->closing);
    ra_free(tpl);
}

const char *ra_template_name(const ra_template *tpl)
{
    return tpl->row->name;
}

int ra_template_stop_ids(const ra_template *tpl, const int32_t **ids)
{
    *ids = tpl->stop;
    return tpl->n_stop;
}

void ra_rendered_free(ra_rendered *r)
{
    ra_buf_free(&r->text);
    ra_ids_free(&r->ids);
    *r = (ra_rendered){0};
}

/* Token indices of the bytes [page->response_begin, page->response_end). */
static void find_response(const ra_page *page, ra_rendered *out)
{
    int64_t begin = (int64_t)page->response_begin, end = (int64_t)page->response_end, i = 0;
    while (i < out->ids.count && out->ids.begin[i] < begin) i++;
    out->response_start = i;
    out->boundary_inside_token = i > 0 && out->ids.end[i - 1] > begin;
    while (i < out->ids.count && out->ids.begin[i] < end) i++;
    out->response_end = i;
}

static bool is_blank(const ra_template *tpl, const char *content)
{
    size_t begin = 0, end = strlen(content);
    if (tpl->row->trims) ra_utf8_strip(content, end, &begin, &end);
    return begin == end;
}

ra_err ra_template_render(const ra_template *tpl, const ra_message *messages, int n, bool add_generation_prompt, ra_rendered *out)
{
    ra_buf_clear(&out->text);
    ra_ids_clear(&out->ids);
    out->response_start = out->response_end = -1;
    out->boundary_inside_token = out->response_blank = false;
    if (n < 1) return ra_fail(RA_ERR_DATA, "a conversation needs at least one message");
    for (int i = 0; i < n; i++) {
        if (!messages[i].role || !messages[i].content) {
            return ra_fail(RA_ERR_DATA, "message %d must have a role and a content", i + 1);
        }
    }
    ra_page page = {.text = &out->text};
    RA_TRY(tpl->row->render(tpl, &(ra_talk){messages, n, add_generation_prompt}, &page));
    /* One tokenisation of everything. The template writes BOS itself, so none is added here. */
    RA_TRY(ra_tokenizer_encode(tpl->t, out->text.data ? out->text.data : "", out->text.length, RA_ENCODE_OFFSETS, &out->ids));
    if (page.has_response) find_response(&page, out);
    out->response_blank = page.has_response && is_blank(tpl, messages[n - 1].content);
    return RA_OK;
}
