/* Prompts of the evaluation: those of a file of their own, each row one; or the held-out prompts of the preference data, each once, as several rows may share a
 * prompt. */
#include "responses.h"

#include <realign/hash.h>
#include <realign/log.h>
#include <realign/mem.h>
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

static void add_text(ra_hasher *h, const char *text)
{
    ra_hasher_add(h, text ? text : "", text ? strlen(text) + 1 : 1);
}

ra_err ra_prompts_read(const ra_settings *s, const ra_comm *world, ra_prompts *out)
{
    memset(out, 0, sizeof *out);
    ra_err err = ra_comm_agree(world, read_all(s, out));
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
    for (int64_t i = 0; i < p->n; i++) {
        ra_prompt *q = &p->prompt[i];
        for (int k = 0; k < q->n; k++) {
            free((char *)(uintptr_t)q->turns[k].role);
            free((char *)(uintptr_t)q->turns[k].content);
        }
        ra_free(q->turns);
        free(q->category);
        free(q->text);
    }
    free(p->prompt);
    memset(p, 0, sizeof *p);
}
