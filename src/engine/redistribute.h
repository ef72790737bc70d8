/* A vector of the whole network that ranks hold in pieces, as their layout has it, and the same vector dealt to all ranks in even ranges, as files hold it. Messages go from host
 * memory, block by block; what arrives where depends on the pieces alone. */
#ifndef REALIGN_ENGINE_REDISTRIBUTE_H
#define REALIGN_ENGINE_REDISTRIBUTE_H
#include <realign/comm.h>
#include <realign/model.h>

typedef struct {
    int64_t canonical, count; /* elements of the whole network's vector; multiples of 16 */
    void *memory;             /* backend, R */
} ra_piece;

enum { RA_PIECES_MOST = RA_CHUNKS_MOST + 1 }; /* a run of tensors for each chunk, and the copy of a tied head */
typedef struct {
    int32_t count;
    ra_piece piece[RA_PIECES_MOST];
} ra_pieces;

/* Not collective. Shapes and offsets of all layers, of the same kind as *m; free with ra_model_close. */
ra_model *ra_whole_network(const ra_model *m);
/* Not collective. Where elements [begin, end) of a vector in the layout of *l belong, padding included; `memory` holds element `begin` first. copies: also those of the copy of a tied
 * head. begin and end are multiples of 16. */
ra_pieces ra_pieces_of(const ra_layout *l, const ra_backend *b, void *memory, int64_t begin, int64_t end, bool copies);
/* Not collective. Where this rank's range lies in one of its own pieces, in host memory: that place, which then can be the `range` below, and nothing is copied; else NULL. */
void *ra_range_in_place(const ra_comm *comm, const ra_backend *b, int64_t size, const ra_pieces *own);

/* Collective. `size`: of the whole network's vector, each element of which is in one piece of one rank (fatal where the sizes do not add up); rank r gets elements
 * [ra_comm_range_begin(r), ra_comm_range_begin(r + 1)) in `range`, host memory, R. */
void ra_gather_range(const ra_comm *comm, ra_backend *b, int64_t size, const ra_pieces *own, void *range);
/* Collective. The reverse: each range goes to all pieces of all ranks that hold a part of it. */
void ra_scatter_range(const ra_comm *comm, ra_backend *b, int64_t size, const ra_pieces *own, void *range);

#endif
