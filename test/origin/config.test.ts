/** Combinations of keys of the origin that are allowed and defeat what was wished. */
import t from 'tap';
import { originSection, originWarnings } from '../../origin/config.js';
import { parseConfig } from '../../src/config/load.js';

const MEMORY_BYTES = 4e9;

function warned(...lines: readonly string[]): readonly string[] {
  const read = parseConfig(['origin:', ...lines.map((line) => `  ${line}`)].join('\n'), { origin: originSection });
  if (read.kind === 'faulty') throw new Error(JSON.stringify(read.faults));
  return originWarnings(read.config.origin, MEMORY_BYTES).map(({ path, message }) => `${path}: ${message}`);
}

void t.test('a combination that defeats a wish is warned of with both keys, and its neighbour is not', async (t) => {
  const cases: readonly (readonly [lines: readonly string[], warnings: readonly RegExp[]])[] = [
    [[], []],
    [['retention: { rules: [{ types: ["video/*"], keep: 1d }, { keep: 2d }] }'], []],
    [['retention: { rules: [{ keep: 1d }, { visibility: public, keep: 2d }] }'], [/rules\.1: covers nothing: rule 1/]],
    [['retention: { rules: [{ visibility: public, keep: 1d }, { keep: 2d }] }'], []],
    [['retention: { rules: [{ min_size: 1KB, keep: 1d }, { keep: 2d }, { keep: 3d }] }'], [/rules\.2: .* rule 2/]],
    [['retention: { rules: [{ types: [image/png, "*/*"], keep: 1d }, { keep: 2d }] }'], [/rules\.1/]],
    [['upload: { size_max: 20MB }', 'quota: { total: 10MB }'], [/size_max: .*`quota\.total` is 10MB/]],
    [['upload: { size_max: 10MB }', 'quota: { total: 10MB }'], []],
    [['upload: { size_max: 20MB }', 'quota: { total: 0 }'], []],
    [['thumbs: { children: { count: 4, memory_max: 1GB } }'], []],
    [['thumbs: { children: { count: 5, memory_max: 1GB } }'], [/memory_max: .*count` of them may take 5GB.* 4GB/]],
    [['thumbs: { enabled: false, children: { count: 5, memory_max: 1GB } }'], []],
    [['listen: { host: 0.0.0.0 }'], [/base_uri: .*`listen\.host` is 0\.0\.0\.0/]],
    [['listen: { host: 0.0.0.0 }', 'base_uri: "http://[::1]:8080"'], [/base_uri/]],
    [['listen: { host: 0.0.0.0 }', 'base_uri: https://media.example'], []],
  ];
  for (const [lines, wanted] of cases) {
    const found = warned(...lines);
    t.equal(found.length, wanted.length, `${lines.join(', ')}: ${found.join(', ')}`);
    for (const [index, pattern] of wanted.entries()) t.match(found[index], pattern);
  }
});
