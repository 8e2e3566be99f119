/**
 * What requests come to while an operator watches: the last of them one by one,
 * and which objects, misses, clients and reasons are the most frequent.
 *
 * Promises: nothing is kept unless somebody has asked within the last minute, so
 * that a request costs one comparison otherwise; no token and no signature is
 * kept; everything has a limit.
 */
import type { Clock, Timer } from '../../src/clock.js';
import { type RequestFields, requestFields } from '../../src/logs/request-line.js';
import { redactText } from '../../src/redact.js';
import type { Entry } from '../entry.js';
import type { Rule } from '../fetch/rules.js';
import type { EdgeRequest, Exchanged, Outcome } from '../request.js';
import { createRuleOf, endingOf } from '../server/request-log.js';

/** One ended request, by the names that the log has. */
export interface WatchedRequest extends RequestFields {
  /** Counts the requests that were watched, from 1. */
  readonly seq: number;
  readonly time: string;
  /** The media of the answer. */
  readonly media?: string;
}

export interface LogFilter {
  readonly outcome?: string | undefined;
  readonly rule?: number | undefined;
  readonly id?: string | undefined;
  readonly status?: number | undefined;
}

export interface LogPage {
  readonly requests: readonly WatchedRequest[];
  /** To be given as `after` next. */
  readonly last: number;
  /** Requests that were no longer kept when they were asked for. */
  readonly skipped: number;
}

export const TOP_LISTS = ['objects', 'misses', 'clients', 'reasons', 'refreshing'] as const;
export type TopList = (typeof TOP_LISTS)[number];

export interface Counted {
  readonly name: string;
  readonly requests: number;
  readonly bytes: number;
}

export interface Top {
  /** How long the counts cover, at most a minute after the last question. */
  readonly seconds: number;
  readonly requests: number;
  readonly lists: Readonly<Record<TopList, readonly Counted[]>>;
  /** Of the requests that are kept, those that waited longest for an answer. */
  readonly slowest: readonly WatchedRequest[];
}

export interface Watch {
  /** Whether anybody watches. */
  readonly active: boolean;
  note(request: EdgeRequest, ended: Exchanged): void;
  /** The requests after the one that is numbered `after`, the oldest first. */
  log(after: number, filter: LogFilter): LogPage;
  top(): Top;
  close(): void;
}

export interface WatchDeps {
  readonly keptMax: number;
  rules(): readonly Rule[];
  readonly clock: Clock;
}

/** Watching ends so long after the last question. */
const WATCHED_MS = 60_000;
const LISTED_MAX = 50;
const SLOWEST_MAX = 20;

export function createWatch(deps: WatchDeps): Watch {
  const { keptMax, clock } = deps;
  const kept: WatchedRequest[] = [];
  const ruleOf = createRuleOf();
  let lists = newLists(keptMax);
  let active = false;
  let sinceMs = 0;
  let seq = 0;
  let counted = 0;
  let timer: Timer | undefined;

  function keepWatching(): void {
    timer?.cancel();
    timer = clock.after(WATCHED_MS, stop);
    if (active) return;
    active = true;
    sinceMs = clock.monotonicMs();
  }

  function stop(): void {
    timer?.cancel();
    timer = undefined;
    active = false;
    kept.length = 0;
    lists = newLists(keptMax);
    counted = 0;
  }

  return {
    get active() {
      return active;
    },
    note(request, ended) {
      seq += 1;
      counted += 1;
      const line = watched(request, ended, (entry) => ruleOf(deps.rules(), entry), seq, clock);
      kept[seq % keptMax] = line;
      for (const name of TOP_LISTS) {
        const item = itemOf(name, line);
        if (item !== undefined) lists[name].count(item, line.bytes);
      }
    },
    log(after, filter) {
      const first = active ? Math.max(after, seq - keptMax, seq - counted) : seq;
      keepWatching();
      const requests: WatchedRequest[] = [];
      for (let each = first + 1; each <= seq; each += 1) {
        const line = kept[each % keptMax];
        if (line !== undefined && suits(line, filter)) requests.push(line);
      }
      return { requests, last: seq, skipped: after === 0 ? 0 : first - after };
    },
    top() {
      keepWatching();
      const named = TOP_LISTS.map((name) => [name, lists[name].largest(LISTED_MAX)] as const);
      return {
        seconds: Math.round((clock.monotonicMs() - sinceMs) / 1_000),
        requests: counted,
        lists: Object.fromEntries(named) as unknown as Top['lists'],
        slowest: slowestOf(kept),
      };
    },
    close: stop,
  };
}

