#include "h5_impl.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

ra_h5_slab ra_h5_slab_make(int rank, const hsize_t *shape, int64_t element_bytes, int64_t first, int64_t count,
                           size_t piece_bytes)
{
    ra_h5_slab slab = {.rank = rank, .first = first, .count = count, .column_bytes = element_bytes};
    for (int d = 0; d < rank; d++) slab.shape[d] = shape[d];
    for (int d = 2; d < rank; d++) slab.column_bytes *= (int64_t)shape[d];
    int64_t columns = rank > 1 ? (int64_t)shape[1] : 1;
    slab.row_bytes = slab.column_bytes * columns;
    slab.rows_per_piece = slab.pieces_per_row = 1;
    slab.columns_per_piece = columns;
    if (slab.row_bytes == 0 || count == 0) return slab;
    if (slab.row_bytes <= (int64_t)piece_bytes) {
        slab.rows_per_piece = (int64_t)piece_bytes / slab.row_bytes;
        slab.pieces = (count + slab.rows_per_piece - 1) / slab.rows_per_piece;
    } else {
        int64_t fit = (int64_t)piece_bytes / slab.column_bytes;
        slab.columns_per_piece = fit > 0 ? fit : 1;
        slab.pieces_per_row = (columns + slab.columns_per_piece - 1) / slab.columns_per_piece;
        slab.pieces = count * slab.pieces_per_row;
    }
    return slab;
}

hid_t ra_h5_slab_select(const ra_h5_slab *slab, int64_t i, hid_t space, int64_t *offset)
{
    *offset = 0;
    hsize_t start[4] = {0}, size[4];
    for (int d = 0; d < 4; d++) size[d] = slab->shape[d];
    if (i >= slab->pieces) {
        size[0] = 1; /* the extent of an empty selection does not matter, but it must not be zero */
        for (int d = 1; d < 4; d++) size[d] = 1;
        hid_t none = H5Screate_simple(slab->rank, size, NULL);
        if (none >= 0 && (H5Sselect_none(none) < 0 || H5Sselect_none(space) < 0)) {
            H5Sclose(none);
            return -1;
        }
        return none;
    }
    int64_t row = i / slab->pieces_per_row * slab->rows_per_piece, left = slab->count - row;
    start[0] = (hsize_t)(slab->first + row);
    size[0] = (hsize_t)(left < slab->rows_per_piece ? left : slab->rows_per_piece);
    *offset = row * slab->row_bytes;
    if (slab->pieces_per_row > 1) {
        int64_t column = i % slab->pieces_per_row * slab->columns_per_piece, rest = (int64_t)slab->shape[1] - column;
        start[1] = (hsize_t)column;
        size[1] = (hsize_t)(rest < slab->columns_per_piece ? rest : slab->columns_per_piece);
        *offset += column * slab->column_bytes;
    }
    if (H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, size, NULL) < 0) return -1;
    return H5Screate_simple(slab->rank, size, NULL);
}

uint64_t ra_h5_checksum_rows(const void *data, int64_t row_bytes, int64_t first, int64_t count)
{
    const char *bytes = data;
    uint64_t sum = 0;
#pragma omp parallel for schedule(static) reduction(+ : sum) if (row_bytes * count > 1 << 20)
    for (int64_t r = 0; r < count; r++) {
        sum += XXH64(bytes + r * row_bytes, (size_t)row_bytes, (XXH64_hash_t)(first + r));
    }
    return sum;
}
