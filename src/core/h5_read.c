/* Reading and checking. Nothing here is collective: every rank reads what it needs. */
#include "h5_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- finding ---- */

/* H5Lexists fails, rather than answering, where a group on the way is missing: every prefix is asked for in turn. */
bool ra_h5_has(ra_h5 *file, const char *name)
{
    char *path = ra_strdup(name);
    bool there = true;
    for (char *c = path + (*path == '/'); there && *path; c++) {
        if (*c != '/' && *c != '\0') continue;
        char end = *c;
        *c = '\0';
        if (*path && strcmp(path, "/") != 0) there = H5Lexists(file->id, path, H5P_DEFAULT) > 0;
        *c = end;
        if (!end) break;
    }
    if (there && strcmp(path, "/") != 0) there = H5Oexists_by_name(file->id, path, H5P_DEFAULT) > 0;
    free(path);
    return there;
}

static herr_t list_link(hid_t group, const char *name, const H5L_info_t *info, void *data)
{
    (void)group, (void)info;
    ra_buf *names = data;
    if (names->length > 300) {
        ra_buf_adds(names, " ...");
        return 1;
    }
    ra_buf_addf(names, "%s%s", names->length ? ", " : "", name);
    return 0;
}

/* "no such dataset; the group '/a' holds: x, y" for the deepest group of the path that exists. */
static ra_err fail_missing(ra_h5 *file, const char *name)
{
    char *group = ra_strdup(name);
    for (char *slash = strrchr(group, '/'); slash && !ra_h5_has(file, group); slash = strrchr(group, '/')) *slash = '\0';
    const char *where = *group && ra_h5_has(file, group) ? group : "/";
    ra_buf names = {0};
    H5Literate_by_name(file->id, where, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, list_link, &names, H5P_DEFAULT);
    ra_err err = ra_fail(RA_ERR_FORMAT, "%s: no dataset '%s'; the group '%s' holds: %s", file->path, name, where,
                         names.length ? names.data : "nothing");
    ra_buf_free(&names);
    free(group);
    return err;
}

/* A dataset opened for reading, with what must be known about it. */
typedef struct {
    hid_t id, space, type;
    int rank;
    hsize_t shape[4];
} dataset;

static void close_dataset(dataset *set)
{
    if (set->type >= 0) H5Tclose(set->type);
    if (set->space >= 0) H5Sclose(set->space);
    if (set->id >= 0) H5Dclose(set->id);
}

static ra_err open_dataset(ra_h5 *file, const char *name, dataset *set)
{
    *set = (dataset){-1, -1, -1, 0, {0}};
    if (!ra_h5_has(file, name)) return fail_missing(file, name);
    ra_err err = RA_OK;
    set->id = H5Dopen2(file->id, name, H5P_DEFAULT);
    if (set->id < 0) err = ra_h5_fail(file, RA_ERR_FORMAT, name, "not a readable dataset");
    if (err == RA_OK && ((set->space = H5Dget_space(set->id)) < 0 || (set->type = H5Dget_type(set->id)) < 0)) {
        err = ra_h5_fail(file, RA_ERR_FORMAT, name, "its type or shape cannot be read");
    }
    if (err == RA_OK) {
        set->rank = H5Sget_simple_extent_ndims(set->space);
        if (set->rank > 4) {
            err = ra_fail(RA_ERR_FORMAT, "%s: '%s' has %d dimensions; at most 4 are read", file->path, name, set->rank);
        } else if (set->rank < 0 || H5Sget_simple_extent_dims(set->space, set->shape, NULL) < 0) {
            err = ra_h5_fail(file, RA_ERR_FORMAT, name, "its shape cannot be read");
        }
    }
    if (err != RA_OK) close_dataset(set);
    return err;
}

ra_err ra_h5_shape(ra_h5 *file, const char *name, int *rank, int64_t shape[4])
{
    dataset set;
    RA_TRY(open_dataset(file, name, &set));
    *rank = set.rank;
    for (int d = 0; d < 4; d++) shape[d] = (int64_t)set.shape[d];
    close_dataset(&set);
    return RA_OK;
}

/* ---- numbers ---- */

