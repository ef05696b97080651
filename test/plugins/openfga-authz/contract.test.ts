/** The contract suite for openfga-authz: the same verdicts in process, over gRPC both ways, and over HTTP. */
import { afterAll } from 'vitest';
import { openfgaAuthz } from '../../../plugins/openfga-authz/plugin.ts';
import { authorize, facts } from '../../contract/facts.ts';
import { contractSuite } from '../../contract/suite.ts';
import { startFakeOpenfga } from './fake-openfga.ts';

const fga = await startFakeOpenfga('user:jo can_use model:gpt-4o', 'user:jo can_use model:llama3%3A8b');
afterAll(() => fga[Symbol.asyncDispose]());

const stranger = { ...facts, identity: undefined };
const crowded = { ...facts, identity: { subject: 'jo', groups: ['a', 'b', 'c'] } };
const config = { apiUrl: fga.url, user: 'user:{subject}', groups: { max: 2 }, tools: true };

contractSuite(openfgaAuthz, config, [
  {
    title: 'a model that is allowed',
    hook: 'authorize',
    input: authorize('gpt-4o'),
    expected: { allow: { decisions: [true] } },
  },
  {
    title: 'three models, one of them remembered',
    hook: 'authorize',
    input: { ...authorize('secret', 'gpt-4o', 'llama3:8b'), action: 'model.list' },
    expected: { allow: { decisions: [false, true, true] } },
  },
  {
    title: 'nobody',
    hook: 'authorize',
    input: { ...authorize('gpt-4o'), request: stranger },
    expected: { allow: { decisions: [false], findings: [{ label: 'NO_USER', count: 1 }] } },
  },
  {
    title: 'more groups than are told',
    hook: 'authorize',
    input: { ...authorize('gpt-4o'), request: crowded },
    expected: { allow: { decisions: [true], findings: [{ label: 'GROUPS_LEFT_OUT', count: 1 }] } },
  },
  {
    title: 'a tool',
    hook: 'authorize',
    input: { request: facts, action: 'tool.call', resources: [{ type: 'tool', name: 'search' }] },
    expected: { allow: { decisions: [false] } },
  },
]);
