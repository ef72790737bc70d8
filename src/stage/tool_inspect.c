/* inspect: what kind of thing a path is, and who tells what is in it. */
#include <realign/file.h>
#include <realign/tools.h>
#include <realign/verdicts.h>

#include <stdlib.h>
#include <string.h>

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* A folder with one of these is a model; any other is a folder of data. */
static bool is_model(const char *path)
{
    static const char *const names[] = {"config.json",       "tokenizer.json",      "tokenizer.model",
                                        "model.safetensors", "adapter_config.json", "model.safetensors.index.json"};
    bool found = ends_with(path, ".safetensors") || ends_with(path, ".gguf");
    for (size_t i = 0; i < sizeof names / sizeof *names && !found; i++) {
        char *name = ra_path_join(path, names[i]);
        found = ra_file_exists(name);
        free(name);
    }
    return found;
}

ra_err ra_tool_inspect(int argc, char **argv)
{
    if (argc < 1)
        return ra_fail(
            RA_ERR_ARG,
            "usage: realign inspect FILE; preference data: realign inspect [--show-text] [--model M] [key=value ...] PATH ...");
    const char *path = argv[0];
    if (argc > 1 || strcmp(path, "-") == 0) return ra_tool_inspect_data(argc, argv);
    if (!ra_file_exists(path)) return ra_fail(RA_ERR_IO, "%s: no such file or directory", path);
    if (ends_with(path, ".h5")) return ra_inspect_h5(path);
    if (ra_file_is_dir(path) && ra_verdicts_is_cache(path)) return ra_inspect_verdicts(path);
    return is_model(path) ? ra_inspect_model(path) : ra_tool_inspect_data(argc, argv);
}
