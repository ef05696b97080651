# Who may use which models and tools: the policy that opa-authz asks for by default (data.wardgate.authz).
#
# `allow` is a set of names. The gateway asks once for all models of a list and shows those that are in it; a call goes
# through when its model is in it. Whoever is in no role and no team gets an empty set: nothing.
package wardgate.authz

# What each realm role may use; a star stands for any text.
models := {
	"admin": ["*"],
	"ai-user": ["gpt-3.5-*", "gpt-4o*"],
	# Those of the demo's realm.
	"ai-agents": ["gpt-4o-mini", "cheap"],
	"supply-chain": ["gpt-4o*"],
}

# What each team (a group of the token) may use besides.
teams := {
	"research": ["o3", "gpt-4o*"],
	"support": ["gpt-4o-mini"],
	"acme-eng": ["gpt-4o*", "smart"],
	"acme-ml": ["*"],
}

# Tools that a model may call for anybody, and for roles.
tools := {
	"*": ["get_weather", "search"],
	"admin": ["*"],
}

allow contains resource.name if {
	some resource in input.resources
	resource.type == "model"
	some pattern in granted_models
	glob.match(pattern, null, resource.name)
}

allow contains resource.name if {
	input.action == "tool.call"
	some resource in input.resources
	resource.type == "tool"
	some pattern in granted_tools
	glob.match(pattern, null, resource.name)
}

# Shown to the person who asked, where nothing is allowed.
message := "Sign in to use the models." if not input.identity

message := sprintf("Your roles and teams do not include the model %s. Ask the platform team.", [input.request.model]) if {
	input.identity
	input.action == "model.use"
	count(allow) == 0
}

granted_models contains pattern if {
	some role in input.identity.roles
	some pattern in models[role]
}

granted_models contains pattern if {
	some group in input.identity.groups
	some pattern in teams[trim_prefix(group, "/")]
}

granted_tools contains pattern if {
	input.identity
	some pattern in tools["*"]
}

granted_tools contains pattern if {
	some role in input.identity.roles
	some pattern in tools[role]
}
