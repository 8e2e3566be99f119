/** Dashboard and alert rules name metrics that both processes really have, by name and label. */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { parse } from 'yaml';
import { startEdge } from '../../kit/edge/media-edge.js';
import { sendRequest } from '../../kit/http/request.js';
import { startOrigin } from '../../kit/origin/origin.js';

const FOLDER = fileURLToPath(new URL('../../../../src/deploy/monitoring/', import.meta.url));
const read = (name: string): Promise<string> => readFile(`${FOLDER}${name}`, 'utf8');

/** What the test's process has only as a process by itself. */
const OF_PROCESSES = ['media_build_info'];

/** The metrics that an expression names. */
function named(text: string): readonly string[] {
  return text.match(/\bmedia_[a-z0-9_]+/g) ?? [];
}

/**
 * The metrics of an origin and of an edge. Both are closed before it returns: the folder of a test is removed before its
 * teardowns run, and an edge that was started a moment ago still writes into it.
 */
async function textsOf(t: Test): Promise<readonly string[]> {
  const origin = await startOrigin(t.testdir());
  try {
    const edge = await startEdge(`${origin.folder}/edge`, origin);
    try {
      return [(await sendRequest(`${origin.operators}/metrics`)).bytes.toString(), await edge.metrics()];
    } finally {
      await edge.close();
    }
  } finally {
    await origin.close();
  }
}

void t.test('every metric that the dashboard and the alerts name exists', async (t) => {
  const texts = await textsOf(t);
  const types = new Map(
    texts.flatMap((text) =>
      [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name = '', type = '']) => [name, type]),
    ),
  );
  const exists = (name: string): boolean => {
    const base = name.replace(/_(?:bucket|sum|count)$/, '');
    return types.has(name) || types.get(base) === 'histogram' || OF_PROCESSES.includes(name);
  };
  for (const file of ['dashboard.json', 'alerts.yaml']) {
    const names = new Set(named(await read(file)));
    t.ok(names.size > 10, file);
    for (const name of names) t.ok(exists(name), `${file}: ${name}`);
  }
  t.notOk(exists('media_no_such_metric'));
});

void t.test('no metric is there twice, and each has a help', async (t) => {
  for (const text of await textsOf(t)) {
    const helps = [...text.matchAll(/^# HELP (\S+) (.*)$/gm)];
    t.equal(new Set(helps.map(([, name]) => name)).size, helps.length);
    const meanings = helps
      .map(([, , help]) => help)
      .filter((help) => !/node|event loop|lag|heap|gc|process/i.test(help ?? ''));
    t.equal(new Set(meanings).size, meanings.length, 'none says the same as another');
  }
});

void t.test('the dashboard is one that Grafana can load', async (t) => {
  const { panels, uid } = JSON.parse(await read('dashboard.json')) as {
    readonly uid: string;
    readonly panels: readonly {
      readonly id: number;
      readonly type: string;
      readonly gridPos: { readonly x: number; readonly w: number };
      readonly targets?: readonly { readonly expr: string }[];
    }[];
  };
  t.equal(uid, 'media-service');
  t.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
  for (const { id, type, gridPos, targets } of panels) {
    t.ok(gridPos.x + gridPos.w <= 24, `panel ${id} is on the grid`);
    if (type === 'row') continue;
    t.ok((targets ?? []).length > 0);
    for (const { expr } of targets ?? []) t.match(expr, /instance=~"\$instance"/, expr);
  }
});

void t.test('each alert says what is wrong, and whom to wake', async (t) => {
  const { groups } = parse(await read('alerts.yaml')) as {
    readonly groups: readonly {
      readonly rules: readonly Readonly<Record<string, Readonly<Record<string, string>>>>[];
    }[];
  };
  for (const rule of groups.flatMap(({ rules }) => rules)) {
    t.match(rule['labels']?.['severity'], /^(?:page|ticket)$/);
    t.ok(rule['annotations']?.['summary']);
    t.ok(rule['annotations']?.['description']);
  }
});