function watched(
  request: EdgeRequest,
  ended: Exchanged,
  ruleOf: (entry: Entry) => number,
  seq: number,
  clock: Clock,
): WatchedRequest {
  const { answer } = ended;
  const media = answer?.kind === 'reply' ? answer.mediaId : null;
  return {
    seq,
    time: new Date(clock.now()).toISOString(),
    ...requestFields(request, endingOf(ended, ruleOf)),
    ...(media !== null && { media }),
  };
}

function suits(line: WatchedRequest, { outcome, rule, id, status }: LogFilter): boolean {
  return (
    (outcome === undefined || line.outcome === outcome) &&
    (rule === undefined || (line.rule ?? 0) === rule) &&
    (status === undefined || line.status === status) &&
    (id === undefined || line.media === id.toUpperCase() || line.target.toUpperCase().includes(id.toUpperCase()))
  );
}

/** Outcomes for which the origin was asked. */
const ASKED: ReadonlySet<string> = new Set<Outcome>(['miss', 'hit_filling', 'revalidated', 'failed']);

/** What a request counts for in a list. Undefined: nothing. */
function itemOf(list: TopList, line: WatchedRequest): string | undefined {
  const { outcome, target, address, reason = '' } = line;
  switch (list) {
    case 'objects':
      return outcome === 'own' ? undefined : pathOf(target);
    case 'misses':
      return outcome === 'miss' || outcome === 'failed' ? `${pathOf(target)} ${reason}` : undefined;
    case 'clients':
      return address;
    case 'reasons':
      return reason === '' ? outcome : `${outcome} ${reason}`;
    case 'refreshing':
      return ASKED.has(outcome) && (outcome === 'revalidated' || reason === 'expired') ? pathOf(target) : undefined;
  }
}

/** The size of a thumbnail is in the query; what else is there would split an object into many. */
function pathOf(target: string): string {
  const [path = '', query = ''] = target.split(/\?(.*)/s);
  const sizes = query.split('&').filter((each) => /^[wh]=\d+$/.test(each));
  return redactText(sizes.length === 0 ? path : `${path}?${sizes.join('&')}`);
}

/**
 * Counts the most frequent names in limited memory (lossy counting): when there
 * are too many names, all counts are halved and those that come to nothing go.
 */
class Frequencies {
  readonly #namesMax: number;
  #counts = new Map<string, { requests: number; bytes: number }>();

  constructor(namesMax: number) {
    this.#namesMax = namesMax;
  }

  count(name: string, bytes: number): void {
    const found = this.#counts.get(name);
    if (found !== undefined) {
      found.requests += 1;
      found.bytes += bytes;
      return;
    }
    if (this.#counts.size >= this.#namesMax) this.#halve();
    this.#counts.set(name, { requests: 1, bytes });
  }

  largest(max: number): readonly Counted[] {
    const all = [...this.#counts].map(([name, count]) => ({ name, ...count }));
    return all.sort((one, other) => other.requests - one.requests || other.bytes - one.bytes).slice(0, max);
  }

  #halve(): void {
    for (const [name, count] of this.#counts) {
      count.requests = Math.floor(count.requests / 2);
      count.bytes = Math.floor(count.bytes / 2);
      if (count.requests === 0) this.#counts.delete(name);
    }
    // All names were equally frequent: the older half goes.
    for (const name of this.#counts.keys()) {
      if (this.#counts.size <= this.#namesMax / 2) break;
      this.#counts.delete(name);
    }
  }
}

function newLists(namesMax: number): Record<TopList, Frequencies> {
  const named = TOP_LISTS.map((name) => [name, new Frequencies(namesMax)] as const);
  return Object.fromEntries(named) as Record<TopList, Frequencies>;
}

/** The counts of several workers as those of one edge. */
export function sumOfTops(all: readonly Top[]): Top {
  const named = TOP_LISTS.map((name) => {
    const sums = new Map<string, Counted>();
    for (const counted of all.flatMap(({ lists }) => lists[name])) {
      const before = sums.get(counted.name);
      const requests = counted.requests + (before?.requests ?? 0);
      sums.set(counted.name, { name: counted.name, requests, bytes: counted.bytes + (before?.bytes ?? 0) });
    }
    const largest = [...sums.values()].sort((one, other) => other.requests - one.requests).slice(0, LISTED_MAX);
    return [name, largest] as const;
  });
  return {
    seconds: Math.max(0, ...all.map(({ seconds }) => seconds)),
    requests: all.reduce((sum, { requests }) => sum + requests, 0),
    lists: Object.fromEntries(named) as unknown as Top['lists'],
    slowest: slowestOf(all.flatMap(({ slowest }) => slowest)),
  };
}

function slowestOf(requests: readonly WatchedRequest[]): readonly WatchedRequest[] {
  // The place of the first request is empty until it is used again.
  const known = requests.filter((request) => request !== undefined);
  return known.sort((one, other) => other.first_byte_ms - one.first_byte_ms).slice(0, SLOWEST_MAX);
}
