# HAProxy, one thread.
# shellcheck shell=bash

command_of_haproxy() {
  # `http-server-close` ends the origin's connection after its answer and keeps the client's.
  local reuse='http-reuse never
  option http-server-close'
  [[ $2 != keep-alive ]] || reuse='http-reuse always'
  cat >"$dir/proxy/haproxy.cfg" <<EOF
global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  timeout http-request 30s
frontend clients
  bind $listen backlog 4096
  option forwardfor
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request add-header Via "1.1 proxy"
  http-response add-header Via "1.1 proxy"
  default_backend origins
backend origins
  $reuse
  server origin $origin
EOF
  # -db: in the foreground, without a master.
  echo haproxy -db -f "$dir/proxy/haproxy.cfg"
}
