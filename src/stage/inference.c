#include "inference.h"
#include "open_text.h"

#include <realign/file.h>
#include <realign/mem.h>

#include <stdlib.h>
#include <string.h>

static void add_stop(ra_inference *i, int32_t id)
{
    for (int32_t k = 0; k < i->stops; k++) {
        if (i->stop[k] == id) return;
    }
    if (id >= 0 && i->stops < (int32_t)(sizeof i->stop / sizeof i->stop[0])) i->stop[i->stops++] = id;
}

/* config.json's eos_token_id: a number or a list. */
static ra_err add_config_stops(ra_inference *i)
{
    char *text = NULL;
    RA_TRY(ra_modelfile_config_json(i->file, &text));
    json_t *config = json_loads(text, 0, NULL), *eos = json_object_get(config, "eos_token_id");
    if (json_is_integer(eos)) add_stop(i, (int32_t)json_integer_value(eos));
    for (size_t k = 0; k < json_array_size(eos); k++) add_stop(i, (int32_t)json_integer_value(json_array_get(eos, k)));
    json_decref(config);
    free(text);
    return RA_OK;
}

/* `tpl` NULL: the settings' own template. `asked_for`: ids alone will not do. */
static ra_err open_text(const ra_settings *s, const char *tokenizer, const char *tpl, bool asked_for, ra_inference *i)
{
    ra_err err = ra_tokenizer_open(tokenizer, &i->tokenizer);
    if (err == RA_OK) {
        add_stop(i, ra_tokenizer_eos(i->tokenizer));
        err = tpl ? ra_template_open(tpl, i->tokenizer, &i->tpl) : ra_open_template(s, i->tokenizer, &i->tpl);
    } else {
        i->tokenizer = NULL;
    }
    if (err != RA_OK) { /* ids need neither */
        i->tpl = NULL;
        i->why_no_text = ra_strdup(ra_error_message());
        return asked_for ? err : RA_OK;
    }
    const int32_t *ids;
    int n = ra_template_stop_ids(i->tpl, &ids);
    for (int k = 0; k < n; k++) add_stop(i, ids[k]);
    return RA_OK;
}

static ra_err stage_part(const ra_grid *grid, const ra_modelfile *file, ra_part *out)
{
    ra_arch arch;
    const ra_grid alone = ra_grid_alone();
    RA_TRY(ra_arch_of(file, &arch));
    ra_err err = ra_grid_share(grid ? grid : &alone, &arch, out);
    ra_arch_free(&arch);
    return err;
}

static ra_err open_model(const ra_settings *s, const ra_grid *grid, const char *model, const char *adapter, ra_inference *i)
{
    ra_lora_config lora;
    ra_part part;
    RA_TRY(ra_backend_open(ra_set_text(s, "backend"), ra_set_text(s, "precision"), (int)ra_set_int(s, "run.threads"), &i->b));
    RA_TRY(ra_modelfile_open(model, &i->file));
    if (i->tokenizer) RA_TRY(ra_check_tokenizer(i->tokenizer, i->file));
    RA_TRY(add_config_stops(i));
    if (adapter) RA_TRY(ra_lora_read_config(adapter, &lora));
    RA_TRY(stage_part(grid, i->file, &part));
    RA_TRY(ra_model_open(i->b, i->file, RA_FROZEN, adapter ? &lora : NULL, 0, &part, &i->m));
    if (adapter) RA_TRY(ra_model_load_adapter(i->m, adapter));
    return RA_OK;
}

static ra_err open_all(const ra_settings *s, const ra_grid *grid, const char *model, const char *adapter, const char *tokenizer,
                       const char *tpl, bool asked_for, ra_inference *out)
{
    memset(out, 0, sizeof *out);
    ra_err err = open_text(s, tokenizer, tpl, asked_for, out);
    if (err == RA_OK) err = open_model(s, grid, model, adapter, out);
    if (err != RA_OK) ra_inference_close(out);
    return err;
}

ra_err ra_inference_open(const ra_settings *s, const ra_grid *grid, const char *model, const char *adapter, ra_inference *out)
{
    bool given = ra_set_given(s, "tokenizer");
    return open_all(s, grid, model, adapter, given ? ra_set_text(s, "tokenizer") : model, NULL,
                    given || ra_set_given(s, "template") || ra_set_given(s, "template_date"), out);
}

ra_err ra_inference_open_other(const ra_settings *s, const ra_grid *grid, const char *model, const char *adapter,
                               const char *tokenizer, const char *tpl, ra_inference *out)
{
    return open_all(s, grid, model, adapter, tokenizer && *tokenizer ? tokenizer : model, tpl, true, out);
}

