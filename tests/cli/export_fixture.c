/* Exports of a fixture: the policy as a model, the reference with its adapter as an adapter and merged. Read back here bit for bit; the log-probabilities of sample 0 by
 * this program go to OUT/logp.txt, for tests/cli/export_check.py to compare with what transformers and peft make of the directories.
 * usage: export_fixture FIXTURE OUT */
#include "support/support.h"

#include <realign/checkpoint.h>
#include <realign/file.h>
#include <realign/h5.h>
#include <realign/infer.h>
#include <realign/mem.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *fixture, *out;

typedef struct {
    ra_backend *b;
    ra_modelfile *file;
    ra_model *m;
    char *path;
} loaded;

/* `name`: below the fixture; `adapter`: a directory, or NULL for all parameters. */
static ra_err load(const char *base, const char *name, const char *adapter, loaded *l)
{
    ra_lora_config lora = {0};
    memset(l, 0, sizeof *l);
    l->path = ra_path_join(base, name);
    RA_TRY(ra_backend_open("ref", "fp64", 1, &l->b));
    RA_TRY(ra_modelfile_open(l->path, &l->file));
    if (adapter) RA_TRY(ra_lora_read_config(adapter, &lora));
    RA_TRY(ra_model_open(l->b, l->file, adapter ? RA_TRAIN_ADAPTER : RA_TRAIN_FULL, adapter ? &lora : NULL, 0, NULL, &l->m));
    return adapter ? ra_model_load_adapter(l->m, adapter) : RA_OK;
}

static void unload(loaded *l)
{
    ra_model_close(l->m);
    ra_modelfile_close(l->file);
    ra_backend_close(l->b);
    free(l->path);
}

static const char *same_masters(loaded *a, loaded *b)
{
    const ra_layout *x = ra_model_trainable(a->m), *y = ra_model_trainable(b->m);
    MPI_EXPECT(x->size == y->size, "the sizes differ");
    MPI_EXPECT(memcmp(ra_model_masters(a->m), ra_model_masters(b->m), (size_t)x->size * a->b->r_size) == 0, "the weights differ");
    return NULL;
}

/* log p of sample 0's chosen response, rank 0's, into OUT/name. */
static ra_err score(const ra_comm *world, loaded *l, const char *name)
{
    if (world->rank != 0) return RA_OK;
    char *path = ra_path_join(fixture, "reference.h5"), *to = ra_path_join(out, name);
    static const char *const parts[] = {"sample/0/prompt", "sample/0/chosen"};
    int32_t token[512];
    int64_t n[2];
    ra_h5 *file;
    RA_TRY(ra_h5_open(path, NULL, &file));
    for (int i = 0; i < 2; i++) {
        int rank;
        int64_t shape[4];
        RA_TRY(ra_h5_shape(file, parts[i], &rank, shape));
        n[i] = shape[0];
        if (n[i] > 256) return ra_fail(RA_ERR_DATA, "%s: '%s' is longer than this test reads", path, parts[i]);
        RA_TRY(ra_h5_read(file, parts[i], H5T_NATIVE_INT32, 0, n[i], token + (i ? n[0] : 0)));
    }
    ra_h5_close(file);
    double logp[256];
    ra_scored sequence = {.token = token, .count = (int32_t)(n[0] + n[1]), .first = (int32_t)n[0], .logprob = logp};
    ra_scorer *s = ra_scorer_new(l->m, NULL, 512);
    ra_err err = ra_scorer_run(s, &sequence, 1);
    ra_scorer_free(s);
    ra_buf text = {0};
    for (int64_t i = 0; i < n[1]; i++) ra_buf_addf(&text, "%.17g\n", logp[i]);
    if (err == RA_OK) err = ra_file_write(to, text.data, text.length);
    ra_buf_free(&text);
    free(path);
    free(to);
    return err;
}

