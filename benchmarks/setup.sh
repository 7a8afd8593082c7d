#!/bin/sh
# Makes what the benchmarks need: the Rust programs, a CPython 3.7 with Japronto, wrk.
#
# What cannot be had is named and left out; run.py leaves out its rows. Run it again at any time.
# ANEL_PYTHON37 names a CPython 3.7 that is not on the PATH or under pyenv. ANEL_BENCH_PROFILE=quick builds
# without the minutes of fat LTO (then: run.py --bin benchmarks/target/quick).
set -eu
cd "$(dirname "$0")"

profile=${ANEL_BENCH_PROFILE:-release}
echo "== load, control, tokio_uring_hello (profile $profile)"
cargo build --profile "$profile"

echo "== Japronto"
# Its last release has wheels up to CPython 3.7. uvloop 0.18.0 is the last with one; pinned for the record.
find_python37() {
    for candidate in "${ANEL_PYTHON37:-}" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.7.*/bin/python python3.7; do
        if [ -n "$candidate" ] && "$candidate" -c \
            'import sys; sys.exit(sys.version_info[:2] != (3, 7))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}
python37=$(find_python37)
if [ -x .venv37/bin/python ] && .venv37/bin/python -c 'import japronto' 2>/dev/null; then
    echo "already there"
elif [ -z "$python37" ]; then
    echo "skipped: japronto: no CPython 3.7 (pyenv install 3.7, or set ANEL_PYTHON37)"
elif "$python37" -m venv .venv37 && .venv37/bin/python -m pip install --quiet --only-binary :all: \
    japronto==0.1.2 uvloop==0.18.0; then
    .venv37/bin/python -m pip list
else
    rm -rf .venv37
    echo "skipped: japronto: it cannot be installed"
fi

echo "== wrk"
if command -v wrk >/dev/null; then
    wrk -v 2>&1 | head -n 1
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get install -y wrk; then
    :
else
    echo "skipped: wrk: install it (apt-get install wrk)"
fi

echo "== strace"
command -v strace >/dev/null || echo "skipped: system calls per request: no strace"