static ra_err read_slab(ra_h5 *file, const char *name, const dataset *set, hid_t type, const ra_h5_slab *slab, void *data)
{
    for (int64_t i = 0; i < slab->pieces; i++) {
        int64_t offset;
        hid_t memory = ra_h5_slab_select(slab, i, set->space, &offset);
        if (memory < 0) return ra_h5_fail(file, RA_ERR_IO, name, "cannot select rows");
        herr_t done = H5Dread(set->id, type, memory, set->space, H5P_DEFAULT, (char *)data + offset);
        ra_err err = done < 0 ? ra_h5_fail(file, RA_ERR_IO, name, "cannot read") : RA_OK;
        H5Sclose(memory);
        RA_TRY(err);
    }
    return RA_OK;
}

static const char *class_name(H5T_class_t class)
{
    switch (class) {
    case H5T_FLOAT: return "real numbers";
    case H5T_INTEGER: return "integers";
    case H5T_STRING: return "text";
    default: return "another class of values";
    }
}

/* Integers may be read as real numbers and truth values as integers, but nothing that would be cut or reinterpreted. */
static ra_err check_class(const ra_h5 *file, const char *name, hid_t stored, hid_t wanted)
{
    H5T_class_t from = H5Tget_class(stored), to = H5Tget_class(wanted);
    if (from == to || (from == H5T_INTEGER && to == H5T_FLOAT) || (from == H5T_ENUM && to == H5T_INTEGER)) return RA_OK;
    return ra_fail(RA_ERR_FORMAT, "%s: '%s' holds %s; %s was asked for", file->path, name, class_name(from), class_name(to));
}

