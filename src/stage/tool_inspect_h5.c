/* `realign inspect file.h5`: the tree of one of our HDF5 files, with shapes, units, descriptions, attributes, whether the
 * checksums hold, and where the file came from. */
#include <realign/h5.h>
#include <realign/mem.h>
#include <realign/tools.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    ra_h5 *file;
    int64_t datasets, bytes, unchecked, bad;
} tally;

/* "float32", "int64", "text of 12 bytes" */
static void name_type(hid_t type, char *text, size_t size)
{
    size_t bytes = H5Tget_size(type);
    switch (H5Tget_class(type)) {
    case H5T_FLOAT: snprintf(text, size, "float%zu", bytes * 8); break;
    case H5T_INTEGER: snprintf(text, size, "%sint%zu", H5Tget_sign(type) == H5T_SGN_NONE ? "u" : "", bytes * 8); break;
    case H5T_STRING:
        if (H5Tis_variable_str(type) > 0) {
            snprintf(text, size, "text");
        } else {
            snprintf(text, size, "text of %zu bytes", bytes);
        }
        break;
    default: snprintf(text, size, "records of %zu bytes", bytes); break;
    }
}

static void print_indented(const char *text, int depth)
{
    for (const char *line = text; *line;) {
        size_t n = strcspn(line, "\n");
        printf("%*s%.*s\n", depth, "", (int)n, line);
        line += n + (line[n] == '\n');
    }
}

/* One attribute on a line of its own; numbers and texts that are not single values are only named. */
static void print_attribute(ra_h5 *file, const char *object, const char *name, int depth)
{
    int64_t whole;
    double real;
    char *text = NULL;
    if (ra_h5_read_attr_i64(file, object, name, &whole) == RA_OK) {
        printf("%*s%s = %" PRId64 "\n", depth, "", name, whole);
    } else if (ra_h5_read_attr_f64(file, object, name, &real) == RA_OK) {
        printf("%*s%s = %.17g\n", depth, "", name, real);
    } else if (ra_h5_read_attr_text(file, object, name, &text) == RA_OK) {
        printf("%*s%s = \"%s\"\n", depth, "", name, text);
        free(text);
    } else {
        printf("%*s%s (neither a number nor a text)\n", depth, "", name);
    }
}

typedef struct {
    ra_h5 *file;
    const char *object;
    int depth;
    bool dataset; /* its description, unit and checksum are shown elsewhere */
} attribute_walk;

static herr_t visit_attribute(hid_t object, const char *name, const H5A_info_t *info, void *data)
{
    (void)object, (void)info;
    const attribute_walk *walk = data;
    bool known = strcmp(name, "description") == 0 || strcmp(name, "unit") == 0 || strcmp(name, "checksum") == 0;
    if (!walk->dataset || !known) print_attribute(walk->file, walk->object, name, walk->depth);
    return 0;
}

static void print_attributes(ra_h5 *file, const char *object, int depth, bool dataset)
{
    attribute_walk walk = {file, object, depth, dataset};
    H5Aiterate_by_name(ra_h5_id(file), object, H5_INDEX_NAME, H5_ITER_INC, NULL, visit_attribute, &walk, H5P_DEFAULT);
}

/* "OK", "BAD" or "none" */
static const char *judge_checksum(tally *sum, const char *path)
{
    if (H5Aexists_by_name(ra_h5_id(sum->file), path, "checksum", H5P_DEFAULT) <= 0) {
        sum->unchecked++;
        return "none";
    }
    if (ra_h5_verify(sum->file, path) == RA_OK) return "OK";
    sum->bad++;
    return "BAD";
}

