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
  /** `read` is called before each rendering, to set gauges. */
  onCollect(read: () => void): void;
  /** All values, as plain data for another process. */
  snapshot(): Promise<MetricsSnapshot>;
  render(): Promise<Rendered>;
}

export interface Rendered {
  readonly contentType: string;
  readonly text: string;
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
  const readers: (() => void)[] = [];
  collectDefaultMetrics({ register: registry, prefix });
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
    onCollect: (read) => void readers.push(read),
    async snapshot() {
      for (const read of readers) read();
      return await registry.getMetricsAsJSON();
    },
    async render() {
      for (const read of readers) read();
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
