/**
 * What the edge says about single requests: the most frequent objects and misses, the slowest requests with their
 * reasons, takedowns, and why a request would be answered as it would. The edge counts them while somebody asks.
 */
import { byId } from '../../../src/live/element.js';
import { write } from '../../../src/live/figures.js';
import { bytes, count, instant, milliseconds } from '../../../src/live/format.js';
import type { Operator } from '../../../src/live/operator.js';
import { fillTable } from '../../../src/live/table.js';
import { showTakedowns, type Takedown } from '../../../src/live/takedowns.js';

export interface Requests {
  /** To be called about once a second. `media`: the edge follows a journal. */
  keepFresh(media: boolean): void;
}

interface Counted {
  readonly name: string;
  readonly requests: number;
  readonly bytes: number;
}

interface Request {
  readonly time: string;
  readonly method: string;
  readonly target: string;
  readonly status: number;
  readonly outcome: string;
  readonly reason?: string;
  readonly bytes: number;
  readonly first_byte_ms: number;
  readonly total_ms: number;
}

interface Top {
  readonly seconds: number;
  readonly requests: number;
  readonly lists: { readonly objects: readonly Counted[]; readonly misses: readonly Counted[] };
  readonly slowest: readonly Request[];
}

interface Explanation {
  readonly edge: string;
  readonly target: string;
  readonly says: readonly string[];
}

/** So many calls of `keepFresh` are one question. */
const ASK_EVERY = 3;
const SHOWN_MAX = 10;

export function openRequests(operator: Operator): Requests {
  openExplain(operator);
  let calls = 0;
  return {
    keepFresh(media) {
      if (calls % ASK_EVERY === 0) {
        void showTop(operator);
        if (media) void readTakedowns(operator);
      }
      calls += 1;
    },
  };
}

async function showTop(operator: Operator): Promise<void> {
  const { ok, told } = await operator.ask('GET', '/top');
  if (!ok) return;
  const { seconds, requests, lists, slowest } = told as unknown as Top;
  write({ watched: `Of ${count(requests)} requests in ${count(seconds)} s, counted while a page is open.` });
  const rows = (all: readonly Counted[]) =>
    all.slice(0, SHOWN_MAX).map((each) => [each.name, count(each.requests), bytes(each.bytes)]);
  fillTable('objects', rows(lists.objects), 'No requests yet.');
  fillTable('misses', rows(lists.misses), 'No misses yet.');
  fillTable(
    'slowest',
    slowest
      .slice(0, SHOWN_MAX)
      .map((each) => [
        `${each.method} ${each.target}`,
        milliseconds(each.first_byte_ms),
        milliseconds(each.total_ms),
        `${each.outcome}${each.reason === undefined || each.reason === '' ? '' : `, ${each.reason}`}`,
        String(each.status),
        bytes(each.bytes),
        instant(each.time),
      ]),
    'No requests yet.',
  );
}

async function readTakedowns(operator: Operator): Promise<void> {
  const { ok, told, trouble } = await operator.ask('GET', '/takedowns');
  const takedowns = ok ? ((told['takedowns'] ?? []) as readonly Takedown[]) : [];
  showTakedowns(
    takedowns,
    ok ? 'None since the edge was started.' : trouble,
    'applied here; no edge is behind this one',
  );
}

function openExplain(operator: Operator): void {
  byId('explain', HTMLFormElement).addEventListener('submit', (event) => {
    event.preventDefault();
    void explain(operator, byId('url', HTMLInputElement).value);
  });
}

async function explain(operator: Operator, url: string): Promise<void> {
  const { ok, told, trouble } = await operator.ask('POST', '/explain', { url });
  if (!ok) {
    write({ why: trouble });
    return;
  }
  const explanations = told['explanations'] as readonly Explanation[];
  const texts = explanations.map(({ target, edge, says }) => [`${target} at ${edge}`, ...says].join('\n'));
  write({ why: texts.join('\n\n') });
}
