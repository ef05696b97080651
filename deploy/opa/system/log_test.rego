package system.log_test

import data.system.log

test_prompts_and_tokens_are_left_out if {
	log.mask["/input/attributes/request/http/body"]
	log.mask["/input/parsed_body"]
	log.mask["/input/request/parsed_body"]
	log.mask["/input/request/headers/authorization"]
}