void ra_inference_close(ra_inference *i)
{
    ra_model_close(i->m);
    ra_modelfile_close(i->file);
    ra_backend_close(i->b);
    ra_template_close(i->tpl);
    ra_tokenizer_close(i->tokenizer);
    free(i->why_no_text);
    memset(i, 0, sizeof *i);
}

const char *ra_adapter_in(const char *dir)
{
    char *config = ra_path_join(dir, "adapter_config.json");
    bool adapter = ra_file_exists(config);
    free(config);
    return adapter ? dir : NULL;
}

ra_generation ra_generation_of(const ra_settings *s, const ra_inference *i)
{
    return (ra_generation){.sampling = {.temperature = ra_set_real(s, "generate.temperature"),
                                        .top_p = ra_set_real(s, "generate.top_p"),
                                        .seed = (uint64_t)ra_set_int(s, "seed")},
                           .batch = (int32_t)ra_set_int(s, "generate.batch"),
                           .max_new_tokens = (int32_t)ra_set_int(s, "max_new_tokens"),
                           .prefill_rows = (int32_t)ra_set_int(s, "pack.tokens"),
                           .stop = i->stop,
                           .stops = i->stops};
}

/* A string without a NUL character, which no chat template can take. */
static const char *text_of(const json_t *value)
{
    const char *text = json_string_value(value);
    return text && strlen(text) == json_string_length(value) ? text : NULL;
}

static ra_err read_messages(const json_t *list, ra_message *turns)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        turns[i] = (ra_message){text_of(json_object_get(item, "role")), text_of(json_object_get(item, "content"))};
        if (!turns[i].role || !turns[i].content) {
            return ra_fail(RA_ERR_DATA, "messages[%zu] must have a role and a content, both strings without a NUL character", i);
        }
    }
    return RA_OK;
}

ra_err ra_turns_read(const json_t *line, ra_message **out, int *n)
{
    const json_t *list = json_object_get(line, "messages"), *prompt = json_object_get(line, "prompt"),
                 *response = json_object_get(line, "response");
    *out = NULL;
    *n = 0;
    if ((list != NULL) == (prompt != NULL))
        return ra_fail(RA_ERR_DATA, "exactly one of \"messages\" and \"prompt\" (or \"ids\") was expected");
    if (list && (!json_is_array(list) || json_array_size(list) == 0))
        return ra_fail(RA_ERR_DATA, "\"messages\" must be a list of at least one message");
    if (prompt && !text_of(prompt)) return ra_fail(RA_ERR_DATA, "\"prompt\" must be a string without a NUL character");
    if (response && !text_of(response)) return ra_fail(RA_ERR_DATA, "\"response\" must be a string without a NUL character");
    size_t count = list ? json_array_size(list) : 1;
    ra_message *turns = ra_calloc(count + 1, sizeof *turns);
    ra_err err = list ? read_messages(list, turns) : RA_OK;
    if (err != RA_OK) {
        ra_free(turns);
        return err;
    }
    if (prompt) turns[0] = (ra_message){"user", text_of(prompt)};
    if (response) turns[count++] = (ra_message){"assistant", text_of(response)};
    *out = turns;
    *n = (int)count;
    return RA_OK;
}

ra_err ra_ids_read(const json_t *line, int32_t **out, int32_t *n)
{
    const json_t *list = json_object_get(line, "ids");
    *out = NULL;
    *n = 0;
    if (!json_is_array(list)) return ra_fail(RA_ERR_DATA, "\"ids\" must be a list of token ids");
    size_t count = json_array_size(list);
    if (count > INT32_MAX) return ra_fail(RA_ERR_DATA, "\"ids\" has %zu entries", count);
    int32_t *ids = ra_alloc(count + 1, sizeof *ids);
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX) {
            ra_free(ids);
            return ra_fail(RA_ERR_DATA, "ids[%zu] must be a token id, a whole number from 0", i);
        }
        ids[i] = (int32_t)json_integer_value(id);
    }
    *out = ids;
    *n = (int32_t)count;
    return RA_OK;
}

json_t *ra_ids_json(const int32_t *ids, int32_t n)
{
    json_t *list = json_array();
    for (int32_t i = 0; i < n; i++) json_array_append_new(list, json_integer(ids[i]));
    return list;
}

ra_err ra_turns_render(const ra_inference *i, const ra_message *turns, int n, bool add_generation_prompt, ra_rendered *out)
{
    if (!i->tpl) return ra_fail(RA_ERR_ARG, "%s", i->why_no_text);
    return ra_template_render(i->tpl, turns, n, add_generation_prompt, out);
}
