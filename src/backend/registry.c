/* The list of backends and of the precisions each one computes in; opens one by name or by what the processor does natively. */
#include <realign/backend.h>
#include <realign/mem.h>

#include <omp.h>
#include <stdio.h>
#include <string.h>
#if defined __aarch64__
#include <sys/auxv.h>
#endif

enum { MAX_PRECISIONS = 3 };

typedef struct {
    const char *name;
    ra_err (*open)(ra_backend *b, int threads);
    void (*close)(ra_backend *b);
    const char *precision[MAX_PRECISIONS + 1]; /* ends with NULL */
    const char *(*auto_precision)(void);
} backend_row;

/* An opened backend with what the registry keeps beside it; `backend` is first, so that a pointer to either is a pointer to both. */
typedef struct {
    ra_backend backend;
    const backend_row *row;
    char line[400];
} opened_backend;

/* The instruction set's name where the processor multiplies bf16 natively, else NULL. */
static const char *native_bf16(void)
{
#if defined __x86_64__
    __builtin_cpu_init();
    if (__builtin_cpu_supports("amx-bf16")) return "amx_bf16";
    if (__builtin_cpu_supports("avx512bf16")) return "avx512_bf16";
#elif defined __aarch64__ && defined HWCAP2_BF16
    if (getauxval(AT_HWCAP2) & HWCAP2_BF16) return "bf16";
#endif
    return NULL;
}

static const char *fp64_precision(void)
{
    return "fp64";
}

static const char *native_precision(void)
{
    return native_bf16() ? "bf16" : "fp32";
}

static ra_err open_ref(ra_backend *b, int threads)
{
    (void)threads; /* loops over independent outputs only: results do not depend on it */
    return ra_backend_ref_open(b);
}

#ifdef RA_WITH_CUDA
static const char *bf16_precision(void)
{
    return "bf16";
}
#endif

static const backend_row backends[] = {
    {"cpu", ra_backend_cpu_open, ra_backend_cpu_close, {"fp32", "bf16"}, native_precision},
    {"ref", open_ref, ra_backend_ref_close, {"fp64"}, fp64_precision},
#ifdef RA_WITH_CUDA
    {"cuda", ra_backend_cuda_open, ra_backend_cuda_close, {"fp32", "tf32", "bf16"}, bf16_precision},
#endif
};
enum { BACKENDS = sizeof backends / sizeof backends[0] };

/* What auto stands for. */
static const char *fastest_backend(void)
{
#ifdef RA_WITH_CUDA
    if (ra_cuda_device_present()) return "cuda";
#endif
    return "cpu";
}

static const backend_row *find_backend(const char *name)
{
    if (!strcmp(name, "auto")) name = fastest_backend();
    for (int i = 0; i < BACKENDS; i++) {
        if (!strcmp(backends[i].name, name)) return &backends[i];
    }
    return NULL;
}

bool ra_backend_built_in(const char *name)
{
    return find_backend(name) != NULL;
}

/* The row's own copy of the name, NULL where the backend does not compute in it. */
static const char *find_precision(const backend_row *row, const char *precision)
{
    if (!strcmp(precision, "auto")) precision = row->auto_precision();
    for (const char *const *p = row->precision; *p; p++) {
        if (!strcmp(*p, precision)) return *p;
    }
    return NULL;
}

static ra_err refuse(const char *name, const char *precision)
{
    ra_buf list = {0};
    for (int i = 0; i < BACKENDS; i++) {
        for (const char *const *p = backends[i].precision; *p; p++) {
            ra_buf_addf(&list, "%s%s %s", list.length ? ", " : "", backends[i].name, *p);
        }
    }
    ra_err err =
        ra_fail(RA_ERR_UNSUPPORTED, "backend '%s' with precision '%s' is not built in; there is: %s (or auto for either)%s", name,
                precision, list.data, strcmp(name, "cuda") || find_backend(name) ? "" : "; 'make CUDA=1' builds in cuda");
    ra_buf_free(&list);
    return err;
}

static void describe(opened_backend *o)
{
    if (!o->backend.host) {
        snprintf(o->line, sizeof o->line, "%s %s: %s", o->backend.name, o->backend.precision, o->backend.library);
        return;
    }
    const char *isa = native_bf16();
    int threads = omp_get_max_threads();
    snprintf(o->line, sizeof o->line, "%s %s: %s, %s, %d thread%s", o->backend.name, o->backend.precision, o->backend.library,
             isa                  ? isa
             : o->backend.widened ? "no native bf16: operands are widened to float32"
                                  : "no native bf16",
             threads, threads == 1 ? "" : "s");
}

/* Fills in what is known of a backend before it is opened. */
static ra_err outline(const char *name, const char *precision, const backend_row **row, ra_backend *b)
{
    *row = find_backend(name);
    const char *chosen = *row ? find_precision(*row, precision) : NULL;
    if (!chosen) return refuse(name, precision);
    bool wide = !strcmp(chosen, "fp64"), narrow = !strcmp(chosen, "bf16");
    b->name = (*row)->name;
    b->precision = chosen;
    b->r = wide ? RA_DTYPE_F64 : RA_DTYPE_F32;
    b->a = narrow ? RA_DTYPE_BF16 : b->r;
    b->a_size = ra_dtype_size(b->a);
    b->r_size = ra_dtype_size(b->r);
    return RA_OK;
}

ra_err ra_backend_outline(const char *name, const char *precision, ra_backend *out)
{
    const backend_row *row;
    *out = (ra_backend){0};
    return outline(name, precision, &row, out);
}

ra_err ra_backend_open(const char *name, const char *precision, int threads, ra_backend **out)
{
    *out = NULL;
    ra_backend known = {0};
    const backend_row *row;
    RA_TRY(outline(name, precision, &row, &known));
    opened_backend *o = ra_calloc(1, sizeof *o);
    o->row = row;
    o->backend = known;
    ra_err err = row->open(&o->backend, threads);
    if (err != RA_OK) {
        ra_free(o);
        return ra_fail_in(err, "backend %s, precision %s", row->name, known.precision);
    }
    describe(o);
    *out = &o->backend;
    return RA_OK;
}

void ra_backend_close(ra_backend *b)
{
    if (!b) return;
    opened_backend *o = (opened_backend *)b;
    o->row->close(b);
    ra_free(o);
}

const char *ra_backend_describe(const ra_backend *b)
{
    return ((const opened_backend *)b)->line;
}
