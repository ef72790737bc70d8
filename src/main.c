/* realign: dispatch. Stages read settings (a YAML file and key=value words) and are collective; tools read lines on standard input or files. */
#include <realign/comm.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/prefdata.h>
#include <realign/runctl.h>
#include <realign/stage.h>
#include <realign/tools.h>
#include <realign/version.h>

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    ra_err (*stage)(const ra_settings *s, const ra_comm *world);
    ra_err (*tool)(int argc, char **argv);
    const char *help;
} command;

static ra_err show_parameters(int argc, char **argv);
static ra_err show_version(int argc, char **argv);
static ra_err show_help(int argc, char **argv);

static const command commands[] = {
    {"run", ra_stage_run, NULL, "all stages, each taken up where an earlier run left it"},
    {"plan", NULL, ra_tool_plan, "what a run would take: layers, schedule, work, memory of every rank; computes nothing"},
    {"prepare", ra_stage_prepare, NULL, "preference rows to tokenised samples"},
    {"triage", ra_stage_triage, NULL, "the new policy's verdict on every pair: invert, punish or retain"},
    {"correct", ra_stage_correct, NULL, "corrections of Punish pairs: a column, a model or an endpoint; checked by the oracle"},
    {"weigh", ra_stage_weigh, NULL, "gold batch, impact weights, reference log-probabilities"},
    {"train", ra_stage_train, NULL, "TRACE or DPO; checkpoints and the result"},
    {"evaluate", ra_stage_evaluate, NULL, "target policy agreement before and after, drift, perplexity"},
    {"report", ra_stage_report, NULL, "report.html of a run directory"},
    {"generate", ra_stage_generate, ra_tool_generate,
     "with --model M: lines of prompts to lines of responses; without: the run's evaluation prompts"},
    {"score", NULL, ra_tool_score, "lines of ids or texts to log-probabilities (--model M)"},
    {"tokenize", NULL, ra_tool_tokenize, "lines of strings to ids, or back with --decode (--model M)"},
    {"template", NULL, ra_tool_template, "lines of messages to text, ids and response span (--model M)"},
    {"policy", NULL, ra_tool_policy, "check POLICY: is the file sound, and does the oracle answer its examples as they say"},
    {"check", NULL, ra_tool_check, "recompute every value of a reference directory"},
    {"convert", NULL, ra_tool_convert, "IN OUT: GGUF to Hugging Face, element type, adapter merge, random weights"},
    {"inspect", NULL, ra_tool_inspect, "what is in a model, a data file, a cache of verdicts or one of our HDF5 files"},
    {"parameters", NULL, show_parameters, "all settings; --markdown as in doc/parameters.md"},
    {"version", NULL, show_version, "version, compiler and libraries"},
    {"help", NULL, show_help, "this"},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static ra_err show_parameters(int argc, char **argv)
{
    ra_buf text = {0};
    bool markdown = argc > 0 && strcmp(argv[0], "--markdown") == 0;
    (markdown ? ra_settings_markdown : ra_settings_help)(&text);
    fputs(text.data, stdout);
    ra_buf_free(&text);
    return RA_OK;
}

static ra_err show_version(int argc, char **argv)
{
    (void)argc, (void)argv;
    printf("realign %s (%s)\n%s\n%s\n%s\n", ra_version(), ra_version_git(), ra_version_compiler(), ra_version_flags(),
           ra_version_libraries());
    return RA_OK;
}

static ra_err show_help(int argc, char **argv)
{
    (void)argc, (void)argv;
    printf("realign: re-align a language model to a new policy with the preference data you have\n\n"
           "  mpirun -n RANKS realign COMMAND [settings.yaml] [key=value ...]\n\n");
    for (int i = 0; i < COMMANDS; i++) printf("  %-11s %s\n", commands[i].name, commands[i].help);
    printf("\n`realign parameters` lists all settings.\n");
    return RA_OK;
}

/* Collective. Rank 0 reads the file and the words; all ranks get the same settings or the same error. */
static ra_err run_stage(const command *c, const ra_comm *world, int argc, char **argv)
{
    ra_settings *s = ra_settings_new();
    ra_err err = RA_OK;
    if (world->rank == 0) {
        bool file = argc > 0 && !strchr(argv[0], '=');
        if (file) err = ra_settings_read_file(s, argv[0]);
        if (err == RA_OK) err = ra_settings_read_words(s, argc - file, argv + file);
    }
    err = ra_comm_agree(world, err);
    if (err == RA_OK) {
        ra_settings_share(s, world);
        const char *level = ra_set_text(s, "run.log_level");
        ra_log_setup(world->rank, strcmp(level, "debug") == 0   ? RA_LOG_DEBUG
                                  : strcmp(level, "quiet") == 0 ? RA_LOG_QUIET
                                                                : RA_LOG_INFO);
        omp_set_num_threads(ra_comm_threads(world, (int)ra_set_int(s, "run.threads")));
        ra_info("realign %s (%s), %s, %d rank%s", ra_version(), ra_version_git(), ra_version_libraries(), world->size,
                world->size == 1 ? "" : "s");
        if (c->stage != ra_stage_report)
            err = ra_stage_write_used(s, world); /* a report shows the settings of the run, not its own */
        if (err == RA_OK && c->stage != ra_stage_report) err = ra_prefdata_spool(s, world);
    }
    if (err == RA_OK) err = c->stage(s, world);
    ra_settings_free(s);
    return err;
}

int main(int argc, char **argv)
{
    ra_comm world;
    ra_err err = ra_comm_init(&argc, &argv, &world);
    const char *name = argc > 1 ? argv[1] : "help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) name = "help";
    if (strcmp(name, "--version") == 0) name = "version";
    const command *c = NULL;
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0) c = &commands[i];
    }
    int rest = argc > 2 ? argc - 2 : 0;
    if (err == RA_OK && !c) err = ra_fail(RA_ERR_ARG, "unknown command; `realign help` lists them");
    bool flags = rest > 0 && argv[2][0] == '-';
    if (err == RA_OK) err = c->tool && (!c->stage || flags) ? c->tool(rest, argv + 2) : run_stage(c, &world, rest, argv + 2);
    if (err != RA_OK && world.rank == 0) fprintf(stderr, "realign %s: %s\n", name, ra_error_message());
    ra_comm_finalize();
    return err == RA_OK ? 0 : err == RA_ERR_STOPPED ? RA_EXIT_AGAIN : 1;
}
