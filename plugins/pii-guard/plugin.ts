/** The plugin: reads its config, switches detectors on, and answers the text hooks. */
import type { CountryCode } from 'libphonenumber-js/max';
import { z } from 'zod';
import { CONTRACT_VERSION, type Description, type Plugin, type PluginFactory } from '../../proto/contract.ts';
import { guardFrom, type Scanner } from '../../proto/scanner.ts';
import { type BuiltInRule, type Config, type CustomRule, configSchema, readConfig } from './config.ts';
import { cardRule } from './detectors/cards.ts';
import { customDetector } from './detectors/custom.ts';
import type { Detector } from './detectors/detector.ts';
import { emailDetector } from './detectors/email.ts';
import { ibanRule } from './detectors/iban.ts';
import { ipv4Rule, ipv6Detector } from './detectors/ip.ts';
import { jwtDetector } from './detectors/jwt.ts';
import { itinRule, nhsRule, sinRule, ssnRule } from './detectors/national-ids.ts';
import { type NumberRule, numbersDetector } from './detectors/numbers.ts';
import { phoneRule } from './detectors/phone.ts';
import { privateKeyDetector } from './detectors/private-key.ts';
import { secretsDetector, telegramRule } from './detectors/secrets.ts';
import { type ActiveRule, BUILT_IN, type BuiltIn, RULE_NAMES, type RuleName } from './rules.ts';
import { createScanner } from './scanner.ts';

export const piiGuard: PluginFactory = {
  name: 'pii-guard',
  create(given): Plugin {
    const config = readConfig(given);
    const { status, body, contentType, message } = config.rejection;
    const options = {
      code: 'pii_detected',
      message: (labels: string[]) => message ?? sentence(labels),
      status,
      body,
      contentType,
    };
    return { describe: () => describe(config), ...guardFrom(scannerFor(config), options) };
  },
};

/**
 * What has none of these holds nothing and begins nothing: a digit, a sign that an address, key, escape or bracketed number
 * needs, the prefix of a key that may do without any of them, anything beyond ASCII, or a letter or the like at the very end.
 */
const GATE = "[0-9@%&\\\\_:+(\\-]|eyJ|SG\\.|AIza|A[GIKNRS][A-Z]A|hooks\\.slack|[^\\x00-\\x7f]|[A-Za-z.'/]$";

function describe(config: Config): Description {
  const gate = config.rules.some((rule) => 'pattern' in rule) ? undefined : GATE;
  return {
    contract: CONTRACT_VERSION,
    name: 'pii-guard',
    version: '1.0.0',
    hooks: ['request', 'response', 'stream'],
    rewrites: true,
    ...(gate === undefined ? {} : { gate }),
    configSchema: z.toJSONSchema(configSchema, { io: 'input' }) as Record<string, unknown>,
  };
}

/** The detectors that a config switches on, as one scanner. */
export function scannerFor(config: Config): Scanner {
  const detectors: Detector[] = [];
  const numbers: NumberRule[] = [];
  for (const [index, entry] of config.rules.entries()) {
    if ('pattern' in entry) detectors.push(customDetector(customActive(entry, config, index), entry.pattern));
    else switchOn(entry, builtInActive(entry, config), config, detectors, numbers);
  }
  if (numbers.length > 0) detectors.unshift(numbersDetector(numbers));
  return createScanner(detectors);
}

function switchOn(
  entry: BuiltInRule,
  rule: ActiveRule,
  config: Config,
  detectors: Detector[],
  numbers: NumberRule[],
): void {
  const regions = config.regions as CountryCode[];
  const on: Record<RuleName, () => unknown> = {
    'private-key': () => detectors.push(privateKeyDetector(rule)),
    jwt: () => detectors.push(jwtDetector(rule)),
    secret: () => [detectors.push(secretsDetector(rule)), numbers.push(telegramRule(rule))],
    'credit-card': () => numbers.push(cardRule(rule, entry.lenient === true)),
    iban: () => numbers.push(ibanRule(rule)),
    'us-ssn': () => numbers.push(ssnRule(rule)),
    'us-itin': () => numbers.push(itinRule(rule)),
    'ca-sin': () => numbers.push(sinRule(rule)),
    'uk-nhs': () => numbers.push(nhsRule(rule)),
    ip: () => [numbers.push(ipv4Rule(rule)), detectors.push(ipv6Detector(rule))],
    phone: () => numbers.push(phoneRule(rule, regions)),
    email: () => detectors.push(emailDetector(rule)),
  };
  on[entry.rule]();
}

function builtInActive(entry: BuiltInRule, config: Config): ActiveRule {
  const builtIn: BuiltIn = BUILT_IN[entry.rule];
  return {
    label: builtIn.label,
    action: entry.action ?? config.action,
    mask: entry.mask ?? config.mask ?? builtIn[config.masks],
    priority: RULE_NAMES.indexOf(entry.rule),
  };
}

function customActive(entry: CustomRule, config: Config, index: number): ActiveRule {
  const mask = config.masks === 'plain' ? '<masked>' : `<${entry.name.toUpperCase()}_{n}>`;
  return {
    label: entry.name,
    action: entry.action ?? config.action,
    mask: entry.mask ?? config.mask ?? mask,
    priority: RULE_NAMES.length + index,
  };
}

/** Names the kinds of what was found, never the values. */
export function sentence(labels: string[]): string {
  const kinds = [...new Set(labels.map(kindOf))];
  const last = kinds.pop() ?? 'sensitive data';
  const list = kinds.length === 0 ? last : `${kinds.join(', ')} and ${last}`;
  return `Your message contains ${list}. Remove ${kinds.length === 0 ? 'it' : 'them'} and send the message again.`;
}

function kindOf(label: string): string {
  const known = Object.values(BUILT_IN).find((builtIn) => builtIn.label === label);
  return known?.kind ?? `something that is not allowed here (${label})`;
}
