# A minimal Pingora proxy: src/bin/pingora.rs.
# shellcheck shell=bash

command_of_pingora() {
  echo "$here/target/release/pingora" "$listen" "$origin" "$2"
}
