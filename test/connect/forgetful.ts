/** A service keeps a bounded number of configs: one that was pushed out must be handed over again unnoticed. */
import { expect } from 'vitest';
import { servePlugin } from '../../plugins/serve.ts';
import { echo } from '../contract/echo-plugin.ts';
import { prompt } from '../contract/facts.ts';
import { connectTo } from '../contract/ways.ts';

/** Pushes a connection's config out of the service, then asks through it. */
export async function losesNothing(at: { grpc: string } | { http: string }): Promise<void> {
  const service = await servePlugin(echo, at);
  const url = service.grpcUrl ?? service.httpUrl!;
  const connection = await connectTo(url, { config: { word: 'rose' } });
  for (let i = 0; i < 64; i += 1) await (await connectTo(url, { config: { word: `w${i}` } })).close();
  expect(await connection.ask('request', prompt('a rose'))).toMatchObject({
    rewrite: { segments: [{ text: 'a <W>' }] },
  });
  await connection.close();
  await service.close();
}
