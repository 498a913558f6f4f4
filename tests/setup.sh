#!/usr/bin/env bash
# Installs the real servers and clients that the tests use, where they are missing. Needs root for apt-get; without it, says what to install.
set -euo pipefail

missing=()
need() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing+=("$2"); }

need nginx nginx-light
need pgbouncer pgbouncer
need h2load nghttp2-client
need curl curl
need openssl openssl
need runuser util-linux
need node nodejs
need npm npm
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql)
compgen -G '/usr/lib/postgresql/*/bin/pgbench' >/dev/null || command -v pgbench >/dev/null 2>&1 || missing+=(postgresql-contrib)

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "please install: ${missing[*]}" >&2
        exit 1
    fi
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # A package may start its server; the tests start their own on free ports.
    # What the machine says of that itself is put back at the end.
    policy=/usr/sbin/policy-rc.d
    kept=$(mktemp -d)
    move() { if [ -e "$1" ] || [ -L "$1" ]; then mv "$1" "$2"; fi; }
    move "$policy" "$kept/policy"
    trap 'rm -f "$policy"; move "$kept/policy" "$policy"; rmdir "$kept"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# PostgreSQL will not run as root: the tests start it as this user.
if [ "$(id -u)" -eq 0 ] && ! id postgres >/dev/null 2>&1; then
    useradd --system --no-create-home --shell /usr/sbin/nologin postgres
fi

# The drivers that applications use, for `tests/drivers/`, as its lock file has them; once, and again when that changes.
# They want Node 20. Where the machine's is older (Debian 12 has 18), one comes from npm, beside them.
drivers=$(cd "$(dirname "$0")/drivers" && pwd)
if ! cmp -s "$drivers/package-lock.json" "$drivers/node_modules/.installed"; then
    echo "installing the drivers into $drivers/node_modules"
    npm ci --prefix "$drivers" --silent --no-audit --no-fund
    if [ "$(node --version | sed -E 's/^v([0-9]+).*/\1/')" -lt 20 ]; then
        npm install --prefix "$drivers" --silent --no-audit --no-fund --no-save node@20.20.2
    fi
    cp "$drivers/package-lock.json" "$drivers/node_modules/.installed"
fi
