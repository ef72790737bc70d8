/* What the files of the HDF5 module share.
 *
 * Full disks. A write that fails inside a collective call is dangerous: Open MPI's OMPIO may then leave the other ranks waiting,
 * and HDF5 1.10 may crash at the end of the program over a file it could not close. So space is set aside first, by rank 0, by
 * ordinary means (ra_h5_reserve); each rank writes its own rows without an exchange with the others; and a file that is given up
 * is emptied before HDF5 closes it. */
#ifndef REALIGN_CORE_H5_IMPL_H
#define REALIGN_CORE_H5_IMPL_H
#include <realign/h5.h>
#include <realign/mem.h>

struct ra_h5 {
    char *path; /* as the caller named it */
    char *part; /* path.part while the file is being made, else NULL */
    hid_t id;
    ra_comm comm;       /* of size 1 for a file of this rank alone; MPI is then never called */
    int fd;             /* rank 0 of a file being made: to reserve and release space; else -1 */
    int64_t data_end;   /* one past the last byte of the datasets so far */
    bool failed;        /* a write failed on some rank: the file must not be committed */
    bool reserves;      /* whether space is set aside before it is written; only tests switch this off */
    size_t piece_bytes; /* no transfer moves more than this per rank: MPI counts are 32 bits */
};

/* Stores "path: 'name': what: <HDF5's error stack>". Call right after the failed HDF5 call: the next one clears the stack. */
ra_err ra_h5_fail(const ra_h5 *file, ra_err code, const char *name, const char *what);
/* Collective over the file's communicator: ra_comm_agree, which a file of one rank does without MPI. */
ra_err ra_h5_agree(const ra_h5 *file, ra_err mine);
/* Rank 0's bytes to all. */
void ra_h5_bcast(const ra_h5 *file, void *bytes, int64_t n);
/* Not collective. Has the file system set space aside for [offset, offset + bytes), so that a full disk is found here and not
 * inside a collective call. Only rank 0 does anything; where the file system cannot set space aside, its free space is asked for. */
ra_err ra_h5_reserve(const ra_h5 *file, const char *name, int64_t offset, int64_t bytes);

/* Rows [first, first + count) of a dataset, cut into pieces: some whole rows, or where one row is too large, some of its columns. */
typedef struct {
    int rank;
    hsize_t shape[4];
    int64_t first, count;
    int64_t row_bytes, column_bytes;
    int64_t rows_per_piece, columns_per_piece; /* the second counts only where the first is 1 */
    int64_t pieces_per_row;                    /* 1 unless a row is cut */
    int64_t pieces;
} ra_h5_slab;
ra_h5_slab ra_h5_slab_make(int rank, const hsize_t *shape, int64_t element_bytes, int64_t first, int64_t count,
                           size_t piece_bytes);
/* Selects piece i in `space` and makes the matching memory space; *offset is the piece's byte offset into the slab's data.
 * For i >= pieces, nothing is selected: a rank with less to do still takes part. */
hid_t ra_h5_slab_select(const ra_h5_slab *slab, int64_t i, hid_t space, int64_t *offset);

/* Sum over rows, modulo 2^64, of XXH64(row bytes, seed = row index). */
uint64_t ra_h5_checksum_rows(const void *data, int64_t row_bytes, int64_t first, int64_t count);
/* The same, of rows [first, first + count) as they lie in the file. */
ra_err ra_h5_checksum_stored(ra_h5 *file, const char *name, int64_t first, int64_t count, uint64_t *sum);
ra_err ra_h5_read_checksum(ra_h5 *file, const char *name, uint64_t *sum);
/* Paths of all datasets with a checksum, sorted as HDF5 visits them; one string each, NUL after each, in `names`. */
ra_err ra_h5_list_checked(ra_h5 *file, ra_buf *names);

#endif
