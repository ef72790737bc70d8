/* Where the configuration of the `exec` kind comes from, and what makes it another one. */
#include <realign/hash.h>
#include <realign/oracle_exec.h>

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HASHED_WHOLE (256ll << 20) /* bytes; larger files would take longer to read than many runs to judge */

void ra_exec_config_read(const ra_settings *s, int rank, ra_exec_config *out)
{
    *out = (ra_exec_config){
        .name = "oracle.exec",
        .workers = (int)ra_set_int(s, "oracle.exec.workers"),
        .window = (int)ra_set_int(s, "oracle.exec.window"),
        .timeout_s = ra_set_real(s, "oracle.exec.timeout"),
        .start_timeout_s = ra_set_real(s, "oracle.exec.start_timeout"),
        .attempts = (int)ra_set_int(s, "oracle.exec.attempts"),
        .restarts = (int)ra_set_int(s, "oracle.exec.restarts"),
        .seed = (uint64_t)ra_set_int(s, "seed") * 1000003u + (uint64_t)rank,
    };
    out->n_argv = ra_set_list(s, "oracle.exec.command", &out->argv);
}

/* As the shell and posix_spawnp find it. NULL: nowhere. */
static char *find_program(const char *name)
{
    const char *path = getenv("PATH");
    if (strchr(name, '/')) return access(name, X_OK) == 0 ? ra_strdup(name) : NULL;
    for (const char *at = path ? path : "/bin:/usr/bin";; at++) {
        size_t n = strcspn(at, ":");
        char *full = ra_format("%.*s%s%s", (int)n, at, n ? "/" : "", name);
        struct stat info;
        if (access(full, X_OK) == 0 && stat(full, &info) == 0 && S_ISREG(info.st_mode)) return full;
        free(full);
        at += n;
        if (!*at) return NULL;
    }
}

/* Appends what identifies a file's content; nothing where `path` is no file. */
static ra_err add_content(ra_buf *out, const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode)) return RA_OK;
    if (info.st_size > HASHED_WHOLE) {
        ra_buf_addf(out, " [%lld bytes of %lld.%09ld]", (long long)info.st_size, (long long)info.st_mtim.tv_sec,
                    info.st_mtim.tv_nsec);
        return RA_OK;
    }
    ra_hash hash;
    char text[33];
    RA_TRY(ra_hash_file(path, &hash));
    ra_hash_text(hash, text);
    ra_buf_addf(out, " [%s]", text);
    return RA_OK;
}

ra_err ra_exec_identity(const ra_exec_config *config, char **identity)
{
    *identity = NULL;
    if (config->n_argv < 1 || !*config->argv[0])
        return ra_fail(RA_ERR_ARG, "%s.command is not given; give a list: the program and its arguments", config->name);
    char *program = find_program(config->argv[0]);
    if (!program)
        return ra_fail(RA_ERR_ARG, "%s.command: there is no program %s that may be executed (looked for in PATH)", config->name,
                       config->argv[0]);
    ra_buf text = {0};
    ra_buf_addf(&text, "exec '%s'", config->argv[0]);
    ra_err err = add_content(&text, program);
    for (int i = 1; i < config->n_argv && err == RA_OK; i++) {
        ra_buf_addf(&text, " '%s'", config->argv[i]);
        err = add_content(&text, config->argv[i]);
    }
    free(program);
    if (err != RA_OK) {
        ra_buf_free(&text);
        return err;
    }
    *identity = text.data;
    return RA_OK;
}
