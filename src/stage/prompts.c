/* Prompts of the evaluation: those of a file of their own, each row one; or the held-out prompts of the preference data, each once, as several rows may share a
 * prompt. */
#include "open_text.h"
#include "responses.h"

#include <realign/hash.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/model.h>
#include <realign/prefdata.h>

#include <stdlib.h>
#include <string.h>

static void add_prompt(ra_prompts *p, const ra_row *row)
{
    p->prompt = ra_realloc(p->prompt, (size_t)p->n + 1, sizeof *p->prompt);
    ra_prompt *q = &p->prompt[p->n++];
    *q = (ra_prompt){.id = row->id, .text = ra_strdup(row->prompt_text), .n = row->n_prompt};
    if (row->category) q->category = ra_strdup(row->category);
    q->turns = ra_calloc((size_t)row->n_prompt, sizeof *q->turns);
    for (int i = 0; i < row->n_prompt; i++)
        q->turns[i] = (ra_message){ra_strdup(row->prompt[i].role), ra_strdup(row->prompt[i].content)};
}

static ra_err open_rows(const ra_settings *s, ra_prefdata **out)
{
    const char *path = ra_set_text(s, "eval.path");
    if (*path) return ra_prefdata_open(&path, 1, "prompts", ra_set_int(s, "data.malformed_limit"), out);
    if (ra_set_real(s, "data.held_out") <= 0.0)
        return ra_fail(RA_ERR_ARG, "no prompts to evaluate on: give eval.path (JSON Lines), or keep rows away from training with "
                                   "data.held_out");
    return ra_prefdata_open_settings(s, out);
}

/* Not collective: every rank reads all rows. Is this the first row with its prompt? */
static bool is_first(ra_duplicates *seen, const ra_row *row)
{
    ra_hash hash = {row->prompt_hash, row->prompt_hash};
    int64_t first;
    ra_duplicates_add(seen, &hash, &row->id, 1, &first);
    return first == row->id;
}

static ra_err read_all(const ra_settings *s, ra_prompts *p)
{
    const ra_comm alone = {MPI_COMM_SELF, 0, 1};
    bool held_out = !*ra_set_text(s, "eval.path");
    int64_t limit = ra_set_int(s, "eval.limit");
    ra_prefdata *data = NULL;
    RA_TRY(open_rows(s, &data));
    ra_duplicates *seen = ra_duplicates_new(&alone);
    int64_t repeated = 0;
    ra_err err = RA_OK;
    bool more = true;
    while (more && (limit == 0 || p->n < limit)) {
        const ra_row *row;
        ra_row_status status;
        err = ra_prefdata_next(data, 0, 1, 1, &row, &status, &more);
        if (err != RA_OK) break;
        if (!more || status != RA_ROW_OK || (held_out && !ra_row_held_out(s, row->prompt_hash))) continue;
        if (!held_out || is_first(seen, row)) {
            add_prompt(p, row);
        } else {
            repeated++;
        }
    }
    const ra_data_counts *c = ra_prefdata_counts(data);
    if (err == RA_OK && c->skipped + c->malformed > 0) {
        ra_info("evaluation prompts: %lld rows left out as malformed, %lld as unusable; the first: %s", (long long)c->malformed,
                (long long)c->skipped, c->malformed ? c->why_malformed[0] : c->why_skipped[0]);
    }
    if (err == RA_OK && repeated)
        ra_info("evaluation prompts: %lld held-out rows repeat the prompt of an earlier one", (long long)repeated);
    ra_duplicates_free(seen);
    ra_prefdata_close(data);
    if (err == RA_OK && p->n == 0) {
        err = ra_fail(RA_ERR_DATA, "%s: no usable prompt", held_out ? "data.held_out" : ra_set_text(s, "eval.path"));
    }
    return err;
}

/* ---- prompts that the model cannot be asked ---- */
static void free_prompt(ra_prompt *q)
{
    for (int i = 0; i < q->n; i++) {
        free((char *)(uintptr_t)q->turns[i].role);
        free((char *)(uintptr_t)q->turns[i].content);
    }
    ra_free(q->turns);
    free(q->text);
    free(q->category);
}

