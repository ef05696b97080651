/** The built-in rules: what each finds, how it is named in logs and to people, and what stands in its place. */
import type { MatchAction } from '../../proto/scanner.ts';

export interface BuiltIn {
  label: string;
  /** For the sentence to a person: `Your message contains …`. */
  kind: string;
  /** The mask with a number, and the plain one of agentgateway's regex guard or in its style. */
  numbered: string;
  plain: string;
}

/** Order is priority: of two matches of equal length the earlier rule names the match. */
export const BUILT_IN = {
  'private-key': { label: 'PRIVATE_KEY', kind: 'a private key', numbered: '<PRIVATE_KEY_{n}>', plain: '<PRIVATE_KEY>' },
  jwt: { label: 'JWT', kind: 'an access token', numbered: '<JWT_{n}>', plain: '<JWT>' },
  secret: { label: 'SECRET', kind: 'a password or an API key', numbered: '<SECRET_{n}>', plain: '<SECRET>' },
  'credit-card': { label: 'CREDIT_CARD', kind: 'a credit card number', numbered: '<CARD_{n}>', plain: '<CREDIT_CARD>' },
  iban: { label: 'IBAN', kind: 'a bank account number', numbered: '<IBAN_{n}>', plain: '<IBAN>' },
  'us-ssn': { label: 'US_SSN', kind: 'a social security number', numbered: '<SSN_{n}>', plain: '<SSN>' },
  'us-itin': { label: 'US_ITIN', kind: 'a taxpayer identification number', numbered: '<ITIN_{n}>', plain: '<ITIN>' },
  'ca-sin': { label: 'CA_SIN', kind: 'a social insurance number', numbered: '<SIN_{n}>', plain: '<CA_SIN>' },
  'uk-nhs': { label: 'UK_NHS', kind: 'an NHS number', numbered: '<NHS_{n}>', plain: '<UK_NHS>' },
  ip: { label: 'IP_ADDRESS', kind: 'an IP address', numbered: '<IP_{n}>', plain: '<IP_ADDRESS>' },
  phone: { label: 'PHONE_NUMBER', kind: 'a phone number', numbered: '<PHONE_{n}>', plain: '<PHONE_NUMBER>' },
  email: { label: 'EMAIL_ADDRESS', kind: 'an e-mail address', numbered: '<EMAIL_{n}>', plain: '<EMAIL_ADDRESS>' },
} as const satisfies Record<string, BuiltIn>;

export type RuleName = keyof typeof BUILT_IN;
export const RULE_NAMES = Object.keys(BUILT_IN) as RuleName[];

/** A rule that is switched on, as the scanner needs it. */
export interface ActiveRule {
  label: string;
  action: MatchAction;
  mask: string;
  /** Of matches of equal length the one with the lower number names the span. */
  priority: number;
}
