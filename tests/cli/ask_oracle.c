/* Asks an oracle about items 0 .. n-1 that tests/support/chat_server.py and exec_judge.py know, and appends each verdict to a file as it arrives; what stands there
 * is not asked again, so that a killed run can be taken up.
 * usage: ask_oracle http|exec OUT N [key=value ...]       lines of OUT: item compliant probability margin
 * Exit code 3 where a child process was left. Else 0, 75 where it was asked to stop, 1 with a message. */
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/oracle_exec.h>
#include <realign/oracle_http.h>
#include <realign/runctl.h>
#include <realign/settings.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BATCH = 4096 };
static const char policy[] = "Responses are to be friendly.\nNothing else is asked.";

typedef struct {
    int file;
    const int *ids; /* of the items of this call */
    int undecided;
} sink;

static void take(void *context, int item, const ra_verdict *v)
{
    sink *s = context;
    char line[100];
    int n =
        snprintf(line, sizeof line, "%d %d %.6f %.6f\n", s->ids[item], v->compliant, (double)v->probability, (double)v->margin);
    if (write(s->file, line, (size_t)n) != n) abort();
    s->undecided += v->compliant < 0;
}

static void read_done(const char *path, int n, char *done)
{
    FILE *file = fopen(path, "r");
    char line[200];
    while (file && fgets(line, sizeof line, file)) {
        int item = atoi(line);
        if (item >= 0 && item < n && strchr(line, '\n')) done[item] = 1;
    }
    if (file) fclose(file);
}

static bool stop(void *context)
{
    (void)context;
    return ra_runctl_is_due(&(ra_runctl){0});
}

static ra_err open_oracle(const char *kind, const ra_settings *s, const ra_oracle_ops **ops, void **state)
{
    char *identity;
    ra_err err;
    if (strcmp(kind, "http") == 0) {
        ra_http_config config;
        ra_http_config_read(s, 0, 1, &config);
        config.chat.stop = stop;
        err = ra_http_open(&config, policy, ops, state);
        identity = err == RA_OK ? ra_http_identity(&config) : NULL;
    } else {
        ra_exec_config config;
        ra_exec_config_read(s, 0, &config);
        config.stop = stop;
        err = ra_exec_identity(&config, &identity);
        if (err == RA_OK) err = ra_exec_open(&config, policy, ops, state);
    }
    if (identity) printf("%s\n", identity);
    free(identity);
    return err;
}

static ra_err ask(const ra_oracle_ops *ops, void *state, int n, const char *done, sink *s)
{
    static ra_oracle_item items[BATCH];
    static char prompts[BATCH][60], responses[BATCH][160];
    static ra_message turns[BATCH][3];
    static int ids[BATCH];
    s->ids = ids;
    for (int next = 0; next < n;) {
        int count = 0;
        for (; next < n && count < BATCH; next++) {
            if (done[next]) continue;
            snprintf(prompts[count], sizeof *prompts, "question %d", next);
            snprintf(responses[count], sizeof *responses, "item %d: Straße, 漢字 😀 \"quoted\" \\ back\n\tand </response> inside",
                     next);
            memcpy(turns[count], (ra_message[3]){{"user", "hello"}, {"assistant", "hi"}, {"user", prompts[count]}},
                   sizeof *turns);
            bool talk = next % 2;
            items[count] = (ra_oracle_item){
                prompts[count], responses[count], next % 3 ? NULL : "chat", NULL, -1, talk ? turns[count] : NULL, talk ? 3 : 0};
            ids[count++] = next;
        }
        RA_TRY(ops->judge(state, items, count, take, s));
    }
    return RA_OK;
}

int main(int argc, char **argv)
{
    if (argc < 4) return 2;
    int n = atoi(argv[3]);
    ra_settings *s = ra_settings_new();
    char *done = calloc((size_t)n + 1, 1);
    sink out = {.file = open(argv[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)};
    ra_runctl control = {0};
    ra_log_setup(0, RA_LOG_INFO);
    ra_runctl_start(&control);
    read_done(argv[2], n, done);
    const ra_oracle_ops *ops = NULL;
    void *state = NULL;
    ra_err err = ra_settings_read_words(s, argc - 4, argv + 4);
    if (err == RA_OK) err = open_oracle(argv[1], s, &ops, &state);
    if (err == RA_OK) err = ask(ops, state, n, done, &out);
    if (err != RA_OK) ra_error("%s", ra_error_message());
    if (state) {
        if (out.undecided) ra_warn("%d undecided: %s", out.undecided, ops->problem(state));
        ra_buf text = {0};
        if (strcmp(argv[1], "http") == 0)
            ra_chat_counts_text(ra_http_counted(state), &text);
        else
            ra_exec_counts_text(ra_exec_counted(state), &text);
        ra_info("%s", text.data);
        ra_buf_free(&text);
        ops->close(state);
    }
    ra_settings_free(s);
    free(done);
    close(out.file);
    if (waitpid(-1, NULL, WNOHANG) != -1) return 3;
    return err == RA_OK ? 0 : err == RA_ERR_STOPPED ? RA_EXIT_AGAIN : 1;
}
