/**
 * Anthropic's count of a prompt's tokens: `POST /v1/messages/count_tokens`, a request of the Messages API without the
 * bound on its answer.
 * Source: https://platform.claude.com/docs/en/api/messages-count-tokens.
 */
import { anthropicMessages } from '../anthropic-messages/dialect.ts';
import { errorBody, errorFrame } from '../anthropic-messages/error.ts';
import type { CountDialect } from '../dialect.ts';

const { readRequest, requestSegments, writeSegments, toHub, modelList, modelEntry } = anthropicMessages;

export const anthropicCountTokens: CountDialect = {
  name: 'anthropic-count-tokens',
  operation: 'count',
  paths: ['/v1/messages/count_tokens', '/messages/count_tokens'],
  readRequest: (body, path) => ({ ...readRequest(body, path), stream: false }),
  requestSegments,
  // A number is no text.
  replySegments: () => [],
  replyTools: () => [],
  writeSegments,
  // Counting costs nothing.
  replyFacts: () => ({ usage: undefined, model: undefined }),
  skimReply: () => undefined,
  rename: anthropicMessages.rename,
  limitOutput: () => {},
  markLimited: () => false,
  toHub,
  fromHub: ({ inputTokens }) => ({ input_tokens: inputTokens }),
  errorBody,
  errorFrame,
  modelList,
  modelEntry,
};
