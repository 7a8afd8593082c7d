#!/bin/sh
# Prints the CPython of a version (`python.sh 3.12`), and nothing where there is none.
#
# A pyenv shim exists for versions that are not active, so a candidate counts only when it runs;
# pyenv's own folders are tried before giving up.
set -eu

for candidate in "python$1" "$HOME/.pyenv/versions/$1".*/bin/"python$1"; do
    if found=$("$candidate" -c 'import ensurepip, sys, venv
if "%d.%d" % sys.version_info[:2] == sys.argv[1] and sys.implementation.name == "cpython":
    print(sys.executable)' "$1" 2>/dev/null) && [ -n "$found" ]
    then
        echo "$found"
        break
    fi
done
