/* Llama 3: <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>, contents trimmed. */
#include "template_impl.h"

static void add_header(ra_page *page, const char *role)
{
    ra_buf_addf(page->text, "<|start_header_id|>%s<|end_header_id|>\n\n", role);
}

static void add_content(ra_page *page, const char *content, bool response)
{
    ra_page_begin(page, response);
    ra_page_add_stripped(page, content);
    ra_buf_adds(page->text, "<|eot_id|>");
    ra_page_end(page, response);
}

/* Jinja's tojson in transformers: json.dumps(text, ensure_ascii=False). */
static void add_json_text(ra_buf *out, const char *text)
{
    ra_buf_adds(out, "\"");
    for (; *text; text++) {
        const char *plain = "\"\\\n\r\t\b\f", *name = "\"\\nrtbf", *hit = strchr(plain, *text);
        if (hit) {
            ra_buf_addf(out, "\\%c", name[hit - plain]);
        } else if ((unsigned char)*text < 0x20) {
            ra_buf_addf(out, "\\u%04x", (unsigned)*text);
        } else {
            ra_buf_add(out, text, 1);
        }
    }
    ra_buf_adds(out, "\"");
}

static void add_turns(const ra_talk *talk, int first, bool tools, ra_page *page)
{
    for (int i = first; i < talk->n; i++) {
        const ra_message *m = &talk->message[i];
        if (tools && (ra_message_is(m, "tool") || ra_message_is(m, "ipython"))) {
            add_header(page, "ipython");
            add_json_text(page->text, m->content);
            ra_buf_adds(page->text, "<|eot_id|>");
        } else {
            add_header(page, m->role);
            add_content(page, m->content, ra_talk_responds(talk, i));
        }
    }
    if (talk->add_generation_prompt) add_header(page, "assistant");
}

ra_err ra_render_llama3(const ra_template *tpl, const ra_talk *talk, ra_page *page)
{
    ra_buf_adds(page->text, tpl->bos);
    add_turns(talk, 0, false, page);
    return RA_OK;
}

/* The first Llama-3 texts end with the assistant's header, asked for or not. */
ra_err ra_render_llama3_open(const ra_template *tpl, const ra_talk *talk, ra_page *page)
{
    return ra_render_llama3(tpl, &(ra_talk){talk->message, talk->n, true}, page);
}

/* Llama-3.1 and 3.2: a system turn always, with two dates. Llama-3.2's Jinja prints the day of the run where it can; a training
 * text that changes with the calendar can be neither resumed nor cached, so the date is a setting for both. */
ra_err ra_render_llama31(const ra_template *tpl, const ra_talk *talk, ra_page *page)
{
    bool system = ra_message_is(&talk->message[0], "system");
    ra_buf_adds(page->text, tpl->bos);
    add_header(page, "system");
    ra_buf_addf(page->text, "Cutting Knowledge Date: December 2023\nToday Date: %s\n\n", tpl->date);
    add_content(page, system ? talk->message[0].content : "", false);
    add_turns(talk, system, true, page);
    return RA_OK;
}