static ra_err read_rows(ra_h5 *file, const char *name, const dataset *set, hid_t type, int64_t first, int64_t count, void *data)
{
    int64_t rows = set->rank == 0 ? 1 : (int64_t)set->shape[0];
    if (count < 0) count = rows - first;
    if (first < 0 || count < 0 || count > rows - first) {
        return ra_fail(RA_ERR_FORMAT, "%s: '%s' has %lld rows; rows [%lld, %lld) were asked for", file->path, name,
                       (long long)rows, (long long)first, (long long)(first + count));
    }
    RA_TRY(check_class(file, name, set->type, type));
    if (set->rank == 0) {
        bool good = count == 0 || H5Dread(set->id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0;
        return good ? RA_OK : ra_h5_fail(file, RA_ERR_IO, name, "cannot read");
    }
    ra_h5_slab slab = ra_h5_slab_make(set->rank, set->shape, (int64_t)H5Tget_size(type), first, count, file->piece_bytes);
    return read_slab(file, name, set, type, &slab, data);
}

ra_err ra_h5_read(ra_h5 *file, const char *name, hid_t type, int64_t first, int64_t count, void *data)
{
    dataset set;
    RA_TRY(open_dataset(file, name, &set));
    ra_err err = read_rows(file, name, &set, type, first, count, data);
    close_dataset(&set);
    return err;
}

/* ---- checksums ---- */

ra_err ra_h5_checksum_stored(ra_h5 *file, const char *name, int64_t first, int64_t count, uint64_t *sum)
{
    enum { BUFFER = 1 << 24 };
    dataset set;
    *sum = 0;
    RA_TRY(open_dataset(file, name, &set));
    int64_t element = (int64_t)H5Tget_size(set.type);
    ra_h5_slab shape = ra_h5_slab_make(set.rank, set.shape, element, first, count, BUFFER);
    int64_t step = shape.rows_per_piece;
    void *rows = ra_alloc((size_t)(step < count ? step : count), (size_t)shape.row_bytes);
    ra_err err = RA_OK;
    for (int64_t at = 0; err == RA_OK && at < count; at += step) {
        int64_t n = count - at < step ? count - at : step;
        ra_h5_slab slab = ra_h5_slab_make(set.rank, set.shape, element, first + at, n, file->piece_bytes);
        err = read_slab(file, name, &set, set.type, &slab, rows);
        if (err == RA_OK) *sum += ra_h5_checksum_rows(rows, shape.row_bytes, first + at, n);
    }
    ra_free(rows);
    close_dataset(&set);
    return err;
}

ra_err ra_h5_read_checksum(ra_h5 *file, const char *name, uint64_t *sum)
{
    hid_t attribute = H5Aopen_by_name(file->id, name, "checksum", H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0) return ra_h5_fail(file, RA_ERR_FORMAT, name, "carries no checksum");
    ra_err err = RA_OK;
    if (H5Aread(attribute, H5T_NATIVE_UINT64, sum) < 0)
        err = ra_h5_fail(file, RA_ERR_FORMAT, name, "its checksum cannot be read");
    H5Aclose(attribute);
    return err;
}

ra_err ra_h5_verify(ra_h5 *file, const char *name)
{
    int rank;
    int64_t shape[4];
    uint64_t want, have;
    RA_TRY(ra_h5_shape(file, name, &rank, shape));
    RA_TRY(ra_h5_read_checksum(file, name, &want));
    RA_TRY(ra_h5_checksum_stored(file, name, 0, shape[0], &have));
    if (have == want) return RA_OK;
    return ra_fail(RA_ERR_FORMAT, "%s: '%s' is damaged: its checksum is %016llx, it was written with %016llx", file->path, name,
                   (unsigned long long)have, (unsigned long long)want);
}

static herr_t add_checked(hid_t root, const char *name, const H5O_info_t *info, void *data)
{
    if (info->type != H5O_TYPE_DATASET) return 0;
    htri_t carries = H5Aexists_by_name(root, name, "checksum", H5P_DEFAULT);
    if (carries > 0) ra_buf_add(data, name, strlen(name) + 1);
    return carries < 0 ? -1 : 0;
}

ra_err ra_h5_list_checked(ra_h5 *file, ra_buf *names)
{
    if (H5Ovisit2(file->id, H5_INDEX_NAME, H5_ITER_INC, add_checked, names, H5O_INFO_BASIC) >= 0) return RA_OK;
    return ra_h5_fail(file, RA_ERR_FORMAT, NULL, "its datasets cannot be listed");
}

ra_err ra_h5_verify_all(ra_h5 *file)
{
    ra_buf names = {0};
    ra_err err = ra_h5_list_checked(file, &names);
    for (size_t at = 0; err == RA_OK && at < names.length; at += strlen(names.data + at) + 1) {
        err = ra_h5_verify(file, names.data + at);
    }
    ra_buf_free(&names);
    return err;
}

/* ---- text ---- */

/* n pointers and n texts of `length` bytes at `packed` become one block of pointers followed by NUL-terminated texts. */
static char **block_from_packed(const char *packed, int64_t n, size_t length)
{
    char **texts = ra_realloc(NULL, (size_t)n * (sizeof *texts + length + 1) + 1, 1);
    char *at = (char *)(texts + n);
    for (int64_t i = 0; i < n; i++, at += length + 1) {
        memcpy(at, packed + (size_t)i * length, length);
        at[length] = '\0';
        texts[i] = at;
    }
    return texts;
}

static char **block_from_pointers(char *const *each, int64_t n)
{
    size_t bytes = 1;
    for (int64_t i = 0; i < n; i++) bytes += sizeof(char *) + strlen(each[i] ? each[i] : "") + 1;
    char **texts = ra_realloc(NULL, bytes, 1);
    char *at = (char *)(texts + n);
    for (int64_t i = 0; i < n; i++) {
        size_t size = strlen(each[i] ? each[i] : "") + 1;
        memcpy(at, each[i] ? each[i] : "", size);
        texts[i] = at;
        at += size;
    }
    return texts;
}

static ra_err read_variable(ra_h5 *file, const char *name, const dataset *set, int64_t n, char ***texts)
{
    char **each = ra_calloc((size_t)n, sizeof *each);
    ra_err err = RA_OK;
    if (n && H5Dread(set->id, set->type, H5S_ALL, H5S_ALL, H5P_DEFAULT, each) < 0) {
        err = ra_h5_fail(file, RA_ERR_IO, name, "cannot read");
    } else {
        *texts = block_from_pointers(each, n);
        H5Dvlen_reclaim(set->type, set->space, H5P_DEFAULT, each);
    }
    ra_free(each);
    return err;
}

static ra_err read_fixed(ra_h5 *file, const char *name, const dataset *set, int64_t n, char ***texts)
{
    size_t length = H5Tget_size(set->type);
    char *packed = ra_alloc((size_t)n, length);
    ra_h5_slab slab = ra_h5_slab_make(1, set->shape, (int64_t)length, 0, n, file->piece_bytes);
    ra_err err = read_slab(file, name, set, set->type, &slab, packed);
    if (err == RA_OK) *texts = block_from_packed(packed, n, length);
    ra_free(packed);
    return err;
}

ra_err ra_h5_read_strings(ra_h5 *file, const char *name, char ***texts, int64_t *n)
{
    dataset set;
    *texts = NULL;
    *n = 0;
    RA_TRY(open_dataset(file, name, &set));
    ra_err err;
    if (set.rank != 1 || H5Tget_class(set.type) != H5T_STRING) {
        err = ra_fail(RA_ERR_FORMAT, "%s: '%s' is not a list of strings", file->path, name);
    } else {
        *n = (int64_t)set.shape[0];
        err = H5Tis_variable_str(set.type) > 0 ? read_variable(file, name, &set, *n, texts)
                                               : read_fixed(file, name, &set, *n, texts);
    }
    close_dataset(&set);
    return err;
}

/* ---- attributes ---- */

static ra_err open_attribute(ra_h5 *file, const char *object, const char *name, hid_t *out)
{
    *out = -1;
    if (!ra_h5_has(file, object)) return ra_fail(RA_ERR_FORMAT, "%s: no object '%s'", file->path, object);
    if (H5Aexists_by_name(file->id, object, name, H5P_DEFAULT) <= 0) {
        return ra_fail(RA_ERR_FORMAT, "%s: '%s' has no attribute '%s'", file->path, object, name);
    }
    *out = H5Aopen_by_name(file->id, object, name, H5P_DEFAULT, H5P_DEFAULT);
    return *out < 0 ? ra_h5_fail(file, RA_ERR_FORMAT, object, "an attribute cannot be opened") : RA_OK;
}

static ra_err read_number(ra_h5 *file, const char *object, const char *name, hid_t type, void *value)
{
    hid_t attribute;
    RA_TRY(open_attribute(file, object, name, &attribute));
    hid_t stored = H5Aget_type(attribute), space = H5Aget_space(attribute);
    H5T_class_t class = stored < 0 ? H5T_NO_CLASS : H5Tget_class(stored), wanted = H5Tget_class(type);
    ra_err err = RA_OK;
    if ((class != wanted && !(class == H5T_INTEGER && wanted == H5T_FLOAT)) || H5Sget_simple_extent_npoints(space) != 1) {
        err = ra_fail(RA_ERR_FORMAT, "%s: '%s': the attribute '%s' is not one %s", file->path, object, name,
                      wanted == H5T_FLOAT ? "real number" : "integer");
    } else if (H5Aread(attribute, type, value) < 0) {
        err = ra_h5_fail(file, RA_ERR_IO, object, "an attribute cannot be read");
    }
    if (stored >= 0) H5Tclose(stored);
    if (space >= 0) H5Sclose(space);
    H5Aclose(attribute);
    return err;
}

ra_err ra_h5_read_attr_i64(ra_h5 *file, const char *object, const char *name, int64_t *value)
{
    return read_number(file, object, name, H5T_NATIVE_INT64, value);
}

ra_err ra_h5_read_attr_f64(ra_h5 *file, const char *object, const char *name, double *value)
{
    return read_number(file, object, name, H5T_NATIVE_DOUBLE, value);
}

ra_err ra_h5_read_attr_text(ra_h5 *file, const char *object, const char *name, char **value)
{
    hid_t attribute;
    *value = NULL;
    RA_TRY(open_attribute(file, object, name, &attribute));
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    ra_err err = RA_OK;
    if (H5Tget_class(type) != H5T_STRING || H5Sget_simple_extent_npoints(space) != 1) {
        err = ra_fail(RA_ERR_FORMAT, "%s: '%s': the attribute '%s' is not one text", file->path, object, name);
    } else if (H5Tis_variable_str(type) > 0) {
        char *text = NULL;
        if (H5Aread(attribute, type, &text) < 0) {
            err = ra_h5_fail(file, RA_ERR_IO, object, "an attribute cannot be read");
        } else {
            *value = ra_strdup(text ? text : "");
            H5Dvlen_reclaim(type, space, H5P_DEFAULT, &text);
        }
    } else {
        size_t length = H5Tget_size(type);
        char *text = ra_realloc(NULL, length + 1, 1);
        text[length] = '\0';
        if (H5Aread(attribute, type, text) < 0) {
            err = ra_h5_fail(file, RA_ERR_IO, object, "an attribute cannot be read");
            free(text);
        } else {
            *value = text;
        }
    }
    H5Tclose(type);
    H5Sclose(space);
    H5Aclose(attribute);
    return err;
}