static const char *test_model(const ra_comm *world)
{
    ra_grid grid;
    loaded a, b;
    MPI_EXPECT_OK(ra_grid_make(world, 1, &grid));
    char *dir = ra_path_join(out, "model/");
    MPI_EXPECT_OK(load(fixture, "policy", NULL, &a));
    MPI_EXPECT_OK(ra_export(&grid, a.m, a.file, a.path, RA_EXPORT_MODEL, RA_DTYPE_F32, INT64_MAX, dir));
    char *whole = ra_path_join(dir, "model.safetensors"), *index = ra_path_join(dir, "model.safetensors.index.json");
    MPI_EXPECT(ra_file_exists(whole) && !ra_file_exists(index), "one file was asked for");
    RA_MPI(MPI_Barrier(world->comm));
    /* Once more, in its place and in shards. */
    MPI_EXPECT_OK(ra_export(&grid, a.m, a.file, a.path, RA_EXPORT_MODEL, RA_DTYPE_F32, 100000, dir));
    MPI_EXPECT(!ra_file_exists(whole) && ra_file_exists(index), "shards were asked for");
    MPI_EXPECT_OK(load(out, "model", NULL, &b));
    const char *wrong = same_masters(&a, &b);
    MPI_EXPECT(ra_modelfile_count(a.file) == ra_modelfile_count(b.file), "%d tensors became %d", ra_modelfile_count(a.file),
               ra_modelfile_count(b.file));
    MPI_EXPECT_OK(score(world, &a, "model.logp"));
    free(whole);
    free(index);
    unload(&a);
    unload(&b);
    ra_grid_free(&grid);
    free(dir);
    return wrong;
}

static const char *test_adapter(const ra_comm *world)
{
    ra_grid grid;
    loaded a, b, merged;
    MPI_EXPECT_OK(ra_grid_make(world, 1, &grid));
    char *adapter = ra_path_join(fixture, "adapter"), *dir = ra_path_join(out, "adapter"), *whole = ra_path_join(out, "merged");
    MPI_EXPECT_OK(load(fixture, "reference", adapter, &a));
    MPI_EXPECT_OK(ra_export(&grid, a.m, a.file, a.path, RA_EXPORT_ADAPTER, RA_DTYPE_F32, INT64_MAX, dir));
    MPI_EXPECT_OK(ra_export(&grid, a.m, a.file, a.path, RA_EXPORT_MERGED, RA_DTYPE_F64, INT64_MAX, whole));
    MPI_EXPECT_OK(load(fixture, "reference", dir, &b));
    const char *wrong = same_masters(&a, &b);
    MPI_EXPECT_OK(score(world, &a, "adapter.logp"));
    MPI_EXPECT_OK(load(out, "merged", NULL, &merged));
    MPI_EXPECT_OK(score(world, &merged, "merged.logp"));
    unload(&a);
    unload(&b);
    unload(&merged);
    ra_grid_free(&grid);
    free(adapter);
    free(dir);
    free(whole);
    return wrong;
}

/* What is no export of ours is not replaced, and a failure leaves nothing behind. */
static const char *test_refused(const ra_comm *world)
{
    ra_grid grid;
    loaded a;
    MPI_EXPECT_OK(ra_grid_make(world, 1, &grid));
    char *dir = ra_path_join(out, "other"), *file = ra_path_join(dir, "notes.txt"), *part = ra_format("%s.part", dir);
    MPI_EXPECT_OK(load(fixture, "policy", NULL, &a));
    ra_err err = RA_OK;
    if (world->rank == 0) err = ra_dir_make(dir);
    if (world->rank == 0 && err == RA_OK) err = ra_file_write(file, "x", 1);
    MPI_EXPECT_OK(ra_comm_agree(world, err));
    err = ra_export(&grid, a.m, a.file, a.path, RA_EXPORT_MODEL, RA_DTYPE_F32, INT64_MAX, dir);
    MPI_EXPECT(err == RA_ERR_ARG && strstr(ra_error_message(), dir), "a directory of other files: code %d", (int)err);
    MPI_EXPECT(ra_file_exists(file) && !ra_file_exists(part), "the directory was touched");
    free(part);
    part = ra_path_join(out, "none");
    err = ra_export(&grid, a.m, a.file, a.path, RA_EXPORT_ADAPTER, RA_DTYPE_F32, INT64_MAX, part);
    MPI_EXPECT(err == RA_ERR_ARG && strstr(ra_error_message(), "no adapter") && !ra_file_exists(part), "code %d", (int)err);
    unload(&a);
    ra_grid_free(&grid);
    free(dir);
    free(file);
    free(part);
    return NULL;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {
        {"a model, in one file and in shards: the same bits", test_model},
        {"an adapter: the same bits; merged", test_adapter},
        {"other files are not replaced", test_refused},
    };
    if (argc != 3) return 2;
    fixture = argv[1];
    out = argv[2];
    return test_mpi_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
