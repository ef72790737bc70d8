/* Reading by all ranks together, each its rows, with the checksum of exactly what was read: large files are read once. */
#include "h5_impl.h"

/* The sum is over the stored bytes, so the caller's type must be the stored one. */
static ra_err read_own_rows(ra_h5 *file, const char *name, hid_t type, int64_t first, int64_t count, void *data, uint64_t *sum,
                            uint64_t *want, int64_t *rows)
{
    int rank;
    int64_t shape[4];
    RA_TRY(ra_h5_shape(file, name, &rank, shape));
    RA_TRY(ra_h5_read_checksum(file, name, want));
    *rows = shape[0];
    hid_t set = H5Dopen2(file->id, name, H5P_DEFAULT), stored = set < 0 ? -1 : H5Dget_type(set);
    bool same = stored >= 0 && H5Tequal(stored, type) > 0;
    if (stored >= 0) H5Tclose(stored);
    if (set >= 0) H5Dclose(set);
    if (!same) return ra_fail(RA_ERR_FORMAT, "%s: '%s' is stored in another type than it is to be read in", file->path, name);
    if (count == 0) return RA_OK;
    RA_TRY(ra_h5_read(file, name, type, first, count, data));
    int64_t row_bytes = (int64_t)H5Tget_size(type);
    for (int d = 1; d < rank; d++) row_bytes *= shape[d];
    *sum = ra_h5_checksum_rows(data, row_bytes, first, count);
    return RA_OK;
}

ra_err ra_h5_read_checked(ra_h5 *file, const char *name, hid_t type, int64_t first, int64_t count, void *data)
{
    uint64_t sum = 0, want = 0;
    int64_t rows = 0, read = count;
    RA_TRY(ra_h5_agree(file, read_own_rows(file, name, type, first, count, data, &sum, &want, &rows)));
    if (file->comm.size > 1) {
        RA_MPI(MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_UINT64_T, MPI_SUM, file->comm.comm));
        RA_MPI(MPI_Allreduce(MPI_IN_PLACE, &read, 1, MPI_INT64_T, MPI_SUM, file->comm.comm));
    }
    if (read != rows) {
        return ra_fail(RA_ERR_ARG, "%s: '%s': the ranks read %lld rows of %lld together", file->path, name, (long long)read,
                       (long long)rows);
    }
    if (sum == want) return RA_OK;
    return ra_fail(RA_ERR_FORMAT, "%s: '%s' is damaged: its checksum is %016llx, it was written with %016llx", file->path, name,
                   (unsigned long long)sum, (unsigned long long)want);
}
