/* Building the tables of logical tensors. */
#ifndef RA_LAYOUT_H
#define RA_LAYOUT_H
#include <realign/model.h>
/* Fills m->base, m->layer, embedding, head, final_norm from m->arch; then m->adapter from m->lora where its rank is not 0. */
void ra_model_lay_out(ra_model *m);
void ra_layout_free(ra_layout *layout);
#endif
