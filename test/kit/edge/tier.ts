/**
 * The journal's part of an edge, over real sockets: it follows the journal of another one and tells it to the edges
 * behind it. The test moves the clock, and decides when a takedown is applied.
 */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type Behind, type BehindConfig, behindSection, createBehind } from '../../../edge/journal/behind.js';
import { journalSection } from '../../../edge/journal/config.js';
import { type Follower, followJournal } from '../../../edge/journal/follow.js';
import type { LeaseConfig } from '../../../edge/journal/lease.js';
import { faultOf } from '../../../src/errors.js';
import { problemReply } from '../../../src/http/problem.js';
import { openKnownEdges } from '../../../src/journal/known-edges.js';
import { send } from '../../../src/server/send.js';
import type { ManualClock } from '../clock.js';
import { configured, testDeps } from '../deps.js';
import { BEAT_MS, openHttp, PROOF } from '../origin/journal-origin.js';
import { ownPort } from '../ports.js';
import { StoredIds } from './stored-ids.js';

export interface Tier {
  readonly name: string;
  readonly port: number;
  readonly cache: StoredIds;
  readonly follower: Follower;
  readonly behind: Behind;
  /** Ends it as a process that dies: nothing is said to anybody. */
  stop(): Promise<void>;
}

export interface TierOptions {
  readonly name: string;
  /** The port of the origin or of the edge before it. */
  readonly before: () => number;
  readonly folder: string;
  readonly clock: ManualClock;
  readonly port?: number;
  readonly lease?: Partial<LeaseConfig>;
  readonly config?: Partial<BehindConfig>;
  /** What it had stored when it was stopped. */
  readonly cache?: StoredIds;
}

let starts = 0;

export async function openTier(options: TierOptions): Promise<Tier> {
  const { name, clock, folder, cache = new StoredIds() } = options;
  const { log, metrics } = testDeps();
  const open = openHttp(options.before);
  const lease: LeaseConfig = { ttlMs: 10_000, mode: 'refuse', serveMaxMs: 60_000, ...options.lease };
  const common = { open, proof: () => PROOF, clock, log, metrics };
  let follower: Follower | undefined;
  const behind = createBehind({
    ...common,
    config: configured(behindSection, { beatMs: BEAT_MS, ...options.config }),
    isEdge: (proof) => proof === PROOF,
    usesWithinMs: 5_000,
    knownEdges: await openKnownEdges(join(folder, `${name}-behind.json`), log),
    onCounts: () => follower?.behindChanged(),
  });
  starts += 1;
  follower = await followJournal({
    ...common,
    config: configured(journalSection, { lease }),
    edgeName: name,
    instance: `start-${starts}`,
    cache,
    onTakedown: () => {},
    onPurgeAll: () => {},
    onUseReportsWanted: (everyMs) => behind.wantUseReports(everyMs),
    behind: () => behind.counts(),
    applied: behind.applied,
    folder: join(folder, name),
    random: () => 1,
  });
  const ending = new AbortController();
  const server = createServer((request, response) => {
    behind
      .handle(request, response, ending.signal)
      .then((reply) => (reply === undefined ? undefined : send(reply, request, response, ending.signal)))
      .catch((thrown: unknown) => send(problemReply(faultOf(thrown)), request, response, ending.signal))
      .catch(() => {});
  });
  server.listen(options.port ?? (await ownPort()), '127.0.0.1');
  await once(server, 'listening');
  return {
    name,
    port: (server.address() as AddressInfo).port,
    cache,
    follower,
    behind,
    async stop() {
      server.close();
      server.closeAllConnections();
      await behind.close();
      await follower.close();
    },
  };
}
