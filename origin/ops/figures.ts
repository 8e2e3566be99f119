/**
 * The figures of the live page: what this origin has counted since its start, and what stands in the metadata, which all
 * origins share. Figures alone: no id, no name of an owner or of a file.
 */
import type { Clock, EpochMs } from '../../src/clock.js';
import { type History, type Measured, openHistory, perSecond, type Rows } from '../../src/history.js';
import type { MetaStore } from '../meta/store.js';
import { instantText } from '../respond/media-json.js';
import type { Counted, OriginTally } from './tally.js';

export interface FiguresDeps {
  readonly name: string;
  readonly startedAt: EpochMs;
  readonly tally: Pick<OriginTally, 'counted' | 'refusals'>;
  readonly meta: {
    readonly jobs: Pick<MetaStore['jobs'], 'counts' | 'nextReadyAt'>;
    readonly outbox: Pick<MetaStore['outbox'], 'counts'>;
    readonly origins: Pick<MetaStore['origins'], 'living'>;
  };
  readonly sendsEvents: boolean;
  /** Whether a token is configured, by which operators see and take down media. */
  readonly hasToken: boolean;
  readonly clock: Clock;
}

export interface OriginFigures {
  readonly origin: string;
  /** How many origins share the metadata. */
  readonly origins: number;
  readonly now: string;
  readonly started_at: string;
  readonly uploads: Omit<Counted, 'refused'>;
  readonly refusals: ReturnType<OriginTally['refusals']>;
  readonly thumbnails: Queue & { readonly in_hand: number };
  /** Null: no chat server is told. */
  readonly webhooks: Queue | null;
  readonly has_token: boolean;
  readonly history: Rows;
}

interface Queue {
  readonly waiting: number;
  readonly dead: number;
  /** How long the oldest that is due waits; null if none waits. */
  readonly oldest_ms: number | null;
}

export function openOriginHistory(tally: FiguresDeps['tally'], clock: Clock): History {
  const measured: Measured<Counted> = {
    read: () => tally.counted(),
    row: (now, before, seconds) => ({
      stored: perSecond(now.stored - before.stored, seconds),
      duplicates: perSecond(now.duplicates - before.duplicates, seconds),
      refused: perSecond(now.refused - before.refused, seconds),
      bytes: Math.round((now.bytes - before.bytes) / seconds),
    }),
  };
  return openHistory(measured, clock);
}

export async function readFigures(deps: FiguresDeps, history: Pick<History, 'seconds'>): Promise<OriginFigures> {
  const { meta, tally, clock } = deps;
  const now = clock.now();
  const [jobs, readyAt, events] = await Promise.all([
    meta.jobs.counts(),
    meta.jobs.nextReadyAt(),
    deps.sendsEvents ? meta.outbox.counts() : null,
  ]);
  const { stored, duplicates, bytes } = tally.counted();
  const waits = (since: EpochMs | null): number | null => (since === null ? null : Math.max(0, now - since));
  return {
    origin: deps.name,
    origins: meta.origins.living().length,
    now: instantText(now),
    started_at: instantText(deps.startedAt),
    uploads: { stored, duplicates, bytes },
    refusals: tally.refusals(),
    thumbnails: { waiting: jobs.waiting, in_hand: jobs.leased, dead: jobs.dead, oldest_ms: waits(readyAt) },
    webhooks:
      events === null ? null : { waiting: events.waiting, dead: events.dead, oldest_ms: waits(events.oldestSince) },
    has_token: deps.hasToken,
    history: history.seconds,
  };
}
