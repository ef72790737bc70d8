/* Checkpoints and exports of a model's whole training state: seconds, and the share of the disk's own rate.
 *   [mpirun -n P] bench_checkpoint [MODEL [DIR [STAGES]]]     MODEL: the demo model by default; DIR: where to write, a temporary directory by default or for -; STAGES of a
 *   pipeline: 1 by default, P / STAGES replicas
 * The disk's rate is that of rank 0 writing and flushing as many bytes in one plain file, and of reading it back; loads are measured with the page cache dropped for the file
 * (cold) and without (warm). */
#include <support/layouts.h>
#include <support/modelmake.h>
#include <support/support.h>

#include <realign/checkpoint.h>
#include <realign/file.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/timer.h>

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 1 << 24, ROUNDS = 3 };

/* Seconds of writing and flushing `bytes` by plain calls. */
static double plain_write(const char *path, int64_t bytes, const char *block)
{
    double start = ra_now();
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    for (int64_t at = 0; at < bytes; at += BLOCK) {
        int64_t n = bytes - at < BLOCK ? bytes - at : BLOCK;
        if (write(fd, block, (size_t)n) != n) ra_die("%s: %m", path);
    }
    if (fsync(fd) != 0) ra_die("%s: %m", path);
    close(fd);
    return ra_now() - start;
}

static void drop_cache(const char *path)
{
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fdatasync(fd) != 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0) ra_die("%s: %m", path);
    close(fd);
}

static double plain_read(const char *path, char *block)
{
    double start = ra_now();
    int fd = open(path, O_RDONLY);
    while (read(fd, block, BLOCK) > 0) continue;
    close(fd);
    return ra_now() - start;
}

static void print(const ra_comm *world, const char *what, int64_t bytes, double seconds, double disk)
{
    RA_MPI(MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, world->comm));
    if (world->rank) return;
    printf("%-34s %7.2f s %8.0f MB/s", what, seconds, 1e-6 * (double)bytes / seconds);
    if (disk > 0.0) printf("   %3.0f %% of the plain rate", 100.0 * disk / seconds);
    printf("\n");
    fflush(stdout);
}

static double barrier_now(const ra_comm *world)
{
    RA_MPI(MPI_Barrier(world->comm));
    return ra_now();
}

static void measure_checkpoints(const ra_grid *grid, ra_model *m, ra_optimiser *o, const char *dir)
{
    const ra_comm *world = &grid->world;
    int64_t bytes = 3 * ra_model_trainable(m)->canonical_size * (int64_t)m->b->r_size;
    char *plain = ra_path_join(dir, "plain"), *checkpoints = ra_path_join(dir, "checkpoints"),
         *last = ra_path_join(checkpoints, "step-00000002.h5"), *block = ra_alloc(BLOCK, 1);
    memset(block, 7, BLOCK);
    double write_s = INFINITY, read_s = INFINITY;
    for (int i = 0; i < ROUNDS && world->rank == 0; i++) {
        write_s = fmin(write_s, plain_write(plain, bytes, block));
        drop_cache(plain);
        read_s = fmin(read_s, plain_read(plain, block));
    }
    if (world->rank == 0) unlink(plain);
    ra_comm_bcast(world, &write_s, sizeof write_s, 0);
    ra_comm_bcast(world, &read_s, sizeof read_s, 0);
    print(world, "plain write and flush, best of 3", bytes, write_s, 0.0);
    print(world, "plain read, cold, best of 3", bytes, read_s, 0.0);
    for (int i = 0; i < ROUNDS; i++) {
        ra_checkpoint_policy policy = {.dir = checkpoints, .keep = 1};
        ra_train_state state = {.step = i, .best = NAN};
        double start = barrier_now(world);
        if (ra_checkpoint_write(grid, &policy, m, o, &state) != RA_OK) ra_die("%s", ra_error_message());
        print(world, "checkpoint, verified", bytes, ra_now() - start, write_s);
    }
    for (int i = 0; i < 2 * ROUNDS; i++) {
        ra_train_state state;
        bool found;
        if (i < ROUNDS && world->rank == 0) drop_cache(last);
        double start = barrier_now(world);
        if (ra_checkpoint_load(grid, checkpoints, 0, m, o, &state, &found) != RA_OK || !found) ra_die("%s", ra_error_message());
        print(world, i < ROUNDS ? "load, cold" : "load, warm", bytes, ra_now() - start, read_s);
    }
    ra_free(block);
    free(plain);
    free(checkpoints);
    free(last);
}

int main(int argc, char **argv)
{
    ra_comm world;
    ra_grid grid;
    ra_backend *b;
    ra_modelfile *file;
    ra_model *m;
    if (ra_comm_init(&argc, &argv, &world) != RA_OK) ra_die("%s", ra_error_message());
    if (ra_grid_make(&world, argc > 3 ? atoi(argv[3]) : 1, &grid) != RA_OK) ra_die("%s", ra_error_message());
    ra_log_setup(world.rank, RA_LOG_QUIET);
    char *model = argc > 1 ? ra_strdup(argv[1]) : test_demo_gguf();
    if (!model) {
        ra_comm_finalize();
        return 0;
    }
    ra_arch arch;
    if (ra_backend_open("cpu", "fp32", 0, &b) != RA_OK || ra_modelfile_open(model, &file) != RA_OK ||
        ra_arch_of(file, &arch) != RA_OK) {
        ra_die("%s", ra_error_message());
    }
    ra_part part = test_layout_part(&(test_layout){.stages = grid.stages, .chunks = 1}, grid.stage, arch.layers);
    ra_arch_free(&arch);
    if (ra_model_open(b, file, RA_TRAIN_FULL, NULL, 64, &part, &m) != RA_OK) ra_die("%s", ra_error_message());
    ra_optimiser_config config = {.lr = 1e-4, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    ra_optimiser *o = ra_optimiser_new(m, &grid, &config);
    bool given = argc > 2 && strcmp(argv[2], "-") != 0;
    char *dir = given ? ra_strdup(argv[2]) : test_mpi_dir_make(&world);
    measure_checkpoints(&grid, m, o, dir);
    char *out = ra_path_join(dir, "model");
    for (int i = 0; i < 2; i++) {
        double start = barrier_now(&world);
        if (ra_export(&grid, m, file, model, RA_EXPORT_MODEL, i ? RA_DTYPE_F32 : RA_DTYPE_BF16, (int64_t)4 << 30, out) != RA_OK) {
            ra_die("%s", ra_error_message());
        }
        print(&world, i ? "export, F32" : "export, BF16", ra_arch_parameters(&m->arch) * (i ? 4 : 2), ra_now() - start, 0.0);
    }
    free(out);
    if (given) {
        free(dir);
    } else {
        test_mpi_dir_remove(&world, dir);
    }
    ra_optimiser_free(o);
    ra_model_close(m);
    ra_modelfile_close(file);
    ra_backend_close(b);
    ra_grid_free(&grid);
    free(model);
    ra_comm_finalize();
    return 0;
}
