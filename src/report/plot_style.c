/* Colours and type of the plots. */
#include <realign/plot.h>

static const char style[] =
    ":root{--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#aa4a8f;--c4:#9aa1ab;--c5:#d99400;--c6:#56b4e9;--c7:#30343b;"
    "--ink:#1b1e23;--muted:#5c636e;--grid:#e4e6ea;--base:#9aa1ab}\n"
    "@media (prefers-color-scheme:dark){:root{--c0:#5ab0e8;--c1:#f08a4b;--c2:#3cc9a0;--c3:#df9ac4;--c4:#7d8694;--c5:#f2be4a;"
    "--c6:#8ccbf2;--c7:#d6d9de;--ink:#e6e8eb;--muted:#a3abb7;--grid:#2d333c;--base:#6b7380}}\n"
    "svg.plot{display:block;width:100%;height:auto;overflow:visible;font-family:system-ui,-apple-system,\"Segoe UI\",\"Noto "
    "Sans\","
    "\"DejaVu Sans\",sans-serif}\n"
    ".p-title{font-size:13.5px;font-weight:600;fill:var(--ink)}.p-axis,.p-tick{font-size:11.5px;fill:var(--muted)}"
    ".p-tick,.p-value{font-variant-numeric:tabular-nums}.p-label{font-size:12px;fill:var(--ink)}"
    ".p-value{font-size:11.5px;fill:var(--ink)}.p-node{font-size:12.5px;font-weight:600;fill:var(--ink)}.halo .p-node,.halo "
    ".p-tick{paint-order:stroke;stroke:var(--page);"
    "stroke-width:4px;stroke-linejoin:round}\n"
    ".p-grid{stroke:var(--grid);stroke-width:1}.p-base{stroke:var(--base);stroke-width:1}"
    ".p-key{stroke-width:3;stroke-linecap:butt}.p-line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}"
    ".p-line.faint{stroke-width:1;opacity:.35}circle.faint{opacity:.35}.p-points{opacity:.6}.p-error{fill:none;stroke:var(--ink);"
    "stroke-width:1.2}"
    ".p-ribbon{opacity:.32}\n"
    ".p-idle{fill:var(--grid)}.p-slot-text,.p-slot-pale{font-size:9.5px;font-variant-numeric:tabular-nums}"
    ".p-slot-text{fill:var(--page);font-weight:600}.p-slot-pale{fill:var(--ink)}\n"
    ".s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}.s3{stroke:var(--c3)}.s4{stroke:var(--c4)}"
    ".s5{stroke:var(--c5)}.s6{stroke:var(--c6)}.s7{stroke:var(--c7)}\n"
    ".f0{fill:var(--c0)}.f1{fill:var(--c1)}.f2{fill:var(--c2)}.f3{fill:var(--c3)}.f4{fill:var(--c4)}.f5{fill:var(--c5)}"
    ".f6{fill:var(--c6)}.f7{fill:var(--c7)}\n";

void ra_plot_style(ra_buf *out)
{
    ra_buf_adds(out, style);
}
