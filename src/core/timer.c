#include <realign/comm.h>
#include <realign/file.h>
#include <realign/timer.h>

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { MAX_TIMERS = 64 };

struct ra_timers {
    struct {
        const char *name;
        double begun, total;
        int64_t calls;
    } slot[MAX_TIMERS];
    int count;
};

double ra_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

ra_timers *ra_timers_new(void)
{
    return ra_calloc(1, sizeof(ra_timers));
}

void ra_timers_free(ra_timers *timers)
{
    ra_free(timers);
}

static int find(const ra_timers *timers, const char *name)
{
    for (int i = 0; i < timers->count; i++) {
        if (strcmp(timers->slot[i].name, name) == 0) return i;
    }
    return -1;
}

void ra_timer_begin(ra_timers *timers, const char *name)
{
    if (!timers) return;
    int i = find(timers, name);
    if (i < 0) {
        if (timers->count == MAX_TIMERS) ra_die("timer '%s': more than %d timers", name, MAX_TIMERS);
        i = timers->count++;
        timers->slot[i].name = name;
    }
    timers->slot[i].begun = ra_now();
}

void ra_timer_end(ra_timers *timers, const char *name)
{
    if (!timers) return;
    int i = find(timers, name);
    if (i < 0) return;
    timers->slot[i].total += ra_now() - timers->slot[i].begun;
    timers->slot[i].calls++;
}

double ra_timer_seconds(const ra_timers *timers, const char *name)
{
    int i = find(timers, name);
    return i < 0 ? 0.0 : timers->slot[i].total;
}

ra_err ra_timers_write(const ra_timers *timers, MPI_Comm comm, const char *stage, const char *path)
{
    ra_comm all = {.comm = comm};
    RA_MPI(MPI_Comm_rank(comm, &all.rank));
    RA_MPI(MPI_Comm_size(comm, &all.size));
    int rank = all.rank, size = all.size;
    int count = timers->count;
    RA_MPI(MPI_Bcast(&count, 1, MPI_INT, 0, comm));
    FILE *file = NULL;
    if (rank == 0) {
        bool fresh = !ra_file_exists(path);
        file = fopen(path, "a");
        if (file && fresh) fprintf(file, "stage\ttimer\tcalls\tmin_s\tmean_s\tmax_s\n");
    }
    for (int i = 0; i < count; i++) {
        char name[64] = {0};
        if (rank == 0) snprintf(name, sizeof name, "%s", timers->slot[i].name);
        RA_MPI(MPI_Bcast(name, sizeof name, MPI_CHAR, 0, comm));
        int mine = find(timers, name);
        double total = mine < 0 ? 0.0 : timers->slot[mine].total, low, high, sum;
        RA_MPI(MPI_Reduce(&total, &low, 1, MPI_DOUBLE, MPI_MIN, 0, comm));
        RA_MPI(MPI_Reduce(&total, &high, 1, MPI_DOUBLE, MPI_MAX, 0, comm));
        RA_MPI(MPI_Reduce(&total, &sum, 1, MPI_DOUBLE, MPI_SUM, 0, comm));
        if (file) {
            fprintf(file, "%s\t%s\t%lld\t%.6f\t%.6f\t%.6f\n", stage, name, (long long)timers->slot[i].calls, low, sum / size,
                    high);
        }
    }
    ra_err err = RA_OK;
    if (rank == 0 && (!file || fclose(file) != 0)) err = ra_fail(RA_ERR_IO, "%s: cannot write the timers: %m", path);
    return ra_comm_agree(&all, err);
}
