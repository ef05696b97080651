import { echo } from './echo-plugin.ts';
import {
  answer,
  authenticate,
  authorize,
  endpoint,
  facts,
  limit,
  outcome,
  prompt,
  recall,
  remember,
  window,
} from './facts.ts';
import { contractSuite } from './suite.ts';

const longText = 'lorem ipsum 🙂 '.repeat(80_000);

contractSuite(echo, { word: 'secret' }, [
  { title: 'no opinion', hook: 'authenticate', input: authenticate(), expected: { allow: {} } },
  {
    title: 'an identity with its claims',
    hook: 'authenticate',
    input: authenticate({ authorization: 'Bearer good' }),
    expected: {
      allow: { identity: { subject: 'jo', roles: ['a', 'b'], claims: { deep: { list: [true, null, 1.5] } } } },
    },
  },
  {
    title: 'a challenge',
    hook: 'authenticate',
    input: authenticate({ authorization: 'Bearer bad' }),
    expected: {
      reject: { code: 'invalid_key', message: 'No.', headers: { 'www-authenticate': 'Bearer' }, cookies: ['a=1'] },
    },
  },
  {
    title: 'not mine, and what a stranger may do',
    hook: 'authenticate',
    input: authenticate({ authorization: 'Cookie stale' }),
    expected: {
      allow: {
        challenge: 'Bearer realm="echo"',
        login: '/echo/login',
        cookies: ['a=; Max-Age=0', 'b=;'],
        headers: { 'x-session': 'over' },
      },
    },
  },
  {
    title: 'an answer for each resource',
    hook: 'authorize',
    input: authorize('cheap', 'dear', 'cheap'),
    expected: { allow: { decisions: [true, false, true], decisionId: 'decision-1' } },
  },
  {
    title: 'a body that is whole',
    hook: 'authorize',
    input: { ...authorize('cheap'), request: { ...facts, body: '{"ü":1}', bodySize: 8 } },
    expected: { allow: { decisions: [true] } },
  },
  {
    title: 'a body that is empty and one that was cut',
    hook: 'authorize',
    input: { ...authorize('cheap'), request: { ...facts, body: '', bodySize: 9_000_000_000 } },
    expected: { allow: { decisions: [false] } },
  },
  {
    title: 'no resources, no decisions',
    hook: 'authorize',
    input: authorize(),
    expected: { allow: { decisions: [] } },
  },
  {
    title: 'a grant and headers',
    hook: 'limit',
    input: limit(0),
    expected: {
      allow: { headers: { 'x-left': '0/100' }, grant: 'grant-1', outputTokens: 0, renewMs: 1500.5 },
    },
  },
  { title: 'the price of a model', hook: 'limit', input: { ...limit(0), price: { input: 0, output: 1.5 } } },
  { title: 'a grant that lives on', hook: 'renew', input: { request: facts, grant: 'grant-1' } },
  { title: 'a key that is new', hook: 'recall', input: recall('new'), expected: { allow: { grant: 'ab12' } } },
  { title: 'a key that was answered, at length', hook: 'recall', input: recall('old') },
  { title: 'an answer to remember', hook: 'remember', input: remember('answered'), expected: { allow: {} } },
  { title: 'nothing to remember', hook: 'remember', input: remember('failed'), expected: { allow: {} } },
  {
    title: 'a quota that is used up',
    hook: 'limit',
    input: limit(5_000),
    expected: { reject: { code: 'over', message: 'Later.', headers: { 'retry-after': '42' }, status: 429 } },
  },
  { title: 'a clean prompt', hook: 'request', input: prompt('hello', 'Grüße 🙂', ''), expected: { allow: {} } },
  { title: 'a prompt of more than a megabyte', hook: 'request', input: prompt(longText), expected: { allow: {} } },
  {
    title: 'a mask that can be undone',
    hook: 'request',
    input: prompt('my secret', 'nothing', 'secretsecret'),
    expected: {
      rewrite: {
        segments: [
          { id: '0', text: 'my <W>' },
          { id: '2', text: '<W><W>' },
        ],
        placeholders: [{ placeholder: '<W>', original: 'secret' }],
        findings: [{ label: 'WORD', count: 1 }],
      },
    },
  },
  {
    title: 'a rejection with all that one can have',
    hook: 'response',
    input: answer('this is forbidden'),
    expected: {
      reject: {
        code: 'bad_word',
        message: 'This is not said here. Say it otherwise.',
        findings: [{ label: 'WORD', count: 1 }],
        segments: ['0'],
        status: 451,
        headers: { 'x-reason': 'word' },
        body: '{"error":"ü 🙂"}',
        contentType: 'application/json',
      },
    },
  },
  {
    title: 'a window of a stream',
    hook: 'stream',
    input: window('abcdefgh', false, 'before'),
    expected: { release: { release: 'before|abcd', hold: 'efgh' } },
  },
  {
    title: 'the last window, and an empty one',
    hook: 'stream',
    input: window('', true),
    expected: { release: { release: '|', hold: '' } },
  },
  {
    title: 'a stream that is cut off',
    hook: 'stream',
    input: window('forbidden'),
    expected: { reject: { code: 'no', message: 'No.', findings: [{ label: 'WORD', count: 1 }] } },
  },
  { title: 'the end of a request', hook: 'observe', input: outcome('grant-1'), expected: { allow: {} } },
  { title: 'a path of its own', hook: 'endpoint', input: endpoint(''), expected: { respond: { status: 204 } } },
  {
    title: 'a path of its own, with all that an answer can have',
    hook: 'endpoint',
    input: endpoint('code=a%20b&state=ü', 'logout_token=x'),
    expected: {
      respond: {
        status: 302,
        headers: { location: '/?code=a%20b&state=ü' },
        cookies: ['q=code=a%20b&state=ü', 'other=1'],
        body: 'POST logout_token=x',
        contentType: 'text/html',
      },
    },
  },
]);
