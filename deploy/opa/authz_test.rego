package authz_test

import data.authz

good := {"attributes": {
	"contextExtensions": {"environment": "development"},
	"request": {"http": {
		"method": "POST",
		"path": "/opa/openai/v1/chat/completions",
		"headers": {"x-opa-passthrough-enabled": "true"},
		"body": "{\"model\":\"gpt-3.5-turbo\",\"messages\":[]}",
	}},
}}

changed(path, value) := json.patch(good, [{"op": "add", "path": path, "value": value}])

without(path) := json.patch(good, [{"op": "remove", "path": path}])

http := "/attributes/request/http"

test_all_conditions_together_allow if {
	authz.allowed with input as good
	authz.reason == set() with input as good
}

test_another_path if {
	other := changed(sprintf("%s/path", [http]), "/openai/v1/chat/completions")
	not authz.allowed with input as other
	authz.reason == {"Path must start with /opa/openai"} with input as other
}

test_the_header if {
	reason := {"Missing or invalid header: x-opa-passthrough-enabled must be 'true'"}
	missing := without(sprintf("%s/headers/x-opa-passthrough-enabled", [http]))
	not authz.allowed with input as missing
	authz.reason == reason with input as missing
	other := changed(sprintf("%s/headers/x-opa-passthrough-enabled", [http]), "yes")
	not authz.allowed with input as other
	authz.reason == reason with input as other
}

test_another_environment if {
	production := changed("/attributes/contextExtensions/environment", "production")
	not authz.allowed with input as production
	authz.reason == {"Not in development environment"} with input as production
	not authz.allowed with input as without("/attributes/contextExtensions")
}

test_no_body if {
	missing := without(sprintf("%s/body", [http]))
	not authz.allowed with input as missing
	authz.reason == {"Request body is missing. Send JSON with a model."} with input as missing
	authz.reason == {"Request body is missing. Send JSON with a model."} with input as changed(sprintf("%s/body", [http]), "")
}

test_no_model if {
	every body in ["{}", "not json", "{\"model\":", "[]"] {
		none := changed(sprintf("%s/body", [http]), body)
		not authz.allowed with input as none
		authz.reason == {"Model field is missing from request body"} with input as none
	}
}

test_another_model if {
	other := changed(sprintf("%s/body", [http]), "{\"model\":\"gpt-4o\"}")
	not authz.allowed with input as other
	authz.reason == {"Model 'gpt-4o' is not allowed in development. Use one of the gpt-3.5 models."} with input as other
}

test_a_model_that_is_no_text if {
	every body in ["{\"model\":null}", "{\"model\":1}", "{\"model\":[\"gpt-3.5\"]}", "{\"model\":false}"] {
		not authz.allowed with input as changed(sprintf("%s/body", [http]), body)
	}
}

test_a_preflight_always_passes if {
	authz.allowed with input as {"attributes": {"request": {"http": {"method": "OPTIONS", "path": "/"}}}}
}

test_nothing_known_is_a_no if {
	not authz.allowed with input as {}
}
