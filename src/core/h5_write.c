/* Writing: datasets shared by rows, strings, attributes, provenance. Failures of one rank become everybody's. */
#include "h5_impl.h"
#include <realign/version.h>

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Marks the file as spoilt when any rank failed. */
static ra_err settle(ra_h5 *file, ra_err mine)
{
    ra_err err = ra_h5_agree(file, mine);
    if (err != RA_OK) file->failed = true;
    return err;
}

static ra_err check_arguments(const ra_h5 *file, const char *name, hid_t type, int rank, const int64_t *shape, int64_t first,
                              int64_t count, const void *data)
{
    if (!file->part) return ra_fail(RA_ERR_ARG, "%s: '%s': the file was opened for reading", file->path, name);
    if (file->failed) return ra_fail(RA_ERR_IO, "%s: '%s': an earlier write to this file failed", file->part, name);
    if (rank < 1 || rank > 4) {
        return ra_fail(RA_ERR_ARG, "%s: '%s': %d dimensions; 1 to 4 are possible", file->part, name, rank);
    }
    for (int d = 0; d < rank; d++) {
        if (shape[d] < 0) {
            return ra_fail(RA_ERR_ARG, "%s: '%s': dimension %d is %lld", file->part, name, d, (long long)shape[d]);
        }
    }
    if (first < 0 || count < 0 || first > shape[0] || count > shape[0] - first || (count > 0 && !data)) {
        return ra_fail(RA_ERR_ARG, "%s: '%s': rows [%lld, %lld) of %lld", file->part, name, (long long)first,
                       (long long)(first + count), (long long)shape[0]);
    }
    if (H5Tget_size(type) == 0) return ra_h5_fail(file, RA_ERR_ARG, name, "not a usable type");
    return RA_OK;
}

typedef struct {
    int64_t first, count;
} row_range;

static int by_first(const void *a, const void *b)
{
    const row_range *x = a, *y = b;
    return x->first != y->first ? (x->first < y->first ? -1 : 1) : (x->count > y->count) - (x->count < y->count);
}

/* The ranks' rows must cover the dataset once. */
static ra_err check_tiling(const ra_h5 *file, const char *name, int64_t rows, int64_t first, int64_t count)
{
    int size = file->comm.size;
    row_range mine = {first, count};
    row_range *all = ra_alloc((size_t)size, sizeof *all);
    if (size == 1) {
        all[0] = mine;
    } else {
        RA_MPI(MPI_Allgather(&mine, 2, MPI_INT64_T, all, 2, MPI_INT64_T, file->comm.comm));
    }
    qsort(all, (size_t)size, sizeof *all, by_first);
    int64_t next = 0;
    for (int r = 0; r < size; r++) {
        if (all[r].count == 0) continue;
        if (all[r].first != next) break;
        next += all[r].count;
    }
    ra_free(all);
    if (next == rows) return RA_OK;
    return ra_fail(RA_ERR_ARG, "%s: '%s': the ranks' rows do not cover its %lld rows once; row %lld is missing or doubled",
                   file->part, name, (long long)rows, (long long)next);
}

static ra_err make_dataset(const ra_h5 *file, const char *name, hid_t type, int rank, const hsize_t *shape, hid_t *out)
{
    hid_t space = H5Screate_simple(rank, shape, NULL);
    hid_t links = H5Pcreate(H5P_LINK_CREATE), layout = H5Pcreate(H5P_DATASET_CREATE);
    bool good = space >= 0 && links >= 0 && layout >= 0 && H5Pset_create_intermediate_group(links, 1) >= 0 &&
                H5Pset_layout(layout, H5D_CONTIGUOUS) >= 0 && H5Pset_alloc_time(layout, H5D_ALLOC_TIME_EARLY) >= 0 &&
                H5Pset_fill_time(layout, H5D_FILL_TIME_NEVER) >= 0;
    *out = good ? H5Dcreate2(file->id, name, type, space, links, layout, H5P_DEFAULT) : -1;
    ra_err err = *out < 0 ? ra_h5_fail(file, RA_ERR_IO, name, "cannot create the dataset") : RA_OK;
    if (space >= 0) H5Sclose(space);
    if (links >= 0) H5Pclose(links);
    if (layout >= 0) H5Pclose(layout);
    return err;
}

static ra_err reserve_dataset(ra_h5 *file, const char *name, hid_t set)
{
    haddr_t offset = H5Dget_offset(set);
    hsize_t bytes = H5Dget_storage_size(set);
    if (offset == HADDR_UNDEF) return RA_OK;
    if (file->data_end < (int64_t)(offset + bytes)) file->data_end = (int64_t)(offset + bytes);
    return ra_h5_reserve(file, name, (int64_t)offset, (int64_t)bytes);
}

