/**
 * Counters and histograms whose series are found once and then counted by plain arithmetic: prom-client looks every
 * label up by name at each call (1 to 2 µs), which the hot path cannot afford. prom-client still writes them out.
 */
import type { Registry } from 'prom-client';

/** Most series that one metric keeps; labels beyond it are counted as `other`, so that no client can grow the memory. */
const MAX_SERIES = 2_000;

/** The same for a histogram, whose series are 17 lines each: with 2,000 a scrape held everything up for 2.6 s (65 MB). */
const MAX_HISTOGRAM_SERIES = 300;

export type Labels = Record<string, string>;

/** One series of a counter or gauge. */
export interface Cell {
  value: number;
}

/** What prom-client asks of a metric. */
interface Written {
  name: string;
  help: string;
  type: string;
  aggregator: 'sum';
  values: { metricName?: string; labels: Labels; value: number }[];
}

class Family<T> {
  readonly name: string;
  private readonly most: number;
  private readonly series = new Map<string, { labels: Labels; cell: T }>();

  constructor(name: string, most: number) {
    this.name = name;
    this.most = most;
  }

  /** The series with these labels; made by `create` when it is new. */
  find(labels: Labels, create: () => T): T {
    const key = Object.values(labels).join('\u0000');
    const known = this.series.get(key);
    if (known) return known.cell;
    if (this.series.size < this.most) return this.add(key, labels, create());
    const other = Object.fromEntries(Object.keys(labels).map((label) => [label, 'other']));
    const otherKey = Object.values(other).join('\u0000');
    return this.series.get(otherKey)?.cell ?? this.add(otherKey, other, create());
  }

  all(): { labels: Labels; cell: T }[] {
    return [...this.series.values()];
  }

  private add(key: string, labels: Labels, cell: T): T {
    this.series.set(key, { labels, cell });
    return cell;
  }
}

/** A counter or gauge by labels. */
export class Count {
  private readonly family: Family<Cell>;

  constructor(registry: Registry, type: 'counter' | 'gauge', name: string, help: string) {
    this.family = new Family(name, MAX_SERIES);
    register(registry, name, help, type, () =>
      this.family.all().map(({ labels, cell }) => ({ labels, value: cell.value })),
    );
  }

  /** The series with these labels; always with the same label names in the same order. */
  cell(labels: Labels = {}): Cell {
    return this.family.find(labels, () => ({ value: 0 }));
  }
}

/** What a gauge says of one series. */
export interface Observation {
  labels: Labels;
  value: number;
}

/** A gauge whose series are looked up each time it is written. */
export function observe(registry: Registry, name: string, help: string, values: () => Observation[]): void {
  register(registry, name, help, 'gauge', () => values().slice(0, MAX_SERIES));
}

/** One series of a histogram. */
export class Distribution {
  readonly bounds: readonly number[];
  readonly counts: number[];
  sum = 0;
  count = 0;

  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.counts = new Array<number>(bounds.length).fill(0);
  }

  observe(value: number): void {
    this.sum += value;
    this.count += 1;
    const { bounds } = this;
    for (let i = 0; i < bounds.length; i += 1) {
      if (value <= bounds[i]!) {
        this.counts[i]! += 1;
        return;
      }
    }
  }
}

/** Where a histogram is written, and under which names of metric and labels. */
export interface HistogramName {
  name: string;
  help: string;
  /** Answers the labels as this name has them. */
  labels: (labels: Labels) => Labels;
}

/** A histogram by labels, written under one or more names: the data is kept once. */
export class Histogram {
  private readonly family: Family<Distribution>;
  private readonly bounds: readonly number[];

  constructor(registry: Registry, bounds: readonly number[], names: HistogramName[]) {
    this.family = new Family(names[0]?.name ?? '', MAX_HISTOGRAM_SERIES);
    this.bounds = bounds;
    for (const { name, help, labels } of names) {
      register(registry, name, help, 'histogram', () =>
        this.family.all().flatMap((series) => lines(name, labels(series.labels), series.cell)),
      );
    }
  }

  cell(labels: Labels): Distribution {
    return this.family.find(labels, () => new Distribution(this.bounds));
  }
}

function lines(name: string, labels: Labels, cell: Distribution): Written['values'] {
  let total = 0;
  const buckets = cell.bounds.map((bound, i) => {
    total += cell.counts[i]!;
    return { metricName: `${name}_bucket`, labels: { ...labels, le: String(bound) }, value: total };
  });
  return [
    ...buckets,
    { metricName: `${name}_bucket`, labels: { ...labels, le: '+Inf' }, value: cell.count },
    { metricName: `${name}_sum`, labels, value: cell.sum },
    { metricName: `${name}_count`, labels, value: cell.count },
  ];
}

function register(registry: Registry, name: string, help: string, type: string, values: () => Written['values']): void {
  const metric = {
    name,
    get: async (): Promise<Written> => ({ name, help, type, aggregator: 'sum', values: values() }),
    reset() {},
  };
  registry.registerMetric(metric as unknown as Parameters<Registry['registerMetric']>[0]);
}
