/* Checkpoints: the same bits on any rank count (of other layouts: test_redistribute.c), and what happens to damaged, missing, unfinished and foreign ones. */
#include "support/layouts.h"
#include "support/support.h"

#include <realign/checkpoint.h>
#include <realign/file.h>
#include <realign/h5.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/tools.h>

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#else
static void __lsan_disable(void)
{
}
static void __lsan_enable(void)
{
}
#endif

static const char config_json[] =
    "{\"model_type\": \"llama\", \"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 2, "
    "\"num_attention_heads\": 4,"
    " \"num_key_value_heads\": 2, \"vocab_size\": 96, \"max_position_embeddings\": 64, \"tie_word_embeddings\": true}";

enum { KEY = 0x5eed };

/* One training: a model and an optimiser on a communicator. */
typedef struct {
    ra_grid grid;
    ra_backend *b;
    ra_modelfile *file;
    ra_model *m;
    ra_optimiser *o;
} training;

typedef struct {
    const char *name, *backend, *precision;
    ra_training mode;
    int32_t lora_rank;
    bool stages; /* two, where the rank count is even */
} setup;
static const setup setups[] = {
    {"cpu fp32, all parameters", "cpu", "fp32", RA_TRAIN_FULL, 0, false},
    {"ref fp64, all parameters", "ref", "fp64", RA_TRAIN_FULL, 0, false},
    {"cpu fp32, an adapter", "cpu", "fp32", RA_TRAIN_ADAPTER, 3, false},
    {"ref fp64, an adapter", "ref", "fp64", RA_TRAIN_ADAPTER, 3, false},
};
enum { SETUPS = sizeof setups / sizeof setups[0] };
static const setup staged = {"cpu fp32, all parameters, stages", "cpu", "fp32", RA_TRAIN_FULL, 0, true};

static ra_err training_begin(const ra_comm *comm, const char *model, const setup *s, training *t)
{
    memset(t, 0, sizeof *t);
    ra_lora_config lora = {.rank = s->lora_rank, .alpha = 6.0, .targets = 1u << RA_Q | 1u << RA_V | 1u << RA_DOWN};
    test_layout layout = {.stages = s->stages && comm->size % 2 == 0 ? 2 : 1, .chunks = 1};
    RA_TRY(ra_grid_make(comm, layout.stages, &t->grid));
    ra_part part = test_layout_part(&layout, t->grid.stage, 2);
    RA_TRY(ra_backend_open(s->backend, s->precision, 1, &t->b));
    RA_TRY(ra_modelfile_open(model, &t->file));
    RA_TRY(ra_model_open(t->b, t->file, s->mode, s->lora_rank ? &lora : NULL, 16, &part, &t->m));
    if (s->lora_rank) ra_model_init_adapter(t->m, 7);
    ra_optimiser_config c = {.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .weight_decay = 0.1};
    t->o = ra_optimiser_new(t->m, &t->grid, &c);
    return RA_OK;
}

static void training_end(training *t)
{
    ra_optimiser_free(t->o);
    ra_model_close(t->m);
    ra_modelfile_close(t->file);
    ra_backend_close(t->b);
    ra_grid_free(&t->grid);
}

/* One step on a made-up gradient, all of it from replica 0, so that it does not depend on the rank count. */
static ra_err train(training *t)
{
    int64_t n = ra_model_trainable(t->m)->size;
    double *g = ra_alloc((size_t)n, sizeof *g), norm;
    for (int64_t i = 0; i < n; i++) g[i] = sin((double)(i % 997) + 3.0 * (double)ra_optimiser_steps(t->o)) * 1e-3;
    char *typed = ra_alloc((size_t)n, t->b->r_size);
    ra_dtype_convert(t->b->r, typed, RA_DTYPE_F64, g, n);
    if (t->grid.data.rank == 0) t->b->ops->upload(t->b, ra_optimiser_gradient(t->o), typed, (size_t)n * t->b->r_size);
    ra_free(typed);
    ra_free(g);
    return ra_optimiser_step(t->o, &norm);
}

