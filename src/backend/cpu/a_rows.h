/* Row-wise operators of the cpu backend for one activation type. Included by ops_f32.c and ops_bf16.c, which define A (the type), LOAD and STORE.
 * Arguments and shapes: include/realign/backend.h. */

static void op_cast_to_a(ra_backend *b, int64_t n, const void *xv, void *yv)
{
    (void)b;
    const float *x = xv;
    A *y = yv;
#pragma omp parallel for simd schedule(static) if (n > 1 << 15)
    for (int64_t i = 0; i < n; i++) STORE(y + i, x[i]);
}

static void op_cast_to_r(ra_backend *b, int64_t n, const void *xv, void *yv)
{
    (void)b;
    const A *x = xv;
    float *y = yv;
#pragma omp parallel for simd schedule(static) if (n > 1 << 15)
    for (int64_t i = 0; i < n; i++) y[i] = LOAD(x + i);
}

static void op_bias_add(ra_backend *b, int64_t rows, int64_t n, const void *bias, void *y, int64_t ldy)
{
    (void)b;
    const float *v = bias;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < rows; t++) {
        A *row = (A *)y + t * ldy;
#pragma omp simd
        for (int64_t j = 0; j < n; j++) STORE(row + j, LOAD(row + j) + v[j]);
    }
}

static void op_bias_grad(ra_backend *b, int64_t rows, int64_t n, const void *dy, int64_t ldy, void *dbias)
{
    (void)b;
    float *sum = dbias;
#pragma omp parallel
    {
        int64_t threads = omp_get_num_threads(), me = omp_get_thread_num();
        int64_t begin = n * me / threads, end = n * (me + 1) / threads;
        for (int64_t t = 0; t < rows; t++) {
            const A *row = (const A *)dy + t * ldy;
            for (int64_t j = begin; j < end; j++) sum[j] += LOAD(row + j);
        }
    }
}

static void op_add_scaled(ra_backend *b, int64_t rows, int64_t n, double s, const void *yv, void *xv, int64_t ldx)
{
    (void)b;
    float scale = (float)s;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < rows; t++) {
        const float *y = (const float *)yv + t * n;
        A *x = (A *)xv + t * ldx;
#pragma omp simd
        for (int64_t j = 0; j < n; j++) STORE(x + j, LOAD(x + j) + scale * y[j]);
    }
}

static double op_dot_segmented(int64_t n, const A *x, const float *y)
{
    double total = 0.0;
    for (int64_t at = 0; at < n; at += 512) {
        int64_t end = at + 512 < n ? at + 512 : n;
        float part = 0.0f;
#pragma omp simd reduction(+ : part)
        for (int64_t j = at; j < end; j++) part += LOAD(x + j) * y[j];
        total += part;
    }
    return total;
}

static void op_row_dot(ra_backend *b, int64_t rows, int64_t n, double s, const void *x, int64_t ldx, const void *y, double *dot)
{
    (void)b;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < rows; t++) dot[t] += s * op_dot_segmented(n, (const A *)x + t * ldx, (const float *)y + t * n);
}

static void op_row_dot_vector(ra_backend *b, int64_t rows, int64_t n, const void *x, int64_t ldx, const void *v, double *dot)
{
    (void)b;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < rows; t++) dot[t] += op_dot_segmented(n, (const A *)x + t * ldx, v);
}

static void op_embed(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale, const void *w, void *x)
{
    (void)b;
    float s = (float)scale;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < rows; t++) {
        float *row = (float *)x + t * h;
        if (token[t] < 0) {
            memset(row, 0, (size_t)h * sizeof *row);
            continue;
        }
        const A *from = (const A *)w + token[t] * h;
#pragma omp simd
        for (int64_t j = 0; j < h; j++) row[j] = s * LOAD(from + j);
    }
}

static void op_embed_dot(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale, const void *dx,
                         const void *g, double *dot)
{
    (void)b;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < rows; t++) {
        if (token[t] >= 0) dot[t] += scale * op_dot_segmented(h, (const A *)g + token[t] * h, (const float *)dx + t * h);
    }
}

static float op_rstd(const float *x, int64_t h, double eps)
{
    double total = 0.0;
    for (int64_t at = 0; at < h; at += 512) {
        int64_t end = at + 512 < h ? at + 512 : h;
        float part = 0.0f;
#pragma omp simd reduction(+ : part)
        for (int64_t j = at; j < end; j++) part += x[j] * x[j];
        total += part;
    }
    return (float)(1.0 / sqrt(total / (double)h + eps));
}

