#!/bin/bash
# report.html in a real browser: the texts are there, nothing is fetched, nothing is complained of, texts stay hidden until opened, nothing sticks out of the page,
# light and dark; the pictures are kept in $BUILD for people to look at.
set -u
cd "$(dirname "$0")/../.." || exit 1
export BUILD=${BUILD:-build}
# shellcheck source=tools/mpi-env.sh
. tools/mpi-env.sh
browser=
for name in chromium chromium-browser google-chrome chrome; do command -v "$name" > /dev/null && browser=$name && break; done
tests=12
echo "1..$tests"
skip=
[ -n "$browser" ] || skip="no chromium here: make deps installs it"
[ -x "$BUILD/tests/cli/make_run" ] || skip="$BUILD/tests/cli/make_run is not built"
if [ -n "$skip" ]; then
    for ((i = 1; i <= tests; i++)); do echo "ok $i - report in a browser # SKIP $skip"; done
    exit 0
fi
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
run=$dir/run
mkdir -p "$run"
n=0
result() { # status, name
    n=$((n + 1))
    if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; fi
}
browse() { # arguments; a profile of its own; the browser finds no host, not for its own errands either
    timeout 60 "$browser" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync --disable-default-apps \
        --host-resolver-rules='MAP * ~NOTFOUND' --user-data-dir="$dir/profile" "$@"
}

"$BUILD/tests/cli/make_run" "$run" > "$dir/log" 2>&1 || cat "$dir/log"
used=$(cat "$run/used.yaml")
if "$REALIGN" report run.dir="$run" > "$dir/log" 2>&1 && [ -s "$run/report.html" ]; then
    [ "$used" = "$(cat "$run/used.yaml")" ] || echo "# realign report wrote another used.yaml"
else
    "$BUILD/tests/cli/make_run" "$run" --only-report > "$dir/log" 2>&1 || sed 's/^/# /' "$dir/log"
fi
[ -s "$run/report.html" ]
result $? "the report is written"

# Every reference in the page: within the page, or no bytes at all.
! grep -oE '(src|href|action|poster|srcset)="[^"]*"|url\([^)]*\)|@import' "$run/report.html" | grep -vE '^href="(#[a-z]+|data:,)"$'
result $? "the page refers to nothing outside of itself"

browse --enable-logging=stderr --dump-dom "file://$run/report.html" > "$dir/dom" 2> "$dir/log"
result $? "the browser opens it"
missing=0
while IFS= read -r text; do
    grep -qF -- "$text" "$dir/dom" || { missing=1; echo "# not in the page: $text"; }
done << 'END'
<strong>INVALID</strong>
the gradient is not finite &lt;b&gt;(made up)&lt;/b&gt;
Target policy agreement
+40.0
Triage of the preference data
health &amp; &lt;b&gt;safety&lt;/b&gt;
"quoted" &amp; &lt;i&gt;odd&lt;/i&gt;
Weight against response length
Loss by set
Learning rate
Held out for evaluation
Wall-clock time
train: backward
Open MPI
9226628966fe8cfbae0196ff74f4a859
0123456789abcdef0123456789abcdef
these texts may be harmful
&lt;script&gt;document.title='broken'&lt;/script&gt;
used.yaml: every setting
END
result $missing "the expected texts are in the page"
grep -q "<title>run – re-alignment report</title>" "$dir/dom"
result $? "texts of the run stay texts"
! grep -E "CONSOLE" "$dir/log" | sed 's/^/# /' | grep .
result $? "no complaint on the console"

# A copy that measures itself: the page's own policy forbids scripts, so the copy goes without it.
cat > "$dir/measure.js" << 'END'
const all = s => [...document.querySelectorAll(s)], seen = s => all(s).filter(e => e.checkVisibility()).length;
const box = document.querySelector('details.texts'), got = {hidden: seen('.card'), fetched: performance.getEntriesByType('resource').length};
got.wide = document.documentElement.scrollWidth - innerWidth > 0;
got.sticks = all('.tile,.verdict,summary,figcaption,h1,h2').filter(e => e.scrollWidth > e.clientWidth + 1).length;
got.crossing = all('svg.plot').filter(s => { const r = s.getBoundingClientRect();
  return [...s.querySelectorAll('text')].some(t => { const b = t.getBoundingClientRect();
    return b.left < r.left - 3 || b.right > r.right + 3 || b.top < r.top - 3 || b.bottom > r.bottom + 3; }); }).map(s => s.querySelector('title').textContent);
got.plots = all('svg.plot').length; got.unnamed = all('svg.plot').filter(s => !s.querySelector('title').textContent).length;
got.dark = matchMedia('(prefers-color-scheme: dark)').matches; got.background = getComputedStyle(document.body).backgroundColor;
box.open = true; got.shown = seen('.card');
document.body.dataset.measured = JSON.stringify(got);
END
mkdir -p "$dir/copy"
{ grep -v 'http-equiv="Content-Security-Policy"' "$run/report.html"; echo "<script>"; cat "$dir/measure.js"; echo "</script>"; } > "$dir/copy/report.html"
measure() { # arguments
    browse "$@" --dump-dom "file://$dir/copy/report.html" 2> /dev/null | grep -o 'data-measured="[^"]*"' | sed 's/&quot;/"/g'
}
got=$(measure --window-size=1200,900)
has() { case $got in *"$1"*) return 0 ;; esac; echo "# $1 is not in $got"; return 1; }
has '"fetched":0'
result $? "nothing is fetched, even without the page's own policy against it"
has '"hidden":0' && has '"shown":12'
result $? "texts are hidden until they are asked for"
has '"wide":false' && has '"sticks":0' && has '"crossing":[]' && has '"plots":15' && has '"unnamed":0' && has '"dark":false' &&
    has 'rgb(255, 255, 255)'
result $? "on a desk, nothing sticks out and every plot has a name"
got=$(measure --window-size=500,900)
has '"wide":false' && has '"sticks":0'
result $? "nor on a narrow screen"
got=$(measure --window-size=1200,900 --force-dark-mode)
has '"dark":true' && has 'rgb(20, 23, 28)'
result $? "dark where the reader's system is"

# The pictures: of the asked size, and of something (an empty page of this size packs into 30 kB).
picture() { # name, arguments
    local file=$BUILD/report-$1.png size
    shift
    rm -f "$file"
    browse "$@" --screenshot="$file" --window-size=1200,6400 "file://$run/report.html" > /dev/null 2>&1
    size=$(stat -c %s "$file" 2> /dev/null || echo 0)
    if [ "$size" -gt 200000 ] && [ "$(od -An -j16 -N8 -tx1 "$file" | tr -d ' \n')" = 000004b000001900 ]; then return 0; fi
    echo "# $file: $size bytes"
    return 1
}
picture light && picture dark --force-dark-mode
result $? "pictures in $BUILD: report-light.png, report-dark.png"
