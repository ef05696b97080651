import { describe, expect, it } from 'vitest';
import { DISGUISES, ENTITIES, found, JWT, PEM, scanner } from './woven.ts';

const cases = Object.entries(ENTITIES).flatMap(([label, values]) => values.map((value) => [label, value] as const));

describe('what is found', () => {
  it.each(cases)('%s %s, alone and in any company', (label, value) => {
    for (const text of [value, `x: ${value}, y`, `(${value})`, `"${value}"\n`, `請${value}。`, `${value}. Next`]) {
      if (label === 'EMAIL_ADDRESS' && text.startsWith('請')) continue;
      expect(found(text)).toEqual([`${label}:${value}`]);
    }
  });

  it.each(Object.entries(DISGUISES))('sees through %s, and the span covers the raw text', (_, disguise) => {
    for (const [label, value] of cases) {
      expect(found(`see ${disguise(value)} there`)).toEqual([`${label}:${disguise(value)}`]);
    }
  });

  it.each([
    '&commat;',
    '&#64;',
    '&#x40;',
    '&#0064;',
    '%40',
    '\\u0040',
    '\\x40',
    '\\u{40}',
    '＠',
    '﹫',
    '\u200b@\u200d',
  ])('an @ written %s', (at) => {
    expect(found(`to jane${at}example.com now`)).toEqual([`EMAIL_ADDRESS:jane${at}example.com`]);
  });

  it.each(['&period;', '&#46;', '%2e', '\\u002E', '．', '․'])('a dot written %s', (dot) => {
    expect(found(`to jane@example${dot}com now`)).toEqual([`EMAIL_ADDRESS:jane@example${dot}com`]);
  });

  it.each(['\u00a0', '&nbsp;', '\u2009', '\u3000', '%20', '&#160;', '%C2%A0', '\\u00a0'])(
    'a card with %j for spaces',
    (space) => {
      const card = ['4111', '1111', '1111', '1111'].join(space);
      expect(found(`card ${card}, ok`)).toEqual([`CREDIT_CARD:${card}`]);
    },
  );

  it.each(['–', '‐', '‑', '−', '—', '－', '&ndash;', '%E2%80%93'])('an SSN with %s for hyphens', (dash) => {
    const ssn = ['123', '45', '6789'].join(dash);
    expect(found(`it is ${ssn} ok`)).toEqual([`US_SSN:${ssn}`]);
  });

  it('ignores a few invisible characters in a row, but not a flood of them', () => {
    expect(found(`jane${'\u200b'.repeat(12)}@example.com`)).toHaveLength(1);
    expect(found(`ja${'\u200b'.repeat(13)}ne@example.com`)).toEqual(['EMAIL_ADDRESS:ne@example.com']);
  });

  it('takes escaped line breaks for line breaks, so that JSON stays JSON', () => {
    const json = JSON.stringify({ text: 'mail:\njane@example.com\ntel:\t415-555-2671' });
    expect(found(json)).toEqual(['EMAIL_ADDRESS:jane@example.com', 'PHONE_NUMBER:415-555-2671']);
  });
});

describe('numbers that count only after a word', () => {
  it.each([
    ['SSN 123456789', 'US_SSN:123456789'],
    ['my social security number is 078051120', 'US_SSN:078051120'],
    ['SIN: 130692544', 'CA_SIN:130692544'],
    ['ITIN 912701234', 'US_ITIN:912701234'],
    ['NHS no. 9434765919', 'UK_NHS:9434765919'],
    ['call me at 4155552671', 'PHONE_NUMBER:4155552671'],
    ['{"phone":"4155552671"}', 'PHONE_NUMBER:4155552671'],
    ['tel 9876543210', 'PHONE_NUMBER:9876543210'],
  ])('%s', (text, expected) => {
    expect(found(text)).toEqual([expected]);
    expect(found(text.replace(/^[^0-9]*/, 'order '))).toEqual([]);
  });

  it.each([
    ['AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY'],
    ['aws secret wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY'],
    ['api_key: "q7Rz0pLx3Vb9Tn2Kd8Wm"', 'q7Rz0pLx3Vb9Tn2Kd8Wm'],
    [`AccountKey=${'aB3dE5fG7hJ9kL1mN3pQ5rS'.repeat(4)}==;`, `${'aB3dE5fG7hJ9kL1mN3pQ5rS'.repeat(4)}==`],
    ['Authorization: Bearer q7Rz0pLx3Vb9Tn2Kd8Wm', 'q7Rz0pLx3Vb9Tn2Kd8Wm'],
    ['Authorization: Basic YWxhZGRpbjpvcGVuc2VzYW1l', 'YWxhZGRpbjpvcGVuc2VzYW1l'],
    ['postgres://bob:s3cret@db.example.com:5432/app', 'bob:s3cret@db.example.com:5432'],
    ['{"url":"postgres:\\/\\/bob:s3cret@db.example.com\\/app"}', 'bob:s3cret@db.example.com'],
    ['"{\\"api_key\\": \\"q7Rz0pLx3Vb9Tn2Kd8Wm\\"}"', 'q7Rz0pLx3Vb9Tn2Kd8Wm'],
    ['redis://:s3cret@10.1.2.3:6379', ':s3cret@10.1.2.3:6379'],
    [
      'see https://hooks.slack.com/services/T0ABCDEFG/B0ABCDEFG/aB3dE5fG7hJ9kL1mN3pQ5rS7 ok',
      'T0ABCDEFG/B0ABCDEFG/aB3dE5fG7hJ9kL1mN3pQ5rS7',
    ],
  ])('%s', (text, secret) => {
    expect(found(text)).toEqual([`SECRET:${secret}`]);
  });
});

