# Instructions per request by crate, out of a callgrind file: -v requests=N. Only own costs: what a
# function calls counts where it is. Inlined code counts for the crate that it was written in.

function resolve(table, word,   id, name) {
  id = word
  sub(/\).*/, ")", id)
  name = substr(word, length(id) + 2)
  if (name != "") table[id] = name
  return table[id]
}

function crate_of(file, name) {
  if (file ~ /malloc/ || name ~ /^(malloc|free|realloc|calloc)$/) return "allocator"
  if (name ~ /^_*mem(cpy|move|set|cmp)/ || file ~ /mem(move|set|cmp)/) return "memcpy, memset, memcmp"
  if (file ~ /\/examples\/proxy\//) return "the example"
  if (file ~ /\/http-[0-9]/) return "http (header maps)"
  if (file ~ /\/(hyper|hyper-util|httparse|bytes|tokio|mio)-[0-9]/) {
    sub(/.*\/registry\/src\/[^\/]*\//, "", file)
    sub(/-[0-9].*/, "", file)
    return file
  }
  if (file ~ /\/src\/(engine|backend|worker|connector|group|pooled|look|inner|clock|pool)/ &&
      file !~ /registry|rustc/) return "corepool"
  # The standard library, inlined: it is its caller's.
  if (name ~ /corepool::/) return "corepool"
  if (name ~ /^<?proxy::/) return "the example"
  if (name ~ /hyper::/) return "hyper"
  if (name ~ /http::/) return "http (header maps)"
  if (name ~ /tokio::/) return "tokio"
  return "other"
}

/^fl=/ { home = file = resolve(files, substr($0, 4)); next }
/^(fi|fe)=/ { file = resolve(files, substr($0, 4)); next }
/^fn=/ { name = resolve(names, substr($0, 4)); file = home; next }
/^cfn=/ { resolve(names, substr($0, 5)); next }
/^(cfi|cfl)=/ { resolve(files, substr($0, 5)); next }
# The line after a call is what the callee cost.
/^calls=/ { getline; next }
/^[0-9+*-]/ && NF >= 2 { cost[crate_of(file, name)] += $2; total += $2 }

END {
  for (crate in cost) {
    printf "%.0f\t| %s | %.0f | %.1f %% |\n", cost[crate], crate, cost[crate] / requests, \
      100 * cost[crate] / total
  }
}
