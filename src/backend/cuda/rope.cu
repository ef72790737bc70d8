/* Rotary positions in the half-rotation layout, in place. 4 bytes moved an element for A = bf16 (8 for float); the tables' rows are shared by the
 * heads of a row and stay in the cache. */
#include "rows.h"

namespace
{

/* Columns of the row operator run over pairs: j = head * half + (pair's place in the head). A chunk stays within one head. */
template <class A> struct rope {
    const int32_t *position;
    const float *cosine, *sine;
    float sign;
    A *x;
    int64_t ldx;
    int half;
    template <int N> __device__ void run(int64_t t, int j) const
    {
        int head = j / half, place = j - head * half;
        A *first = x + t * ldx + (int64_t)head * 2 * half + place, *second = first + half;
        int64_t at = (int64_t)position[t] * half + place;
        float c[N], s[N], x1[N], x2[N];
        load<N>(cosine + at, c);
        load<N>(sine + at, s);
        load<N>(first, x1);
        load<N>(second, x2);
#pragma unroll
        for (int k = 0; k < N; k++) {
            float a = x1[k], b = x2[k], sk = sign * s[k];
            x1[k] = a * c[k] - b * sk;
            x2[k] = b * c[k] + a * sk;
        }
        store<N>(first, x1);
        store<N>(second, x2);
    }
};

} // namespace

void ra_cuda_rope(cudaStream_t stream, ra_dtype a, int64_t rows, int32_t heads, int32_t head_dim, const int32_t *position,
                  const void *cosine, const void *sine, bool inverse, void *x, int64_t ldx)
{
    int half = head_dim / 2;
    with_type(a, [&](auto type) {
        using A = decltype(type);
        constexpr int N = WIDE<A>;
        bool wide = half % N == 0 && fits<A, N>(x, ldx) && fits<float, N>(cosine, half) && fits<float, N>(sine, half);
        launch_rows<N>(stream, rows, (int64_t)heads * half, wide,
                       rope<A>{position, (const float *)cosine, (const float *)sine, inverse ? -1.0f : 1.0f, (A *)x, ldx, half});
    });
}
