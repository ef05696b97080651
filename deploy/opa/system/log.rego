# What is left out of OPA's decision log: prompts have no place in a log, nor have tokens.
package system.log

mask contains "/input/attributes/request/http/body"

mask contains "/input/attributes/request/http/raw_body"

mask contains "/input/attributes/request/http/headers/authorization"

mask contains "/input/parsed_body"

mask contains "/input/request/body"

mask contains "/input/request/parsed_body"

mask contains "/input/request/headers/authorization"
