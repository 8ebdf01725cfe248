#!/usr/bin/env bash
# Runs `martlet bench` against a node and a Redis of its own, in turns with the socket floor, and prints both.
# Usage: bench.sh MARTLET   (make bench). Environment: MEMBERS (1000), SECONDS_EACH (5), PAIRS (3).
set -euo pipefail
martlet=$(realpath "$1")
members=${MEMBERS:-1000}
seconds=${SECONDS_EACH:-5}
pairs=${PAIRS:-3}
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
children=()
finish() {
    for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done
    wait || true
    rm -rf "$folder"
}
trap finish EXIT
ulimit -n "$(ulimit -Hn)"

compiler=${CC:-$(command -v cc || command -v clang || true)}
[ -n "$compiler" ] || { echo "A C compiler is missing: install clang or gcc, or name one in CC." >&2; exit 1; }
"$compiler" -O2 -o "$folder/floor" "$here/floor.c"
redis-server --port 0 --unixsocket "$folder/redis" --dir "$folder" --appendonly yes --appendfsync everysec --save '' \
    --maxmemory-policy noeviction --client-output-buffer-limit 'pubsub 256mb 128mb 60' --loglevel warning >/dev/null &
redis=$!
children+=("$redis")
port=$((20000 + RANDOM % 12000))
MARTLET_REDIS_URL="unix://$folder/redis" MARTLET_AUTH=none MARTLET_LIMIT_MESSAGES_PER_SECOND=0 MARTLET_LOG_LEVEL=error \
    "$martlet" node --host 127.0.0.1 --port "$port" --name bench 2>"$folder/node.log" &
node=$!
children+=("$node")
for _ in $(seq 100); do
    if "$martlet" healthcheck "http://127.0.0.1:$port/readyz" 2>/dev/null; then break; fi
    if ! kill -0 "$node" 2>/dev/null; then cat "$folder/node.log" >&2; exit 1; fi
    sleep 0.1
done

field() { sed -E "s/.*\"$1\":([0-9.]+).*/\1/" <<<"$2"; }
ends() { sort -n | awk 'NR == 1 { low = $1 } END { print low "–" $1 }'; }
middle() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
fanout() {
    "$martlet" bench fanout --url "ws://127.0.0.1:$port/ws" --members "$members" --in-flight "$1" --seconds "$seconds" \
        --pid "$node" --pid "$redis" --json
}

echo "Machine: $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(date -u +%F)"
row='%-34s %9s %9s %7s %13s %13s %8s %8s\n'
# shellcheck disable=SC2059
printf "$row" "fan-out, $members members, 150 bytes" "node µs" "floor µs" "ratio" "its spread" "deliveries/s" "p50 ms" "p99 ms"
for in_flight in 1 4 16; do
    : >"$folder/ours"; : >"$folder/floors"; : >"$folder/ratios"
    for _ in $(seq "$pairs"); do
        floor=$(field cpu_us_per_send "$("$folder/floor" "$members" 150 "$seconds" "$in_flight")")
        result=$(fanout "$in_flight")
        # The first process is the node.
        ours=$(grep -o '"cpu_us_per_operation":[0-9.]*' <<<"$result" | sed -n '1s/.*://p')
        echo "$ours" >>"$folder/ours"; echo "$floor" >>"$folder/floors"
        awk -v a="$ours" -v b="$floor" 'BEGIN { printf "%.3f\n", a / b }' >>"$folder/ratios"
    done
    # shellcheck disable=SC2059
    printf "$row" "$in_flight in flight, median of $pairs pairs" \
        "$(middle <"$folder/ours")" "$(middle <"$folder/floors")" "$(middle <"$folder/ratios")" "$(ends <"$folder/ratios")" \
        "$(field operations_per_second "$result")" "$(field p50 "$result")" "$(field p99 "$result")"
done
echo
echo "Acknowledged round trips, one client:"
"$martlet" bench echo --url "ws://127.0.0.1:$port/ws" --seconds "$seconds" --pid "$node" --pid "$redis"