static void op_rmsnorm(ra_backend *b, int64_t rows, int64_t h, const void *xv, const void *wv, bool plus_one, double eps,
                       void *yv, void *rstd)
{
    (void)b;
    const float *w = wv, one = plus_one ? 1.0f : 0.0f;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < rows; t++) {
        const float *x = (const float *)xv + t * h;
        A *y = (A *)yv + t * h;
        float r = op_rstd(x, h, eps);
        ((float *)rstd)[t] = r;
#pragma omp simd
        for (int64_t j = 0; j < h; j++) STORE(y + j, x[j] * r * (w[j] + one));
    }
}

static void op_rmsnorm_add(ra_backend *b, int64_t rows, int64_t h, const void *xv, const void *wv, bool plus_one, double eps,
                           void *sum, void *rstd)
{
    (void)b;
    const float *w = wv, one = plus_one ? 1.0f : 0.0f;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < rows; t++) {
        const float *x = (const float *)xv + t * h;
        float *y = (float *)sum + t * h, r = op_rstd(x, h, eps);
        ((float *)rstd)[t] = r;
#pragma omp simd
        for (int64_t j = 0; j < h; j++) y[j] += x[j] * r * (w[j] + one);
    }
}

/* With u = dy (w + one), n = x rstd:  dx = rstd (u - n mean(u n)),  dw = sum_t dy n,  dot = dy . (n G) */
static void op_rmsnorm_grad(ra_backend *b, int64_t rows, int64_t h, const void *xv, const void *wv, bool plus_one,
                            const void *rstd, const void *dyv, bool accumulate, void *dxv, void *dwv, const void *gv, double *dot)
{
    (void)b;
    const float *w = wv, *g = gv, one = plus_one ? 1.0f : 0.0f;
#pragma omp parallel
    {
        if (dwv) { /* threads share the columns: ascending t in each sum */
            int64_t threads = omp_get_num_threads(), me = omp_get_thread_num(), begin = h * me / threads,
                    end = h * (me + 1) / threads;
            float *dw = dwv;
            for (int64_t t = 0; t < rows; t++) {
                const float *x = (const float *)xv + t * h, *dy = (const float *)dyv + t * h, r = ((const float *)rstd)[t];
                for (int64_t j = begin; j < end; j++) dw[j] += dy[j] * x[j] * r;
            }
        }
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t t = 0; t < rows; t++) {
            const float *x = (const float *)xv + t * h, *dy = (const float *)dyv + t * h, r = ((const float *)rstd)[t];
            float *dx = (float *)dxv + t * h;
            double inner = 0.0, contracted = 0.0;
            for (int64_t at = 0; at < h; at += 512) {
                int64_t end = at + 512 < h ? at + 512 : h;
                float part = 0.0f, with_g = 0.0f;
#pragma omp simd reduction(+ : part)
                for (int64_t j = at; j < end; j++) part += dy[j] * (w[j] + one) * x[j];
                inner += part;
                if (!g) continue;
#pragma omp simd reduction(+ : with_g)
                for (int64_t j = at; j < end; j++) with_g += dy[j] * g[j] * x[j];
                contracted += with_g;
            }
            if (g) dot[t] += contracted * r;
            float mean = (float)(inner * r * r / (double)h), keep = accumulate ? 1.0f : 0.0f;
#pragma omp simd
            for (int64_t j = 0; j < h; j++) {
                float d = r * (dy[j] * (w[j] + one) - x[j] * mean);
                dx[j] = accumulate ? keep * dx[j] + d : d;
            }
        }
    }
}

static void op_rope(ra_backend *b, int64_t rows, int32_t heads, int32_t head_dim, const int32_t *position, const void *cosine,
                    const void *sine, bool inverse, void *xv, int64_t ldx)
{
    (void)b;
    int32_t half = head_dim / 2;
    float sign = inverse ? -1.0f : 1.0f;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < rows; t++) {
        const float *c = (const float *)cosine + (int64_t)position[t] * half,
                    *s = (const float *)sine + (int64_t)position[t] * half;
        for (int32_t head = 0; head < heads; head++) {
            A *x1 = (A *)xv + t * ldx + (int64_t)head * head_dim, *x2 = x1 + half;
#pragma omp simd
            for (int32_t j = 0; j < half; j++) {
                float a = LOAD(x1 + j), z = LOAD(x2 + j), sj = sign * s[j];
                STORE(x1 + j, a * c[j] - z * sj);
                STORE(x2 + j, z * c[j] + a * sj);
            }
        }
    }
}

