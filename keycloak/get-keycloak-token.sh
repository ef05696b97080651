#!/usr/bin/env bash
# Prints an access token of the demo's Keycloak, and nothing else: TOKEN=$(./get-keycloak-token.sh)
#
#   ./get-keycloak-token.sh [USERNAME [PASSWORD]]   default mcp-user, user123
#   KEYCLOAK_HOST                                   host:port of Keycloak, default localhost:8080
#
# What goes wrong is said on stderr, and ends with 1. It needs bash and curl.
set -euo pipefail

username=${1:-mcp-user}
password=${2:-user123}
host=${KEYCLOAK_HOST:-localhost:8080}

fail() {
  printf 'get-keycloak-token: %s\n' "$*" >&2
  exit 1
}

# The password goes by a pipe: arguments are there for everybody to read in the list of processes.
reply=$(curl -sS --connect-timeout 5 --max-time 30 "http://$host/realms/mcp-realm/protocol/openid-connect/token" \
  -d grant_type=password -d client_id=openweb-ui -d client_secret=changeme \
  --data-urlencode "username=$username" --data-urlencode "password@"<(printf %s "$password")) ||
  fail "Keycloak at $host does not answer. Is it running? \`docker compose --profile infra up -d --wait\` starts it."

# member NAME: a string of the reply's JSON; tokens and Keycloak's sentences hold no escaped quotes.
member() {
  local pattern="\"$1\" *: *\"([^\"]+)\""
  [[ $reply =~ $pattern ]] && printf '%s\n' "${BASH_REMATCH[1]}"
}

member access_token || fail "Keycloak at $host gave $username no token: $(member error_description || member error || echo "it answered no token and no error; is it Keycloak, and is the realm mcp-realm there?")"
