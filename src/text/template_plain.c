/* Templates whose headers are ordinary text: no token has to be there but, at most, EOS. */
#include "template_impl.h"

ra_err ra_render_zephyr(const ra_template *tpl, const ra_talk *talk, ra_page *page)
{
    for (int i = 0; i < talk->n; i++) {
        const ra_message *m = &talk->message[i];
        bool response = ra_talk_responds(talk, i);
        if (!ra_message_is(m, "user") && !ra_message_is(m, "system") && !ra_message_is(m, "assistant")) {
            return ra_template_refuse_role(tpl, talk, i, "system, user, assistant");
        }
        ra_buf_addf(page->text, "<|%s|>\n", m->role);
        ra_page_begin(page, response);
        ra_buf_addf(page->text, "%s%s", m->content, tpl->closing);
        ra_page_end(page, response);
        ra_buf_adds(page->text, "\n");
    }
    if (talk->add_generation_prompt) ra_buf_adds(page->text, "<|assistant|>\n");
    return RA_OK;
}

/* BOS where the tokenizer adds one, unless the text brings it. */
static void add_bos(const ra_template *tpl, const char *first, ra_page *page)
{
    if (!*tpl->bos || strncmp(first, tpl->bos, strlen(tpl->bos)) != 0) ra_buf_adds(page->text, tpl->bos);
}

/* The form of the Alpaca data: a sentence on the task (the system turn, if there is one), then sections with headings. */
ra_err ra_render_alpaca(const ra_template *tpl, const ra_talk *talk, ra_page *page)
{
    bool own = ra_message_is(&talk->message[0], "system");
    const char *system = own ? talk->message[0].content : tpl->system;
    add_bos(tpl, system, page);
    if (*system) ra_buf_addf(page->text, "%s\n\n", system);
    for (int i = own; i < talk->n; i++) {
        const ra_message *m = &talk->message[i];
        bool response = ra_talk_responds(talk, i);
        if (ra_message_is(m, "user")) {
            ra_buf_addf(page->text, "### Instruction:\n%s\n\n", m->content);
        } else if (ra_message_is(m, "assistant")) {
            ra_buf_adds(page->text, "### Response:\n");
            ra_page_begin(page, response);
            ra_buf_addf(page->text, "%s%s", m->content, tpl->closing);
            ra_page_end(page, response);
            ra_buf_adds(page->text, "\n\n");
        } else {
            return ra_template_refuse_role(tpl, talk, i, "user, assistant, and system in front");
        }
    }
    if (talk->add_generation_prompt) ra_buf_adds(page->text, "### Response:\n");
    return RA_OK;
}

/* For base models: the contents as they are, one after the other; EOS after every answer. There is no header to add. */
ra_err ra_render_plain(const ra_template *tpl, const ra_talk *talk, ra_page *page)
{
    add_bos(tpl, talk->message[0].content, page);
    for (int i = 0; i < talk->n; i++) {
        const ra_message *m = &talk->message[i];
        bool answer = ra_message_is(m, "assistant"), response = ra_talk_responds(talk, i);
        if (!answer && !ra_message_is(m, "user") && !ra_message_is(m, "system")) {
            return ra_template_refuse_role(tpl, talk, i, "system, user, assistant");
        }
        ra_page_begin(page, response);
        ra_buf_adds(page->text, m->content);
        if (answer) ra_buf_adds(page->text, tpl->closing);
        ra_page_end(page, response);
    }
    return RA_OK;
}
