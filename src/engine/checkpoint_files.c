#include "checkpoint_files.h"

#include <realign/file.h>
#include <realign/h5.h>
#include <realign/log.h>
#include <realign/mem.h>

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void name_of(int64_t step, char name[40])
{
    snprintf(name, 40, "step-%08lld.h5", (long long)step);
}

char *ra_checkpoint_path(const char *dir, int64_t step)
{
    char name[40];
    name_of(step, name);
    return ra_path_join(dir, name);
}

char *ra_checkpoint_best_path(const char *dir)
{
    return ra_path_join(dir, "best.h5");
}

/* The step in "step-00000100.h5", -1 for other names. */
static int64_t step_of(const char *name)
{
    long long step;
    int end = 0;
    if (sscanf(name, "step-%18lld.h5%n", &step, &end) != 1 || end == 0 || name[end] || step < 0) return -1;
    char exact[40];
    name_of(step, exact);
    return strcmp(exact, name) == 0 ? step : -1; /* no sign, no blanks, not too few digits */
}

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

ra_err ra_checkpoint_list(const char *dir, int64_t **steps, int64_t *n)
{
    *steps = NULL;
    *n = 0;
    DIR *folder = opendir(dir);
    if (!folder) return errno == ENOENT ? RA_OK : ra_fail(RA_ERR_IO, "%s: %m", dir);
    for (const struct dirent *entry; (entry = readdir(folder));) {
        int64_t step = step_of(entry->d_name);
        if (step < 0) continue;
        *steps = ra_realloc(*steps, (size_t)*n + 1, sizeof **steps);
        (*steps)[(*n)++] = step;
    }
    closedir(folder);
    if (*n) qsort(*steps, (size_t)*n, sizeof **steps, newest_first);
    return RA_OK;
}

ra_err ra_checkpoint_prepare(const char *dir)
{
    RA_TRY(ra_dir_make(dir));
    DIR *folder = opendir(dir);
    if (!folder) return ra_fail(RA_ERR_IO, "%s: %m", dir);
    for (const struct dirent *entry; (entry = readdir(folder));) {
        size_t n = strlen(entry->d_name);
        if (n <= 5 || strcmp(entry->d_name + n - 5, ".part") != 0) continue;
        char *path = ra_path_join(dir, entry->d_name);
        if (unlink(path) == 0) {
            ra_info("checkpoint: removed %s, left by a write that did not finish", path);
        } else {
            ra_warn("checkpoint: %s cannot be removed: %m", path);
        }
        free(path);
    }
    closedir(folder);
    return RA_OK;
}

/* The validation value of the state in best.h5; NaN where there is no such file or it cannot be read. */
static double value_of_best(const char *path)
{
    ra_h5 *file;
    double best;
    if (!ra_file_exists(path) || ra_h5_open(path, NULL, &file) != RA_OK) return NAN;
    if (ra_h5_read_attr_f64(file, "/", "best", &best) != RA_OK) best = NAN;
    ra_h5_close(file);
    return best;
}

/* The best value only ever improves, so another value than best.h5's is a better one, and it is this state's. The link is made beside and renamed: best.h5 is
 * always whole. */
static ra_err link_best(const char *dir, const char *newest, double best)
{
    char *path = ra_checkpoint_best_path(dir), *part = ra_format("%s.part", path);
    ra_err err = RA_OK;
    if (!isnan(best) && value_of_best(path) != best) {
        unlink(part);
        if (link(newest, part) != 0 || rename(part, path) != 0) {
            err = ra_fail(RA_ERR_IO, "%s: cannot become a hard link to %s: %m", path, newest);
            unlink(part);
        }
    }
    free(part);
    free(path);
    return err;
}

static ra_err write_latest(const char *dir, const char *newest)
{
    char *path = ra_path_join(dir, "latest"), *line = ra_format("%s\n", strrchr(newest, '/') + 1);
    ra_err err = ra_file_write(path, line, strlen(line));
    free(line);
    free(path);
    return err;
}

/* Newer steps are those of a run that was taken up from an earlier checkpoint: they stay until it reaches and replaces them. */
static ra_err remove_old(const char *dir, int64_t newest, int keep)
{
    if (keep <= 0) return RA_OK;
    int64_t *steps, n;
    int kept = 0;
    RA_TRY(ra_checkpoint_list(dir, &steps, &n));
    for (int64_t i = 0; i < n; i++) {
        if (steps[i] > newest || kept++ < keep) continue;
        char *path = ra_checkpoint_path(dir, steps[i]);
        if (unlink(path) != 0) ra_warn("checkpoint: %s cannot be removed: %m", path);
        free(path);
    }
    free(steps);
    return RA_OK;
}

ra_err ra_checkpoint_settle(const ra_checkpoint_policy *policy, const ra_train_state *state)
{
    char *newest = ra_checkpoint_path(policy->dir, state->step);
    ra_err err = policy->keep_best ? link_best(policy->dir, newest, state->best) : RA_OK;
    if (err == RA_OK) err = write_latest(policy->dir, newest);
    if (err == RA_OK) err = remove_old(policy->dir, state->step, policy->keep);
    free(newest);
    return err;
}
