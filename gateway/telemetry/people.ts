/** Labels that tell people apart, bounded: each new value is a new series for ever. */
import type { Identity } from '../../proto/contract.ts';
import { identityField } from '../identity.ts';
import type { Labels } from './cells.ts';

/** The value of a label for a stranger, as the reference gateway's dashboards have it. */
const UNKNOWN = 'unknown';
/** The value for whoever comes when there are too many already. */
const OTHER = 'other';
/** Longest value of a label, in UTF-16 units. */
const MAX_VALUE = 128;

export class People {
  private readonly known = new Map<string, Labels>();
  private readonly others = new Map<string, Labels>();

  /**
   * @param fields the labels' names and the identity's fields, as the config has them
   * @param most how many people are told apart
   */
  labels(identity: Identity | undefined, fields: Readonly<Record<string, string>>, most: number): Labels {
    const names = Object.keys(fields);
    const values = names.map((name) => labelOf(identityField(identity, fields[name]!) ?? UNKNOWN));
    const key = [...names, ...values].join('\u0000');
    const known = this.known.get(key);
    if (known !== undefined) return known;
    if (identity !== undefined && this.known.size >= most) return this.other(names);
    const labels = Object.fromEntries(names.map((name, i) => [name, values[i]!]));
    this.known.set(key, labels);
    return labels;
  }

  private other(names: string[]): Labels {
    const key = names.join('\u0000');
    let labels = this.others.get(key);
    if (labels === undefined) {
      labels = Object.fromEntries(names.map((name) => [name, OTHER]));
      this.others.set(key, labels);
    }
    return labels;
  }
}

/** Half a character is written as U+FFFD, so two people could become two series that look the same. */
function labelOf(value: string): string {
  return value.slice(0, MAX_VALUE).toWellFormed();
}
