# One sample of one candidate.
# shellcheck shell=bash

# wrk's own report has no p99.9 and leaves out what is zero.
wrk_script() {
  cat >"$dir/done.lua" <<'EOF'
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT\t%d\t%d\t%d\t%d\t%d\t%d\n",
    summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    e.connect + e.read + e.write + e.timeout + e.status))
end
EOF
}

# CLIENTS SECONDS: requests, microseconds, p50, p99 and p99.9 in microseconds, errors.
load() {
  [[ -e $dir/done.lua ]] || wrk_script
  taskset -c "$LOAD_CPU" wrk -t1 -c"$1" -d"$2s" --timeout 10s -s "$dir/done.lua" "http://$listen/" |
    sed -n 's/^RESULT\t//p'
}

# Opens what the pools will hold, and warms caches.
warm_up() {
  timeout -s INT 0.4 taskset -c "$LOAD_CPU" wrk -t1 -c"$1" -d5s "http://$listen/" >/dev/null || true
  sleep 0.05
}

# User and system time in ticks of 10 ms; nanoseconds on a core, and waiting for one, summed over
# the process's threads. The kernel's accounting of the last two is exact; the first two are the
# same time, split up by sampling.
usage() {
  sed 's/.*) //' "/proc/$1/stat" | awk '{ printf "%d\t%d\t", $12, $13 }'
  cat "/proc/$1"/task/*/schedstat | awk '{ on += $1; off += $2 } END { printf "%.0f\t%.0f\n", on, off }'
}

# NAME MODE CLIENTS SECONDS REP: one line. A run in which others had the proxy's core for more than
# a twentieth of the time is repeated, as long as there are repetitions to spare; the calmest counts.
measure() {
  local line waited best='' least='' tries
  for tries in 1 2 3; do
    run_once "$@"
    # Nanoseconds of microseconds: thousandths.
    waited=$(awk -F'\t' '{ printf "%d", $9 / $11 }' <<<"$line")
    if [[ -z $best ]] || ((waited < least)); then
      best=$line least=$waited
    fi
    ((least > 50 && spare > 0 && tries < 3)) || break
    spare=$((spare - 1))
  done
  echo "$best"
}

# Sets `line`. On a machine so busy that nothing was served there is nothing to measure.
run_once() {
  local name=$1 mode=$2 count=$3 seconds=$4 rep=$5 before after result=''
  until [[ $result =~ ^[1-9] ]]; do
    proxy_start "$name" "$mode"
    warm_up "$count"
    before=$(usage "$proxy_pid")
    result=$(load "$count" "$seconds")
    after=$(usage "$proxy_pid")
    proxy_stop
  done
  line=$(printf 'sample\t%s\t%s\t%s\t%s\t%s\t%s' "$name" "$mode" "$count" "$rep" \
    "$(paste <(echo "$before") <(echo "$after") |
      awk '{ printf "%d\t%d\t%.0f\t%.0f", $5 - $1, $6 - $2, $7 - $3, $8 - $4 }')" "$result")
}

# NAME MODE CLIENTS: system calls, of all threads.
count_syscalls() {
  local name=$1 mode=$2 count=$3 calls='' requests=''
  # On a machine so busy that nothing was served there is nothing to count.
  until [[ $calls =~ ^[0-9]+$ && $requests =~ ^[1-9] ]]; do
    proxy_start "$name" "$mode"
    warm_up "$count"
    perf_load "$count"
    proxy_stop
  done
  printf 'syscalls\t%s\t%s\t%s\t%s\t%s\n' "$name" "$mode" "$count" "$calls" "$requests"
}

# Sets `calls` and `requests`: by tracepoint, which hardly slows what it counts. Without perf the
# counts of strace stand in: it slows a proxy so much that each wake-up finds more to do.
perf_load() {
  if perf_works; then
    perf stat -x, -o "$dir/perf" -e raw_syscalls:sys_enter -p "$proxy_pid" &
    local tracer=$!
    sleep 0.2
    requests=$(load "$1" 1 | cut -f1)
    kill -INT "$tracer"
    wait "$tracer" || true
    calls=$(awk -F, '/sys_enter/ { print $1 }' "$dir/perf")
  else
    requests=$(strace_load "$1")
    calls=$(awk '$NF == "total" { print $4 }' "$dir/strace")
  fi
}

# Which calls they are, by strace, at 64 clients.
break_down_syscalls() {
  local name=$1 mode=$2 requests
  proxy_start "$name" "$mode"
  warm_up 64
  requests=$(strace_load 64)
  proxy_stop
  awk -v OFS='\t' -v name="$name" -v mode="$mode" -v requests="$requests" \
    '$1 ~ /^[0-9.]+$/ && $NF != "total" { print "call", name, mode, $NF, $4, requests }' "$dir/strace"
}

# Requests served under strace, whose summary is left in $dir/strace.
strace_load() {
  strace -c -f -q -o "$dir/strace" -p "$proxy_pid" 2>>"$dir/log" &
  local tracer=$!
  sleep 0.3
  load "$1" 1 | cut -f1
  kill -INT "$tracer"
  wait "$tracer" || true
}

perf_works() {
  perf stat -x, -o "$dir/perf" -e raw_syscalls:sys_enter -- true 2>/dev/null &&
    ! grep -q 'not supported' "$dir/perf"
}
