/** What every client reads of every vendor's stream; see test/fixtures/README.md. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fixtureNames, replyFixture } from '../support/fixture.ts';
import { expectGoldenText, settled } from '../support/golden.ts';
import { readPieces } from '../support/hub.ts';
import { saidBy, saidByReply } from '../support/hub-events.ts';
import { bytesOf, clientFile, type GridDialect, type GridVendor, Rig, sentTo, VENDORS } from './rig.ts';

describe.each(VENDORS)('a stream of $vendor', (vendor: GridVendor) => {
  const cases = fixtureNames('streams', vendor.vendor);
  const replies = fixtureNames('replies', vendor.vendor).filter((name) => cases.includes(name));
  let rig: Rig;
  beforeAll(async () => {
    rig = await Rig.start(vendor.provider);
  });
  afterAll(async () => rig[Symbol.asyncDispose]());

  test.each(cases)('is what each client reads of it: %s', async (name) => {
    const bytes = bytesOf(vendor, name);
    for (const client of vendor.clients) {
      const said = settled(await rig.stream(client, vendor, bytes), bytes.toString('latin1'));
      if (passes(client, vendor, name)) expect(said).toBe(bytes.toString());
      else expectGoldenText(name, clientFile(client, vendor), said);
    }
  });

  test.each(cases)('says the same wherever its bytes are cut: %s', (name) => {
    const bytes = bytesOf(vendor, name);
    // What a client gets is written event by event, so that the same events are the same text.
    const read = (pieces: Buffer[]) => JSON.stringify(readPieces(vendor.openReader(), pieces));
    const whole = read([bytes]);
    const isSame = (events: string) => events === whole || settled(events, '') === settled(whole, '');
    const offsets = Array.from({ length: bytes.length - 1 }, (_, i) => i + 1);
    expect(offsets.find((at) => !isSame(read([bytes.subarray(0, at), bytes.subarray(at)])))).toBeUndefined();
    expect(isSame(read(offsets.concat(bytes.length).map((at) => bytes.subarray(at - 1, at))))).toBe(true);
  });

  test.each(replies)('says to each client what the whole answer says: %s', async (name) => {
    const body = replyFixture(vendor.vendor, name);
    for (const client of vendor.clients) {
      const whole = saidByReply(client.read(await rig.whole(client, body)));
      const events = readPieces(client.dialect.openReader(), [sentTo(client, vendor, name)]);
      expect(saidBy(events.filter((event) => !('choice' in event) || event.choice === 0))).toEqual(whole);
    }
  });
});

/** Whether the bytes go on as they are; the provider's own error is told in the gateway's words. */
function passes(client: GridDialect, { provider }: GridVendor, name: string): boolean {
  return provider.takes.includes(client.dialect.name) && !/^error(-|$)/.test(name);
}
