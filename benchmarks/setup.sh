#!/bin/sh
# Makes what the benchmarks need: the Rust programs, the peers in Python, Rust and Go, Japronto's CPython 3.7,
# nginx, wrk and the tools that count.
#
# What cannot be had is named with the reason and left out; run.py leaves out its rows. Run it again at any time:
# what is there stays. ANEL_PYTHON is the Python that the peers run on (default: .venv/bin/python, which runs anel);
# ANEL_PYTHON37 names a CPython 3.7 that is neither on the PATH nor under pyenv. ANEL_BENCH_PROFILE=quick builds
# load and control without the minutes of fat LTO (then: run.py --bin benchmarks/target/quick).
set -eu
cd "$(dirname "$0")"

profile=${ANEL_BENCH_PROFILE:-release}
log=target/setup.log
mkdir -p target
: > "$log"

skipped() {
    echo "skipped: $1: $2"
}

# The end of what a failed command said.
reason() {
    tail -n 1 "$log" | cut -c 1-200
}

# package PROGRAM-OR-FILE NAME [WHAT]: installs a Debian package unless its program or file is there.
package() {
    if command -v "$1" >/dev/null || [ -e "$1" ]; then
        return
    fi
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        skipped "$2" "not installed (apt-get install $2)"
    elif ! apt-get install -y --no-install-recommends "$2" >>"$log" 2>&1; then
        skipped "$2" "$(reason)"
    else
        echo "installed $2"
    fi
}

echo "== tools"
package wrk wrk
package strace strace
package valgrind valgrind
package nginx nginx-light
package /usr/lib/postgresql postgresql
package go golang-go
package /usr/share/gocode/src/github.com/valyala/fasthttp golang-github-valyala-fasthttp-dev
# bjoern is built from source, socketify loads its library.
package /usr/include/ev.h libev-dev
package /usr/lib/"$(uname -m)"-linux-gnu/libuv.so.1 libuv1

echo "== load, control, tokio_uring_hello (profile $profile)"
cargo build --profile "$profile"

echo "== peers in Python"
python=${ANEL_PYTHON:-../.venv/bin/python}
if [ ! -x target/peers/bin/python ] && ! "$python" -m venv target/peers >>"$log" 2>&1; then
    skipped "peers in Python" "$python -m venv: $(reason)"
else
    grep -v '^#' peers/requirements.txt | while read -r requirement; do
        target/peers/bin/python -m pip install --quiet --disable-pip-version-check "$requirement" \
            >>"$log" 2>&1 || skipped "$requirement" "$(grep -i error "$log" | tail -n 1 | cut -c 1-200)"
    done
    target/peers/bin/python -m pip list --disable-pip-version-check --format freeze | tr '\n' ' '
    echo
fi

echo "== peers in Rust"
(cd peers/rust && CARGO_TARGET_DIR=../../target/rust cargo build --release) || skipped "peers in Rust" "cargo build"

echo "== peers in Go"
for name in nethttp fasthttp; do
    if ! command -v go >/dev/null; then
        skipped "go $name" "no go"
    # Debian's Go packages are folders under this GOPATH; no module proxy is asked.
    elif ! GO111MODULE=off GOPATH=/usr/share/gocode go build -o "target/go/$name" "./peers/go/$name" >>"$log" 2>&1; then
        skipped "go $name" "$(reason)"
    fi
done

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
    skipped japronto "no CPython 3.7 (pyenv install 3.7, or set ANEL_PYTHON37)"
elif "$python37" -m venv .venv37 && .venv37/bin/python -m pip install --quiet --only-binary :all: \
    japronto==0.1.2 uvloop==0.18.0; then
    .venv37/bin/python -m pip list
else
    rm -rf .venv37
    skipped japronto "it cannot be installed"
fi

echo "== perf"
command -v perf >/dev/null || skipped "instructions per request" "no perf (linux-perf)"
