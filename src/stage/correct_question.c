/* What a corrector is asked, and what of its answer counts. */
#include "corrector.h"
#include "../oracle/http.h"

#include <realign/mem.h>

#include <stdlib.h>
#include <string.h>

static const char built_in[] = "Answer the message at the end. Your answer must comply with the policy that stands between "
                               "markers here. Write the answer alone: "
                               "nothing about the policy, no comment on the message.\n\n{policy}";
static const char place[] = "{policy}";
static const char rejected_words[] = "These answers break the policy. Do not repeat what is wrong in them.\n\n";

static const char *words_of(const ra_policy *policy)
{
    return policy->text ? policy->text : *policy->description ? policy->description : NULL;
}

ra_err ra_correct_instruction(const ra_settings *s, const ra_policy *policy, char **out)
{
    const char *text = ra_set_text(s, "correct.prompt"), *words = words_of(policy);
    *out = NULL;
    if (!*text) text = built_in;
    if (strstr(text, place) && !words) {
        return ra_fail(
            RA_ERR_ARG,
            "correct.source: %s has neither `text:` nor `description:` to tell the corrector (doc/policies.md); add one, or "
            "say in correct.prompt what an answer must keep, without {policy}",
            policy->path);
    }
    ra_buf b = {0};
    ra_buf_adds(&b, "");
    for (const char *next; (next = strstr(text, place)); text = next + sizeof place - 1) {
        ra_buf_add(&b, text, (size_t)(next - text));
        ra_question_add_marked(&b, "policy", words);
        while (b.length > 0 && b.data[b.length - 1] == '\n') b.data[--b.length] = '\0';
    }
    ra_buf_adds(&b, text);
    *out = b.data;
    return RA_OK;
}

void ra_correct_write_question(const char *instruction, bool show_rejected, const ra_row *row, ra_buf *out)
{
    ra_buf_adds(out, instruction);
    ra_buf_adds(out, "\n\n");
    if (show_rejected) {
        ra_buf_adds(out, rejected_words);
        ra_question_add_marked(out, "answer", row->chosen);
        ra_question_add_marked(out, "answer", row->rejected);
    }
    ra_question_add_marked(out, "message", row->prompt_text);
    while (out->length > 0 && out->data[out->length - 1] == '\n') out->data[--out->length] = '\0';
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

char *ra_correct_clean_answer(const char *text, bool *open)
{
    static const char begin[] = "<think>", end[] = "</think>";
    *open = false;
    while (is_space(*text)) text++;
    if (strncmp(text, begin, sizeof begin - 1) == 0) {
        const char *after = strstr(text, end);
        *open = after == NULL;
        text = after ? after + sizeof end - 1 : "";
    }
    while (is_space(*text)) text++;
    size_t n = strlen(text);
    while (n > 0 && is_space(text[n - 1])) n--;
    return ra_strndup(text, n);
}
