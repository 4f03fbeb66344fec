# What the bench needs: tools, binaries, a network namespace.
# shellcheck shell=bash

# Each tool that has to be there, and Debian's package for it; the arguments are more of them.
install_tools() {
  local missing=()
  local tool
  for tool in nginx:nginx-light haproxy:haproxy wrk:wrk strace:strace ip:iproute2 taskset:util-linux \
    cmake:cmake cc:gcc "$@"; do
    command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
  done
  ((${#missing[@]})) || return 0
  echo "installing ${missing[*]}" >&2
  apt-get update -qq >&2
  apt-get install -y --no-install-recommends "${missing[@]}" >&2
}

# cmake and a C compiler are for zlib-ng, which Pingora links.
build() {
  cargo build --quiet --release --manifest-path "$root/Cargo.toml" --example proxy >&2
  cargo build --quiet --release --manifest-path "$here/Cargo.toml" >&2
}

enter_namespace() {
  local user=()
  ((EUID == 0)) || user=(--map-root-user)
  exec unshare "${user[@]}" --net -- "$@"
}

# A connection per request goes through thousands of ports a second. The range is as wide as it
# gets, and beyond some thousands a connection in TIME_WAIT gives way, so that no candidate pays for
# what its forerunner has left behind: above half of the range each connect would search for long.
prepare_namespace() {
  ip link set lo up
  echo 2048 65535 >/proc/sys/net/ipv4/ip_local_port_range
  echo 4096 >/proc/sys/net/ipv4/tcp_max_tw_buckets
  ulimit -n "$(ulimit -Hn)"
}
