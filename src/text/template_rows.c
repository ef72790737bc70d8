/* The templates, one row each: what their Jinja text renders, written out. A row writes exactly the bytes of the original for
 * messages that are plain texts without tools. */
#include "template_impl.h"

#include <stdio.h>
#include <string.h>

static bool is_role(const ra_message *m, const char *role)
{
    return !strcmp(m->role, role);
}

static bool is_response(const ra_message *messages, int i, int n)
{
    return i == n - 1 && is_role(&messages[i], "assistant");
}

static void begin_response(ra_page *page, bool response)
{
    if (response) page->has_response = true, page->response_begin = page->text->length;
}

static void end_response(ra_page *page, bool response)
{
    if (response) page->response_end = page->text->length;
}

static ra_err refuse_role(const ra_template *tpl, const ra_message *m, int i, const char *accepted)
{
    return ra_fail(RA_ERR_DATA, "message %d has role \"%s\", which the template %s does not know; accepted: %s", i + 1, m->role,
                   tpl->row->name, accepted);
}

/* ---- ChatML: <|im_start|>role\ncontent<|im_end|>\n ---- */

static void chatml_turn(ra_page *page, const char *role, const char *content, bool response)
{
    ra_buf_addf(page->text, "<|im_start|>%s\n", role);
    begin_response(page, response);
    ra_buf_adds(page->text, content);
    ra_buf_adds(page->text, "<|im_end|>");
    end_response(page, response);
    ra_buf_adds(page->text, "\n");
}

static ra_err render_chatml(const ra_template *tpl, const ra_message *messages, int n, bool add_generation_prompt, ra_page *page)
{
    if (tpl->system && !is_role(&messages[0], "system")) chatml_turn(page, "system", tpl->system, false);
    for (int i = 0; i < n; i++) chatml_turn(page, messages[i].role, messages[i].content, is_response(messages, i, n));
    if (add_generation_prompt) ra_buf_adds(page->text, "<|im_start|>assistant\n");
    return RA_OK;
}

/* Qwen2.5: ChatML with results of tools as user turns. Its Jinja drops messages of any other role without a word; here that
 * is an error. */
static ra_err render_qwen25(const ra_template *tpl, const ra_message *messages, int n, bool add_generation_prompt, ra_page *page)
{
    if (tpl->system && !is_role(&messages[0], "system")) chatml_turn(page, "system", tpl->system, false);
    for (int i = 0; i < n; i++) {
        const ra_message *m = &messages[i];
        if (is_role(m, "system") || is_role(m, "user") || is_role(m, "assistant")) {
            chatml_turn(page, m->role, m->content, is_response(messages, i, n));
        } else if (is_role(m, "tool")) {
            if (i == 0 || !is_role(m - 1, "tool")) ra_buf_adds(page->text, "<|im_start|>user");
            ra_buf_adds(page->text, "\n<tool_response>\n");
            ra_buf_adds(page->text, m->content);
            ra_buf_adds(page->text, "\n</tool_response>");
            if (i == n - 1 || !is_role(m + 1, "tool")) ra_buf_adds(page->text, "<|im_end|>\n");
        } else {
            return refuse_role(tpl, m, i, "system, user, assistant, tool");
        }
    }
    if (add_generation_prompt) ra_buf_adds(page->text, "<|im_start|>assistant\n");
    return RA_OK;
}

/* ---- Llama 3: <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>, contents trimmed as str.strip() does ---- */

static void llama3_header(ra_page *page, const char *role)
{
    ra_buf_addf(page->text, "<|start_header_id|>%s<|end_header_id|>\n\n", role);
}

