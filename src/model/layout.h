/* Building the tables of logical tensors. */
#ifndef RA_LAYOUT_H
#define RA_LAYOUT_H
#include <realign/model.h>
void ra_layout_free(ra_layout *layout);
#endif
