/** Combinations of keys that are allowed and defeat what was wished. */
import t from 'tap';
import { edgeSection } from '../../edge/config.js';
import { edgeWarnings } from '../../edge/warnings.js';
import { parseConfig } from '../../src/config/load.js';

const MACHINE = { memoryBytes: 1e9, diskBytes: () => 50e9 };

function warned(...lines: readonly string[]): readonly string[] {
  const read = parseConfig(['edge:', ...lines.map((line) => `  ${line}`)].join('\n'), { edge: edgeSection });
  if (read.kind === 'faulty') throw new Error(JSON.stringify(read.faults));
  return edgeWarnings(read.config.edge, MACHINE).map(({ path }) => path);
}

void t.test('tiers that are larger than the machine are warned of', async (t) => {
  t.same(warned(), []);
  t.same(warned('cache: { memory: { size: 2GB } }'), ['edge.cache.memory.size']);
  t.same(warned('cache: { memory: { size: 950MB } }'), ['edge.cache.memory.size'], 'with what lies beside it');
  t.same(warned('cache: { disk: { size: 60GB } }'), ['edge.cache.disk.size']);
  t.same(warned('cache: { disk: { size: 40GB } }'), []);
  t.same(warned('cache: { memory: { size: 0 }, disk: { size: 0 } }'), ['edge.cache']);
});

void t.test('a rule that can never decide is warned of', async (t) => {
  t.same(warned('rules: [{ path: thumb, ttl: 1h }, { ttl: 2h }]'), []);
  t.same(warned('rules: [{ ttl: 1h }, { path: thumb }, { type: "image/*" }]'), ['edge.rules.1', 'edge.rules.2']);
});
