#include "prepare_tally.h"
#include <realign/mem.h>

#include <stdlib.h>
#include <string.h>

void ra_tally_begin(ra_tally *t, int n_origins)
{
    *t = (ra_tally){.usable_of = ra_calloc((size_t)n_origins, sizeof *t->usable_of), .n_origins = n_origins};
}

void ra_tally_free(ra_tally *t)
{
    ra_free(t->usable_of);
    *t = (ra_tally){0};
}

static void note(ra_tally_row first[RA_TALLY_SHOWN], int64_t before, const ra_job *job)
{
    if (before >= RA_TALLY_SHOWN) return;
    first[before].id = job->id;
    first[before].state = job->sample.state;
    memcpy(first[before].why, job->why, sizeof first[before].why);
}

void ra_tally_add(ra_tally *t, const ra_job *job, bool held_out)
{
    const ra_sample *sample = &job->sample;
    int64_t before = t->state[sample->state]++;
    t->rows++;
    t->tokenised += job->tokenised;
    t->prompts += job->message && !job->prompt_again;
    if (sample->state != RA_SAMPLE_OK) {
        note(t->first[sample->state], before, job);
        return;
    }
    t->usable_of[job->origin]++;
    if (job->repeats >= 0) note(t->first_repeated, t->repeated++, job);
    if (job->identical) note(t->first_identical, t->identical++, job);
    t->over_long += job->over_long;
    t->prompt_again += job->prompt_again;
    t->held_out += held_out;
    t->held_out_prompts += held_out && !job->prompt_again;
    int64_t branches = 0, longest = 0;
    bool skips = false;
    t->once += sample->prompt_count;
    for (int r = 0; r < RA_ROLES; r++) {
        int32_t count = sample->response[r].count;
        if (count == 0) continue;
        branches++;
        t->once += count;
        t->twice += count + sample->prompt_count;
        if (count > longest) longest = count;
        skips |= sample->response[r].skip > 0;
    }
    t->corrections += branches == RA_ROLES;
    t->truncated += sample->cut > 0;
    t->cut += sample->cut;
    t->boundary_inside_token += job->boundary_inside_token;
    t->skips += skips;
    if (sample->prompt_count + longest > t->longest) t->longest = sample->prompt_count + longest;
}

