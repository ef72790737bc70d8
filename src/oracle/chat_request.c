/* The body of a request. */
#include "chat_impl.h"
#include "jsontext.h"

#include <stdlib.h>
#include <string.h>

ra_err ra_chat_read_extra(const ra_chat_config *config, json_t **out)
{
    *out = NULL;
    if (!config->extra || !*config->extra) return RA_OK;
    json_error_t error;
    json_t *extra = json_loads(config->extra, JSON_REJECT_DUPLICATES, &error);
    if (!extra) return ra_fail(RA_ERR_ARG, "%s.extra is no JSON: %s (at character %d)", config->name, error.text, error.position);
    static const char *const ours[] = {"messages", "model", "stream", "n", "logprobs", "top_logprobs"};
    const char *taken = NULL;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        if (json_object_get(extra, ours[i])) taken = ours[i];
    }
    if (json_is_object(extra) && !taken) {
        *out = extra;
        return RA_OK;
    }
    json_decref(extra);
    if (taken) return ra_fail(RA_ERR_ARG, "%s.extra may not hold \"%s\": realign sets it itself", config->name, taken);
    return ra_fail(RA_ERR_ARG, "%s.extra must be a JSON object, such as {\"top_p\": 1}", config->name);
}

void ra_chat_write_request(const ra_chat_config *config, const json_t *extra, const ra_chat_question *question, ra_buf *body)
{
    json_t *root = json_object();
    json_object_set_new(root, "model", ra_json_string_of(config->model));
    json_object_set_new(root, "messages", ra_json_turns(question->messages, question->n_messages));
    if (!config->own_sampling) json_object_set_new(root, "temperature", json_real(question->temperature));
    json_object_set_new(root, config->newer_limit ? "max_completion_tokens" : "max_tokens", json_integer(question->max_tokens));
    if (question->seed >= 0) json_object_set_new(root, "seed", json_integer(question->seed));
    if (question->top_logprobs > 0) { /* each of the two is an error without the other on some server */
        json_object_set_new(root, "logprobs", json_true());
        json_object_set_new(root, "top_logprobs", json_integer(question->top_logprobs));
    }
    if (extra) json_object_update(root, (json_t *)extra);
    char *text = json_dumps(root, JSON_COMPACT);
    ra_buf_adds(body, text);
    free(text);
    json_decref(root);
}
