#!/bin/sh
# The servers that tests talk to: a redis-server and a PostgreSQL for asyncio's clients, an HAProxy and
# an nginx in front of ours; what systemd starts a service with, and judges its files by; and
# strace.
#
# Looks for them and, where Debian's apt-get may be used (as root, or through sudo without a
# password), installs what is missing. Starts nothing: the tests start their own servers in
# temporary folders. Where one cannot be had this says why and succeeds; the tests that need it
# are then reported as skipped, and fail when ANEL_NO_SKIPS=1.
set -eu

have_redis() {
    command -v redis-server >/dev/null
}

# Debian keeps the programs of each version in a folder that is not in PATH.
have_postgres() {
    command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}

# Debian keeps it where only root looks.
have_haproxy() {
    command -v haproxy >/dev/null || [ -x /usr/sbin/haproxy ]
}

have_nginx() {
    command -v nginx >/dev/null || [ -x /usr/sbin/nginx ]
}

# Its tools alone: nothing is started, so this machine need not run it.
have_systemd() {
    command -v systemd-analyze >/dev/null && command -v systemd-socket-activate >/dev/null
}

# What container runtimes make filters of system calls with.
have_libseccomp() {
    ls /usr/lib/*/libseccomp.so.2 /usr/lib64/libseccomp.so.2 /lib/*/libseccomp.so.2 2>/dev/null \
        | grep -q .
}

# What the kernel saw of us: the counters of system calls are held against it.
have_strace() {
    command -v strace >/dev/null
}

missing=""
have_strace || missing="strace"
have_redis || missing="$missing redis-server"
have_postgres || missing="$missing postgresql"
have_haproxy || missing="$missing haproxy"
have_nginx || missing="$missing nginx"
have_systemd || missing="$missing systemd"
have_libseccomp || missing="$missing libseccomp2"
[ -n "$missing" ] || exit 0

give_up() {
    echo "anel: no ${missing# }: $1; the tests that need it are skipped" >&2
    exit 0
}

command -v apt-get >/dev/null || give_up "no apt-get to install it with"
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    give_up "neither root nor sudo without a password"
fi

# The packages would start services on the standard ports, which no test wants and the machine's
# owner did not ask for. This file is Debian's way to say no; one that is there already stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '$as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
fi

output=$(mktemp)
echo "installing ${missing# }"
# shellcheck disable=SC2086 # words on purpose
if ! { $as_root apt-get update -qq \
    && $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq --yes --no-install-recommends $missing; } >"$output" 2>&1 </dev/null
then
    tail -n 5 "$output" >&2
    rm -f "$output"
    give_up "apt-get failed"
fi
rm -f "$output"
