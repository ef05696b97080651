#!/usr/bin/env bash
# Open WebUI on this machine without Docker: people sign in by Keycloak, and every call to the gateway carries their own
# token. The first run installs it from PyPI (2.1 GB, some minutes); Ctrl-C stops it.
#
#   ./run-openwebui.sh             http://localhost:9999, as mcp-user with the password user123
#   ./run-openwebui.sh --install   installs only
#   ./run-openwebui.sh --help      this text
#
# Keycloak and the gateway must run already: `docker compose --profile all up -d --wait` has both. From the environment:
#
#   PORT, HOST            where it listens (9999, 127.0.0.1)
#   WEBUI_URL             how the browser reaches it (http://localhost:$PORT); Keycloak must allow it as a redirect
#   GATEWAY_URL           what it asks for answers (http://localhost:3000/openai/v1)
#   KEYCLOAK_URL          as the browser and this machine both see it (http://localhost:8080)
#   KEYCLOAK_REALM        mcp-realm
#   OAUTH_CLIENT_ID, OAUTH_CLIENT_SECRET   its client in Keycloak (openweb-ui, changeme)
#   DATA_DIR              its database and uploads (OPENWEBUI_HOME/data)
#   OPENWEBUI_HOME        where it is installed (${XDG_CACHE_HOME:-~/.cache}/wardgate/open-webui)
#   OPENWEBUI_VERSION     0.12.4, the version that this was tried with
#   PYTHON                a Python 3.11 or 3.12
#
# All other settings, the demo's secrets among them, stand in deploy/open-webui/open-webui.env; a variable of the same
# name in the environment wins. Nothing else of the environment reaches Open WebUI, providers' keys least of all.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly SETTINGS=$here/deploy/open-webui/open-webui.env

say() { printf 'run-openwebui: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# What the process keeps of the environment besides the settings: where things are, and how to get out.
readonly KEPT='HOME PATH USER LANG LC_ALL TZ TMPDIR SSL_CERT_FILE REQUESTS_CA_BUNDLE http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY'
readonly ADDRESSES='WEBUI_URL OPENID_PROVIDER_URL OPENID_REDIRECT_URI OPENAI_API_BASE_URLS WEBUI_AUTH_SIGNOUT_REDIRECT_URL CORS_ALLOW_ORIGIN DATA_DIR'

main() {
  case "${1:-}" in
    --help | -h) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
    --install | '') ;;
    *) die "there is no option '$1'; --help tells which there are" ;;
  esac
  home=$(absolute "${OPENWEBUI_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/wardgate/open-webui}")
  version=${OPENWEBUI_VERSION:-0.12.4}
  [ "$(cat "$home/installed" 2>/dev/null)" = "$version" ] || install
  [ "${1:-}" != --install ] || { say "Open WebUI $version is installed in $home"; exit; }
  start
}

