/** The components that only an edge of the media service has: access, the journal in both directions, use reports. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { AccessConfig } from '../src/access/config.js';
import { openGate } from '../src/access/gate.js';
import type { Gate } from '../src/access/grant.js';
import type { Clock } from '../src/clock.js';
import { openKnownEdges } from '../src/journal/known-edges.js';
import type { Closer } from '../src/lifecycle.js';
import type { ProcessDeps } from '../src/process.js';
import type { EdgeCache } from './cache/cache.js';
import { type Capabilities, followCapabilities } from './capabilities.js';
import type { EdgeConfig } from './config.js';
import type { Absences } from './fetch/absences.js';
import type { Flights } from './fetch/flight.js';
import type { FetchResult } from './fetch/result.js';
import { type Behind, createBehind } from './journal/behind.js';
import type { OpenOrigin } from './journal/config.js';
import { type Follower, followJournal } from './journal/follow.js';
import { createLinks, type Links } from './links.js';
import type { LiveSettings } from './live-settings.js';
import type { Outgoing } from './server/outgoing.js';
import { originUrls } from './upstream/config.js';
import type { Upstream } from './upstream/upstream.js';
import { createUseReports, type UseReports } from './use-reports.js';

export interface MediaComponents {
  readonly gate: Gate;
  readonly follower: Follower;
  readonly behind: Behind;
  readonly capabilities: Capabilities;
  readonly useReports: UseReports;
  readonly links: Links;
}

export interface MediaNeeds {
  readonly upstream: Upstream;
  readonly cache: EdgeCache;
  readonly flights: Flights<FetchResult>;
  readonly absences: Absences;
  readonly outgoing: Outgoing;
  readonly live: LiveSettings;
}

export async function openMedia(
  config: EdgeConfig,
  access: AccessConfig,
  { upstream, cache, flights, absences, outgoing, live }: MediaNeeds,
  deps: ProcessDeps & { readonly wallClock: Clock },
  opened: Closer,
): Promise<MediaComponents> {
  const proof = (): string => live.proof;
  const folder = `${config.cache.folder}-journal`;
  const open: OpenOrigin = (request, signal) => upstream.fetchOwn(request, signal);
  const gate = opened.add('gate', openGate({ config: access, ...deps, clock: deps.wallClock }));
  const useReports = createUseReports({ config: config.uses, upstream, proof, random: Math.random, ...deps });
  opened.add('uses', useReports);
  let follower: Follower | undefined;
  const behind = createBehind({
    config: config.behind,
    isEdge: (given) => live.isEdge(given),
    open,
    proof,
    usesWithinMs: config.uses.answerWithinMs,
    knownEdges: await openKnownEdges(join(folder, 'edges-behind.json'), deps.log),
    onCounts: () => follower?.behindChanged(),
    ...deps,
  });
  opened.add('edges behind', behind);
  follower = await followJournal({
    config: config.journal,
    edgeName: config.name,
    instance: randomUUID(),
    open,
    others: { count: originUrls(config.upstream).length - 1, moveOn: () => upstream.moveOn() },
    proof,
    cache,
    onTakedown(id) {
      absences.forget(id);
      flights.breakOff(id);
      outgoing.breakOff(id);
    },
    onPurgeAll() {
      absences.clear();
      flights.breakOffWhere(() => true);
      outgoing.breakOffAll();
    },
    onUseReportsWanted(everyMs) {
      useReports.want(everyMs);
      behind.wantUseReports(everyMs);
    },
    behind: () => behind.counts(),
    applied: behind.applied,
    folder,
    random: Math.random,
    ...deps,
  });
  opened.add('journal', follower);
  // Clients are served no more when this is closed.
  opened.add('place in the journal', { close: () => follower.leave() });
  const capabilities = followCapabilities({ config: config.capabilities, upstream, ...deps });
  opened.add('capabilities', capabilities);
  const links = createLinks({
    config: access.links,
    key: () => live.linkKey,
    baseUri: () => capabilities.baseUri,
    bodyWithinMs: config.pass.clientTimeoutMs,
    edgeName: config.name,
    clock: deps.wallClock,
  });
  return { gate, follower, behind, capabilities, useReports, links };
}