/* All ranks make the same number of collective transfers, failed or not, so that none waits for another. */
static ra_err transfer(const ra_h5 *file, const char *name, hid_t set, hid_t type, const ra_h5_slab *slab, const void *data)
{
    int64_t calls = slab->pieces;
    if (file->comm.size > 1) RA_MPI(MPI_Allreduce(MPI_IN_PLACE, &calls, 1, MPI_INT64_T, MPI_MAX, file->comm.comm));
    ra_err err = RA_OK;
    hid_t space = H5Dget_space(set), how = H5Pcreate(H5P_DATASET_XFER);
    if (space < 0 || how < 0) ra_die("%s: '%s': HDF5 cannot make a data space", file->part, name);
    /* A rank's rows lie in one run, so there is nothing to gain from exchanging them before they are written. */
    if (file->comm.size > 1 &&
        (H5Pset_dxpl_mpio(how, H5FD_MPIO_COLLECTIVE) < 0 || H5Pset_dxpl_mpio_collective_opt(how, H5FD_MPIO_INDIVIDUAL_IO) < 0)) {
        ra_die("%s: '%s': HDF5 cannot write collectively", file->part, name);
    }
    for (int64_t i = 0; i < calls; i++) {
        int64_t offset;
        hid_t memory = ra_h5_slab_select(slab, i, space, &offset);
        if (memory < 0) ra_die("%s: '%s': HDF5 cannot select rows", file->part, name);
        const char *from = slab->pieces ? (const char *)data + offset : "";
        if (H5Dwrite(set, type, memory, space, how, from) < 0 && err == RA_OK) {
            err = ra_h5_fail(file, RA_ERR_IO, name, "cannot write");
        }
        H5Sclose(memory);
    }
    H5Pclose(how);
    H5Sclose(space);
    return err;
}

static ra_err put_attribute(const ra_h5 *file, hid_t object, const char *object_name, const char *name, hid_t type,
                            const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = space < 0 ? -1 : H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    ra_err err = RA_OK;
    if (attribute < 0 || H5Awrite(attribute, type, value) < 0) {
        char what[128];
        snprintf(what, sizeof what, "cannot write the attribute '%s'", name);
        err = ra_h5_fail(file, RA_ERR_IO, object_name, what);
    }
    if (attribute >= 0) H5Aclose(attribute);
    if (space >= 0) H5Sclose(space);
    return err;
}

static hid_t string_type(size_t length)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && H5Tset_size(type, length ? length : 1) >= 0 && H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0 &&
        H5Tset_cset(type, H5T_CSET_UTF8) >= 0) {
        return type;
    }
    ra_die("HDF5 cannot make a string type of %zu bytes", length);
}

static ra_err put_text(const ra_h5 *file, hid_t object, const char *object_name, const char *name, const char *value)
{
    hid_t type = string_type(strlen(value));
    ra_err err = put_attribute(file, object, object_name, name, type, value);
    H5Tclose(type);
    return err;
}

ra_err ra_h5_write(ra_h5 *file, const char *name, hid_t type, int rank, const int64_t *shape, int64_t first, int64_t count,
                   const void *data, const char *description, const char *unit)
{
    RA_TRY(settle(file, check_arguments(file, name, type, rank, shape, first, count, data)));
    RA_TRY(settle(file, check_tiling(file, name, shape[0], first, count)));
    hsize_t extent[4];
    for (int d = 0; d < rank; d++) extent[d] = (hsize_t)shape[d];
    ra_h5_slab slab = ra_h5_slab_make(rank, extent, (int64_t)H5Tget_size(type), first, count, file->piece_bytes);

    hid_t set = -1;
    ra_err err = settle(file, make_dataset(file, name, type, rank, extent, &set));
    if (err == RA_OK) err = settle(file, reserve_dataset(file, name, set));
    if (err == RA_OK) {
        err = transfer(file, name, set, type, &slab, data);
        uint64_t sum = ra_h5_checksum_rows(data, slab.row_bytes, first, count);
        if (file->comm.size > 1) RA_MPI(MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_UINT64_T, MPI_SUM, file->comm.comm));
        if (err == RA_OK) err = put_attribute(file, set, name, "checksum", H5T_NATIVE_UINT64, &sum);
        if (err == RA_OK) err = put_text(file, set, name, "description", description);
        if (err == RA_OK) err = put_text(file, set, name, "unit", unit && *unit ? unit : "1");
        err = settle(file, err);
    }
    if (set >= 0) H5Dclose(set);
    return err;
}

ra_err ra_h5_write_all(ra_h5 *file, const char *name, hid_t type, int rank, const int64_t *shape, const void *data,
                       const char *description, const char *unit)
{
    bool mine = file->comm.rank == 0;
    return ra_h5_write(file, name, type, rank, shape, 0, mine && rank > 0 ? shape[0] : 0, mine ? data : NULL, description, unit);
}