absolute() { [[ $1 == /* ]] && echo "$1" || echo "$PWD/$1"; }

install() {
  local python
  python=$(find_python)
  say "installing Open WebUI $version into $home (once; some minutes) …"
  mkdir -p "$home"
  rm -f "$home/installed"
  "$python" -m venv --clear "$home/venv" ||
    die "$python cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv"
  leave_out_torch
  "$home/venv/bin/pip" install --quiet --disable-pip-version-check "open-webui==$version" ||
    die "pip could not install open-webui==$version. Check the network and the index that pip is set to, then try again."
  echo "$version" >"$home/installed"
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3.12 python3}; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  die "Open WebUI needs Python 3.11 or 3.12, and ${PYTHON:-none of python3.11, python3.12 and python3} is one." \
    'Install it (apt-get install python3.11 python3.11-venv, brew install python@3.11) or name it: PYTHON=/path/to/python3.11.' \
    'Or have it in a container: docker compose --profile all up -d --wait'
}

# Torch with what it brings along is 5 GB, and serves only local embeddings and speech, which are off here. pip takes an
# empty package of that name for it.
leave_out_torch() {
  local packages
  packages=$("$home/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  mkdir "$packages/torch-2.99.0.dist-info"
  printf 'Metadata-Version: 2.1\nName: torch\nVersion: 2.99.0\n' >"$packages/torch-2.99.0.dist-info/METADATA"
  : >"$packages/torch-2.99.0.dist-info/RECORD"
}

start() {
  port=${PORT:-9999} host=${HOST:-127.0.0.1}
  gateway=${GATEWAY_URL:-http://localhost:3000/openai/v1} gateway=${gateway%/}
  realm=${KEYCLOAK_URL:-http://localhost:8080} realm=${realm%/}/realms/${KEYCLOAK_REALM:-mcp-realm}
  look_before
  settings
  look_at_client
  mkdir -p "$DATA_DIR"
  say "Open WebUI on $WEBUI_URL, signed in by $realm, answers from $gateway"
  only_settings
  cd "$DATA_DIR" && exec "$home/venv/bin/open-webui" serve --host "$host" --port "$port"
}

# What would fail later, in the browser, is told now.
look_before() {
  command -v curl >/dev/null || die 'curl is needed, to see whether Keycloak and the gateway answer: apt-get install curl'
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    die "port $port is taken. Stop what listens there, or choose another: PORT=9998 $0 (Keycloak's client openweb-ui must then allow http://localhost:9998/* as a redirect)"
  fi
  local answer
  answer=$(curl -sS --connect-timeout 5 --max-time 20 "$realm/.well-known/openid-configuration" 2>&1) ||
    die "Keycloak does not answer at ${realm%/realms/*} (${answer##*$'\n'}). Start it with: docker compose --profile infra up -d --wait — or say where it is: KEYCLOAK_URL"
  [[ $answer == *'"issuer"'* ]] ||
    die "there is no realm at $realm. The demo's is imported from keycloak/; another is named by KEYCLOAK_REALM."
  case $(status_of "$gateway/models") in
    000) die "no gateway answers at $gateway. Start it, or say where it is: GATEWAY_URL=http://host:port/openai/v1" ;;
    404) die "$gateway is no route of the gateway: GATEWAY_URL is one with /v1, such as http://localhost:3000/openai/v1" ;;
  esac
}

# Keycloak shows its form only to a client that it knows, for an address that the client may be sent back to.
look_at_client() {
  local question="client_id=$OAUTH_CLIENT_ID&response_type=code&scope=openid&redirect_uri=$OPENID_REDIRECT_URI"
  [ "$(status_of "$realm/protocol/openid-connect/auth?$question")" != 400 ] ||
    die "Keycloak refuses to sign people in for $WEBUI_URL: its client $OAUTH_CLIENT_ID is missing or disabled, or does not allow $WEBUI_URL/* as a redirect."
}

# The status that a URL answers; 000 when nothing does.
status_of() { curl -s -o /dev/null -w '%{http_code}' --connect-timeout 5 --max-time 20 "$1" || true; }

# The file's settings, over them what the environment had, and the addresses.
settings() {
  local had
  had=$(export -p | sed 's/^declare -x/export/')
  set -a
  # shellcheck source=deploy/open-webui/open-webui.env
  . "$SETTINGS"
  set +a
  eval "$had"
  DATA_DIR=$(absolute "${DATA_DIR:-$home/data}")
  export DATA_DIR WEBUI_URL="${WEBUI_URL:-http://localhost:$port}"
  export OPENID_PROVIDER_URL="$realm/.well-known/openid-configuration" OPENID_REDIRECT_URI="$WEBUI_URL/oauth/oidc/callback"
  export OPENAI_API_BASE_URLS="$gateway" WEBUI_AUTH_SIGNOUT_REDIRECT_URL="$WEBUI_URL/auth" CORS_ALLOW_ORIGIN="$WEBUI_URL"
}

only_settings() {
  local name keep
  keep=" $KEPT $ADDRESSES $(sed -n 's/^\([A-Z][A-Z0-9_]*\)=.*/\1/p' "$SETTINGS" | tr '\n' ' ')"
  for name in $(compgen -e); do
    [[ $keep == *" $name "* ]] || unset "$name" 2>/dev/null || true
  done
}

main "$@"