static void llama3_content(ra_page *page, const char *content, bool response)
{
    size_t begin, end;
    ra_utf8_strip(content, strlen(content), &begin, &end);
    begin_response(page, response);
    ra_buf_add(page->text, content + begin, end - begin);
    ra_buf_adds(page->text, "<|eot_id|>");
    end_response(page, response);
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

static ra_err llama3_turns(const ra_message *messages, int first, int n, bool tools, bool add_generation_prompt, ra_page *page)
{
    for (int i = first; i < n; i++) {
        const ra_message *m = &messages[i];
        if (tools && (is_role(m, "tool") || is_role(m, "ipython"))) {
            llama3_header(page, "ipython");
            add_json_text(page->text, m->content);
            ra_buf_adds(page->text, "<|eot_id|>");
        } else {
            llama3_header(page, m->role);
            llama3_content(page, m->content, is_response(messages, i, n));
        }
    }
    if (add_generation_prompt) llama3_header(page, "assistant");
    return RA_OK;
}

static ra_err render_llama3(const ra_template *tpl, const ra_message *messages, int n, bool add_generation_prompt, ra_page *page)
{
    ra_buf_adds(page->text, tpl->bos);
    return llama3_turns(messages, 0, n, false, add_generation_prompt, page);
}

/* Llama-3.1 and 3.2: a system turn always, with two dates. Llama-3.2's Jinja prints the day of the run where it can; a training
 * text that changes with the calendar cannot be resumed or cached, so both print the date the texts fall back to. */
static ra_err render_llama31(const ra_template *tpl, const ra_message *messages, int n, bool add_generation_prompt, ra_page *page)
{
    bool system = is_role(&messages[0], "system");
    ra_buf_adds(page->text, tpl->bos);
    llama3_header(page, "system");
    ra_buf_adds(page->text, "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n");
    llama3_content(page, system ? messages[0].content : "", false);
    return llama3_turns(messages, system, n, true, add_generation_prompt, page);
}

/* ---- plain: for base models. BOS where the tokenizer adds one, then the contents as they are, one after the other; EOS
 * after every answer ---- */

static ra_err render_plain(const ra_template *tpl, const ra_message *messages, int n, bool add_generation_prompt, ra_page *page)
{
    (void)add_generation_prompt; /* there is no header to add */
    if (strncmp(messages[0].content, tpl->bos, strlen(tpl->bos)) != 0 || !*tpl->bos) ra_buf_adds(page->text, tpl->bos);
    for (int i = 0; i < n; i++) {
        bool answer = is_role(&messages[i], "assistant"), response = is_response(messages, i, n);
        if (!answer && !is_role(&messages[i], "user") && !is_role(&messages[i], "system")) {
            return refuse_role(tpl, &messages[i], i, "system, user, assistant");
        }
        begin_response(page, response);
        ra_buf_adds(page->text, messages[i].content);
        if (answer) ra_buf_adds(page->text, tpl->closing);
        end_response(page, response);
    }
    return RA_OK;
}

const ra_template_row RA_TEMPLATE_ROWS[] = {
    {"chatml", "<|im_end|>", NULL, render_chatml},
    {"smollm2", "<|im_end|>", "You are a helpful AI assistant named SmolLM, trained by Hugging Face", render_chatml},
    {"qwen2", "<|im_end|>", "You are a helpful assistant.", render_chatml},
    {"qwen2.5", "<|im_end|>", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", render_qwen25},
    {"llama3", "<|eot_id|>", NULL, render_llama3},
    {"llama3.1", "<|eot_id|>", NULL, render_llama31},
    {"llama3.2", "<|eot_id|>", NULL, render_llama31},
    {"plain", NULL, NULL, render_plain},
};
const int RA_TEMPLATE_ROW_COUNT = sizeof RA_TEMPLATE_ROWS / sizeof *RA_TEMPLATE_ROWS;

const ra_template_row *ra_template_row_find(const char *name)
{
    for (int i = 0; i < RA_TEMPLATE_ROW_COUNT; i++) {
        if (!strcmp(RA_TEMPLATE_ROWS[i].name, name)) return &RA_TEMPLATE_ROWS[i];
    }
    return NULL;
}
