/** What providers say of a client's mistake is told; what they say of the gateway's account or key is not. */
import { expect, test } from 'vitest';
import { refusal } from '../../../gateway/providers/refusal.ts';

const told = (message: string) => refusal('up', 400, { message }, {}).message;

test.each([
  ['arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.x', 'not found'],
  ['arn:aws-us-gov:iam::123456789012:role/gateway', 'may not'],
  ['org-AbCdEfGhIjKlMnOpQrStUvWx', 'in organization'],
  ['proj_AbCdEfGhIjKlMnOp', 'of project'],
  ['sk-proj-AbCd*******wXyZ', 'with the key'],
  ['sk-ant-api03-abcdef', 'with the key'],
  ['AIzaSyA1234567890abcdefghij', 'with the key'],
  ['AKIAIOSFODNN7EXAMPLE', 'with the key'],
  ['ya29.a0AfH6SMBx-x', 'with the token'],
])('an error does not tell “%s”', (secret, why) => {
  expect(told(`The model is ${why} ${secret}, so choose another.`)).toBe(`The model is ${why} …, so choose another.`);
});

test('of accounts and projects only the number is left out', () => {
  expect(told('AWS account 123456789012 has no access to projects/my-project-7/locations/eu.')).toBe(
    'AWS account … has no access to projects/…/locations/eu.',
  );
});

test('a sentence about the request itself stays as it is', () => {
  const sentence =
    "Invalid 'messages[1].content': task-specific user-defined fields are at most 128000 tokens, got 130000.";
  expect(told(sentence)).toBe(sentence);
});