/* Whole masters, and the moments of the held range: equal bits, where both trainings hold them. */
static const char *compare(training *a, training *b)
{
    size_t size = a->b->r_size;
    int64_t range[2][2], n = ra_model_trainable(a->m)->size;
    MPI_EXPECT(memcmp(ra_model_masters(a->m), ra_model_masters(b->m), (size_t)n * size) == 0, "the masters differ");
    ra_optimiser_range(a->o, &range[0][0], &range[0][1]);
    ra_optimiser_range(b->o, &range[1][0], &range[1][1]);
    int64_t begin = range[0][0] > range[1][0] ? range[0][0] : range[1][0],
            end = range[0][1] < range[1][1] ? range[0][1] : range[1][1];
    for (int k = 0; k < 2 && end > begin; k++) {
        const char *x = ra_optimiser_moment(a->o, k), *y = ra_optimiser_moment(b->o, k);
        MPI_EXPECT(memcmp(x + (size_t)(begin - range[0][0]) * size, y + (size_t)(begin - range[1][0]) * size,
                          (size_t)(end - begin) * size) == 0,
                   "moment %d differs", k);
    }
    MPI_EXPECT(ra_optimiser_steps(a->o) == ra_optimiser_steps(b->o), "the steps differ");
    return NULL;
}

/* A directory with a random model in it, and the checkpoint directory beside it. */
typedef struct {
    char *dir, *model, *checkpoints;
} place;

static ra_err make_model(const place *p)
{
    char *config = ra_path_join(p->dir, "config.json");
    ra_err err = ra_file_write(config, config_json, sizeof config_json - 1);
    char random[] = "--random";
    char *words[] = {random, config, p->model};
    if (err == RA_OK) err = ra_tool_convert(3, words);
    free(config);
    return err;
}

static ra_err place_make(const ra_comm *world, place *p)
{
    p->dir = test_mpi_dir_make(world);
    p->model = ra_path_join(p->dir, "model");
    p->checkpoints = ra_path_join(p->dir, "checkpoints");
    return ra_comm_agree(world, world->rank == 0 ? make_model(p) : RA_OK);
}

static void place_remove(const ra_comm *world, place *p)
{
    free(p->model);
    free(p->checkpoints);
    test_mpi_dir_remove(world, p->dir);
}

static ra_err write_step(training *t, const char *dir, int keep)
{
    ra_checkpoint_policy policy = {.dir = dir, .keep = keep, .used_yaml = "seed: 1\n"};
    int64_t step = ra_optimiser_steps(t->o);
    ra_train_state state = {.step = step, .epoch = 2, .next = 10 * step, .best = NAN, .key = KEY};
    return ra_checkpoint_write(&t->grid, &policy, t->m, t->o, &state);
}

static ra_err load(training *t, const char *dir, ra_train_state *state, bool *found)
{
    return ra_checkpoint_load(&t->grid, dir, KEY, t->m, t->o, state, found);
}

/* ---- the same bits ---- */

/* Written by `writers`, loaded by `readers`; a rank outside of a communicator has size 0 there and waits. */
static const char *write_then_load(const ra_comm *world, const ra_comm *writers, const ra_comm *readers, const setup *s)
{
    place p;
    training whole, a, b;
    MPI_EXPECT_OK(place_make(world, &p));
    MPI_EXPECT_OK(training_begin(world, p.model, s, &whole));
    for (int i = 0; i < 3; i++) MPI_EXPECT_OK(train(&whole));
    if (writers->size) {
        MPI_EXPECT_OK(training_begin(writers, p.model, s, &a));
        for (int i = 0; i < 3; i++) MPI_EXPECT_OK(train(&a));
        const char *wrong = compare(&whole, &a);
        if (wrong) return wrong;
        MPI_EXPECT_OK(write_step(&a, p.checkpoints, 2));
        training_end(&a);
    }
    RA_MPI(MPI_Barrier(world->comm));
    const char *wrong = NULL;
    if (readers->size) {
        ra_train_state state = {0};
        bool found;
        MPI_EXPECT_OK(training_begin(readers, p.model, s, &b));
        MPI_EXPECT_OK(load(&b, p.checkpoints, &state, &found));
        MPI_EXPECT(found && state.step == 3 && state.epoch == 2 && state.next == 30 && isnan(state.best) && state.key == KEY,
                   "the state differs");
        wrong = compare(&whole, &b);
    }
    for (int i = 0; i < 2 && !wrong; i++) MPI_EXPECT_OK(train(&whole));
    if (readers->size && !wrong) {
        for (int i = 0; i < 2; i++) MPI_EXPECT_OK(train(&b));
        wrong = compare(&whole, &b);
        training_end(&b);
    }
    training_end(&whole);
    place_remove(world, &p);
    return wrong;
}