static int by_id(const void *a, const void *b)
{
    const ra_tally_row *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* Every rank gets the first of all ranks' first rows, `mine` of which this rank has seen. */
static void merge_first(ra_tally_row first[RA_TALLY_SHOWN], const ra_comm *comm, int64_t mine)
{
    int shown = mine < RA_TALLY_SHOWN ? (int)mine : RA_TALLY_SHOWN, bytes = RA_TALLY_SHOWN * (int)sizeof(ra_tally_row);
    ra_tally_row *all = ra_calloc((size_t)comm->size * RA_TALLY_SHOWN, sizeof *all);
    int *counts = ra_alloc((size_t)comm->size, sizeof *counts);
    RA_MPI(MPI_Allgather(&shown, 1, MPI_INT, counts, 1, MPI_INT, comm->comm));
    RA_MPI(MPI_Allgather(first, bytes, MPI_BYTE, all, bytes, MPI_BYTE, comm->comm));
    int n = 0;
    for (int r = 0; r < comm->size; r++) {
        memmove(all + n, all + (size_t)r * RA_TALLY_SHOWN, (size_t)counts[r] * sizeof *all);
        n += counts[r];
    }
    qsort(all, (size_t)n, sizeof *all, by_id);
    memcpy(first, all, (size_t)(n < RA_TALLY_SHOWN ? n : RA_TALLY_SHOWN) * sizeof *all);
    ra_free(counts);
    ra_free(all);
}

void ra_tally_merge(ra_tally *t, const ra_comm *comm)
{
    for (int s = 0; s < RA_SAMPLE_STATES; s++) merge_first(t->first[s], comm, t->state[s]);
    merge_first(t->first_repeated, comm, t->repeated);
    merge_first(t->first_identical, comm, t->identical);
    int64_t *sums[] = {&t->rows,
                       &t->tokenised,
                       &t->once,
                       &t->twice,
                       &t->corrections,
                       &t->truncated,
                       &t->cut,
                       &t->boundary_inside_token,
                       &t->skips,
                       &t->over_long,
                       &t->repeated,
                       &t->identical,
                       &t->prompt_again,
                       &t->held_out,
                       &t->held_out_prompts,
                       &t->prompts};
    enum { SUMS = sizeof sums / sizeof *sums };
    int64_t values[SUMS];
    for (int i = 0; i < SUMS; i++) values[i] = *sums[i];
    ra_comm_sum_i64(comm, values, SUMS);
    for (int i = 0; i < SUMS; i++) *sums[i] = values[i];
    ra_comm_sum_i64(comm, t->state, RA_SAMPLE_STATES);
    ra_comm_sum_i64(comm, t->usable_of, t->n_origins);
    double longest = (double)t->longest;
    ra_comm_max_f64(comm, &longest, 1);
    t->longest = (int64_t)longest;
}

/* Row numbers from 1, as an editor shows them: "rows 3, 17, 40 ...", then the reasons of the first few. */
static void print_rows(const ra_tally_row first[RA_TALLY_SHOWN], const char *name, int64_t n, bool reasons, ra_buf *out)
{
    enum { REASONS = 3 };
    int64_t shown = n < RA_TALLY_SHOWN ? n : RA_TALLY_SHOWN;
    ra_buf_addf(out, "  %-24s %12lld", name, (long long)n);
    for (int64_t i = 0; i < shown; i++) ra_buf_addf(out, "%s%lld", i ? ", " : "   rows ", (long long)first[i].id + 1);
    ra_buf_adds(out, n > shown ? " ...\n" : "\n");
    for (int64_t i = 0; i < shown && i < REASONS && reasons; i++) {
        ra_buf_addf(out, "      row %lld: %s\n", (long long)first[i].id + 1, first[i].why);
    }
}

static void print_count(ra_buf *out, const char *name, int64_t n)
{
    ra_buf_addf(out, "  %-24s %12lld", name, (long long)n);
}

void ra_tally_print(const ra_tally *t, double seconds, ra_buf *out)
{
    print_count(out, "rows", t->rows);
    ra_buf_adds(out, "\n");
    print_count(out, "usable", t->state[RA_SAMPLE_OK]);
    ra_buf_addf(out, "   %lld of them with a correction\n", (long long)t->corrections);
    for (int s = RA_SAMPLE_OK + 1; s < RA_SAMPLE_STATES; s++) {
        if (s > RA_SAMPLE_TOO_LONG && t->state[s] == 0) continue; /* most data never have these */
        print_rows(t->first[s], ra_sample_state_name((ra_sample_state)s), t->state[s], s != RA_SAMPLE_NOT_DRAWN, out);
    }
    if (t->repeated) print_rows(t->first_repeated, "repeat an earlier row", t->repeated, false, out);
    if (t->identical) print_rows(t->first_identical, "identical responses", t->identical, false, out);
    print_count(out, "different prompts", t->prompts);
    ra_buf_addf(out, "   %lld usable rows have the prompt of an earlier row\n", (long long)t->prompt_again);
    if (t->held_out) {
        print_count(out, "held out", t->held_out);
        ra_buf_addf(out, "   rows, with %lld different prompts\n", (long long)t->held_out_prompts);
    }
    if (t->over_long) {
        print_count(out, "longer, kept", t->over_long);
        ra_buf_adds(out, "   samples beyond data.max_tokens\n");
    }
    print_count(out, "truncated", t->truncated);
    ra_buf_addf(out, "   %lld tokens cut away\n", (long long)t->cut);
    print_count(out, "boundary inside a token", t->boundary_inside_token);
    ra_buf_addf(out, "   %lld samples with prompt tokens in a branch\n", (long long)t->skips);
    print_count(out, "tokens, prompt once", t->once);
    ra_buf_addf(out, "   %lld with the prompt in every response\n", (long long)t->twice);
    print_count(out, "longest sequence", t->longest);
    ra_buf_addf(out, "   tokens\n");
    print_count(out, "tokens/s", seconds > 0 ? (int64_t)((double)t->tokenised / seconds) : 0);
    ra_buf_addf(out, "   %lld tokenised in %.2f s\n", (long long)t->tokenised, seconds);
}

char **ra_tally_sources(const ra_tally *t, const ra_prefdata *data)
{
    char **lines = ra_realloc(NULL, (size_t)t->n_origins, sizeof *lines);
    for (int i = 0; i < t->n_origins; i++) {
        int64_t rows, drawn;
        ra_prefdata_origin_rows(data, i, &rows, &drawn);
        lines[i] = ra_format("%s: %lld rows read, %lld drawn, %lld usable", ra_prefdata_origin(data, i), (long long)rows,
                             (long long)drawn, (long long)t->usable_of[i]);
    }
    return lines;
}
