/** S3-14 Messages of Anthropic's that break: blocks keep their places, and there is one end. */
import { expect, test } from 'vitest';
import { textStream } from '../../support/chunks.ts';
import { send } from '../../support/client.ts';
import type { StreamItem } from '../../support/script.ts';
import { readSse } from '../../support/sse.ts';
import { broken, claudeBegins, claudeEnds, claudeEvent, claudeSays, type RigParts, rig } from './rig.ts';

interface Told {
  type: string;
  index?: number;
  delta?: { text?: string };
  error?: { type: string };
}

/** What a client of Anthropic's is told when its own vendor breaks after these events, and vLLM goes on. */
async function toldAfter(events: StreamItem[], { end, ...parts }: RigParts & { end?: 'reset' } = {}) {
  await using one = await rig({ kinds: ['anthropic', 'vllm'], ...parts });
  one.up[0]!.next(broken(events, end === undefined ? {} : { end }));
  one.up[1]!.always({ stream: { events: textStream('more') } });
  const body = { model: 'best', stream: true, max_tokens: 99, messages: [{ role: 'user', content: 'Hello' }] };
  const { events: seen } = await readSse(await send(`${one.gateway.url}/v1/messages`, { body }));
  const told = seen.map(({ data }) => JSON.parse(data) as Told).filter(({ type }) => type !== 'ping');
  return { told, types: told.map(({ type, index }) => (index === undefined ? type : `${type} ${index}`)) };
}

const block = (index: number, content: object) =>
  claudeEvent({ type: 'content_block_start', index, content_block: content });
const stop = (index: number) => claudeEvent({ type: 'content_block_stop', index });
const thinks = claudeEvent({
  type: 'content_block_delta',
  index: 0,
  delta: { type: 'thinking_delta', thinking: 'Hm.' },
});
const [begin] = claudeBegins() as [string];

test('the text goes on in the block that was open', async () => {
  const { types, told } = await toldAfter([...claudeBegins(), claudeSays('some ')]);
  expect(types).toEqual([
    'message_start',
    'content_block_start 0',
    'content_block_delta 0',
    'content_block_delta 0',
    'content_block_stop 0',
    'message_delta',
    'message_stop',
  ]);
  expect(told.map(({ delta }) => delta?.text ?? '').join('')).toBe('some more');
});

test('behind thoughts that are closed a block of its own begins', async () => {
  const { types } = await toldAfter([begin, block(0, { type: 'thinking', thinking: '' }), thinks, stop(0)]);
  expect(types.slice(4)).toEqual([
    'content_block_start 1',
    'content_block_delta 1',
    'content_block_stop 1',
    'message_delta',
    'message_stop',
  ]);
});

test.each([
  [
    'tools of the vendor’s own',
    [block(0, { type: 'server_tool_use', id: 's', name: 'web_search', input: {} }), stop(0)],
  ],
  ['an empty block', [block(0, { type: 'text', text: '' }), stop(0)]],
])('behind %s nobody goes on, since the places would be wrong', async (_name, before) => {
  const { types, told } = await toldAfter([
    begin,
    ...before,
    block(1, { type: 'text', text: '' }),
    claudeSays('Hi', 1),
  ]);
  expect(types.at(-1)).toBe('error');
  expect(types).not.toContain('message_stop');
  expect(told.at(-1)?.error?.type).toBeTruthy();
});

test('a block that has begun and said nothing is not begun again', async () => {
  const silent = block(1, { type: 'text', text: '' });
  const { types } = await toldAfter([begin, block(0, { type: 'thinking', thinking: '' }), thinks, stop(0), silent]);
  expect(types.filter((type) => type === 'content_block_start 1')).toHaveLength(1);
  expect(types.at(-1)).toBe('error');
});

test.each([{}, { model: { rescue: 'off', timeouts: { stall: '5s' } } }, { model: { rescue: 'off' } }])(
  'a connection that is lost behind the reason of the end makes no second end: %o',
  async (parts) => {
    const end = claudeEnds().slice(0, 2);
    const { types } = await toldAfter([...claudeBegins(), claudeSays('done'), ...end], { ...parts, end: 'reset' });
    expect(types.filter((type) => type === 'message_start')).toHaveLength(1);
    expect(types.filter((type) => type === 'message_delta')).toHaveLength(1);
    expect(types.slice(0, 5)).toEqual([
      'message_start',
      'content_block_start 0',
      'content_block_delta 0',
      'content_block_stop 0',
      'message_delta',
    ]);
    if (parts.model === undefined) expect(types.at(-1)).toBe('message_stop');
  },
);
