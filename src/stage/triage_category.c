/* Category names of all ranks, brought into one order. */
#include "triage.h"

#include <realign/error.h>

#include <stdlib.h>
#include <string.h>

/* The place in `sorted` where the name is, or where it belongs. */
static int find(const ra_category_list *list, const char *name, bool *found)
{
    int low = 0, high = list->n;
    *found = false;
    while (low < high) {
        int middle = (low + high) / 2, order = strcmp(name, list->name[list->sorted[middle]]);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0) high = middle;
        if (order > 0) low = middle + 1;
    }
    return low;
}

int16_t ra_category_index(ra_category_list *list, const char *name)
{
    if (!name || list->overflow) return -1;
    bool found;
    int place = find(list, name, &found);
    if (found) return list->sorted[place];
    if (list->n == RA_MOST_CATEGORIES) {
        list->overflow = true;
        return -1;
    }
    memmove(&list->sorted[place + 1], &list->sorted[place], (size_t)(list->n - place) * sizeof *list->sorted);
    list->sorted[place] = (int16_t)list->n;
    list->name[list->n] = ra_strdup(name);
    return (int16_t)list->n++;
}

void ra_category_free(ra_category_list *list)
{
    for (int i = 0; i < list->n; i++) free(list->name[i]);
    *list = (ra_category_list){0};
}

/* Rank 0 gets the names of all ranks, each with its NUL; *bytes of them. */
static char *gather_names(const ra_category_list *list, const ra_comm *comm, int *bytes)
{
    ra_buf mine = {0};
    ra_buf_adds(&mine, "");
    for (int i = 0; i < list->n; i++) ra_buf_add(&mine, list->name[i], strlen(list->name[i]) + 1);
    int length = (int)mine.length, *lengths = ra_calloc((size_t)comm->size, sizeof *lengths),
        *starts = ra_calloc((size_t)comm->size, sizeof *starts);
    RA_MPI(MPI_Gather(&length, 1, MPI_INT, lengths, 1, MPI_INT, 0, comm->comm));
    *bytes = 0;
    for (int r = 0; r < comm->size; r++) {
        starts[r] = *bytes;
        *bytes += lengths[r];
    }
    char *all = ra_alloc((size_t)*bytes + 1, 1);
    RA_MPI(MPI_Gatherv(mine.data, length, MPI_CHAR, all, lengths, starts, MPI_CHAR, 0, comm->comm));
    ra_buf_free(&mine);
    ra_free(lengths);
    ra_free(starts);
    return all;
}

/* The list with indices in order of the names. */
static void put_in_order(ra_category_list *list)
{
    char *name[RA_MOST_CATEGORIES];
    for (int i = 0; i < list->n; i++) name[i] = list->name[list->sorted[i]];
    for (int i = 0; i < list->n; i++) {
        list->name[i] = name[i];
        list->sorted[i] = (int16_t)i;
    }
}

void ra_category_merge(ra_category_list *list, const ra_comm *comm, ra_triage_row *rows, int64_t n)
{
    int overflow = list->overflow;
    RA_MPI(MPI_Allreduce(MPI_IN_PLACE, &overflow, 1, MPI_INT, MPI_MAX, comm->comm));
    ra_category_list *merged = ra_calloc(1, sizeof *merged);
    ra_buf names = {0};
    ra_buf_adds(&names, "");
    if (!overflow) {
        int bytes;
        char *all = gather_names(list, comm, &bytes);
        for (int at = 0; comm->rank == 0 && at < bytes; at += (int)strlen(all + at) + 1) ra_category_index(merged, all + at);
        ra_free(all);
        if (comm->rank == 0) overflow = merged->overflow;
        put_in_order(merged);
        for (int i = 0; i < merged->n; i++) ra_buf_add(&names, merged->name[i], strlen(merged->name[i]) + 1);
    }
    ra_category_free(merged);
    int64_t head[2] = {overflow, (int64_t)names.length};
    ra_comm_bcast(comm, head, sizeof head, 0);
    merged->overflow = head[0] != 0;
    ra_buf_reserve(&names, (size_t)head[1]);
    ra_comm_bcast(comm, names.data, head[1], 0);
    for (int64_t at = 0; !merged->overflow && at < head[1]; at += (int64_t)strlen(names.data + at) + 1) {
        ra_category_index(merged, names.data + at);
    }
    int16_t renamed[RA_MOST_CATEGORIES];
    for (int i = 0; i < list->n; i++) renamed[i] = ra_category_index(merged, list->name[i]);
    for (int64_t i = 0; i < n; i++) {
        if (rows[i].category >= 0) rows[i].category = renamed[rows[i].category];
    }
    ra_category_free(list);
    *list = *merged;
    ra_free(merged);
    ra_buf_free(&names);
}