describe('words of context', () => {
  it.each([' ', '\u00a0', '%20'])('count within 48 characters before a number, whatever the space is: %j', (space) => {
    const near = `SSN${space.repeat(Math.floor(45 / space.length))}123456789`;
    const far = `SSN${space.repeat(60)}123456789`;
    expect(found(near)).toEqual(['US_SSN:123456789']);
    expect(found(far)).toEqual([]);
  });
});

describe('what is refused', () => {
  const no = {
    EMAIL_ADDRESS: [
      'jane@localhost',
      'jane@',
      '@example.com',
      'jane@example.c',
      'jane@example.123',
      `${'a'.repeat(65)}@example.com`,
      'pkg@1.2.beta',
      'a@-b',
    ],
    PHONE_NUMBER: [
      '+1 415',
      '415-555-267',
      '115-555-2671',
      'ORD-415-555-2671',
      '2415-555-2671',
      '415-555-2671-9',
      'x415-555-2671',
      '+999 1234567',
      '31.12.1999',
      '01.02.2024',
    ],
    CREDIT_CARD: [
      '4111111111111112',
      '4111 1111 1111 1112',
      '1234567812345670',
      '5600 0000 0000 0003',
      '41111111111111111111',
      '0.4111111111111111',
      '4111111111111111a',
      'a4111111111111111',
    ],
    US_SSN: [
      '000-12-3456',
      '666-12-3456',
      '900-12-3456',
      '123-00-4567',
      '123-45-0000',
      '111-11-1111',
      '123-45.6789',
      '1-123-45-6789',
      '123-45-6789-0',
      'x123-45-6789',
    ],
    US_ITIN: ['912-66-1234', '912-93-1234', '812-70-1234'],
    CA_SIN: ['130-692-545', '046-454-286', '846-454-286'],
    IBAN: ['DE89370400440532013001', 'DE8937040044053201300', 'XX89370400440532013000'],
    IP_ADDRESS: [
      '256.1.1.1',
      '1.2.3',
      'v1.2.3.4',
      'version 1.2.3.4',
      '1.2.3.4.5',
      'lib-1.2.3.4',
      'Safari/1.2.3.4',
      '01.2.3.4',
      '127.0.0.1',
      '0.0.0.0',
      '::1',
      'a[1::2]',
      '12:30:45',
      'aa:bb:cc:dd:ee:ff',
      '2001:db8::1::2',
    ],
    UK_NHS: ['943 476 5918', '000 000 0000'],
    SECRET: [
      'AKIAIOSFODNN7EXAMPL',
      'AKIAIOSFODNN7EXAMPLES',
      'sk-learn-cross-validation-example',
      'ghp_tooshort',
      'https://example.com/a:b@c',
      'https://user@example.com.',
      'key=value',
      'token: aaaaaaaaaaaaaaaaaaaaaaaa',
      'commit 9fceb02d0ae598e95dc970b74767f19372d6fa93',
    ],
    JWT: [
      'eyJhbGciOiJIUzI1NiJ9',
      'eyJhbGciOiJIUzI1NiJ9.e30',
      'eyJub3QiOiJhIGhlYWRlciJ9.eyJzdWIiOiIxIn0.c2ln',
      `x${JWT}`,
    ],
    PRIVATE_KEY: [
      '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----',
      '-----BEGIN PRIVATE KEY----- is how it starts',
      '-----BEGIN private key-----',
    ],
  };

  it.each(Object.entries(no).flatMap(([label, values]) => values.map((value) => [label, value])))(
    '%s: %s',
    (label, value) => {
      expect(found(`is ${value} so`).filter((each) => each.startsWith(`${label}:`))).toEqual([]);
    },
  );

  it.each([
    'Order 1234567890 shipped on 2024-05-17, order #4155552671 is ready',
    'Invoice 2024-000123, total 1,234.56 EUR, €1.234,56, 5,000,000 or 1 000 000',
    'OID 1.3.6.1.4.1.311, libfoo-1.2.3.4.tar.gz, Chrome/120.0.6099.109 Safari/537.36, section 4.1.2.3',
    '2024-05-17T09:30:00.000Z 2024-05-17 09:30:00 05/17/2024 01-02-2024 and 03-04-2024 24/7',
    'epoch 1763720000 1763720000000 1763720000000000000 1700000000123',
    '550e8400-e29b-41d4-a716-446655440000 00000000-0000-0000-0000-000000000000',
    'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 md5 d41d8cd98f00b204e9800998ecf8427e 9fceb02',
    'https://example.com/a/b?c=1&d=2 http://localhost:3000/path ftp://example.com:21/',
    'ISBN 978-3-16-148410-0, ISBN 0-306-40615-2, ISBN-10: 0306406152',
    'tracking 1Z999AA10123456784 9400 1000 0000 0000 0000 00 9400111899223397846239',
    '3.141592653589793 0.1234567890123 6.02214076e23 [1, 2, 3, 4, 5] 1 2 3 4 5 6 7 8 9 10, 100 200 300 400',
    'user_4155552671 abc4155552671def SKU 123-456-7890X zip 60601-1234 ZIP 60601 90210 10001',
    'const a = x[1::2]; std::vector<int> b; f(415) + g(555); 0x4111111111111111; 1_000_000_000',
    '@types/node@24.1.0 foo@1.2.3 @decorator user@host @everyone',
    'lat 52.520008, lon 13.404954, -122.419416; IMEI 490154203237518; VAT DE123456789',
    '{"id": 4155552671, "n": 1, "time": 1763720000} port 5432, PID 12345 exited 137',
    '50% of 100, C++11 +1 LGTM, a+b=c, AT&T; Q&A; C:\\new\\table, \\d{3}-\\d{2}-\\d{4}, #336699',
  ])('leaves alone: %s', (text) => {
    expect(found(text)).toEqual([]);
  });
});

