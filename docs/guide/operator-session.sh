#!/bin/sh
# From an empty directory to a served tool call; a mistake; and the way back.
set -eu

cat >gate.ini <<'END'
[gate]
listen = tls:tcp:8443:interface=127.0.0.1
state_dir = state

[auth:keys]
type = static
keys_file = keys
END
mcpgate keys add ann >ann.key
mcpgate check

twistd -n --pidfile= mcpgate --config gate.ini >gate.log 2>&1 &
gate=$!
trap 'kill $gate' EXIT
tries=0
until mcpgate status >/dev/null 2>&1; do
  tries=$((tries + 1))
  test $tries -lt 100
  sleep 0.2
done

mcpgate add time --uvx mcp-server-time==2026.10.19 --test
mcpgate call time get_current_time timezone=Europe/Prague

# What does not work is not kept.
if mcpgate add wrong --test -- false; then exit 1; fi

mcpgate list --format names | while read -r name; do
  mcpgate test "$name" </dev/null
done

mcpgate remove time
mcpgate config apply
mcpgate config rollback
mcpgate config apply
mcpgate tools time --format names
