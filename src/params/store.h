/* The settings object: a value and its origin for each row of the schema. */
#ifndef RA_PARAMS_STORE_H
#define RA_PARAMS_STORE_H
#include "schema.h"
#include <realign/settings.h>

typedef enum { RA_FROM_DEFAULT, RA_FROM_FILE, RA_FROM_PROGRAM, RA_FROM_WORDS } ra_origin; /* ascending precedence */

struct ra_settings {
    ra_value value[RA_KEY_MOST];
    ra_origin origin[RA_KEY_MOST];
    size_t line[RA_KEY_MOST]; /* of the file, from 1 */
    char *file;               /* the last file read, or NULL */
};

#endif
