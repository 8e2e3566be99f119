/**
 * What requests come to, for Prometheus: by route, method, status and outcome;
 * by kind of content; how long they take; and why the origin was asked. A
 * request costs a few additions: totals are read when they are collected.
 */

import { headerOf } from '../../src/http/reply.js';
import { ROUTES, routeOf } from '../../src/logs/route.js';
import { Durations, type Metrics } from '../../src/metrics.js';
import type { Entry } from '../entry.js';
import { type EdgeRequest, type Exchanged, MISS_REASONS, OUTCOMES, type Outcome } from '../request.js';

export interface Traffic {
  note(request: Pick<EdgeRequest, 'method' | 'path'>, ended: Exchanged): void;
  /** How long it took until there was an answer to send. */
  firstByte(): FirstByte;
}

/** By outcome, the counts of `Durations`. */
export type FirstByte = Readonly<Record<Outcome, readonly number[]>>;

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'other'] as const;
const KINDS = ['image', 'video', 'audio', 'thumbnail', 'file', 'none'] as const;
type Kind = (typeof KINDS)[number];

/** Statuses below it have a counter each; 0 stands for no answer. */
const STATUSES = 600;

export function createTraffic(metrics: Metrics): Traffic {
  const requests = new Float64Array(ROUTES.length * METHODS.length * OUTCOMES.length * STATUSES);
  const answers = new Float64Array(OUTCOMES.length * KINDS.length);
  const bytes = new Float64Array(OUTCOMES.length * KINDS.length);
  const misses = new Float64Array(MISS_REASONS.length);
  const first = OUTCOMES.map(() => new Durations());
  const whole = OUTCOMES.map(() => new Durations());
  register(metrics, { requests, answers, bytes, misses, first, whole });
  return {
    note({ method, path }, { outcome, answer, status, sentBytes, tookMs, decidedMs }) {
      const ended = OUTCOME_NUMBER[outcome];
      const where = ROUTE_NUMBER[routeOf(path)] * METHODS.length + methodNumber(method);
      raise(requests, (where * OUTCOMES.length + ended) * STATUSES + (status < STATUSES ? status : 0), 1);
      const reply = answer?.kind === 'reply' ? answer : undefined;
      const kind = ended * KINDS.length + KIND_NUMBER[kindOf(reply?.entry)];
      raise(answers, kind, 1);
      raise(bytes, kind, sentBytes);
      first[ended]?.add(decidedMs);
      whole[ended]?.add(tookMs);
      if (ASKED[outcome] && reply?.reason !== undefined) {
        const reason = (MISS_REASONS as readonly string[]).indexOf(reply.reason);
        if (reason >= 0) raise(misses, reason, 1);
      }
    },
    firstByte: () =>
      Object.fromEntries(OUTCOMES.map((outcome, at) => [outcome, first[at]?.counts() ?? []])) as FirstByte,
  };
}

/** By outcome: whether the origin was asked before the answer. */
const ASKED: Readonly<Record<Outcome, boolean>> = {
  hit_memory: false,
  hit_disk: false,
  hit_filling: true,
  stale: false,
  revalidated: true,
  miss: true,
  pass: false,
  refused: false,
  failed: true,
  own: false,
};

const OUTCOME_NUMBER = numbered(OUTCOMES);
const ROUTE_NUMBER = numbered(ROUTES);
const KIND_NUMBER = numbered(KINDS);

function numbered<N extends string>(names: readonly N[]): Readonly<Record<N, number>> {
  return Object.fromEntries(names.map((name, index) => [name, index])) as Record<N, number>;
}

function raise(totals: Float64Array, at: number, by: number): void {
  totals[at] = (totals[at] ?? 0) + by;
}

const MEDIA_LENGTH = '/v1/media/'.length;
const ID_LENGTH = 26;

function methodNumber(method: string): number {
  if (method === 'GET') return 0;
  const found = (METHODS as readonly string[]).indexOf(method);
  return found < 0 ? METHODS.length - 1 : found;
}

/** Of the content that an answer shows; `none` if it shows no response of the cache. */
export function kindOf(entry: Pick<Entry, 'headers' | 'mediaId' | 'primaryKey'> | undefined): Kind {
  if (entry === undefined) return 'none';
  // A comparison in place: pathKindOf would make a text for each request.
  if (entry.mediaId !== null && entry.primaryKey.startsWith('/thumb', MEDIA_LENGTH + ID_LENGTH)) return 'thumbnail';
  const type = headerOf(entry.headers, 'content-type') ?? '';
  if (type.startsWith('image/')) return 'image';
  if (type.startsWith('video/')) return 'video';
  return type.startsWith('audio/') ? 'audio' : 'file';
}

interface Totals {
  readonly requests: Float64Array;
  readonly answers: Float64Array;
  readonly bytes: Float64Array;
  readonly misses: Float64Array;
  readonly first: readonly Durations[];
  readonly whole: readonly Durations[];
}

function register(metrics: Metrics, { requests, answers, bytes, misses, first, whole }: Totals): void {
  metrics.totals(
    'edge_requests_total',
    'Requests that ended, by route, method, status (0: the client left before an answer) and outcome.',
    () =>
      counted(requests).map(({ at, value }) => {
        const [rest, status] = divide(at, STATUSES);
        const [where, outcome] = divide(rest, OUTCOMES.length);
        const [route, method] = divide(where, METHODS.length);
        return {
          labels: {
            route: ROUTES[route] ?? '',
            method: METHODS[method] ?? '',
            status: String(status),
            outcome: OUTCOMES[outcome] ?? '',
          },
          value,
        };
      }),
  );
  const byKind = (totals: Float64Array) => () =>
    counted(totals).map(({ at, value }) => {
      const [outcome, kind] = divide(at, KINDS.length);
      return { labels: { outcome: OUTCOMES[outcome] ?? '', kind: KINDS[kind] ?? '' }, value };
    });
  metrics.totals('edge_answers_total', 'Answers, by outcome and kind of content.', byKind(answers));
  metrics.totals('edge_sent_bytes_total', 'Bytes sent to clients, by outcome and kind of content.', byKind(bytes));
  metrics.totals('edge_misses_total', 'Requests for which the origin was asked, by the reason.', () =>
    MISS_REASONS.map((reason, at) => ({ labels: { reason }, value: misses[at] ?? 0 })),
  );
  const byOutcome = (all: readonly Durations[]) => () =>
    all.map((durations, at) => ({ labels: { outcome: OUTCOMES[at] ?? '' }, durations }));
  metrics.durations('edge_first_byte_seconds', 'Time until there was an answer to send.', byOutcome(first));
  metrics.durations('edge_request_seconds', 'Time until the answer had left.', byOutcome(whole));
}

function divide(at: number, by: number): readonly [number, number] {
  return [Math.floor(at / by), at % by];
}

/** Those that are not 0. */
function counted(totals: Float64Array): { at: number; value: number }[] {
  const found: { at: number; value: number }[] = [];
  totals.forEach((value, at) => {
    if (value !== 0) found.push({ at, value });
  });
  return found;
}
