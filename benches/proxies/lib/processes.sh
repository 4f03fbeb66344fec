# Starting and stopping what is measured, and the origin.
# shellcheck shell=bash

# Fixed: the network namespace is ours alone.
origin=127.0.0.1:1080
listen=127.0.0.1:1081
admin=127.0.0.1:1082
PROXY_CPU=${PROXY_CPU:-1}
LOAD_CPU=${LOAD_CPU:-0}

origin_pid='' proxy_pid=''

# The same words in another order for each repetition.
rotate() {
  local words
  read -ra words <<<"$2"
  local by=$((($1 - 1) % ${#words[@]}))
  echo "${words[@]:by}" "${words[@]:0:by}"
}

# 128 bytes by nginx, which keeps connections for as long as they are wanted.
origin_start() {
  mkdir -p "$dir/origin"
  local body
  body=$(printf 'x%.0s' {1..128})
  cat >"$dir/origin/nginx.conf" <<EOF
daemon off; master_process off; pid pid; error_log stderr warn;
events { worker_connections 8192; }
http {
  access_log off; keepalive_requests 1000000000; keepalive_time 1d; keepalive_timeout 1d;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server { listen $origin backlog=4096; location / { return 200 "$body"; } }
}
EOF
  taskset -c "$LOAD_CPU" nginx -e stderr -p "$dir/origin" -c nginx.conf 2>>"$dir/log" &
  origin_pid=$!
  await "$origin_pid" "$origin"
}

# Starts a candidate: NAME MODE [TOOL...]. `corepool-io_uring@label` is a corepool too, and what
# follows is its own to understand. A tool is a command that runs the candidate.
proxy_start() {
  local name=$1 mode=$2
  shift 2
  mkdir -p "$dir/proxy"
  # shellcheck disable=SC2046 # a command in words
  taskset -c "$PROXY_CPU" "$@" $("command_of_${name%%-*}" "$name" "$mode") >>"$dir/log" 2>&1 &
  proxy_pid=$!
  await "$proxy_pid" "$listen"
}

# They have nothing to save, and a graceful end would take seconds.
proxy_stop() {
  [[ -n $proxy_pid ]] || return 0
  kill -KILL "$proxy_pid" 2>/dev/null || true
  wait "$proxy_pid" 2>/dev/null || true
  proxy_pid=''
}

stop_all() {
  proxy_stop
  [[ -n $origin_pid ]] || return 0
  kill -KILL "$origin_pid" 2>/dev/null || true
  wait "$origin_pid" 2>/dev/null || true
}

# Until the process listens; it may end before.
await() {
  local pid=$1 address=$2 tries=0
  until (: >"/dev/tcp/${address%:*}/${address#*:}") 2>/dev/null; do
    if ! kill -0 "$pid" 2>/dev/null || ((tries++ > 500)); then
      echo "nobody listens at $address:" >&2
      tail -5 "$dir/log" >&2
      exit 1
    fi
    sleep 0.02
  done
}
