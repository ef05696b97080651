/** The documentation's table of what becomes of each feature at each vendor, made from what the code does. */
import { z } from 'zod';
import { configSchema } from '../config/schema.ts';
import { FEATURES, type Feature, type Support } from '../hub/features.ts';
import type { Endpoint, Operation, Provider } from './provider.ts';
import { VENDORS } from './registry.ts';
import type { Vendor } from './vendor.ts';

/** One column: an endpoint of a vendor. */
interface Column {
  title: string;
  endpoint: Endpoint<Operation>;
}

/** The page, in Markdown. */
export function supportPage(): string {
  const providers = VENDORS.flatMap((vendor) =>
    kindsOf(vendor).map((kind) => ({ kind, provider: sample(vendor, kind) })),
  );
  const chats = providers.flatMap(({ kind, provider }) =>
    provider.endpoints.chat.map((endpoint, i) => ({
      title: i === 0 || endpoint.dialect === undefined ? kind : `${kind} (${endpoint.dialect})`,
      endpoint,
    })),
  );
  const embeddings = providers.flatMap(({ kind, provider }) =>
    (provider.endpoints.embeddings ?? []).slice(0, 1).map((endpoint) => ({ title: kind, endpoint })),
  );
  const counts = providers.filter(({ provider }) => provider.endpoints.count !== undefined).map(({ kind }) => kind);
  return `# What becomes of a request’s fields

Made by \`npm run features\` from \`gateway/providers/\`; do not edit.

A request in the dialect that a provider speaks itself passes through as it is, unknown fields and all. Any other is
translated, and nothing of it is lost unseen:

- **yes**: said in the provider’s own words; a number leads to what is different about it
- **–**: the provider’s API has no word for it, so the request is refused with status 400, code \`unsupported_field\` and the
  field’s name, and a model’s other targets are tried before that. With \`unmapped: leave-out\` at the provider the request
  goes on without the field.
- **out**: it changes nothing of the answer, so the request goes on without it

What was left out is told in the answer’s header \`x-wardgate-left-out\`. Fields that the client’s own dialect does not know
are refused by their names like the others.

## Chat

${alike()}

${table(chats, used(chats))}

## Embeddings

${table(embeddings, ['dimensions', 'token-input', 'user'])}

## Counting tokens

Counted by the vendor: ${counts.map((kind) => `\`${kind}\``).join(', ')}. Elsewhere the gateway estimates the length by OpenAI’s
o200k encoding and says so in the header \`x-wardgate-estimated\`.
`;
}

/** Of the kinds that differ in nothing here, the first stands for all. */
function kindsOf(vendor: Vendor): string[] {
  return sameKinds(vendor).map(([first]) => first!);
}

/** The kinds of a vendor, those together that differ in nothing here. */
function sameKinds(vendor: Vendor): string[][] {
  const groups = Map.groupBy(Object.keys(vendor.kinds), (kind) =>
    JSON.stringify(sample(vendor, kind).endpoints.chat.map(({ supports, dialect }) => [supports, dialect])),
  );
  return [...groups.values()];
}

/** Which kinds have no column of their own. */
function alike(): string {
  const groups = VENDORS.flatMap(sameKinds).filter((group) => group.length > 1);
  return groups
    .map(([first, ...rest]) => `As \`${first}\`: ${rest.map((kind) => `\`${kind}\``).join(', ')}.`)
    .join(' ');
}

/** A provider of a kind; what its settings take is made up, since nothing is asked of it. */
function sample(vendor: Vendor, kind: string): Provider {
  const taken = Object.entries(vendor.settings).filter(([, setting]) => z.safeParse(setting, 'sample').success);
  const { providers } = configSchema.parse({
    providers: {
      sample: {
        kind,
        key: 'sample',
        baseUrl: 'http://sample/v1',
        ...Object.fromEntries(taken.map(([name]) => [name, 'sample'])),
      },
    },
    models: {},
    routes: {},
  });
  return vendor.make('sample', providers.sample!);
}

/** The features that matter to at least one of the columns. */
function used(columns: Column[]): Feature[] {
  const all = Object.keys(FEATURES) as Feature[];
  return all.filter((feature) => columns.some(({ endpoint }) => endpoint.supports[feature] !== 'refused'));
}

function table(columns: Column[], features: Feature[]): string {
  const notes: string[] = [];
  const rows = features.map((feature) => [
    FEATURES[feature],
    ...columns.map(({ endpoint }) => cell(endpoint.supports[feature], notes)),
  ]);
  const head = ['', ...columns.map(({ title }) => title)];
  const line = (cells: string[]) => `| ${cells.join(' | ')} |`;
  const told = notes.map((note, i) => `${i + 1}. ${note}`).join('\n');
  return [line(head), line(head.map(() => '---')), ...rows.map(line), ...(notes.length > 0 ? ['', told] : [])].join(
    '\n',
  );
}

/** Notes are numbered in the order of their first use. */
function cell(support: Support, notes: string[]): string {
  if (support === 'refused') return '–';
  if (support === 'left out') return 'out';
  if (support === 'mapped') return 'yes';
  const note = support.slice('mapped: '.length);
  if (!notes.includes(note)) notes.push(note);
  return `yes ${notes.indexOf(note) + 1}`;
}