/* Positions of the model; 0 where its configuration cannot be read: opening the model will say why. */
static int32_t positions_of(const char *model)
{
    ra_modelfile *file = NULL;
    char *json = NULL;
    ra_arch arch;
    int32_t positions = 0;
    if (ra_modelfile_open(model, &file) == RA_OK && ra_modelfile_config_json(file, &json) == RA_OK &&
        ra_arch_parse(json, model, &arch) == RA_OK) {
        positions = arch.max_position;
        ra_arch_free(&arch);
    }
    free(json);
    ra_modelfile_close(file);
    return positions;
}

/* Leaves out, and counts, prompts that the template refuses or that leave no room for an answer, as prepare leaves out such rows: the same on every rank. */
static ra_err leave_out(const ra_settings *s, ra_prompts *p)
{
    const char *model = ra_set_text(s, "model");
    ra_tokenizer *tokenizer = NULL;
    ra_template *tpl = NULL;
    ra_rendered rendered = {0};
    ra_buf first = {0};
    int64_t kept = 0, n = p->n;
    int32_t positions = positions_of(model);
    if (ra_tokenizer_open(ra_set_given(s, "tokenizer") ? ra_set_text(s, "tokenizer") : model, &tokenizer) != RA_OK ||
        ra_open_template(s, tokenizer, &tpl) != RA_OK) {
        ra_tokenizer_close(tokenizer);
        return RA_OK; /* whoever generates opens them too, and says why it cannot */
    }
    for (int64_t i = 0; i < n; i++) {
        ra_prompt *q = &p->prompt[i];
        bool good = ra_template_render(tpl, q->turns, q->n, true, &rendered) == RA_OK;
        if (good && positions > 0 && rendered.ids.count >= positions) {
            good = false;
            ra_fail(RA_ERR_DATA, "%lld tokens; the model has %d positions", (long long)rendered.ids.count, positions);
        }
        if (good) {
            p->prompt[kept++] = *q;
        } else {
            if (!first.length) ra_buf_addf(&first, "row %lld: %s", (long long)q->id + 1, ra_error_message());
            free_prompt(q);
        }
    }
    p->n = kept;
    ra_rendered_free(&rendered);
    ra_template_close(tpl);
    ra_tokenizer_close(tokenizer);
    ra_err err = RA_OK;
    if (kept == 0) {
        err = ra_fail(RA_ERR_DATA, "none of %lld prompts can be put to the model; %s", (long long)n, first.data);
    } else if (kept < n) {
        ra_info("evaluation prompts: %lld of %lld cannot be put to the model and are left out; the first: %s",
                (long long)(n - kept), (long long)n, first.data);
    }
    ra_buf_free(&first);
    return err;
}

static void add_text(ra_hasher *h, const char *text)
{
    ra_hasher_add(h, text ? text : "", text ? strlen(text) + 1 : 1);
}

ra_err ra_prompts_read(const ra_settings *s, const ra_comm *world, ra_prompts *out)
{
    memset(out, 0, sizeof *out);
    ra_err err = ra_comm_agree(world, read_all(s, out));
    if (err == RA_OK) err = ra_comm_agree(world, leave_out(s, out));
    if (err != RA_OK) {
        ra_prompts_free(out);
        return err;
    }
    ra_hasher *h = ra_hasher_new();
    for (int64_t i = 0; i < out->n; i++) {
        const ra_prompt *p = &out->prompt[i];
        ra_hasher_add(h, &p->id, sizeof p->id);
        add_text(h, p->category);
        for (int k = 0; k < p->n; k++) {
            add_text(h, p->turns[k].role);
            add_text(h, p->turns[k].content);
        }
    }
    out->hash = ra_hasher_end(h).low;
    return RA_OK;
}

void ra_prompts_free(ra_prompts *p)
{
    for (int64_t i = 0; i < p->n; i++) free_prompt(&p->prompt[i]);
    free(p->prompt);
    memset(p, 0, sizeof *p);
}
