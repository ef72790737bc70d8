/* A directory that appears whole or not at all: written as dir.part, then renamed. */
#ifndef REALIGN_ENGINE_EXPORT_DIR_H
#define REALIGN_ENGINE_EXPORT_DIR_H
#include <realign/error.h>

/* Makes an empty *part = dir.part; what an earlier export left there is removed. RA_ERR_ARG where `dir` exists and holds anything but an earlier export. */
ra_err ra_export_dir_begin(const char *dir, char **part);
/* Renames part to dir, in place of an earlier export, or removes it where `err` is a failure. Returns that failure or its own; frees part in every case. */
ra_err ra_export_dir_end(const char *dir, char *part, ra_err err);

#endif
