/** The live page of the edge: what it answers, how fast, from where, and why. */
import { createChart, type Line } from '../../../src/live/chart.js';
import { byId, element } from '../../../src/live/element.js';
import { followFigures, say, write } from '../../../src/live/figures.js';
import { bytes, count, milliseconds, percent, span } from '../../../src/live/format.js';
import { followSpan } from '../../../src/live/history.js';
import { openOperator } from '../../../src/live/operator.js';
import { fillTable } from '../../../src/live/table.js';
import type { Figures, Origin, Tier } from './figures.js';
import { openRequests } from './requests.js';

const NAMES: Readonly<Record<string, string>> = {
  hit_memory: 'Hit in memory',
  hit_disk: 'Hit on disk',
  hit_filling: 'Hit while it arrives',
  stale: 'Served stale',
  revalidated: 'Revalidated',
  miss: 'Miss',
  pass: 'Passed on',
  refused: 'Refused',
  failed: 'Failed',
  own: 'Health checks',
};

const requests = openRequests(openOperator(() => undefined));

const chart = (id: string, title: string, write: (value: number | null) => string, more = {}) =>
  createChart(byId(id, HTMLElement), { title, write, ...more });
const ratios = chart('ratio-chart', 'Hit ratio', percent, { top: 1 });
const rates = chart('rate-chart', 'Requests a second', count);
const times = chart('time-chart', 'Time to the first byte, 95 % of requests', milliseconds);
const tiers = chart('tier-chart', 'Bytes in the tiers', bytes, { sizes: true });

const drawHistory = followSpan(({ rows, every_ms: everyMs, kept }) => {
  const line = (name: string, key: string): Line => ({ name, values: rows.map((row) => row[key] ?? null) });
  const shown = { everyMs, kept };
  ratios.draw([line('of requests', 'hit_ratio'), line('of bytes', 'byte_hit_ratio')], shown);
  rates.draw([line('all', 'requests'), line('hits', 'hits'), line('asked the origin', 'misses')], shown);
  times.draw([line('hits', 'hit_p95_ms'), line('asked the origin', 'miss_p95_ms')], shown);
  tiers.draw([line('memory', 'memory_bytes'), line('disk', 'disk_bytes')], shown);
});

followFigures((told) => {
  const figures = told as Figures;
  const now = Date.parse(figures.now);
  document.title = `${figures.edge} · edge`;
  write({
    name: figures.edge,
    uptime: `up ${span(now - Date.parse(figures.started_at))}`,
    hit: percent(figures.requests.hit_ratio),
    'hit-bytes': percent(figures.requests.byte_hit_ratio),
    filling: count(figures.cache.filling),
    passing: count(figures.requests.passing),
    corrupt: count(figures.cache.corrupt),
    policy: `${span(now - Date.parse(figures.policy.read_at))} ago`,
    faults: figures.policy.faults.join('\n'),
  });
  showTier('memory', figures.cache.memory);
  showTier('disk', figures.cache.disk);
  showOutcomes(figures);
  showOrigin(figures);
  showJournal(figures);
  drawHistory(figures.history);
  requests.keepFresh(figures.journal !== null);
});

function showTier(name: 'memory' | 'disk', { used_bytes: used, capacity_bytes: capacity, ...tier }: Tier): void {
  const bar = byId(`${name}-bar`, HTMLProgressElement);
  bar.max = Math.max(1, capacity);
  bar.value = used;
  write({
    [`${name}-used`]: `${bytes(used)} of ${bytes(capacity)}, ${percent(used / Math.max(1, capacity))}`,
    [`${name}-entries`]: count(tier.entries),
    [`${name}-evictions`]: count(tier.evictions),
    [`${name}-refused`]: count(tier.refused),
  });
}

function showOutcomes({ requests: { outcomes, first_byte_ms: first } }: Figures): void {
  fillTable(
    'outcomes',
    Object.entries(outcomes).map(([name, each]) => [
      NAMES[name] ?? name,
      count(each.requests),
      bytes(each.bytes),
      milliseconds(first[name]?.p50 ?? null),
      milliseconds(first[name]?.p95 ?? null),
    ]),
    'Nothing yet.',
  );
}

const BREAKER = {
  closed: ['Breaker closed', 'good'],
  half_open: ['Breaker half open', 'warn'],
  open: ['Breaker open', 'bad'],
} as const;

function showOrigin({ upstream }: Figures): void {
  const [text, mood] = BREAKER[upstream.breaker];
  say('breaker', text, mood);
  write({
    'in-flight': count(upstream.in_flight),
    sent: count(upstream.requests),
    failures: count(upstream.failures),
  });
  const origins = byId('origins', HTMLUListElement);
  origins.hidden = upstream.origins.length < 2;
  origins.replaceChildren(...upstream.origins.map(originItem));
}

function originItem({ url, state, followed }: Origin): HTMLLIElement {
  const className = `pill ${{ up: 'good', unready: 'warn', down: 'bad' }[state]}`;
  return element('li', { className }, `${url.split('/')[2] ?? url} ${state}${followed ? ', followed' : ''}`);
}

const LEASES: Readonly<Record<string, string>> = { held: 'Current', lapsed: 'Cut off', new: 'Not yet current' };
const COPIES: Readonly<Record<string, string>> = { yes: 'served', revalidate: 'revalidated', refuse: 'refused' };

function showJournal({ journal, lease }: Figures): void {
  byId('journal', HTMLElement).hidden = journal === null;
  if (journal === null || lease === null) return;
  const mood = lease.state === 'held' ? 'good' : lease.may_serve === 'refuse' ? 'bad' : 'warn';
  say('lease', LEASES[lease.state] ?? lease.state, mood);
  write({
    may: COPIES[lease.may_serve] ?? lease.may_serve,
    ago: lease.current_ms_ago === null ? '–' : `${span(lease.current_ms_ago)} ago`,
    applied: `${count(journal.applied)} of ${count(journal.newest)}`,
    link: journal.link,
    purges: count(journal.purges),
  });
}
