#!/bin/sh
# Builds a wheel for each of these versions of CPython into dist/: `wheels.sh 3.11 3.12`.
#
# They run on every distribution with glibc 2.17 or later (manylinux_2_17, PEP 600): Zig links against
# the symbols of that version, whatever this machine has. maturin looks at what it has built, and
# refuses to write a wheel that needs anything else. A version that is not on this machine is named.
# That is a failure with ANEL_NO_SKIPS=1, and where there is none at all.
set -eu

versions=$*
missing=""
set --
for version in $versions; do
    python=$(sh "$(dirname "$0")/python.sh" "$version")
    if [ -n "$python" ]; then
        set -- "$@" --interpreter "$python"
    else
        missing="$missing $version"
    fi
done
if [ -n "$missing" ]; then
    echo "anel: no CPython$missing on this machine, so no wheel for it" >&2
    [ "${ANEL_NO_SKIPS:-}" != 1 ] && [ $# -gt 0 ] || exit 1
fi

rm -f dist/anel-*.whl
maturin build --release --locked --zig --compatibility manylinux_2_17 --out dist "$@"
