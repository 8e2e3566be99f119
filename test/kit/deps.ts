/** The dependencies that most components take, made for tests: log lines are kept, metrics can be read, sections have their defaults. */
import type { Section } from '../../src/config/field.js';
import { processContext } from '../../src/config/load.js';
import { createLog, type Log } from '../../src/log.js';
import { createMetrics, type Metrics } from '../../src/metrics.js';

export interface TestDeps {
  readonly log: Log;
  readonly metrics: Metrics;
  /** Every line logged so far. */
  readonly lines: readonly Readonly<Record<string, unknown>>[];
  /** The value of a sample by its name in the text format, such as `name_total{reason="left"}`, or 0. */
  readonly sample: (name: string) => Promise<number>;
}

export function testDeps(): TestDeps {
  const lines: Readonly<Record<string, unknown>>[] = [];
  const log = createLog(
    'test',
    { level: 'debug' },
    { write: (line) => void lines.push(JSON.parse(line) as Readonly<Record<string, unknown>>) },
  );
  const metrics = createMetrics('');
  return {
    log,
    metrics,
    lines,
    async sample(name) {
      const { text } = await metrics.render();
      const line = text.split('\n').find((each) => each.startsWith(`${name} `));
      return line === undefined ? 0 : Number(line.slice(name.length + 1));
    },
  };
}

/** A section with its defaults, except for the given values. */
export function configured<T extends object>(section: Section<T>, values: Partial<T> = {}): T {
  return { ...section.schema(processContext).parse({}), ...values };
}
