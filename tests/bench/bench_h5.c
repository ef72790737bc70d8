/* How fast checkpoints are written and read: MiB/s of write, commit (flush, read back, verify, rename) and read.
 * usage: [mpirun -n R] bench_h5 [MiB in all (256)] [folder (/tmp)]. A row is 4096 floats, as a large matrix has. */
#include <realign/comm.h>
#include <realign/file.h>
#include <realign/h5.h>
#include <realign/mem.h>
#include <realign/timer.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { COLUMNS = 4096, ROWS_PER_MIB = 64 };

static void must(ra_err err)
{
    if (err != RA_OK) ra_die("%s", ra_error_message());
}

static double barrier_time(const ra_comm *world)
{
    RA_MPI(MPI_Barrier(world->comm));
    return ra_now();
}

int main(int argc, char **argv)
{
    ra_comm world;
    must(ra_comm_init(&argc, &argv, &world));
    int64_t mib = argc > 1 ? atoll(argv[1]) : 256, shape[2] = {mib * ROWS_PER_MIB, COLUMNS};
    char *path = ra_format("%s/realign-bench-h5.h5", argc > 2 ? argv[2] : "/tmp");
    int64_t first = shape[0] * world.rank / world.size, count = shape[0] * (world.rank + 1) / world.size - first;
    float *data = ra_alloc((size_t)count * COLUMNS, sizeof *data);
    for (int64_t i = 0; i < count * COLUMNS; i++) data[i] = (float)(first * COLUMNS + i) * 1e-6f;

    ra_h5 *file;
    double t0 = barrier_time(&world);
    must(ra_h5_create(path, &world, &file));
    must(ra_h5_write(file, "weights", H5T_NATIVE_FLOAT, 2, shape, first, count, data, "a benchmark", ""));
    double t1 = barrier_time(&world);
    must(ra_h5_commit(file));
    double t2 = barrier_time(&world);
    must(ra_h5_open(path, &world, &file));
    must(ra_h5_read(file, "weights", H5T_NATIVE_FLOAT, first, count, data));
    ra_h5_close(file);
    double t3 = barrier_time(&world);
    for (int64_t i = 0; i < count * COLUMNS; i++) {
        if (data[i] != (float)(first * COLUMNS + i) * 1e-6f) ra_die("row %lld was read back wrong", (long long)(i / COLUMNS));
    }
    if (world.rank == 0) {
        printf("h5: %lld MiB, %d ranks: write %.0f MiB/s, commit %.0f MiB/s, read %.0f MiB/s\n", (long long)mib, world.size,
               (double)mib / (t1 - t0), (double)mib / (t2 - t1), (double)mib / (t3 - t2));
        unlink(path);
    }
    ra_free(data);
    free(path);
    ra_comm_finalize();
    return 0;
}
