#include "train_log.h"

#include <realign/file.h>
#include <realign/mem.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char header[] =
    "step\tepoch\tsamples\ttokens\tlr\tloss\tloss_invert\tloss_punish\tloss_pair\tkl\tn_invert\tn_punish\tn_retain\tn_pair\t"
    "margin_invert\tmargin_punish\tmargin_pair\taccuracy_invert\taccuracy_punish\taccuracy_pair\tdrift_retain\tgrad_"
    "norm\tseconds\ttokens_per_s\n";

static double log_ratio(const ra_microbatch *mb, const ra_item *item, ra_role role)
{
    int32_t i = item->response[role];
    return i < 0 ? 0.0 : mb->response[i].logp - mb->response[i].reference;
}

void ra_step_sums_add(ra_step_sums *s, const ra_run *run, const ra_microbatch *mb)
{
    s->tokens += mb->pack.rows;
    for (int32_t i = 0; i < mb->items; i++) {
        const ra_item *item = &mb->item[i];
        int a = run->action[item->sample];
        double w = log_ratio(mb, item, RA_CHOSEN), l = log_ratio(mb, item, RA_REJECTED), c = log_ratio(mb, item, RA_CORRECTION),
               margin = 0.0;
        s->count[a]++;
        s->sum[a] += item->loss;
        s->loss += item->weight * item->loss;
        switch (item->kind) {
        case RA_LOSS_INVERT: margin = l - w; break;
        case RA_LOSS_PUNISH: margin = -0.5 * (w + l); break;
        case RA_LOSS_PUNISH_CORRECTED: margin = c - w; break;
        case RA_LOSS_PAIR: margin = w - l; break;
        default: s->drift += w;
        }
        s->margin[a] += margin;
        s->correct[a] += margin > 0.0;
    }
}

static double norm_of(const char *line)
{
    enum { GRADIENT_NORM = 21 };
    for (int column = 0; column < GRADIENT_NORM && line; column++) {
        line = strchr(line, '\t');
        if (line) line++;
    }
    return line ? strtod(line, NULL) : NAN;
}

/* Keeps the header and the rows up to `step` of an earlier file. */
static ra_err cut(const char *path, int64_t step, double *last_norm)
{
    ra_buf text = {0}, kept = {0};
    ra_buf_adds(&kept, header);
    if (step > 0) {
        ra_err err = ra_file_read(path, &text);
        if (err != RA_OK) {
            ra_buf_free(&text);
            ra_buf_free(&kept);
            return err;
        }
    }
    for (char *line = text.data; line && *line;) {
        char *end = strchr(line, '\n');
        if (!end) break; /* a row that was being written when the run died */
        long long number = strtoll(line, NULL, 10);
        if (number >= 1 && number <= step) {
            ra_buf_add(&kept, line, (size_t)(end - line + 1));
            *last_norm = norm_of(line);
        }
        line = end + 1;
    }
    ra_err err = ra_file_write(path, kept.data, kept.length);
    ra_buf_free(&text);
    ra_buf_free(&kept);
    return err;
}

ra_err ra_steps_open(const ra_run *run, int64_t step, ra_steps_file *out)
{
    *out = (ra_steps_file){.path = ra_run_path(run, "steps.tsv"), .last_norm = NAN};
    RA_TRY(cut(out->path, step, &out->last_norm));
    out->file = fopen(out->path, "a");
    return out->file ? RA_OK : ra_fail(RA_ERR_IO, "%s: %m", out->path);
}

static double mean(double sum, double count)
{
    return count > 0.0 ? sum / count : NAN;
}

ra_err ra_steps_write(ra_steps_file *f, const ra_step_info *info, const ra_step_sums *s)
{
    enum { I = RA_ACTION_INVERT, P = RA_ACTION_PUNISH, R = RA_ACTION_RETAIN, D = RA_ACTION_PAIR };
    int n = fprintf(f->file, "%lld\t%lld\t%lld\t%.0f\t%.9g\t%.9g", (long long)info->step, (long long)info->epoch,
                    (long long)info->samples, s->tokens, info->lr, s->loss);
    double columns[] = {mean(s->sum[I], s->count[I]),
                        mean(s->sum[P], s->count[P]),
                        mean(s->sum[D], s->count[D]),
                        mean(s->sum[R], s->count[R]),
                        s->count[I],
                        s->count[P],
                        s->count[R],
                        s->count[D],
                        mean(s->margin[I], s->count[I]),
                        mean(s->margin[P], s->count[P]),
                        mean(s->margin[D], s->count[D]),
                        mean(s->correct[I], s->count[I]),
                        mean(s->correct[P], s->count[P]),
                        mean(s->correct[D], s->count[D]),
                        mean(s->drift, s->count[R]),
                        info->norm,
                        info->seconds,
                        s->tokens / info->seconds};
    for (size_t i = 0; i < sizeof columns / sizeof columns[0] && n >= 0; i++) n = fprintf(f->file, "\t%.9g", columns[i]);
    if (n < 0 || fputc('\n', f->file) == EOF || fflush(f->file) != 0) return ra_fail(RA_ERR_IO, "%s: write failed: %m", f->path);
    return RA_OK;
}

void ra_steps_close(ra_steps_file *f)
{
    if (f->file) fclose(f->file);
    free(f->path);
    *f = (ra_steps_file){0};
}
