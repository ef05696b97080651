/** What a vendor's folder exports: the kinds that the config may name, their settings, and how a provider is made of them. */
import type { z } from 'zod';
import type { CommonProviderConfig } from '../config/schema.ts';
import type { OutputLimitField } from '../dialects/dialect.ts';
import type { Provider } from './provider.ts';

/** One word for `kind:` in the config, and what it brings along. */
export interface Preset {
  /** Up to and including the version segment; undefined when the settings say it, or `baseUrl` must. */
  baseUrl?: string;
  /** Whether the config may leave `baseUrl` out although the preset has none: the settings make it up. */
  computesUrl?: boolean;
  /** The vendor in `gen_ai.provider.name` (OpenTelemetry's GenAI conventions); default: the kind itself. */
  telemetryName?: string;
  /** Where it wants the bound on an answer; default `max_tokens`. */
  outputLimitField?: OutputLimitField;
  /** Whether it goes on from an assistant message at the end; default `no`. */
  prefill?: 'yes' | 'try' | 'no';
}

/** The settings of no vendor. */
export type NoSettings = Record<never, never>;

export interface Vendor<S extends z.ZodRawShape = z.ZodRawShape> {
  kinds: Readonly<Record<string, Preset>>;
  /** Fields of the provider's config beside the common ones. */
  settings: S;
  /** Makes a provider; `name` is its name in the config. */
  make(name: string, config: CommonProviderConfig & z.output<z.ZodObject<S>>): Provider;
}

/** Keeps the settings' types for `make` and forgets them for the registry, which has checked them. */
export function defineVendor<S extends z.ZodRawShape>(vendor: Vendor<S>): Vendor {
  return vendor as unknown as Vendor;
}
