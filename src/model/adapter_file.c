/* Reading PEFT LoRA adapters: adapter_config.json and adapter_model.safetensors. */
#include <realign/file.h>
#include <realign/model.h>

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static ra_err refuse_variants(const char *path, json_t *root)
{
    static const char *const flags[] = {"use_dora", "use_rslora", "fan_in_fan_out", "lora_bias"};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (json_is_true(json_object_get(root, flags[i])))
            return ra_fail(RA_ERR_UNSUPPORTED, "%s: \"%s\" is true; plain LoRA alone is read", path, flags[i]);
    }
    static const char *const patterns[] = {"rank_pattern", "alpha_pattern"};
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        if (json_object_size(json_object_get(root, patterns[i]))) {
            return ra_fail(RA_ERR_UNSUPPORTED, "%s: \"%s\" is not empty; one rank and alpha for all modules is read", path,
                           patterns[i]);
        }
    }
    return RA_OK;
}

static ra_err parse_config(const char *path, json_t *root, ra_lora_config *out)
{
    RA_TRY(refuse_variants(path, root));
    json_t *rank = json_object_get(root, "r"), *alpha = json_object_get(root, "lora_alpha"),
           *targets = json_object_get(root, "target_modules");
    if (!json_is_integer(rank) || json_integer_value(rank) < 1 || json_integer_value(rank) > 4096) {
        return ra_fail(RA_ERR_FORMAT, "%s: \"r\" must be an integer from 1 to 4096", path);
    }
    if (!json_is_number(alpha)) return ra_fail(RA_ERR_FORMAT, "%s: \"lora_alpha\" must be a number", path);
    if (!json_is_array(targets)) return ra_fail(RA_ERR_FORMAT, "%s: \"target_modules\" must be a list of projections", path);
    *out = (ra_lora_config){.rank = (int32_t)json_integer_value(rank), .alpha = json_number_value(alpha)};
    size_t i;
    json_t *item;
    json_array_foreach(targets, i, item)
    {
        const char *name = json_string_value(item);
        int j = 0;
        while (j < RA_PROJECTIONS && (!name || strcmp(name, ra_projection_name[j]) != 0)) j++;
        if (j == RA_PROJECTIONS) {
            return ra_fail(RA_ERR_UNSUPPORTED,
                           "%s: target module \"%s\"; accepted: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj",
                           path, name ? name : "?");
        }
        out->targets |= 1u << j;
    }
    return out->targets ? RA_OK : ra_fail(RA_ERR_FORMAT, "%s: \"target_modules\" is empty", path);
}

ra_err ra_lora_read_config(const char *dir, ra_lora_config *out)
{
    char *path = ra_path_join(dir, "adapter_config.json");
    ra_buf text = {0};
    ra_err err = ra_file_read(path, &text);
    if (err == RA_OK) {
        json_error_t where;
        json_t *root = json_loadb(text.data, text.length, 0, &where);
        err = json_is_object(root) ? parse_config(path, root, out)
                                   : ra_fail(RA_ERR_FORMAT, "%s:%d: not a JSON object: %s", path, where.line, where.text);
        json_decref(root);
    }
    ra_buf_free(&text);
    free(path);
    return err;
}

static ra_err load_one(ra_model *m, const ra_modelfile *file, const ra_param *p)
{
    ra_backend *b = m->b;
    char *name = ra_format("base_model.model.%s", p->name);
    int i = ra_modelfile_find(file, name);
    ra_err err = RA_OK;
    if (i < 0) {
        err = ra_fail(RA_ERR_FORMAT, "%s: tensor %s is missing", ra_modelfile_path(file), name);
    } else {
        const ra_tensor_info *info = ra_modelfile_info(file, i);
        if (info->ndim != 2 || info->shape[0] != p->shape[0] || info->shape[1] != p->shape[1]) {
            err = ra_fail(RA_ERR_FORMAT, "%s: tensor %s does not have shape (%lld, %lld)", ra_modelfile_path(file), name,
                          (long long)p->shape[0], (long long)p->shape[1]);
        }
    }
    if (err == RA_OK) {
        void *values = ra_alloc((size_t)p->count, b->r_size);
        err = ra_modelfile_read(file, name, 0, p->count, b->r, values);
        if (err == RA_OK)
            b->ops->upload(b, (char *)m->adapter_r + (size_t)p->offset * b->r_size, values, (size_t)p->count * b->r_size);
        ra_free(values);
    }
    free(name);
    return err;
}

ra_err ra_model_load_adapter(ra_model *m, const char *dir)
{
    char *path = ra_path_join(dir, "adapter_model.safetensors");
    ra_modelfile *file = NULL;
    ra_err err = ra_modelfile_open(path, &file);
    free(path);
    if (err != RA_OK) return err;
    for (int i = 0; i < m->adapter.count && err == RA_OK; i++) err = load_one(m, file, &m->adapter.param[i]);
    ra_modelfile_close(file);
    if (err == RA_OK) ra_model_refresh(m);
    return err;
}