describe('cards', () => {
  it('S1-83: real issuer ranges and check digits, the 2-series included', () => {
    expect(found('2221 0000 0000 0009 5100000000000008')).toEqual([
      'CREDIT_CARD:2221 0000 0000 0009',
      'CREDIT_CARD:5100000000000008',
    ]);
    expect(found('2220 9999 9999 9994 5600 0000 0000 0003')).toEqual([]);
  });

  it('S1-84: a lenient rule accepts the demo card, whose check digit is wrong', () => {
    const text = 'my card number like 5100 4567 8901 2345 ok';
    expect(found(text)).toEqual([]);
    expect(found(text, { rules: [{ rule: 'credit-card', lenient: true }] })).toEqual([
      'CREDIT_CARD:5100 4567 8901 2345',
    ]);
  });

  it('finds the card and leaves the code and the date beside it', () => {
    expect(found('4111 1111 1111 1111 123, 4111111111111111-123 4111111111111111 12/27')).toEqual([
      'CREDIT_CARD:4111 1111 1111 1111',
      'CREDIT_CARD:4111111111111111',
      'CREDIT_CARD:4111111111111111',
    ]);
  });
});

describe('overlaps', () => {
  it('are one span, named by the longest match', () => {
    expect(found('4111111111111111@example.com')).toEqual(['EMAIL_ADDRESS:4111111111111111@example.com']);
    expect(found('postgres://bob:jane@example.com')).toEqual(['SECRET:bob:jane@example.com']);
  });

  it('are rejected when any part of them is', () => {
    const rules = [{ rule: 'credit-card', action: 'reject' }, 'email'];
    const { spans } = scanner({ rules }).scan('4111111111111111@example.com', '', true);
    expect(spans).toMatchObject([{ label: 'CREDIT_CARD', action: 'reject', start: 0, end: 28 }]);
  });
});

describe('private keys', () => {
  it('are found with escaped line breaks, as in a service account file', () => {
    const text = `{"private_key": "${PEM.replaceAll('\n', '\\n')}"}`;
    expect(found(text)).toEqual([`PRIVATE_KEY:${PEM.replaceAll('\n', '\\n')}`]);
  });

  it('are masked as far as base64 goes when the end is missing', () => {
    const cut = PEM.slice(0, PEM.indexOf('\n-----END'));
    expect(found(`${cut}\n\nand then nothing`)).toEqual([`PRIVATE_KEY:${cut}`]);
  });

  it('are masked up to 16 KiB when they do not end', () => {
    const endless = `-----BEGIN PRIVATE KEY-----\n${`${'aB3d'.repeat(16)}\n`.repeat(300)}`;
    const [span] = scanner({ rules: ['private-key'] }).scan(endless, '', true).spans;
    expect(span!.end - span!.start).toBe(16_384);
  });
});
