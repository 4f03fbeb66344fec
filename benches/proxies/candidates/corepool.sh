# corepool's example, on io_uring or on epoll; `@LABEL` is the build that `--also` named.
# shellcheck shell=bash

command_of_corepool() {
  local name=$1 mode=$2 binary=$root/target/release/examples/proxy backend=epoll other
  [[ $name != *io_uring* ]] || backend=io-uring
  for other in "${others[@]}"; do
    [[ $name != *"@${other%%=*}" ]] || binary=${other#*=}
  done
  # As many idle connections as there are clients: the others have no bound, or one as high.
  echo "$binary" --listen "$listen" --admin "$admin" --upstream "$origin" --backend "$backend" \
    --shards 1 --max-idle 1024
  # Sends `Connection: close` to the origin.
  [[ $mode == keep-alive ]] || echo --no-reuse
}
