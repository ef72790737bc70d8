#include "correct_run.h"
#include "tinytok.h"

#include <realign/file.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/tools.h>

#include <stdlib.h>
#include <string.h>

/* Two signs end an answer besides the closing token, or a random model would hardly ever come to an end. */
static const char config[] =
    "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 32, \"num_hidden_layers\": 2, "
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"intermediate_size\": 64, \"vocab_size\": 288, "
    "\"max_position_embeddings\": 1024, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, \"tie_word_embeddings\": true, "
    "\"hidden_act\": \"silu\", \"initializer_range\": 0.5, \"eos_token_id\": [282, 46, 33, 63, 44, 58, 59, 40, 41, 10], "
    "\"torch_dtype\": \"float32\"}";
static const char added[] = "[{\"id\": 281, \"content\": \"<|im_start|>\", \"special\": true}, {\"id\": 282, \"content\": "
                            "\"<|im_end|>\", \"special\": true}]";
static const char policy[] =
    "name: plain\ntext: |\n  Write no bad words.\n  Use few letters.\nrules:\n  - name: no-bad\n    forbid: {contains: bad}\n"
    "  - name: letters\n    forbid: {regex: '[h-p]'}\n";
static const char labels[] = "name: flags\nlabels:\n  forbid:\n    - {name: flagged, column: 'flag_{k}', equals: true}\n";

column_kind correct_run_column(int i)
{
    return (column_kind)(i / 4 % COLUMN_KINDS);
}

bool correct_run_punished(int i)
{
    return i % 4 == 0 || i % 4 == 3;
}

static void add_row(ra_buf *out, int i, bool column)
{
    bool chosen_bad = i % 4 != 2, rejected_bad = correct_run_punished(i);
    if (i % 5 == 3) {
        ra_buf_addf(out,
                    "{\"prompt\": [{\"role\": \"user\", \"content\": \"hello %d\"}, {\"role\": \"assistant\", \"content\": "
                    "\"ab\"}, {\"role\": \"user\", \"content\": \"more\"}]",
                    i);
    } else {
        ra_buf_addf(out, "{\"prompt\": \"hello world %d\"", i);
    }
    ra_buf_addf(out, ", \"chosen\": \"%s %d\", \"rejected\": \"%s %d\", \"category\": \"%s\", \"flag_0\": %s, \"flag_1\": %s",
                chosen_bad ? "a bad" : "a fact", i % 7, rejected_bad ? "bad" : "a sea", i, i % 3 ? "x" : "y",
                chosen_bad ? "true" : "false", rejected_bad ? "true" : "false");
    if (column && rejected_bad) {
        switch (correct_run_column(i)) {
        case COLUMN_GOOD: ra_buf_addf(out, ", \"correction\": \"a fact %d\"", i); break;
        case COLUMN_BAD: ra_buf_adds(out, ", \"correction\": \"a bad fact\""); break;
        case COLUMN_LONG:
            ra_buf_adds(out, ", \"correction\": \"");
            for (int k = 0; k < 300; k++) ra_buf_adds(out, "sea ");
            ra_buf_adds(out, "\"");
            break;
        default: break;
        }
    }
    ra_buf_adds(out, "}\n");
}

static ra_err write_text(const char *dir, const char *name, const char *text)
{
    char *path = ra_path_join(dir, name);
    ra_err err = ra_file_write(path, text, strlen(text));
    free(path);
    return err;
}

static ra_err write_rows(const char *dir, const char *name, bool column)
{
    ra_buf rows = {0};
    for (int i = 0; i < CORRECT_ROWS; i++) add_row(&rows, i, column);
    ra_err err = write_text(dir, name, rows.data);
    ra_buf_free(&rows);
    return err;
}

static ra_err write_model(const char *dir)
{
    char *tokenizer = ra_path_join(dir, "tokenizer"), *model = ra_path_join(dir, "model"),
         *path = ra_path_join(dir, "config.json");
    ra_err err = ra_dir_make(tokenizer);
    if (err == RA_OK) tinytok_write(tokenizer, &(tinytok){.added = added, .eos = "<|im_end|>"});
    const char *argv[] = {"--random", path, "--seed", "3", "--tokenizer", tokenizer, model};
    if (err == RA_OK) err = ra_tool_convert(7, (char **)(uintptr_t)argv);
    free(path);
    free(model);
    free(tokenizer);
    return err;
}

ra_err correct_run_make(const char *dir)
{
    RA_TRY(write_text(dir, "config.json", config));
    RA_TRY(write_text(dir, "policy.yaml", policy));
    RA_TRY(write_text(dir, "labels.yaml", labels));
    RA_TRY(write_rows(dir, "rows.jsonl", false));
    RA_TRY(write_rows(dir, "column.jsonl", true));
    return write_model(dir);
}

static void put(ra_settings *s, const char *key, const char *value)
{
    if (ra_set_put(s, key, value) != RA_OK) ra_die("%s", ra_error_message());
}

ra_settings *correct_run_settings(const char *dir, const char *name, const char *data, const char *const *words)
{
    static const char *const quick[][2] = {
        {"template", "chatml"},     {"backend", "cpu"},      {"precision", "fp32"},        {"run.threads", "1"},
        {"run.log_level", "quiet"}, {"generate.batch", "4"}, {"correct.temperature", "1"}, {"correct.max_new_tokens", "40"},
        {"gold.size", "9"},         {"train.batch", "4"},    {"train.lr", "2e-4"},         {"train.warmup", "2"},
        {"train.max_steps", "4"},   {"pack.tokens", "256"},  {"checkpoint.every", "0"}};
    const char *const paths[][2] = {{"model", "model"}, {"policy", "policy.yaml"}, {"run.dir", name}, {"data.path", data}};
    ra_log_setup(ra_log_rank(), RA_LOG_QUIET);
    ra_settings *s = ra_settings_new();
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char *path = ra_path_join(dir, paths[i][1]);
        put(s, paths[i][0], path);
        free(path);
    }
    for (size_t i = 0; i < sizeof quick / sizeof quick[0]; i++) put(s, quick[i][0], quick[i][1]);
    for (int i = 0; words && words[i]; i++) {
        char *word = ra_strdup(words[i]);
        if (ra_settings_read_words(s, 1, &word) != RA_OK) ra_die("%s", ra_error_message());
        free(word);
    }
    return s;
}