static void print_dataset(tally *sum, const char *path, const char *name, int depth)
{
    hid_t set = H5Dopen2(ra_h5_id(sum->file), path, H5P_DEFAULT), type = set < 0 ? -1 : H5Dget_type(set);
    char kind[64] = "unreadable", *unit = NULL, *description = NULL;
    if (type >= 0) name_type(type, kind, sizeof kind);
    if (set >= 0) sum->bytes += (int64_t)H5Dget_storage_size(set);
    if (type >= 0) H5Tclose(type);
    if (set >= 0) H5Dclose(set);
    sum->datasets++;

    ra_buf shape = {0};
    int rank = 0;
    int64_t extent[4];
    if (ra_h5_shape(sum->file, path, &rank, extent) != RA_OK) rank = 0;
    for (int d = 0; d < rank; d++) ra_buf_addf(&shape, "%s%" PRId64, d ? " x " : "", extent[d]);
    if (rank == 0) ra_buf_adds(&shape, "scalar");
    ra_h5_read_attr_text(sum->file, path, "unit", &unit);
    ra_h5_read_attr_text(sum->file, path, "description", &description);
    printf("%*s%s: %s, %s, unit %s, checksum %s", depth, "", name, kind, shape.data, unit ? unit : "not given",
           judge_checksum(sum, path));
    printf("%s%s\n", description && *description ? "; " : "", description ? description : "");
    ra_buf_free(&shape);
    free(unit);
    free(description);
    print_attributes(sum->file, path, depth + 4, true);
}

static herr_t visit_object(hid_t root, const char *path, const H5O_info_t *info, void *data)
{
    (void)root;
    tally *sum = data;
    if (strcmp(path, ".") == 0) {
        print_attributes(sum->file, "/", 2, false);
        return 0;
    }
    if (strcmp(path, "provenance") == 0 || strncmp(path, "provenance/", 11) == 0) return 0; /* printed at the end */
    int depth = 2;
    for (const char *c = path; *c; c++) depth += 2 * (*c == '/');
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (info->type == H5O_TYPE_GROUP) {
        printf("%*s%s/\n", depth, "", name);
        print_attributes(sum->file, path, depth + 4, false);
    } else if (info->type == H5O_TYPE_DATASET) {
        print_dataset(sum, path, name, depth);
    }
    return 0;
}

static void print_provenance(tally *sum)
{
    if (!ra_h5_has(sum->file, "/provenance")) {
        printf("provenance: none\n");
        return;
    }
    printf("provenance:\n");
    print_attributes(sum->file, "/provenance", 2, false);
    char **texts;
    int64_t n;
    if (!ra_h5_has(sum->file, "/provenance/used_yaml")) return;
    if (ra_h5_read_strings(sum->file, "/provenance/used_yaml", &texts, &n) != RA_OK) return;
    printf("  used_yaml (checksum %s):\n", judge_checksum(sum, "/provenance/used_yaml"));
    for (int64_t i = 0; i < n; i++) print_indented(texts[i], 4);
    free(texts);
}

ra_err ra_inspect_h5(const char *path)
{
    tally sum = {0};
    RA_TRY(ra_h5_open(path, NULL, &sum.file));
    printf("%s: HDF5\n", path);
    ra_err err = RA_OK;
    if (H5Ovisit2(ra_h5_id(sum.file), H5_INDEX_NAME, H5_ITER_INC, visit_object, &sum, H5O_INFO_BASIC) < 0) {
        err = ra_fail(RA_ERR_FORMAT, "%s: its objects cannot be listed; the file is damaged", path);
    }
    print_provenance(&sum);
    printf("%" PRId64 " datasets, %.3f MiB; %" PRId64 " damaged, %" PRId64 " without a checksum\n", sum.datasets,
           (double)sum.bytes / (1 << 20), sum.bad, sum.unchecked);
    ra_h5_close(sum.file);
    if (err == RA_OK && sum.bad > 0) {
        err =
            ra_fail(RA_ERR_FORMAT, "%s: %" PRId64 " damaged dataset%s, marked BAD above", path, sum.bad, sum.bad > 1 ? "s" : "");
    }
    return err;
}
