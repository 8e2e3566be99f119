/**
 * Counters, gauges and histograms for Prometheus. A name is registered once per
 * process. Values of labels come from closed lists, so that their number is
 * limited.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

export interface Metrics {
  counter<L extends string = never>(name: string, help: string, labels?: readonly L[]): CounterOf<L>;
  gauge<L extends string = never>(name: string, help: string, labels?: readonly L[]): GaugeOf<L>;
  histogram<L extends string = never>(
    name: string,
    help: string,
    buckets: readonly number[],
    labels?: readonly L[],
  ): HistogramOf<L>;
  /** `read` is called before each rendering, to set gauges. */
  onCollect(read: () => void): void;
  render(): Promise<{ readonly contentType: string; readonly text: string }>;
}

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
    gauge(name, help, labels = []) {
      const gauge = new Gauge({ name: prefix + name, help, labelNames: [...labels], registers: [registry] });
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
    async render() {
      for (const read of readers) read();
      return { contentType: registry.contentType, text: await registry.metrics() };
    },
  };
}