static const char *test_same_ranks(const ra_comm *world)
{
    for (int i = 0; i < SETUPS; i++) {
        const char *wrong = write_then_load(world, world, world, &setups[i]);
        if (wrong) return test_message("%s: %s", setups[i].name, wrong);
    }
    return NULL;
}

/* Between all ranks, all but one, and one. */
static const char *test_other_ranks(const ra_comm *world)
{
    const char *wrong = NULL;
    for (int fewer = 1; fewer < world->size && !wrong; fewer++) {
        bool in = world->rank < fewer;
        ra_comm few = {MPI_COMM_NULL, 0, 0};
        RA_MPI(MPI_Comm_split(world->comm, in ? 0 : MPI_UNDEFINED, world->rank, &few.comm));
        if (in) {
            few.rank = world->rank;
            few.size = fewer;
        }
        for (int i = 0; i < SETUPS && !wrong; i++) {
            wrong = write_then_load(world, world, &few, &setups[i]);
            if (!wrong) wrong = write_then_load(world, &few, world, &setups[i]);
            if (wrong) wrong = test_message("%d ranks, %s: %s", fewer, setups[i].name, wrong);
        }
        if (in) RA_MPI(MPI_Comm_free(&few.comm));
    }
    return wrong;
}

/* ---- the directory ---- */

/* "a b c", sorted, of the files in `dir`. */
static char *list_files(const char *dir)
{
    struct dirent **entry;
    int n = scandir(dir, &entry, NULL, alphasort);
    ra_buf text = {0};
    ra_buf_adds(&text, "");
    for (int i = 0; i < n; i++) {
        if (entry[i]->d_name[0] != '.') ra_buf_addf(&text, "%s%s", text.length ? " " : "", entry[i]->d_name);
        free(entry[i]);
    }
    if (n >= 0) free(entry);
    return text.data;
}

static const char *expect_files(const ra_comm *world, const char *dir, const char *want)
{
    RA_MPI(MPI_Barrier(world->comm));
    char *have = list_files(dir);
    const char *wrong = strcmp(have, want) == 0 ? NULL : test_message("%s holds \"%s\", not \"%s\"", dir, have, want);
    free(have);
    RA_MPI(MPI_Barrier(world->comm));
    return wrong;
}

static ra_err put_text(const ra_comm *world, const char *dir, const char *name, const char *text)
{
    char *path = ra_path_join(dir, name);
    ra_err err = ra_comm_agree(world, world->rank == 0 ? ra_file_write(path, text, strlen(text)) : RA_OK);
    free(path);
    return err;
}

static const char *test_keep(const ra_comm *world)
{
    place p;
    training t;
    MPI_EXPECT_OK(place_make(world, &p));
    MPI_EXPECT_OK(training_begin(world, p.model, &setups[2], &t));
    ra_train_state state;
    bool found = true;
    MPI_EXPECT_OK(load(&t, p.checkpoints, &state, &found));
    MPI_EXPECT(!found, "a checkpoint was found where there is no directory");
    static const double best[] = {NAN, 0.5, 0.5, 0.25, 0.25, 0.25};
    static const char *const files[] = {"latest step-00000001.h5",
                                        "best.h5 latest step-00000001.h5 step-00000002.h5",
                                        "best.h5 latest step-00000002.h5 step-00000003.h5",
                                        "best.h5 latest step-00000003.h5 step-00000004.h5",
                                        "best.h5 latest step-00000004.h5 step-00000005.h5",
                                        "best.h5 latest step-00000005.h5 step-00000006.h5"};
    const char *wrong = NULL;
    for (int i = 0; i < 6 && !wrong; i++) {
        MPI_EXPECT_OK(train(&t));
        if (i == 2) MPI_EXPECT_OK(put_text(world, p.checkpoints, "step-00000099.h5.part", "what a killed write left"));
        ra_checkpoint_policy policy = {.dir = p.checkpoints, .keep = 2, .keep_best = true};
        state = (ra_train_state){.step = i + 1, .best = best[i], .key = KEY};
        MPI_EXPECT_OK(ra_checkpoint_write(&t.grid, &policy, t.m, t.o, &state));
        wrong = expect_files(world, p.checkpoints, files[i]);
    }
    if (wrong) return wrong;
    char *path = ra_path_join(p.checkpoints, "latest"), *best_path = ra_path_join(p.checkpoints, "best.h5");
    ra_buf text = {0};
    ra_h5 *file;
    int64_t step;
    MPI_EXPECT_OK(ra_file_read(path, &text));
    MPI_EXPECT(strcmp(text.data, "step-00000006.h5\n") == 0, "latest says %s", text.data);
    MPI_EXPECT_OK(ra_h5_open(best_path, world, &file));
    MPI_EXPECT_OK(ra_h5_read_attr_i64(file, "/", "step", &step));
    MPI_EXPECT(step == 4, "best.h5 is of step %d", (int)step);
    ra_h5_close(file);
    ra_buf_free(&text);
    free(best_path);
    free(path);
    training_end(&t);
    place_remove(world, &p);
    return NULL;
}

