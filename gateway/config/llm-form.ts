/**
 * The short `llm:` form that agentgateway's users know: a list of models, each with its provider and key, at one URL.
 * It is turned into the ordinary config; port 4000 is its default, as there.
 */
import { z } from 'zod';
import { VENDORS } from '../providers/registry.ts';

/** The form itself. */
export const llmForm = z.strictObject({
  llm: z.strictObject({
    port: z.number().int().min(1).max(65_535).default(4000),
    models: z
      .array(
        z.strictObject({
          name: z.string().min(1),
          provider: z.enum(VENDORS.flatMap(({ kinds }) => Object.keys(kinds)) as [string, ...string[]]),
          params: z
            .looseObject({
              apiKey: z.string().optional(),
              baseUrl: z.string().optional(),
              model: z.string().optional(),
            })
            .default({}),
        }),
      )
      .min(1),
  }),
});

export function isLlmForm(raw: unknown): boolean {
  return typeof raw === 'object' && raw !== null && 'llm' in raw;
}

/** Answers the raw config that means the same. */
export function fromLlmForm({ llm: { port, models } }: z.output<typeof llmForm>): unknown {
  const named = models.map((model, i) => ({ ...model, providerName: `${model.provider}-${i + 1}` }));
  return {
    listen: `127.0.0.1:${port}`,
    providers: Object.fromEntries(
      named.map(({ provider, providerName, params: { apiKey, baseUrl, model: _, ...settings } }) => [
        providerName,
        { kind: provider, ...settings, ...(apiKey && { key: apiKey }), ...(baseUrl && { baseUrl }) },
      ]),
    ),
    models: Object.fromEntries(
      named.map(({ name, providerName, params }) => [
        name,
        { provider: providerName, ...(params.model && { model: params.model }) },
      ]),
    ),
    routes: { '/': {} },
  };
}
