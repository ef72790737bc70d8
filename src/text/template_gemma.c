/* Gemma 1 and 2: <start_of_turn>role\ncontent<end_of_turn>\n, contents trimmed, the assistant is the model. */
#include "template_impl.h"

ra_err ra_render_gemma(const ra_template *tpl, const ra_talk *talk, ra_page *page)
{
    if (ra_message_is(&talk->message[0], "system")) return ra_template_raise(tpl, 0, "System role not supported");
    ra_buf_adds(page->text, tpl->bos);
    for (int i = 0; i < talk->n; i++) {
        const ra_message *m = &talk->message[i];
        bool response = ra_talk_responds(talk, i);
        /* Every second turn may be anybody's but the user's: so has it the original. */
        if (ra_message_is(m, "user") != (i % 2 == 0)) {
            return ra_template_raise(tpl, i, "Conversation roles must alternate user/assistant/user/assistant/...");
        }
        ra_buf_addf(page->text, "<start_of_turn>%s\n", ra_message_is(m, "assistant") ? "model" : m->role);
        ra_page_begin(page, response);
        ra_page_add_stripped(page, m->content);
        ra_buf_adds(page->text, "<end_of_turn>");
        ra_page_end(page, response);
        ra_buf_adds(page->text, "\n");
    }
    if (talk->add_generation_prompt) ra_buf_adds(page->text, "<start_of_turn>model\n");
    return RA_OK;
}
