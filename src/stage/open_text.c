#include "open_text.h"

#include <realign/file.h>
#include <realign/mem.h>

#include <jansson.h>
#include <stdlib.h>

ra_err ra_open_template(const ra_settings *s, const ra_tokenizer *t, ra_template **out)
{
    RA_TRY(ra_template_open(ra_set_text(s, "template"), t, out));
    ra_err err = ra_set_given(s, "template_date") ? ra_template_set_date(*out, ra_set_text(s, "template_date")) : RA_OK;
    if (err == RA_OK) return RA_OK;
    ra_template_close(*out);
    *out = NULL;
    return err;
}

static int64_t config_rows(const char *json)
{
    json_t *config = json_loads(json, 0, NULL), *rows = json_object_get(config, "vocab_size");
    int64_t n = json_is_integer(rows) ? json_integer_value(rows) : -1;
    json_decref(config);
    return n;
}

int64_t ra_model_rows(const ra_modelfile *file)
{
    int i = ra_modelfile_find(file, "model.embed_tokens.weight");
    if (i >= 0) return ra_modelfile_info(file, i)->shape[0];
    char *json;
    if (ra_modelfile_config_json(file, &json) != RA_OK) return -1;
    int64_t rows = config_rows(json);
    free(json);
    return rows;
}

ra_err ra_check_tokenizer(const ra_tokenizer *t, const ra_modelfile *file)
{
    int64_t rows = ra_model_rows(file);
    return rows < 0 ? RA_OK : ra_tokenizer_check_rows(t, rows, ra_modelfile_path(file));
}

ra_err ra_check_tokenizer_early(const ra_settings *s, const ra_tokenizer *t, bool *looked)
{
    const char *model = ra_set_text(s, "model");
    ra_modelfile *file = NULL;
    *looked = *model && ra_modelfile_open(model, &file) == RA_OK;
    if (*looked) {
        ra_err err = ra_check_tokenizer(t, file);
        ra_modelfile_close(file);
        return err;
    }
    /* Data can be prepared where the weights are not. */
    char *path = ra_path_join(model, "config.json");
    ra_buf json = {0};
    int64_t rows =
        *model && ra_file_exists(path) && ra_file_read(path, &json) == RA_OK && json.data ? config_rows(json.data) : -1;
    free(path);
    ra_buf_free(&json);
    *looked = rows >= 0;
    return *looked ? ra_tokenizer_check_rows(t, rows, model) : RA_OK;
}
