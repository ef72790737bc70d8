/* HDF5 with our habits: parallel or serial files, a description, unit and checksum on every dataset, a /provenance group.
 * HDF5's own reason becomes part of the message. Shapes are row-major, 1 to 4 dimensions.
 * A failure of one rank in a collective call is returned by all ranks; after a failed write, the file can only be closed. A full
 * disk is noticed before data move: space is set aside first (src/core/h5_impl.h says why). */
#ifndef REALIGN_H5_H
#define REALIGN_H5_H
#include <realign/comm.h>
#include <realign/error.h>
#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct ra_h5 ra_h5;

/* Collective over `comm` (NULL: this rank alone). Creates path.part; ra_h5_commit renames it. */
ra_err ra_h5_create(const char *path, const ra_comm *comm, ra_h5 **out);
/* Collective over `comm` (NULL: this rank alone). Read-only; every rank opens the file by itself and reads what it likes. */
ra_err ra_h5_open(const char *path, const ra_comm *comm, ra_h5 **out);
/* Collective. Closes a created file, flushes it to disk, opens it again and checks every checksum (each rank a share of the rows),
 * renames path.part to path. When any of this fails on any rank, path is as it was before. Frees `file` in every case. */
ra_err ra_h5_commit(ra_h5 *file);
/* Collective. Closes; a created file that was not committed is removed. NULL is allowed. */
void ra_h5_close(ra_h5 *file);
hid_t ra_h5_id(const ra_h5 *file);

/* Collective. Writes rows [first, first + count) of a dataset of `shape`; rows of dimension 0 of all ranks must tile it.
 * `type` is a native type id (H5T_NATIVE_FLOAT ...). The attribute "checksum" (64 bits) is the sum over rows, modulo 2^64,
 * of XXH64(row bytes, seed = row index): it does not depend on how ranks share the rows. Groups in `name` are made. */
ra_err ra_h5_write(ra_h5 *file, const char *name, hid_t type, int rank, const int64_t *shape, int64_t first, int64_t count,
                   const void *data, const char *description, const char *unit);
/* Whole dataset from rank 0 (other ranks pass any data); the collective call still involves all. */
ra_err ra_h5_write_all(ra_h5 *file, const char *name, hid_t type, int rank, const int64_t *shape, const void *data,
                       const char *description, const char *unit);
/* Rank 0's strings, fixed or variable length in UTF-8. */
ra_err ra_h5_write_strings(ra_h5 *file, const char *name, const char *const *texts, int64_t n, const char *description);
/* Attributes, rank 0's values. An object that is not there is made as a group. */
ra_err ra_h5_write_attr_i64(ra_h5 *file, const char *object, const char *name, int64_t value);
ra_err ra_h5_write_attr_f64(ra_h5 *file, const char *object, const char *name, double value);
ra_err ra_h5_write_attr_text(ra_h5 *file, const char *object, const char *name, const char *value);
/* Collective. /provenance: version, git, flags, libraries, host, layout, date, and `used_yaml` (may be NULL). */
ra_err ra_h5_write_provenance(ra_h5 *file, const ra_comm *comm, const char *used_yaml);

/* Collective over the communicator the file was opened with. Reads rows [first, first + count) without conversion and compares the checksum, summed over
 * ranks, with the stored one: the rows of all ranks must tile the dataset. RA_ERR_FORMAT on every rank where the data is damaged. */
ra_err ra_h5_read_checked(ra_h5 *file, const char *name, hid_t type, int64_t first, int64_t count, void *data);

/* Not collective from here on. */
bool ra_h5_has(ra_h5 *file, const char *name);
ra_err ra_h5_shape(ra_h5 *file, const char *name, int *rank, int64_t shape[4]);
/* Reads rows [first, first + count) of dimension 0 (count < 0: to the end), converting to `type`: sizes freely, integers to real
 * numbers, truth values to integers; anything else is RA_ERR_FORMAT. A scalar is one row. */
ra_err ra_h5_read(ra_h5 *file, const char *name, hid_t type, int64_t first, int64_t count, void *data);
/* Reads the whole dataset (raw bytes) and compares its checksum attribute. RA_ERR_FORMAT names file and dataset. */
ra_err ra_h5_verify(ra_h5 *file, const char *name);
/* Verifies every dataset that carries a checksum. */
ra_err ra_h5_verify_all(ra_h5 *file);
/* Strings; *texts is one block, free with free(). */
ra_err ra_h5_read_strings(ra_h5 *file, const char *name, char ***texts, int64_t *n);
ra_err ra_h5_read_attr_i64(ra_h5 *file, const char *object, const char *name, int64_t *value);
ra_err ra_h5_read_attr_f64(ra_h5 *file, const char *object, const char *name, double *value);
ra_err ra_h5_read_attr_text(ra_h5 *file, const char *object, const char *name, char **value); /* free with free() */

#endif