/* Fixed length, padded with zeros to the longest: HDF5 cannot write variable lengths in parallel. */
ra_err ra_h5_write_strings(ra_h5 *file, const char *name, const char *const *texts, int64_t n, const char *description)
{
    int64_t size[2] = {n, 1};
    for (int64_t i = 0; file->comm.rank == 0 && i < n; i++) {
        int64_t length = (int64_t)strlen(texts[i]);
        if (length > size[1]) size[1] = length;
    }
    ra_h5_bcast(file, size, sizeof size);
    char *block = NULL;
    if (file->comm.rank == 0) {
        block = ra_calloc((size_t)size[0], (size_t)size[1]);
        for (int64_t i = 0; i < n; i++) memcpy(block + i * size[1], texts[i], strlen(texts[i]));
    }
    hid_t type = string_type((size_t)size[1]);
    ra_err err = ra_h5_write_all(file, name, type, 1, size, block, description, "text");
    H5Tclose(type);
    ra_free(block);
    return err;
}

/* ---- attributes ---- */

/* The object an attribute goes to; a missing one is made as a group. */
static ra_err open_object(ra_h5 *file, const char *object, hid_t *out)
{
    if (ra_h5_has(file, object)) {
        *out = H5Oopen(file->id, object, H5P_DEFAULT);
    } else {
        hid_t links = H5Pcreate(H5P_LINK_CREATE);
        bool good = links >= 0 && H5Pset_create_intermediate_group(links, 1) >= 0;
        *out = good ? H5Gcreate2(file->id, object, links, H5P_DEFAULT, H5P_DEFAULT) : -1;
        if (*out < 0) return ra_h5_fail(file, RA_ERR_IO, object, "cannot create the group");
        H5Pclose(links);
    }
    return *out < 0 ? ra_h5_fail(file, RA_ERR_IO, object, "cannot open for an attribute") : RA_OK;
}

static ra_err write_attribute(ra_h5 *file, const char *object, const char *name, hid_t type, const void *value)
{
    ra_err err = RA_OK;
    if (!file->part) err = ra_fail(RA_ERR_ARG, "%s: '%s': the file was opened for reading", file->path, object);
    if (err == RA_OK && file->failed) {
        err = ra_fail(RA_ERR_IO, "%s: '%s': an earlier write to this file failed", file->part, object);
    }
    RA_TRY(settle(file, err));
    hid_t id = -1;
    err = settle(file, open_object(file, object, &id));
    if (err == RA_OK) err = settle(file, put_attribute(file, id, object, name, type, value));
    if (id >= 0) H5Oclose(id);
    return err;
}

ra_err ra_h5_write_attr_i64(ra_h5 *file, const char *object, const char *name, int64_t value)
{
    ra_h5_bcast(file, &value, sizeof value);
    return write_attribute(file, object, name, H5T_NATIVE_INT64, &value);
}

ra_err ra_h5_write_attr_f64(ra_h5 *file, const char *object, const char *name, double value)
{
    ra_h5_bcast(file, &value, sizeof value);
    return write_attribute(file, object, name, H5T_NATIVE_DOUBLE, &value);
}

ra_err ra_h5_write_attr_text(ra_h5 *file, const char *object, const char *name, const char *value)
{
    int64_t length = (int64_t)strlen(value);
    ra_h5_bcast(file, &length, sizeof length);
    char *copy = ra_calloc((size_t)length + 1, 1);
    if (file->comm.rank == 0) memcpy(copy, value, (size_t)length);
    ra_h5_bcast(file, copy, length);
    hid_t type = string_type((size_t)length);
    ra_err err = write_attribute(file, object, name, type, copy);
    H5Tclose(type);
    ra_free(copy);
    return err;
}

ra_err ra_h5_write_provenance(ra_h5 *file, const ra_comm *comm, const char *used_yaml)
{
    static const char *const group = "/provenance";
    char host[256] = "?", date[32];
    gethostname(host, sizeof host - 1);
    time_t now = time(NULL);
    struct tm utc;
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    RA_TRY(ra_h5_write_attr_text(file, group, "version", ra_version()));
    RA_TRY(ra_h5_write_attr_text(file, group, "git", ra_version_git()));
    RA_TRY(ra_h5_write_attr_text(file, group, "flags", ra_version_flags()));
    RA_TRY(ra_h5_write_attr_text(file, group, "compiler", ra_version_compiler()));
    RA_TRY(ra_h5_write_attr_text(file, group, "libraries", ra_version_libraries()));
    RA_TRY(ra_h5_write_attr_text(file, group, "host", host));
    RA_TRY(ra_h5_write_attr_text(file, group, "date", date));
    RA_TRY(ra_h5_write_attr_i64(file, group, "ranks", comm ? comm->size : 1));
    RA_TRY(ra_h5_write_attr_i64(file, group, "threads_per_rank", omp_get_max_threads()));
    if (!used_yaml) return RA_OK;
    const char *texts[1] = {used_yaml};
    return ra_h5_write_strings(file, "/provenance/used_yaml", texts, 1, "every setting, its value and where it came from");
}
