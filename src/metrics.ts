/**
 * Counters, gauges and histograms for Prometheus. A name is registered once per
 * process. Values of labels come from closed lists, so that their number is
 * limited.
 */
import {
  AggregatorRegistry,
  Counter,
  collectDefaultMetrics,
  Gauge,
  Histogram,
  type Metric,
  type MetricObjectWithValues,
  type MetricValue,
  Registry,
} from 'prom-client';

export interface Metrics {
  counter<L extends string = never>(name: string, help: string, labels?: readonly L[]): CounterOf<L>;
  /** `across`: what several processes have together. */
  gauge<L extends string = never>(name: string, help: string, labels?: readonly L[], across?: Across): GaugeOf<L>;
  histogram<L extends string = never>(
    name: string,
    help: string,
    buckets: readonly number[],
    labels?: readonly L[],
  ): HistogramOf<L>;
  /** A counter whose totals are kept elsewhere, and read before each rendering. */
  totals(name: string, help: string, read: () => Iterable<Total>): void;
  /** A histogram whose buckets are counted elsewhere (`Durations`). */
  durations(name: string, help: string, read: () => Iterable<LabelledDurations>): void;
  /** `read` is called before each rendering, to set gauges. What it rejects with is dropped: the gauges stay. */
  onCollect(read: () => void | Promise<void>): void;
  /** All values, as plain data for another process. */
  snapshot(): Promise<MetricsSnapshot>;
  render(): Promise<Rendered>;
}

export interface Rendered {
  readonly contentType: string;
  readonly text: string;
}

export interface Total {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface LabelledDurations {
  readonly labels: Readonly<Record<string, string>>;
  readonly durations: Durations;
}

/** The upper bounds of the buckets, in seconds. */
const DURATION_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30] as const;
const DURATION_BUCKETS_MS = DURATION_BUCKETS.map((seconds) => seconds * 1_000);

/** Counts durations in buckets, with a few comparisons and nothing allocated for each. */
export class Durations {
  readonly #counts = new Float64Array(DURATION_BUCKETS.length + 1);
  #sumMs = 0;

  add(ms: number): void {
    let bucket = 0;
    while (bucket < DURATION_BUCKETS_MS.length && ms > (DURATION_BUCKETS_MS[bucket] ?? 0)) bucket += 1;
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#sumMs += ms;
  }

  get sumSeconds(): number {
    return this.#sumMs / 1_000;
  }

  /** How many fell into each bucket; the last one is for those longer than every bound. */
  counts(): readonly number[] {
    return [...this.#counts];
  }

  /** How many were not longer than each bound; the last is all of them. */
  cumulative(): readonly (readonly [bound: string, count: number])[] {
    let count = 0;
    return [...this.#counts].map((each, index) => {
      count += each;
      const bound = DURATION_BUCKETS[index];
      return [bound === undefined ? '+Inf' : String(bound), count] as const;
    });
  }
}

/**
 * The time within which this share of durations stayed, in milliseconds, between the bounds of its bucket; null for
 * none. `counts`: as of `Durations`.
 */
export function quantileMs(counts: readonly number[], share: number): number | null {
  const all = counts.reduce((sum, count) => sum + count, 0);
  let wanted = all * share;
  for (const [bucket, count] of counts.entries()) {
    if (count > 0 && wanted <= count) {
      const from = DURATION_BUCKETS_MS[bucket - 1] ?? 0;
      const to = DURATION_BUCKETS_MS[bucket] ?? from;
      return Math.round((from + ((to - from) * wanted) / count) * 10) / 10;
    }
    wanted -= count;
  }
  return null;
}

/** Made and read in this file alone. */
export type MetricsSnapshot = readonly MetricObjectWithValues<MetricValue<string>>[];

export type Across = 'sum' | 'min' | 'max';

type Labels<L extends string> = Partial<Record<L, string>>;

export interface CounterOf<L extends string> {
  add(amount?: number, labels?: Labels<L>): void;
}
export interface GaugeOf<L extends string> {
  set(value: number, labels?: Labels<L>): void;
}
export interface HistogramOf<L extends string> {
  observe(value: number, labels?: Labels<L>): void;
}

export function createMetrics(prefix: string): Metrics {
  const registry = new Registry();
  const readers: (() => void | Promise<void>)[] = [];
  const readAll = async (): Promise<void> => {
    await Promise.allSettled(readers.map(async (read) => await read()));
  };
  /** The library takes any object that has these members. */
  const register = (
    name: string,
    help: string,
    type: 'counter' | 'histogram',
    values: () => readonly object[],
  ): void => {
    const metric = {
      name: prefix + name,
      help,
      type,
      aggregator: 'sum',
      get: async () => ({ name: prefix + name, help, type, aggregator: 'sum', values: values() }),
      reset: () => undefined,
    };
    registry.registerMetric(metric as unknown as Metric);
  };
  collectDefaultMetrics({ register: registry, prefix });
  // Gauges whose names end like those of counters. The same by kind stands beside them.
  for (const of of ['handles', 'requests', 'resources']) {
    registry.removeSingleMetric(`${prefix}nodejs_active_${of}_total`);
  }
  return {
    counter(name, help, labels = []) {
      const counter = new Counter({ name: prefix + name, help, labelNames: [...labels], registers: [registry] });
      return { add: (amount = 1, given = {}) => counter.inc(given, amount) };
    },
    gauge(name, help, labels = [], across = 'sum') {
      const gauge = new Gauge({
        name: prefix + name,
        help,
        labelNames: [...labels],
        registers: [registry],
        aggregator: across,
      });
      return { set: (value, given = {}) => gauge.set(given, value) };
    },
    histogram(name, help, buckets, labels = []) {
      const histogram = new Histogram({
        name: prefix + name,
        help,
        buckets: [...buckets],
        labelNames: [...labels],
        registers: [registry],
      });
      return { observe: (value, given = {}) => histogram.observe(given, value) };
    },
    totals: (name, help, read) =>
      register(name, help, 'counter', () => [...read()].map(({ labels, value }) => ({ labels, value }))),
    durations(name, help, read) {
      const full = prefix + name;
      register(name, help, 'histogram', () =>
        [...read()].flatMap(({ labels, durations }) => {
          const cumulative = durations.cumulative();
          return [
            ...cumulative.map(([le, value]) => ({ metricName: `${full}_bucket`, labels: { le, ...labels }, value })),
            { metricName: `${full}_sum`, labels, value: durations.sumSeconds },
            { metricName: `${full}_count`, labels, value: cumulative.at(-1)?.[1] ?? 0 },
          ];
        }),
      );
    },
    onCollect: (read) => void readers.push(read),
    async snapshot() {
      await readAll();
      return await registry.getMetricsAsJSON();
    },
    async render() {
      await readAll();
      return { contentType: registry.contentType, text: await registry.metrics() };
    },
  };
}

/** The metrics of several processes as those of one. */
export async function renderTogether(snapshots: readonly MetricsSnapshot[]): Promise<Rendered> {
  // The library's type asks for the metrics themselves, and its code for what they have become as JSON.
  const together = AggregatorRegistry.aggregate(snapshots.map((each) => [...each]));
  return { contentType: together.contentType, text: await together.metrics() };
}
