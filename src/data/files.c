#include "files.h"

#include <realign/file.h>
#include <realign/mem.h>
#include <realign/prefdata.h>

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static void add(ra_data_files *files, char *path, int origin)
{
    files->file = ra_realloc(files->file, (size_t)files->n + 1, sizeof *files->file);
    files->file[files->n++] = (ra_data_file){path, origin};
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcasecmp(text + n - m, end) == 0;
}

/* What stands beside the shards of a data set as people publish it. */
static bool is_companion(const char *name)
{
    static const char *const ends[] = {".md", ".txt", ".yaml",   ".yml", ".html", ".pdf",
                                       ".py", ".crc", ".sha256", ".md5", ".xxh3"};
    static const char *const begins[] = {"LICENSE", "LICENCE", "README", "dataset_info", "dataset_dict", "state.json"};
    if (*name == '.' || *name == '_') return true;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        if (ends_with(name, ends[i])) return true;
    }
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++) {
        if (strncasecmp(name, begins[i], strlen(begins[i])) == 0) return true;
    }
    return false;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const ra_data_file *)a)->path, ((const ra_data_file *)b)->path);
}

static ra_err add_folder(ra_data_files *files, const char *path, int origin)
{
    DIR *dir = opendir(path);
    if (!dir) return ra_fail(RA_ERR_IO, "data.path: %s: %m", path);
    int before = files->n, folders = 0;
    for (const struct dirent *entry; (entry = readdir(dir));) {
        if (is_companion(entry->d_name)) continue;
        char *name = ra_path_join(path, entry->d_name);
        struct stat info;
        bool regular = stat(name, &info) == 0 && S_ISREG(info.st_mode);
        folders += !regular && S_ISDIR(info.st_mode);
        if (regular) add(files, name, origin);
        if (!regular) free(name);
    }
    closedir(dir);
    if (files->n == before)
        return ra_fail(RA_ERR_IO, "data.path: %s: a folder without data files%s", path,
                       folders ? "; folders inside it are not looked into: name those you mean" : "");
    qsort(files->file + before, (size_t)(files->n - before), sizeof *files->file, by_name);
    return RA_OK;
}

ra_err ra_data_files_list(const char *const *paths, int n, const char *stdin_path, ra_data_files *out)
{
    *out = (ra_data_files){0};
    if (n < 1)
        return ra_fail(RA_ERR_ARG,
                       "data.path: no file was given; give JSON Lines or JSON files, folders of them, or - for standard input");
    ra_err err = RA_OK;
    bool stdin_given = false;
    for (int i = 0; i < n && err == RA_OK; i++) {
        if (strcmp(paths[i], "-") == 0) {
            if (!stdin_path || stdin_given) {
                err = ra_fail(RA_ERR_ARG, "data.path: - %s", stdin_given ? "is given twice" : "cannot be used here; give a file");
            } else {
                add(out, ra_strdup(stdin_path), i);
            }
            stdin_given = true;
        } else if (ra_file_is_dir(paths[i])) {
            err = add_folder(out, paths[i], i);
        } else {
            add(out, ra_strdup(paths[i]), i);
        }
    }
    if (err != RA_OK) ra_data_files_free(out);
    return err;
}

void ra_data_files_free(ra_data_files *files)
{
    for (int i = 0; i < files->n; i++) free(files->file[i].path);
    free(files->file);
    *files = (ra_data_files){0};
}

/* ---- for the stages ---- */
ra_err ra_prefdata_list_files(const ra_settings *s, char ***files, int *n)
{
    const char *const *paths;
    int n_paths = ra_set_list(s, "data.path", &paths);
    char *spool = ra_path_join(ra_set_text(s, "run.dir"), RA_STDIN_FILE);
    ra_data_files list;
    ra_err err = ra_data_files_list(paths, n_paths, spool, &list);
    free(spool);
    *files = err == RA_OK ? ra_realloc(NULL, (size_t)list.n, sizeof **files) : NULL;
    *n = err == RA_OK ? list.n : 0;
    for (int i = 0; i < *n; i++) (*files)[i] = list.file[i].path;
    free(list.file);
    return err;
}

void ra_prefdata_free_files(char **files, int n)
{
    for (int i = 0; i < n; i++) free(files[i]);
    free(files);
}

ra_err ra_prefdata_hash_files(const ra_settings *s, const ra_comm *comm, char text[33])
{
    char **files = NULL;
    int n = 0;
    RA_TRY(ra_comm_agree(comm, ra_prefdata_list_files(s, &files, &n)));
    int64_t *parts = ra_calloc((size_t)n * 2, sizeof *parts);
    ra_err err = RA_OK;
    for (int i = comm->rank; i < n && err == RA_OK; i += comm->size) {
        ra_hash hash;
        err = ra_hash_file(files[i], &hash);
        if (err != RA_OK) break;
        memcpy(&parts[2 * i], &hash.high, sizeof hash.high);
        memcpy(&parts[2 * i + 1], &hash.low, sizeof hash.low);
    }
    err = ra_comm_agree(comm, err);
    if (err == RA_OK) {
        ra_comm_sum_i64(comm, parts, 2 * (int64_t)n); /* one rank has each, the others 0 */
        ra_hash_text(ra_hash_bytes(parts, (size_t)n * 2 * sizeof *parts), text);
    }
    ra_free(parts);
    ra_prefdata_free_files(files, n);
    return err;
}
