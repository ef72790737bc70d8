/* Chat templates: opening, and rendering with the response found by offsets (METHOD section 8, trap 1). */
#include "template_impl.h"

#include <stdlib.h>
#include <string.h>

static char *known_names(void)
{
    ra_buf names = {0};
    for (int i = 0; i < RA_TEMPLATE_ROW_COUNT; i++) ra_buf_addf(&names, "%s%s", i ? ", " : "", RA_TEMPLATE_ROWS[i].name);
    return names.data;
}

static ra_err choose(ra_template *tpl, const char *name)
{
    char *known = known_names();
    ra_err err = RA_OK;
    const char *own = ra_tokenizer_chat_template(tpl->t);
    if (strcmp(name, "auto") != 0) {
        tpl->row = ra_template_row_find(name);
        if (!tpl->row) err = ra_fail(RA_ERR_ARG, "template: no template \"%s\"; known: auto, %s", name, known);
    } else if (!own) {
        err = ra_fail(RA_ERR_UNSUPPORTED, "%s has no chat template; set template: to one of %s (plain for a base model)",
                      tpl->t->source, known);
    } else {
        uint64_t fingerprint;
        tpl->row = ra_template_recognise(own, &fingerprint, &tpl->system);
        if (!tpl->row) {
            err = ra_fail(RA_ERR_UNSUPPORTED,
                          "the chat template of %s (fingerprint %016llx) is not a known one; if one of these renders the same, "
                          "set template: to "
                          "it: %s",
                          tpl->t->source, (unsigned long long)fingerprint, known);
        }
    }
    free(known);
    if (err == RA_OK && !tpl->system && tpl->row->system) tpl->system = ra_strdup(tpl->row->system);
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

ra_err ra_template_open(const char *name, const ra_tokenizer *t, ra_template **out)
{
    *out = NULL;
    ra_template *tpl = ra_calloc(1, sizeof *tpl);
    tpl->t = t;
    ra_err err = choose(tpl, name);
    if (err == RA_OK) {
        const char *closing = tpl->row->closing;
        int32_t id = closing ? ra_tokenizer_id(t, closing) : t->eos;
        if (closing && id < 0) {
            err = ra_fail(RA_ERR_ARG, "template %s ends turns with %s, which the tokenizer of %s does not have", tpl->row->name,
                          closing, t->source);
        }
        /* A plain text gets a BOS only where the tokenizer itself would add one. */
        bool bos = closing || (t->n_prefix && t->prefix[0] == t->bos);
        tpl->bos = token_text(t, bos ? t->bos : -1);
        tpl->closing = token_text(t, id);
        add_stop(tpl, id);
        add_stop(tpl, t->eos);
        for (int i = 0; i < t->n_stop; i++) add_stop(tpl, t->stop[i]);
    }
    if (err != RA_OK) {
        ra_template_close(tpl);
        return err;
    }
    *out = tpl;
    return RA_OK;
}

void ra_template_close(ra_template *tpl)
{
    if (!tpl) return;
    free(tpl->system);
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

ra_err ra_template_render(const ra_template *tpl, const ra_message *messages, int n, bool add_generation_prompt, ra_rendered *out)
{
    ra_buf_clear(&out->text);
    ra_ids_clear(&out->ids);
    out->response_start = out->response_end = -1;
    out->boundary_inside_token = false;
    if (n < 1) return ra_fail(RA_ERR_DATA, "a conversation needs at least one message");
    for (int i = 0; i < n; i++) {
        if (!messages[i].role || !messages[i].content) {
            return ra_fail(RA_ERR_DATA, "message %d must have a role and a content", i + 1);
        }
    }
    ra_page page = {.text = &out->text};
    RA_TRY(tpl->row->render(tpl, messages, n, add_generation_prompt, &page));
    /* One tokenisation of everything. The template writes BOS itself, so none is added here. */
    RA_TRY(ra_tokenizer_encode(tpl->t, out->text.data ? out->text.data : "", out->text.length, RA_ENCODE_OFFSETS, &out->ids));
    if (page.has_response) find_response(&page, out);
    return RA_OK;
}
