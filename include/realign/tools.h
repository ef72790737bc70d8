/* The small tools of the command line. Each takes the words after its name and prints to stdout. */
#ifndef REALIGN_TOOLS_H
#define REALIGN_TOOLS_H
#include <realign/error.h>

/* check DIR [key=value ...]: recomputes every quantity of a reference directory; RA_ERR_NUMERIC where one is outside its tolerance. */
ra_err ra_tool_check(int argc, char **argv);

/* tokenize, template: one JSON value a line on stdin, one a line on stdout, order kept. A bad line ends the tool with RA_ERR_DATA
 * naming the line number; what was written for the lines before it stays.
 * tokenize --model M [--add-special] [--no-parse-special]: a string -> array of ids.  --decode: array of ids -> a string. */
ra_err ra_tool_tokenize(int argc, char **argv);
/* template --model M [--template NAME] [--date DATE]: {"messages": [...], "add_generation_prompt": bool} -> {"text", "ids",
 * "response_start", "response_end"}, token indices or null. With --keep-going a line that the template refuses gives
 * {"error": message} and the next ones follow. */
ra_err ra_tool_template(int argc, char **argv);

/* The model at a shell, lines as above. Both take --model M, --template NAME and key=value words; M is a directory or a GGUF file.
 * score: {"ids": [...]} -> {"logprobs": [...]}, log p(ids[i + 1] given ids[0 .. i]); {"prompt" or "messages", "response"} -> those of the response's tokens, the closing
 * one included. */
ra_err ra_tool_score(int argc, char **argv);
/* generate: {"ids"}, {"messages"} or {"prompt"} -> {"ids": [new ones, the closing token included], "text"}. Greedy unless generate.temperature says otherwise. */
ra_err ra_tool_generate(int argc, char **argv);

/* inspect PATH ...: by what the path is, one of those below; several paths, options and - are preference data. */
ra_err ra_tool_inspect(int argc, char **argv);
/* inspect FILE, of an HDF5 file: the tree with shapes, units and descriptions, whether the checksums hold (RA_ERR_FORMAT where one does not), the provenance. */
ra_err ra_inspect_h5(const char *path);
/* inspect DIR, of a cache of verdicts (oracle.cache): segments, records, shares, damage. */
ra_err ra_inspect_verdicts(const char *dir);
/* plan SETTINGS.yaml|MODEL [key=value ...] [--ranks N] [--schedule FILE.svg] [--json FILE]: what a run would take: data, layers, schedule, FLOPs, memory of every rank; computes nothing, needs no
 * weights. Rank 0 alone. RA_ERR_DATA where grid.memory is less than is planned: the message says what would fit. */
ra_err ra_tool_plan(int argc, char **argv);
/* policy check [--show-text] POLICY [key=value ...]: validates a policy file and tries the oracle on the file's own examples; RA_ERR_DATA where one comes out
 * otherwise. Texts are hidden unless asked for. */
ra_err ra_tool_policy(int argc, char **argv);
/* convert IN OUT [options]: weights, configuration and tokenizer into a Hugging Face directory; without words, RA_ERR_ARG with its usage. */
ra_err ra_tool_convert(int argc, char **argv);
/* For inspect: prints what a model directory, a GGUF or a safetensors file holds. */
ra_err ra_inspect_model(const char *path);
/* inspect [--show-text] [--model M] [key=value ...] PATH ...: what preference data hold (files, folders of shards, - for standard input): schema, rows and
 * problems, lengths (in tokens too with a model), sources, held-out split, three example rows, whose texts may be harmful and are printed with --show-text alone. */
ra_err ra_tool_inspect_data(int argc, char **argv);

#endif
