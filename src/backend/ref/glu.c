/* Gated linear unit: h = act(gate) up.
 *   silu(g)      = g sigma(g)
 *   gelu_tanh(g) = g/2 (1 + tanh u),  u = sqrt(2/pi) (g + 0.044715 g^3)      PyTorch's gelu(approximate="tanh") */
#include "ref.h"

#include <math.h>

static double logistic(double g)
{
    return 1 / (1 + exp(-g));
}

static double gelu_argument(double g)
{
    return sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g);
}

static double activation(ra_glu kind, double g)
{
    return kind == RA_GLU_SILU ? g * logistic(g) : 0.5 * g * (1 + tanh(gelu_argument(g)));
}

static double activation_slope(ra_glu kind, double g)
{
    if (kind == RA_GLU_SILU) return logistic(g) * (1 + g * (1 - logistic(g)));
    double t = tanh(gelu_argument(g));
    double du = sqrt(2 / 3.14159265358979323846) * (1 + 3 * 0.044715 * g * g);
    return 0.5 * (1 + t) + 0.5 * g * (1 - t * t) * du;
}

void ra_ref_glu(ra_backend *b, int64_t rows, int64_t f, ra_glu kind, const void *gate_up, void *h)
{
    (void)b;
    for (int64_t t = 0; t < rows; t++) {
        const double *gate = (const double *)gate_up + t * 2 * f, *up = gate + f;
        for (int64_t j = 0; j < f; j++) ((double *)h)[t * f + j] = activation(kind, gate[j]) * up[j];
    }
}

void ra_ref_glu_grad(ra_backend *b, int64_t rows, int64_t f, ra_glu kind, const void *gate_up, const void *dh, void *dgate_up)
{
    (void)b;
    for (int64_t t = 0; t < rows; t++) {
        const double *gate = (const double *)gate_up + t * 2 * f, *up = gate + f;
        double *dgate = (double *)dgate_up + t * 2 * f, *dup = dgate + f;
        for (int64_t j = 0; j < f; j++) {
            double g = gate[j], u = up[j],
                   d = ((const double *)dh)[t * f + j]; /* read first: the gradient may overwrite its input */
            dgate[j] = d * u * activation_slope(kind, g);
            dup[j] = d * activation(kind, g);
        }
    }
}
