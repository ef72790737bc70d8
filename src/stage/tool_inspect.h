/* Parts of `realign inspect` that one file takes from another. */
#ifndef RA_STAGE_TOOL_INSPECT_H
#define RA_STAGE_TOOL_INSPECT_H
#include <realign/modelfile.h>

/* Prints tokenizer and chat template at `path`, against the model; where there are none, why. */
void ra_inspect_text(const char *path, const ra_modelfile *file);

#endif