/* ---- damage ---- */

/* Two checkpoints of one training, steps 1 and 2. */
static ra_err write_two(training *t, const char *dir)
{
    for (int i = 0; i < 2; i++) {
        RA_TRY(train(t));
        RA_TRY(write_step(t, dir, 0));
    }
    return RA_OK;
}

static void flip(int fd, int64_t size, int64_t where)
{
    unsigned char byte;
    (void)size;
    if (pread(fd, &byte, 1, where) != 1) abort();
    byte ^= 0x10;
    if (pwrite(fd, &byte, 1, where) != 1) abort();
}

static void cut(int fd, int64_t size, int64_t where)
{
    (void)size;
    if (ftruncate(fd, where) != 0) abort();
}

static void damage(const ra_comm *world, const char *path, void (*how)(int fd, int64_t size, int64_t where), int64_t where)
{
    RA_MPI(MPI_Barrier(world->comm));
    if (world->rank == 0) {
        int fd = open(path, O_RDWR);
        struct stat info;
        if (fd < 0 || fstat(fd, &info) != 0) abort();
        how(fd, info.st_size, where);
        close(fd);
    }
    RA_MPI(MPI_Barrier(world->comm));
}

static int64_t place_of(const char *path, const char *name)
{
    ra_h5 *file;
    if (ra_h5_open(path, NULL, &file) != RA_OK) return -1;
    hid_t set = H5Dopen2(ra_h5_id(file), name, H5P_DEFAULT);
    int64_t at = (int64_t)H5Dget_offset(set);
    H5Dclose(set);
    ra_h5_close(file);
    return at;
}

/* HDF5 1.10 loses memory when it refuses damaged metadata: such loads are left out of the leak check. */
static ra_err load_damaged(training *t, const char *dir, ra_train_state *state, bool *found)
{
    H5garbage_collect(); /* else what it loses may be recycled memory from before */
    __lsan_disable();
    ra_err err = load(t, dir, state, found);
    __lsan_enable();
    return err;
}

/* A byte of each vector, a short file, an empty one: step 1 is used, and the message names file and dataset. */
static const char *test_damage(const ra_comm *world)
{
    static const char *const sets[] = {"master", "adam_m", "adam_v", "tensor/name", "tensor/offset", "tensor/shape"};
    const char *wrong = NULL;
    for (int i = 0; i < 9 && !wrong; i++) {
        place p;
        training t, first, b;
        MPI_EXPECT_OK(place_make(world, &p));
        MPI_EXPECT_OK(training_begin(world, p.model, &staged, &t));
        MPI_EXPECT_OK(training_begin(world, p.model, &staged, &first));
        MPI_EXPECT_OK(training_begin(world, p.model, &staged, &b));
        MPI_EXPECT_OK(train(&first));
        MPI_EXPECT_OK(write_two(&t, p.checkpoints));
        char *path = ra_path_join(p.checkpoints, "step-00000002.h5");
        if (i < 6) {
            int64_t at = place_of(path, sets[i]);
            damage(world, path, flip, at + 5);
        } else {
            static const int64_t sizes[] = {0, 700, 40000};
            damage(world, path, cut, sizes[i - 6]);
        }
        ra_train_state state = {0};
        bool found;
        MPI_EXPECT_OK(load_damaged(&b, p.checkpoints, &state, &found));
        MPI_EXPECT(found && state.step == 1, "case %d: step %d was loaded", i, (int)state.step);
        wrong = compare(&first, &b);
        /* Without the good one: an error with the names, on every rank, and nothing removed. */
        char *good = ra_path_join(p.checkpoints, "step-00000001.h5");
        RA_MPI(MPI_Barrier(world->comm));
        if (world->rank == 0) unlink(good);
        RA_MPI(MPI_Barrier(world->comm));
        ra_err err = load_damaged(&b, p.checkpoints, &state, &found);
        MPI_EXPECT(err == RA_ERR_FORMAT && !found, "case %d: code %d", i, (int)err);
        MPI_EXPECT(strstr(ra_error_message(), "step-00000002.h5"), "the message does not name the file: %s", ra_error_message());
        MPI_EXPECT(i >= 6 || strstr(ra_error_message(), sets[i]), "the message does not name '%s': %s", sets[i],
                   ra_error_message());
        free(good);
        free(path);
        training_end(&t);
        training_end(&first);
        training_end(&b);
        place_remove(world, &p);
    }
    return wrong;
}

