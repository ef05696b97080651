# The demo's policy for opa-envoy (query: data.authz), asked over ext-authz:// with the route's context and the body:
# the header opens the way in development, and only to the gpt-3.5 models. CORS preflights always pass.
package authz

# Imported, and no rule: what is a rule stands in the decision, and so in the log.
import input.attributes.request.http

default allowed := false

allowed if input.attributes.request.http.method == "OPTIONS"

allowed if count(reason) == 0

# Each of these alone is enough for a no; together they are in the decision log.
reason contains "Path must start with /opa/openai" if not path_is_ours

reason contains "Missing or invalid header: x-opa-passthrough-enabled must be 'true'" if not header_is_set

reason contains "Not in development environment" if not in_development

reason contains "Request body is missing. Send JSON with a model." if not has_body

reason contains "Model field is missing from request body" if {
	has_body
	not model
}

reason contains sprintf("Model '%v' is not allowed in development. Use one of the gpt-3.5 models.", [model]) if {
	not startswith(model, "gpt-3.5")
}

path_is_ours if startswith(http.path, "/opa/openai")

header_is_set if http.headers["x-opa-passthrough-enabled"] == "true"

in_development if input.attributes.contextExtensions.environment == "development"

has_body if http.body != ""

model := json.unmarshal(http.body).model
