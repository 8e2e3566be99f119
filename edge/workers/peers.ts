/**
 * The way of a worker to the origin: a target that another worker owns is fetched from that worker, over its socket, as
 * an edge fetches from the edge before it. Where that worker is away, behind in the journal, or too busy, the origin is
 * asked.
 */
import { join } from 'node:path';
import type { Clock } from '../../src/clock.js';
import type { JournalPosition } from '../../src/journal/entry.js';
import { writePosition } from '../../src/journal/position-field.js';
import type { Metrics } from '../../src/metrics.js';
import { MEDIA_POSITION } from '../../src/wire.js';
import type { UpstreamConfig } from '../upstream/config.js';
import { type OriginPool, openPool, type PoolLimits } from '../upstream/pool.js';
import type { UpstreamOutcome, UpstreamRequest } from '../upstream/request.js';
import type { Upstream } from '../upstream/upstream.js';
import { ownerOf, type Place } from './share.js';

export interface Peers {
  /** The same way for everything that is stored. Requests of the edge itself go to the origin. */
  route(origin: Upstream, positionNow: () => JournalPosition | null | undefined): Upstream;
  close(): Promise<void>;
}

export interface PeersDeps {
  readonly place: Place;
  /** The folder of the workers' sockets. */
  readonly folder: string;
  readonly config: UpstreamConfig;
  readonly limits: PoolLimits;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

export function socketOf(folder: string, number: number): string {
  return join(folder, `${number}.sock`);
}

export function openPeers({ place, folder, config, limits, clock, metrics }: PeersDeps): Peers {
  const pools = new Map<number, OriginPool>();
  for (let number = 1; number <= place.of; number += 1) {
    if (number === place.number) continue;
    const way = { socketPath: socketOf(folder, number) };
    pools.set(number, openPool({ ...config, url: PEER_URL }, way, limits, clock));
  }
  const asked = metrics.counter('edge_worker_fetches_total', 'Fetches from the worker that owns a target.', [
    'outcome',
  ]);
  return {
    route: (origin, positionNow) => ({
      ...origin,
      async fetch(request, signal) {
        const owner = pools.get(ownerOf(request.target, place.of));
        const sent = owner === undefined ? undefined : withPosition(request, positionNow());
        if (owner === undefined || sent === undefined) return await origin.fetch(request, signal);
        const outcome = await owner.send(sent, signal);
        const usable = isUsable(outcome) || signal.aborted;
        asked.add(1, { outcome: usable ? 'answered' : 'origin_asked' });
        if (usable) return outcome;
        if (outcome.kind === 'answered') outcome.body.destroy();
        return await origin.fetch(request, signal);
      },
      get tlsTrouble() {
        return origin.tlsTrouble;
      },
    }),
    async close() {
      await Promise.all([...pools.values()].map((pool) => pool.close()));
    },
  };
}

/** Never looked up: the socket is named beside it. */
const PEER_URL = 'http://worker.invalid';

/** Null: there is no journal. Undefined: this worker does not know how far it is, and only the origin will do. */
function withPosition(
  request: UpstreamRequest,
  position: JournalPosition | null | undefined,
): UpstreamRequest | undefined {
  if (position === undefined) return undefined;
  if (position === null) return request;
  return { ...request, headers: [...request.headers, [MEDIA_POSITION, writePosition(position)]] };
}

/** 421: it is behind in the journal (fence.ts). 503: it has too much to do, or is cut off. */
function isUsable(outcome: UpstreamOutcome): boolean {
  return outcome.kind === 'answered' && outcome.status !== 421 && outcome.status !== 503;
}
