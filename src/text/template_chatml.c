/* ChatML and what is made of it: <|im_start|>role\ncontent<|im_end|>\n, contents as they are. */
#include "template_impl.h"

static void add_turn(ra_page *page, const char *role, const char *content, bool response)
{
    ra_buf_addf(page->text, "<|im_start|>%s\n", role);
    ra_page_begin(page, response);
    ra_buf_adds(page->text, content);
    ra_buf_adds(page->text, "<|im_end|>");
    ra_page_end(page, response);
    ra_buf_adds(page->text, "\n");
}

static void add_default_system(const ra_template *tpl, const ra_talk *talk, ra_page *page)
{
    if (tpl->system && !ra_message_is(&talk->message[0], "system")) add_turn(page, "system", tpl->system, false);
}

ra_err ra_render_chatml(const ra_template *tpl, const ra_talk *talk, ra_page *page)
{
    add_default_system(tpl, talk, page);
    for (int i = 0; i < talk->n; i++) {
        add_turn(page, talk->message[i].role, talk->message[i].content, ra_talk_responds(talk, i));
    }
    if (talk->add_generation_prompt) ra_buf_adds(page->text, "<|im_start|>assistant\n");
    return RA_OK;
}

/* Results of tools are user turns; neighbours share one. */
ra_err ra_render_qwen25(const ra_template *tpl, const ra_talk *talk, ra_page *page)
{
    add_default_system(tpl, talk, page);
    for (int i = 0; i < talk->n; i++) {
        const ra_message *m = &talk->message[i];
        if (ra_message_is(m, "system") || ra_message_is(m, "user") || ra_message_is(m, "assistant")) {
            add_turn(page, m->role, m->content, ra_talk_responds(talk, i));
        } else if (ra_message_is(m, "tool")) {
            if (i == 0 || !ra_message_is(m - 1, "tool")) ra_buf_adds(page->text, "<|im_start|>user");
            ra_buf_adds(page->text, "\n<tool_response>\n");
            ra_buf_adds(page->text, m->content);
            ra_buf_adds(page->text, "\n</tool_response>");
            if (i == talk->n - 1 || !ra_message_is(m + 1, "tool")) ra_buf_adds(page->text, "<|im_end|>\n");
        } else {
            return ra_template_refuse_role(tpl, talk, i, "system, user, assistant, tool");
        }
    }
    if (talk->add_generation_prompt) ra_buf_adds(page->text, "<|im_start|>assistant\n");
    return RA_OK;
}

/* The header of an answer belongs to the user turn before it, asked for or not. */
ra_err ra_render_qwen_lf(const ra_template *tpl, const ra_talk *talk, ra_page *page)
{
    bool own = ra_message_is(&talk->message[0], "system");
    add_turn(page, "system", own ? talk->message[0].content : tpl->system, false);
    for (int i = own; i < talk->n; i++) {
        const ra_message *m = &talk->message[i];
        bool response = ra_talk_responds(talk, i);
        if (ra_message_is(m, "user")) {
            add_turn(page, "user", m->content, false);
            ra_buf_adds(page->text, "<|im_start|>assistant\n");
        } else if (ra_message_is(m, "assistant")) {
            ra_page_begin(page, response);
            ra_buf_adds(page->text, m->content);
            ra_buf_adds(page->text, "<|im_end|>");
            ra_page_end(page, response);
            ra_buf_adds(page->text, "\n");
        } else {
            return ra_template_refuse_role(tpl, talk, i, "user, assistant, and system in front");
        }
    }
    return RA_OK;
}
