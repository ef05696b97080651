#!/usr/bin/env bash
# The gateway on this machine, with everything else in containers:
#
#   docker compose --profile infra up -d --build --wait
#   ./run-proxy-local.sh                 # http://localhost:3000; more arguments go to the gateway
#
# Its config is the containers' own, deploy/compose/wardgate.yaml; here stand the addresses that differ. Ports and keys
# come from the environment or from .env, as in docker-compose.yml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if [ -f .env ]; then
  exported=$(export -p)
  set -a
  # shellcheck disable=SC1091
  . ./.env
  set +a
  eval "$exported" # what stands in both is the environment's
fi

# The vendor itself where there is a key for it; else the simulated model.
simulated=http://127.0.0.1:${SIMULATED_MODEL_PORT:-9100}
aws=https://bedrock-runtime.${AWS_REGION:-us-west-2}.amazonaws.com
vendor() { if [ -n "$1" ]; then echo "$2"; else echo "$3"; fi; }
export SIMULATED_MODEL_URL=$simulated/v1
export OPENAI_BASE_URL=${OPENAI_BASE_URL:-$(vendor "${OPENAI_API_KEY:-}" https://api.openai.com/v1 "$simulated/v1")}
export ANTHROPIC_BASE_URL=${ANTHROPIC_BASE_URL:-$(vendor "${ANTHROPIC_API_KEY:-}" https://api.anthropic.com/v1 "$simulated/v1")}
export GEMINI_BASE_URL=${GEMINI_BASE_URL:-$(vendor "${GEMINI_API_KEY:-}" https://generativelanguage.googleapis.com/v1beta "$simulated/v1beta")}
export BEDROCK_BASE_URL=${BEDROCK_BASE_URL:-$(vendor "${AWS_ACCESS_KEY_ID:-}" "$aws" "$simulated")}

export LISTEN=${LISTEN:-127.0.0.1:${WARDGATE_PORT:-3000}} METRICS=127.0.0.1:${WARDGATE_METRICS_PORT:-15020}
export PUBLIC_URL=http://localhost:${WARDGATE_PORT:-3000}
export GATEWAY_REDIS_URL=redis://localhost:${REDIS_PORT:-6379}
export KEYCLOAK_URL=http://localhost:${KEYCLOAK_PORT:-8080}
export API_KEY_AUTH=grpc://127.0.0.1:${API_KEY_AUTH_PORT:-9001}
export LOCAL_LIMIT=grpc://127.0.0.1:${LOCAL_LIMIT_PORT:-9002}
export PII_GUARD=grpc://127.0.0.1:${PII_GUARD_PORT:-9003}
export USAGE_LOG=grpc://127.0.0.1:${USAGE_LOG_PORT:-9004}
export OIDC_AUTH=grpc://127.0.0.1:${OIDC_AUTH_PORT:-9005}
export CEL_AUTHZ=grpc://127.0.0.1:${CEL_AUTHZ_PORT:-9006}
export OPENFGA_AUTHZ=grpc://127.0.0.1:${OPENFGA_AUTHZ_PORT:-9007}
export OPA_AUTHZ=grpc://127.0.0.1:${OPA_AUTHZ_PORT:-9008}
export RATE_LIMIT=grpc://127.0.0.1:${RATE_LIMIT_PORT:-9009}
export IDEMPOTENCY=grpc://127.0.0.1:${IDEMPOTENCY_PORT:-9010}
export RATELIMIT=127.0.0.1:${RATELIMIT_PORT:-8081}
export OPA=ext-authz://127.0.0.1:${OPA_GRPC_PORT:-9191}

# As `npm start` does it, without npm in between, so that a signal reaches the gateway.
node setup.mjs
export PATH=$PWD/node_modules/.bin:$PATH
exec node --max-semi-space-size=8 gateway/main.ts --config deploy/compose/wardgate.yaml "$@"
