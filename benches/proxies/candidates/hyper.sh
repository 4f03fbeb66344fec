# hyper's server before hyper-util's client: src/bin/hyper.rs.
# shellcheck shell=bash

command_of_hyper() {
  echo "$here/target/release/hyper" "$listen" "$origin" "$2"
}
