/** What every part of a process is handed, made for looking at: logs kept, metrics readable, sections at their defaults. */
import type { Section } from '../../src/config/field.js';
import { processContext } from '../../src/config/load.js';
import { createLog, type Log } from '../../src/log.js';
import { createMetrics, type Metrics } from '../../src/metrics.js';

export interface TestDeps {
  readonly log: Log;
  readonly metrics: Metrics;
  /** Every line logged so far. */
  readonly lines: readonly Readonly<Record<string, unknown>>[];
  /** The value of a sample as it stands in the rendering, such as `name_total{reason="left"}`; 0 where there is none. */
  readonly sample: (name: string) => Promise<number>;
}

export function testDeps(): TestDeps {
  const lines: Readonly<Record<string, unknown>>[] = [];
  const log = createLog(
    'test',
    { level: 'debug', requests: 'none' },
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

/** A section as an empty file gives it, with some values in place of the defaults. */
export function configured<T extends object>(section: Section<T>, values: Partial<T> = {}): T {
  return { ...section.schema(processContext).parse({}), ...values };
}