/* A byte anywhere: either the load notices and takes step 1, or it gives the bits of step 2. */
static const char *test_any_byte(const ra_comm *world)
{
    place p;
    training t, first, b;
    MPI_EXPECT_OK(place_make(world, &p));
    MPI_EXPECT_OK(training_begin(world, p.model, &setups[2], &t));
    MPI_EXPECT_OK(training_begin(world, p.model, &setups[2], &first));
    MPI_EXPECT_OK(training_begin(world, p.model, &setups[2], &b));
    MPI_EXPECT_OK(train(&first));
    MPI_EXPECT_OK(write_two(&t, p.checkpoints));
    char *path = ra_path_join(p.checkpoints, "step-00000002.h5");
    struct stat info;
    MPI_EXPECT(stat(path, &info) == 0, "%s is missing", path);
    const char *wrong = NULL;
    int noticed = 0, tries = 0;
    for (int64_t at = 3; at < info.st_size && !wrong; at += info.st_size / 150, tries++) {
        damage(world, path, flip, at);
        ra_train_state state = {0};
        bool found = false;
        MPI_EXPECT_OK(load_damaged(&b, p.checkpoints, &state, &found));
        wrong = compare(state.step == 2 ? &t : &first, &b);
        if (wrong) wrong = test_message("byte %lld: %s", (long long)at, wrong);
        if (!wrong && (state.next != 10 * state.step || state.epoch != 2)) {
            wrong = test_message("byte %lld: the state differs", (long long)at);
        }
        noticed += state.step == 1;
        damage(world, path, flip, at);
    }
    MPI_EXPECT(wrong || noticed > tries / 2, "only %d of %d flips were noticed", noticed, tries);
    free(path);
    training_end(&t);
    training_end(&first);
    training_end(&b);
    place_remove(world, &p);
    return wrong;
}

/* Each rank is given its own directory; the last rank's lacks the newest file. */
static const char *test_unreadable_on_one_rank(const ra_comm *world)
{
    place p;
    training t, first, b;
    MPI_EXPECT_OK(place_make(world, &p));
    MPI_EXPECT_OK(training_begin(world, p.model, &staged, &t));
    MPI_EXPECT_OK(training_begin(world, p.model, &staged, &first));
    MPI_EXPECT_OK(training_begin(world, p.model, &staged, &b));
    MPI_EXPECT_OK(train(&first));
    MPI_EXPECT_OK(write_two(&t, p.checkpoints));
    char *other = ra_path_join(p.dir, "other"), *from = ra_path_join(p.checkpoints, "step-00000001.h5"),
         *to = ra_path_join(other, "step-00000001.h5");
    ra_err err = RA_OK;
    if (world->rank == 0) {
        err = ra_dir_make(other);
        if (err == RA_OK && link(from, to) != 0) err = ra_fail(RA_ERR_IO, "link: %m");
    }
    MPI_EXPECT_OK(ra_comm_agree(world, err));
    ra_train_state state = {0};
    bool found;
    MPI_EXPECT_OK(load(&b, world->rank > 0 && world->rank == world->size - 1 ? other : p.checkpoints, &state, &found));
    int expected = world->size > 1 ? 1 : 2;
    MPI_EXPECT(found && state.step == expected, "step %d was loaded, not %d", (int)state.step, expected);
    const char *wrong = compare(expected == 1 ? &first : &t, &b);
    free(other);
    free(from);
    free(to);
    training_end(&t);
    training_end(&first);
    training_end(&b);
    place_remove(world, &p);
    return wrong;
}

