#!/usr/bin/env bash
# Builds the image, runs Redis, three nodes and a router as containers on the host's network, sends messages through the
# router and checks each, then ends and removes all of it. `make docker-check`.
#
# Needs docker, or podman with buildah. Environment, all optional:
#   ENGINE       what runs containers, with its options     (docker, else podman)
#   BUILD        what builds the image, with its options    ($ENGINE build)
#   REDIS_IMAGE  (docker.io/library/redis:7-bookworm)
#   RUN_FLAGS    more flags for each `run`
#   KEEP         not empty: leave the containers running, with the router on port $PORT
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${ENGINE:-$(command -v docker || command -v podman || true)}
if [ -z "$engine" ]; then
    echo "docker/check.sh: neither docker nor podman is here" >&2
    exit 1
fi
read -ra engine <<<"$engine"
read -ra build <<<"${BUILD:-${engine[*]} build}"
read -ra flags <<<"${RUN_FLAGS:-}"
redis_image=${REDIS_IMAGE:-docker.io/library/redis:7-bookworm}
port=${PORT:-$((20000 + RANDOM % 12000))}
names=()
finish() {
    local code=$?
    if [ "$code" != 0 ]; then
        for name in "${names[@]}"; do echo "-- $name"; "${engine[@]}" logs "$name" 2>&1 | tail -5; done
    fi
    if [ -z "${KEEP:-}" ] || [ "$code" != 0 ]; then
        for name in "${names[@]}"; do "${engine[@]}" rm -f "$name" >/dev/null 2>&1 || true; done
    fi
}
trap finish EXIT

run() {
    local name=$1
    shift
    names+=("$name")
    "${engine[@]}" run -d --name "$name" --network host --no-healthcheck "${flags[@]}" "$@" >/dev/null
}
# As the image's own health check asks: the internal port.
ready() {
    local from=$SECONDS
    until "${engine[@]}" exec "${names[-1]}" /usr/local/bin/martlet healthcheck 2>/dev/null; do
        [ $((SECONDS - from)) -lt 30 ] || { echo "docker/check.sh: ${names[-1]} is not ready after 30 s" >&2; return 1; }
        sleep 0.3
    done
}

began=$SECONDS
"${build[@]}" -t martlet:latest -f docker/Dockerfile .
echo "Built in $((SECONDS - began)) s:"
"${engine[@]}" images martlet

began=$SECONDS
redis="redis://127.0.0.1:$((port + 1))"
settings=(-e "MARTLET_REDIS_URL=$redis" -e MARTLET_HOST=127.0.0.1 --read-only)
run "martlet-$port-redis" "$redis_image" redis-server --port $((port + 1)) --bind 127.0.0.1 --appendonly yes \
    --maxmemory-policy noeviction --client-output-buffer-limit 'pubsub 256mb 128mb 60'
for n in 1 2 3; do
    run "martlet-$port-node-$n" "${settings[@]}" -e MARTLET_AUTH=none -e "MARTLET_NODE_NAME=node-$n" \
        -e "MARTLET_PORT=$((port + 1 + n))" -e MARTLET_LIMIT_MESSAGES_PER_SECOND=0 martlet:latest node
    ready
done
run "martlet-$port-router" "${settings[@]}" -e "MARTLET_PORT=$port" -e MARTLET_SECRET=only-for-this-check martlet:latest router
ready
echo "Redis, three nodes and a router run after $((SECONDS - began)) s."

"${engine[@]}" exec "${names[-1]}" /usr/local/bin/martlet admin nodes
"${engine[@]}" exec "${names[-1]}" /usr/local/bin/martlet bench fanout --url "ws://127.0.0.1:$port/ws" --members 30 --seconds 2
echo "docker/check.sh: ok, on port $port"
