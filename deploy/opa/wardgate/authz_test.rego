package wardgate.authz_test

import data.wardgate.authz

alice := {"subject": "alice", "roles": ["ai-user"], "groups": ["/research"]}

asked(action, names, identity) := {
	"action": action,
	"resources": [{"type": type_of[action], "name": name} | some name in names],
	"identity": identity,
	"request": {"id": "r1", "model": names[0]},
}

type_of := {"model.use": "model", "model.list": "model", "tool.call": "tool"}

test_a_role_opens_its_models if {
	authz.allow == {"gpt-4o-mini"} with input as asked("model.use", ["gpt-4o-mini"], alice)
	authz.allow == {"gpt-3.5-turbo"} with input as asked("model.use", ["gpt-3.5-turbo"], alice)
}

test_a_list_is_made_shorter if {
	models := ["gpt-4o", "o3", "claude-sonnet-4", "gpt-3.5-turbo"]
	authz.allow == {"gpt-4o", "o3", "gpt-3.5-turbo"} with input as asked("model.list", models, alice)
}

test_a_team_opens_models_besides if {
	bob := {"subject": "bob", "groups": ["support"]}
	authz.allow == {"gpt-4o-mini"} with input as asked("model.list", ["gpt-4o", "gpt-4o-mini"], bob)
}

test_an_admin_may_use_all if {
	root := {"subject": "root", "roles": ["admin"]}
	authz.allow == {"any/model:1.5"} with input as asked("model.use", ["any/model:1.5"], root)
	authz.allow == {"delete_database"} with input as asked("tool.call", ["delete_database"], root)
}

test_who_is_in_nothing_gets_nothing_and_is_told if {
	carol := {"subject": "carol"}
	authz.allow == set() with input as asked("model.use", ["gpt-4o"], carol)
	contains(authz.message, "gpt-4o") with input as asked("model.use", ["gpt-4o"], carol)
}

test_a_stranger_gets_nothing_and_is_told if {
	stranger := object.remove(asked("model.use", ["gpt-4o"], {}), ["identity"])
	authz.allow == set() with input as stranger
	authz.message == "Sign in to use the models." with input as stranger
}

test_tools_by_name if {
	authz.allow == {"search"} with input as asked("tool.call", ["search", "delete_database"], alice)
}

test_a_tool_is_no_model if {
	authz.allow == set() with input as asked("model.use", ["search"], alice)
	authz.allow == set() with input as asked("tool.call", ["gpt-4o"], alice)
}