static const char *test_foreign(const ra_comm *world)
{
    place p;
    training t, b;
    MPI_EXPECT_OK(place_make(world, &p));
    MPI_EXPECT_OK(training_begin(world, p.model, &setups[2], &t));
    MPI_EXPECT_OK(write_two(&t, p.checkpoints));
    ra_train_state state;
    bool found;
    ra_err err = ra_checkpoint_load(&t.grid, p.checkpoints, KEY + 1, t.m, t.o, &state, &found);
    MPI_EXPECT(err == RA_ERR_ARG && !found && strstr(ra_error_message(), "step-00000002.h5") &&
                   strstr(ra_error_message(), "other settings"),
               "another key: %s", err == RA_OK ? "loaded" : ra_error_message());
    static const struct {
        setup s;
        const char *word;
    } cases[] = {{{"", "ref", "fp64", RA_TRAIN_ADAPTER, 3, false}, "64"},
                 {{"", "cpu", "fp32", RA_TRAIN_ADAPTER, 5, false}, "lora_A"},
                 {{"", "cpu", "fp32", RA_TRAIN_FULL, 0, false}, "model.embed_tokens.weight"}};
    for (int i = 0; i < 3; i++) {
        MPI_EXPECT_OK(training_begin(world, p.model, &cases[i].s, &b));
        err = load(&b, p.checkpoints, &state, &found);
        MPI_EXPECT(err == RA_ERR_ARG && !found && strstr(ra_error_message(), cases[i].word), "case %d: %s", i,
                   err == RA_OK ? "loaded" : ra_error_message());
        training_end(&b);
    }
    training_end(&t);
    place_remove(world, &p);
    return NULL;
}

/* On the disk of tests/cli/checkpoint_full.sh, 2 MiB in all: a write that finds no space says so and leaves the checkpoint before; the next one, with space again, is good. */
static const char *test_no_space(const ra_comm *world)
{
    place p;
    training t, b;
    MPI_EXPECT_OK(place_make(world, &p));
    MPI_EXPECT_OK(training_begin(world, p.model, &staged, &t));
    MPI_EXPECT_OK(training_begin(world, p.model, &staged, &b));
    char *dir = ra_path_join(getenv("REALIGN_SMALL_DISK"), "checkpoints"), *ballast = ra_path_join(dir, "ballast"),
         *zeros = ra_calloc(1, 1 << 20);
    MPI_EXPECT_OK(train(&t));
    MPI_EXPECT_OK(write_step(&t, dir, 1));
    MPI_EXPECT_OK(train(&t));
    MPI_EXPECT_OK(ra_comm_agree(world, world->rank == 0 ? ra_file_write(ballast, zeros, 1 << 20) : RA_OK));
    ra_err err = write_step(&t, dir, 1);
    MPI_EXPECT(err == RA_ERR_IO && strstr(ra_error_message(), "step-00000002.h5.part") && strstr(ra_error_message(), "pace"),
               "a write without space: %s", err == RA_OK ? "succeeded" : ra_error_message());
    const char *wrong = expect_files(world, dir, "ballast latest step-00000001.h5");
    ra_train_state state;
    bool found = false;
    MPI_EXPECT_OK(load(&b, dir, &state, &found));
    MPI_EXPECT(found && state.step == 1, "the checkpoint before was not used");
    RA_MPI(MPI_Barrier(world->comm));
    if (world->rank == 0) unlink(ballast);
    MPI_EXPECT_OK(write_step(&t, dir, 1));
    if (!wrong) wrong = expect_files(world, dir, "latest step-00000002.h5");
    ra_free(zeros);
    free(ballast);
    free(dir);
    training_end(&t);
    training_end(&b);
    place_remove(world, &p);
    return wrong;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {
        {"written and loaded on the same ranks, then trained on: the same bits", test_same_ranks},
        {"written and loaded on different rank counts: the same bits", test_other_ranks},
        {"the last k files, best.h5 and latest stay; unfinished files go", test_keep},
        {"a damaged file is named and the one before is used", test_damage},
        {"a flipped byte anywhere is noticed or harmless", test_any_byte},
        {"a file that one rank cannot read is used by none", test_unreadable_on_one_rank},
        {"a checkpoint of other settings is refused", test_foreign},
    };
    static const test_mpi small_disk[] = {{"no space: the checkpoint before stays", test_no_space}};
    if (getenv("REALIGN_SMALL_DISK")) return test_mpi_main(argc, argv, small_disk, 1);
    return test_mpi_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
