# The head of the report: what was measured, on what, when.
# shellcheck shell=bash

describe() {
  local reps=$1 seconds=$2
  cat <<EOF
# Reverse proxies, one worker each

| | |
|---|---|
| date | $(date -u +%F) |
| machine | $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1) |
| kernel | $(uname -r) |
| rustc | $(rustc --version | cut -d' ' -f2) |
| nginx, also the origin | $(nginx -v 2>&1 | sed 's|.*/||') |
| HAProxy | $(haproxy -v | sed -n 's/.*version \([^ ]*\).*/\1/p') |
| hyper, hyper-util | $(locked hyper), $(locked hyper-util) |
| Pingora | $(locked pingora) |
| wrk | $(wrk -v 2>&1 | sed -n 's/^wrk \([^ ]*\).*/\1/p') |

The proxy has core $PROXY_CPU, wrk and the origin share core $LOAD_CPU. Medians of $reps runs of $seconds s, each by a fresh
process after a warm-up, the candidates in turns; in brackets the lowest and the highest. A run in
which others had the proxy's core for more than a twentieth of the time is repeated up to twice, a
quarter of all runs at most, and the calmest counts.
Command: \`benches/proxies/run${arguments[*]:+ ${arguments[*]}}\`.
EOF
}

# The version of a crate that the candidates were built with.
locked() {
  awk -v name="name = \"$1\"" '$0 == name { getline; gsub(/.* = "|"/, ""); print; exit }' \
    "$here/Cargo.lock"
}
