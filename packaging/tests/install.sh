#!/bin/sh
# Installs both packages, starts with them as docs/packaging.md says, upgrades, removes and purges them, and fails unless
# the system is then as it was. It changes the system it runs on: run it in a chroot or container made for it.
#   debootstrap --variant=minbase --include=libpcap0.8 bookworm ROOT MIRROR
#   cp target/packages/*.deb packaging/tests/install.sh ROOT/srv/ && chroot ROOT sh /srv/install.sh /srv
set -eu
packages=$1
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
work=$(mktemp -d)

# Without the copies of the account files that useradd leaves behind.
snapshot() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/log -o -path /var/cache \
        -o -path /var/lib/dpkg -o -path '/etc/*shadow-' -o -path '/etc/passwd-' -o -path '/etc/group-' \) -prune -o -print | sort
    cut -d: -f1 /etc/passwd /etc/group | sort
}

must() {
    what=$1
    shift
    if "$@"; then
        echo "ok: $what"
    else
        echo "FAILED: $what" >&2
        exit 1
    fi
}

as() {
    user=$1
    shift
    runuser -u "$user" -- "$@"
}

snapshot >"$work/before"
dpkg -i "$packages"/onenet-*.deb
must "the agent's user is there" getent passwd onenet-agent
must "the collector's user is there" getent passwd onenet-collector
must "the configuration of the agent is sound" onenet-agent check-config
must "the plan is sound" onenet-collector plan check /etc/onenet/plan.toml
must "keys are made" as onenet-collector onenet-collector init --keys-only --dir /var/lib/onenet/collector
must "keys are private" test "$(stat -c '%a %U' /var/lib/onenet/collector/ca.key)" = "600 onenet-collector"
token=$(as onenet-collector onenet-collector token create --sensor boston-1 --site boston | head -n 1)
runuser -u onenet-collector -- onenet-collector run >"$work/log" 2>&1 &
# Of runuser, which hands the signal on.
collector=$!
tries=0
until grep -q "sensors connect to" "$work/log"; do
    tries=$((tries + 1))
    must "the collector starts: $(cat "$work/log")" test $tries -lt 30
    sleep 1
done
must "a sensor enrols" as onenet-agent onenet-agent enroll --collector https://127.0.0.1:7443 --token "$token"
kill "$collector"
wait "$collector" || true

echo '# changed here' >>/etc/onenet/agent.toml
dpkg -i "$packages"/onenet-*.deb
must "an upgrade keeps what was changed" grep -q '# changed here' /etc/onenet/agent.toml
must "an upgrade keeps keys" test -f /var/lib/onenet/agent/keys/enrolment.json
dpkg -r onenet-agent onenet-collector
must "a removal takes the program" test ! -e /usr/bin/onenet-agent
must "a removal keeps configuration" test -f /etc/onenet/agent.toml
must "a removal keeps keys" test -f /var/lib/onenet/collector/ca.key
dpkg -P onenet-agent onenet-collector
snapshot >"$work/after"
must "a purge leaves nothing" diff "$work/before" "$work/after"