static inline float glu_tanh_argument(float x)
{
    return 0.7978845608028654f * (x + 0.044715f * x * x * x); /* sqrt(2 / pi) */
}

static void op_glu(ra_backend *b, int64_t rows, int64_t f, ra_glu kind, const void *gate_up, void *hv)
{
    (void)b;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < rows; t++) {
        const A *gate = (const A *)gate_up + t * 2 * f, *up = gate + f;
        A *h = (A *)hv + t * f;
        if (kind == RA_GLU_SILU) {
#pragma omp simd
            for (int64_t j = 0; j < f; j++) {
                float x = LOAD(gate + j);
                STORE(h + j, x * cpu_sigmoid(x) * LOAD(up + j));
            }
        } else {
#pragma omp simd
            for (int64_t j = 0; j < f; j++) {
                float x = LOAD(gate + j);
                STORE(h + j, 0.5f * x * (1.0f + cpu_tanh(glu_tanh_argument(x))) * LOAD(up + j));
            }
        }
    }
}

static void op_glu_grad(ra_backend *b, int64_t rows, int64_t f, ra_glu kind, const void *gate_up, const void *dhv, void *dgate_up)
{
    (void)b;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < rows; t++) {
        const A *gate = (const A *)gate_up + t * 2 * f, *up = gate + f, *dh = (const A *)dhv + t * f;
        A *dgate = (A *)dgate_up + t * 2 * f, *dup = dgate + f;
        if (kind == RA_GLU_SILU) {
#pragma omp simd
            for (int64_t j = 0; j < f; j++) {
                float x = LOAD(gate + j), u = LOAD(up + j), d = LOAD(dh + j), s = cpu_sigmoid(x);
                STORE(dgate + j, d * u * s * (1.0f + x * (1.0f - s)));
                STORE(dup + j, d * x * s);
            }
        } else {
#pragma omp simd
            for (int64_t j = 0; j < f; j++) {
                float x = LOAD(gate + j), u = LOAD(up + j), d = LOAD(dh + j), th = cpu_tanh(glu_tanh_argument(x));
                float slope =
                    0.5f * (1.0f + th) + 0.5f * x * (1.0f - th * th) * 0.7978845608028654f * (1.0f + 3.0f * 0.044715f * x * x);
                STORE(dgate + j, d * u * slope);
                STORE(dup + j, d * 0.5f * x * (1.0f + th));
            }
        }
    }
}

/* l and dl/dz of a raw logit */
#define CAPPED(z, l, slope)                                        \
    float l = (z), slope = 1.0f;                                   \
    if (cap > 0.0f) {                                              \
        float capped_th = cpu_tanh((z) / cap);                     \
        l = cap * capped_th, slope = 1.0f - capped_th * capped_th; \
    }

static void op_softmax_grad(ra_backend *b, int64_t n, int64_t nv, int64_t v0, double softcap, const void *zv,
                            const int32_t *target, const double *lse, const double *coefficient, void *dzv)
{
    (void)b;
    float cap = (float)softcap;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const float *z = (const float *)zv + i * nv, c = (float)coefficient[i], shift = (float)lse[i];
        A *dz = (A *)dzv + i * nv;
#pragma omp simd
        for (int64_t j = 0; j < nv; j++) {
            CAPPED(z[j], l, slope)
            STORE(dz + j, -c * cpu_exp(l - shift) * slope);
        }
        int64_t t = target[i] - v0;
        if (t >= 0 && t < nv) {
            CAPPED(z[t], l, slope)
            STORE(dz + t, c * (1.0f - cpu_exp(l - shift)) * slope);
        }
    }
}

static void op_kl_grad(ra_backend *b, int64_t n, int64_t nv, double softcap, const void *zv, const void *z_ref, const double *lse,
                       const double *lse_ref, const double *coefficient, void *dzv)
{
    (void)b;
    float cap = (float)softcap;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const float *z = (const float *)zv + i * nv, *zr = (const float *)z_ref + i * nv, c = (float)coefficient[i];
        const float shift = (float)lse[i], shift_ref = (float)lse_ref[i];
        A *dz = (A *)dzv + i * nv;
#pragma omp simd
        for (int64_t j = 0; j < nv; j++) {
            CAPPED(z[j], l, slope)
            CAPPED(zr[j], lr, slope_ref)
            (void)slope_ref;
            STORE(dz + j, c * (cpu_exp(l - shift) - cpu_exp(lr - shift_ref)) * slope);
        }
    }
}
