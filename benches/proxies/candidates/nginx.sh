# nginx, one process without a master.
# shellcheck shell=bash

command_of_nginx() {
  # Without `keepalive` nginx has no pool; it is given HTTP/1.1 all the same, as the others have it.
  local keepalive='' connection=close
  if [[ $2 == keep-alive ]]; then
    keepalive='keepalive 1024; keepalive_requests 1000000000; keepalive_time 1d;'
    connection='""'
  fi
  cat >"$dir/proxy/nginx.conf" <<EOF
daemon off; master_process off; pid pid; error_log stderr error;
events { worker_connections 8192; }
http {
  access_log off; keepalive_requests 1000000000; keepalive_time 1d;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  upstream origin { server $origin; $keepalive }
  server {
    listen $listen backlog=4096;
    location / {
      proxy_pass http://origin; proxy_http_version 1.1;
      proxy_set_header Connection $connection;
      proxy_set_header Host \$http_host;
      proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto http;
      proxy_set_header X-Forwarded-Host \$http_host;
      proxy_set_header Via "1.1 proxy";
      add_header Via "1.1 proxy";
    }
  }
}
EOF
  echo nginx -e stderr -p "$dir/proxy" -c nginx.conf
}
