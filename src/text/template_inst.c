/* [INST] question [/INST] answer EOS: Llama 2 and the first Mistral models. An answer has no header, so there is nothing to add where
 * one is to be generated. */
#include "template_impl.h"

static const char ALTERNATE[] = "Conversation roles must alternate user/assistant/user/assistant/...";

/* The answer with what stands around it and EOS. */
static void add_answer(const ra_template *tpl, ra_page *page, const char *before, const char *content, bool strip,
                       const char *after, bool response)
{
    ra_page_begin(page, response);
    ra_buf_adds(page->text, before);
    if (strip) {
        ra_page_add_stripped(page, content);
    } else {
        ra_buf_adds(page->text, content);
    }
    ra_buf_addf(page->text, "%s%s", after, tpl->closing);
    ra_page_end(page, response);
}

ra_err ra_render_llama2(const ra_template *tpl, const ra_talk *talk, ra_page *page)
{
    int system = ra_message_is(&talk->message[0], "system");
    for (int i = system; i < talk->n; i++) {
        const ra_message *m = &talk->message[i];
        if (ra_message_is(m, "user") != ((i - system) % 2 == 0)) return ra_template_raise(tpl, i, ALTERNATE);
        if (ra_message_is(m, "assistant")) {
            add_answer(tpl, page, " ", m->content, true, " ", ra_talk_responds(talk, i));
        } else if (ra_message_is(m, "user")) {
            ra_buf content = {0};
            if (system && i == 1) ra_buf_addf(&content, "<<SYS>>\n%s\n<</SYS>>\n\n", talk->message[0].content);
            ra_buf_adds(&content, m->content);
            ra_buf_addf(page->text, "%s[INST] ", tpl->bos);
            ra_page_add_stripped(page, content.data);
            ra_buf_adds(page->text, " [/INST]");
            ra_buf_free(&content);
        } else {
            return ra_template_refuse_role(tpl, talk, i, "user, assistant, and system in front");
        }
    }
    return RA_OK;
}

ra_err ra_render_mistral(const ra_template *tpl, const ra_talk *talk, ra_page *page)
{
    ra_buf_adds(page->text, tpl->bos);
    for (int i = 0; i < talk->n; i++) {
        const ra_message *m = &talk->message[i];
        if (ra_message_is(m, "user") != (i % 2 == 0)) return ra_template_raise(tpl, i, ALTERNATE);
        if (ra_message_is(m, "user")) {
            ra_buf_addf(page->text, "[INST] %s [/INST]", m->content);
        } else if (ra_message_is(m, "assistant")) {
            add_answer(tpl, page, "", m->content, false, "", ra_talk_responds(talk, i));
        } else {
            return ra_template_raise(tpl, i, "Only user and assistant roles are supported!");
        }
    }
    return RA_OK;
}

ra_err ra_render_mistral_v1(const ra_template *tpl, const ra_talk *talk, ra_page *page)
{
    int system = ra_message_is(&talk->message[0], "system");
    ra_buf_adds(page->text, tpl->bos);
    for (int i = system; i < talk->n; i++) {
        const ra_message *m = &talk->message[i];
        if (ra_message_is(m, "user") != ((i - system) % 2 == 0)) {
            return ra_template_raise(tpl, i,
                                     "After the optional system message, conversation roles must alternate "
                                     "user/assistant/user/assistant/...");
        }
        if (ra_message_is(m, "user")) {
            ra_buf_adds(page->text, " [INST] ");
            if (system && i == 1) ra_buf_addf(page->text, "%s\n\n", talk->message[0].content);
            ra_buf_addf(page->text, "%s [/INST]", m->content);
        } else if (ra_message_is(m, "assistant")) {
            add_answer(tpl, page, " ", m->content, false, "", ra_talk_responds(talk, i));
        } else {
            return ra_template_raise(
                tpl, i, "Only user and assistant roles are supported, with the exception of an initial optional system message!");
        }
    }
    return RA_OK;
}
