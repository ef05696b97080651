/**
 * Claude on Google Cloud: the bodies of Anthropic's own API, with the version in the body and the model in the path.
 * Source: https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai.
 */
import type { Json } from '../../dialects/dialect.ts';
import { objectOf } from '../../hub/fields.ts';
import { readError as readAnthropicError } from '../anthropic/error.ts';
import { readCount, readMessages } from '../anthropic/reply.ts';
import { writeCount, writeMessages } from '../anthropic/request.ts';
import { MessagesReader } from '../anthropic/stream.ts';
import { CHAT, COUNT } from '../anthropic/supports.ts';
import type { Bounds } from '../anthropic/thinking.ts';
import { readError as readGoogleError } from '../gemini/error.ts';
import type { Provider } from '../provider.ts';

const VERSION = 'vertex-2023-10-16';

/** The endpoints of the provider `name`; `publishers` is their path up to the publisher's name. */
export function claudeEndpoints(name: string, publishers: string, bounds: Bounds): Provider['endpoints'] {
  const models = `${publishers}/anthropic/models`;
  return {
    chat: [
      {
        dialect: 'anthropic-messages',
        supports: CHAT,
        // Versions are told by an `@`, which a path may hold.
        path: ({ model, stream }) =>
          `${models}/${encodeURIComponent(model).replaceAll('%40', '@')}:${stream ? 'streamRawPredict' : 'rawPredict'}`,
        write: (request, facts) => adapted(writeMessages(request, facts, bounds)),
        adapt(body) {
          body.anthropic_version = VERSION;
          delete body.model;
        },
        read: (body) => readMessages(body, name),
        openReader: () => new MessagesReader(name),
        prefill: 'try',
      },
    ],
    count: [
      {
        dialect: 'anthropic-count-tokens',
        supports: COUNT,
        path: () => `${models}/count-tokens:rawPredict`,
        write: (request, facts) => ({ anthropic_version: VERSION, ...writeCount(request, facts, bounds) }),
        adapt(body) {
          body.anthropic_version = VERSION;
        },
        read: readCount,
      },
    ],
  };
}

function adapted({ model: _model, ...body }: Json): Json {
  return { anthropic_version: VERSION, ...body };
}

/** What Google refuses is told in its own words, what Claude refuses in Anthropic's. */
export const readClaudeError: typeof readGoogleError = (name, status, body, headers) => {
  const read = objectOf(body)?.type === 'error' ? readAnthropicError : readGoogleError;
  return read(name, status, body, headers);
};
