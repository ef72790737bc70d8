/* The templates, one row each: what their Jinja text renders, written out in C. A row writes exactly the bytes of the original for
 * messages that are plain texts without tools. doc/templates.md describes them. */
#include "template_impl.h"
#include "unicode.h"

void ra_page_add_stripped(ra_page *page, const char *content)
{
    size_t begin, end;
    ra_utf8_strip(content, strlen(content), &begin, &end);
    ra_buf_add(page->text, content + begin, end - begin);
}

ra_err ra_template_refuse_role(const ra_template *tpl, const ra_talk *talk, int i, const char *accepted)
{
    return ra_fail(RA_ERR_DATA, "message %d has role \"%s\", which the template %s does not know; accepted: %s", i + 1,
                   talk->message[i].role, tpl->row->name, accepted);
}

ra_err ra_template_raise(const ra_template *tpl, int i, const char *words)
{
    return ra_fail(RA_ERR_DATA, "message %d: %s (template %s)", i + 1, words, tpl->row->name);
}

#define IM_TOKENS .closing = "<|im_end|>", .token = {"<|im_start|>", "<|im_end|>"}
#define LLAMA3_TOKENS .closing = "<|eot_id|>", .trims = true, .token = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}

const ra_template_row RA_TEMPLATE_ROWS[] = {
    {.name = "chatml", IM_TOKENS, .mark = {"<|im_start|>"}, .render = ra_render_chatml},
    {.name = "smollm2",
     IM_TOKENS,
     .mark = {"<|im_start|>", "SmolLM"},
     .system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
     .render = ra_render_chatml},
    {.name = "qwen2", IM_TOKENS, .system = "You are a helpful assistant.", .render = ra_render_chatml},
    {.name = "qwen2.5",
     IM_TOKENS,
     .mark = {"<|im_start|>", "<tool_response>"},
     .system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
     .render = ra_render_qwen25},
    {.name = "qwen-lf", IM_TOKENS, .system = "You are a helpful assistant.", .render = ra_render_qwen_lf},
    {.name = "llama3", LLAMA3_TOKENS, .mark = {"<|start_header_id|>"}, .render = ra_render_llama3},
    {.name = "llama3-open", LLAMA3_TOKENS, .render = ra_render_llama3_open},
    {.name = "llama3.1",
     LLAMA3_TOKENS,
     .dated = true,
     .mark = {"<|start_header_id|>", "Cutting Knowledge Date"},
     .render = ra_render_llama31},
    {.name = "llama3.2",
     LLAMA3_TOKENS,
     .dated = true,
     .mark = {"<|start_header_id|>", "Cutting Knowledge Date", "strftime_now"},
     .render = ra_render_llama31},
    {.name = "gemma2",
     .closing = "<end_of_turn>",
     .trims = true,
     .token = {"<start_of_turn>", "<end_of_turn>"},
     .mark = {"<start_of_turn>"},
     .render = ra_render_gemma},
    {.name = "llama2", .trims = true, .bos = RA_BOS_REQUIRED, .mark = {"[INST]", "<<SYS>>"}, .render = ra_render_llama2},
    {.name = "mistral", .mark = {"[INST]"}, .render = ra_render_mistral},
    {.name = "mistral-v1", .mark = {"[INST]", "After the optional system message"}, .render = ra_render_mistral_v1},
    {.name = "zephyr", .bos = RA_BOS_OF_TOKENIZER, .mark = {"<|user|>", "<|assistant|>"}, .render = ra_render_zephyr},
    {.name = "alpaca",
     .eos_optional = true,
     .bos = RA_BOS_OF_TOKENIZER,
     .mark = {"### Instruction:"},
     .system = "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
     .render = ra_render_alpaca},
    {.name = "plain", .eos_optional = true, .bos = RA_BOS_OF_TOKENIZER, .render = ra_render_plain},
};
const int RA_TEMPLATE_ROW_COUNT = sizeof RA_TEMPLATE_ROWS / sizeof *RA_TEMPLATE_ROWS;

const ra_template_row *ra_template_row_find(const char *name)
{
    for (int i = 0; i < RA_TEMPLATE_ROW_COUNT; i++) {
        if (!strcmp(RA_TEMPLATE_ROWS[i].name, name)) return &RA_TEMPLATE_ROWS[i];
    }
    return NULL;
}
