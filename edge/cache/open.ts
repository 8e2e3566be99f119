/** Opens the cache: its tiers as the configuration wants them, behind the one interface that the engine knows. */

import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import type { Clock, EpochMs } from '../../src/clock.js';
import type { ByteSpan } from '../../src/http/range.js';
import type { MediaId } from '../../src/ids.js';
import type { Log } from '../../src/log.js';
import type { Metrics } from '../../src/metrics.js';
import { type Body, BodyLost, type EdgeCache, type Filling, type FillOutcome, type Stored } from './cache.js';
import type { CacheConfig } from './config.js';
import type { CacheKey, Entry } from './entry.js';
import { GrowingBody } from './growing.js';
import { createPolicy } from './policy/registry.js';

export interface CacheParts {
  readonly log: Log;
  readonly metrics: Metrics;
  readonly clock: Clock;
  /** Names files that bodies pass through; told apart from all others. */
  readonly randomName?: () => string;
}

interface Held {
  entry: Entry;
  readonly bytes: Buffer;
}

export async function openCache(config: CacheConfig, parts: CacheParts): Promise<EdgeCache> {
  const held = new Map<CacheKey, Held>();
  const fills = new Set<{ entry: Entry; fail(reason: BodyLost): void }>();
  const policy = createPolicy(config.memory.policy, config.memory.sizeBytes, config.policies);
  const counts = { evictions: 0, refused: 0, corrupt: 0 };

  const live = (key: CacheKey, now: EpochMs): Held | undefined => {
    const found = held.get(key);
    if (found === undefined || found.entry.deleteAt > now) return found;
    forget(key);
    return undefined;
  };
  const forget = (key: CacheKey): void => {
    held.delete(key);
    policy.remove(key);
  };
  const stored = (found: Held): Stored => ({ entry: found.entry, tier: 'memory', body: bodyOf(found.bytes) });
  const forgetWhere = (matches: (entry: Entry) => boolean, reason: BodyLost): number => {
    let dropped = 0;
    for (const fill of fills) if (matches(fill.entry)) fill.fail(reason);
    for (const [key, { entry }] of held) {
      if (!matches(entry)) continue;
      forget(key);
      dropped += 1;
    }
    return dropped;
  };
  const keep = (entry: Entry, bytes: Buffer): FillOutcome => {
    forget(entry.key);
    const weight = bytes.length + 1_024;
    if (bytes.length > config.memory.maxObjectBytes) return { kind: 'not_kept', reason: 'too_large' };
    const admitted = policy.admit(entry.key, weight, (victim) => {
      held.delete(victim as CacheKey);
      counts.evictions += 1;
    });
    if (!admitted) {
      counts.refused += 1;
      return { kind: 'not_kept', reason: 'not_admitted' };
    }
    held.set(entry.key, { entry: { ...entry, sizeBytes: bytes.length }, bytes });
    return { kind: 'stored', tiers: ['memory'] };
  };

  return {
    get(key) {
      const found = live(key, parts.clock.now());
      if (found === undefined) return undefined;
      policy.touch(key);
      return stored(found);
    },
    peek(key) {
      const found = live(key, parts.clock.now());
      return found === undefined ? undefined : stored(found);
    },
    variantsOf: (primaryKey) =>
      [...held.values()].map(({ entry }) => entry).filter((entry) => entry.primaryKey === primaryKey),
    fill(entry, placement) {
      const body = new GrowingBody(entry.sizeBytes);
      const hash = createHash('sha256');
      let outcome: FillOutcome | undefined;
      const fail = (reason: BodyLost): void => {
        outcome ??= { kind: 'aborted', reason: reason.reason };
        body.fail(reason);
        fills.delete(self);
      };
      const self = { entry, fail };
      fills.add(self);
      const corrupt = (what: 'length' | 'sha256'): FillOutcome => {
        fail(new BodyLost('corrupt'));
        counts.corrupt += 1;
        return { kind: 'corrupt', what };
      };
      return {
        entry,
        sizeBytes: entry.sizeBytes,
        passing: false,
        ensure: async () => (body.failure === undefined ? 'ready' : 'lost'),
        open: (span, signal) => body.open(span, signal),
        abort: (reason) => fail(new BodyLost('aborted', reason)),
        get failed() {
          return body.failure !== undefined;
        },
        get whole() {
          return body.whole;
        },
        get receivedBytes() {
          return body.receivedBytes;
        },
        get readers() {
          return body.readers;
        },
        async write(chunk) {
          if (body.failure !== undefined) return;
          if (entry.sizeBytes !== null && body.receivedBytes + chunk.length > entry.sizeBytes) {
            outcome = corrupt('length');
            return;
          }
          hash.update(chunk);
          body.append(chunk);
        },
        async end() {
          if (outcome !== undefined) return outcome;
          if (entry.sizeBytes !== null && body.receivedBytes !== entry.sizeBytes) return (outcome = corrupt('length'));
          if (entry.sha256 !== null && hash.digest('hex') !== entry.sha256) return (outcome = corrupt('sha256'));
          const bytes = body.complete();
          fills.delete(self);
          outcome = placement.memory ? keep(entry, bytes) : { kind: 'not_kept', reason: 'placement' };
          return outcome;
        },
      } satisfies Filling;
    },
    refresh(entry) {
      const found = held.get(entry.key);
      if (found === undefined) return false;
      found.entry = { ...entry, sizeBytes: found.entry.sizeBytes, sha256: found.entry.sha256 };
      return true;
    },
    drop: (key) => forget(key),
    takeDown: async (id: MediaId) => forgetWhere((entry) => entry.mediaId === id, new BodyLost('taken_down')),
    purge: async (which) =>
      forgetWhere((entry) => 'all' in which || entry.primaryKey.startsWith(which.prefix), new BodyLost('purged')),
    stats: () => ({
      memory: {
        entries: policy.count,
        usedBytes: policy.usedBytes,
        capacityBytes: config.memory.sizeBytes,
        evictions: counts.evictions,
        refused: counts.refused,
      },
      disk: { entries: 0, usedBytes: 0, capacityBytes: config.disk.sizeBytes, evictions: 0, refused: 0 },
      filling: fills.size,
      corrupt: counts.corrupt,
      recovered: 0,
    }),
    recovered: true,
    probe: async () => undefined,
    close: async () => {
      for (const fill of fills) fill.fail(new BodyLost('aborted'));
    },
  };
}

function bodyOf(bytes: Buffer): Body {
  return {
    sizeBytes: bytes.length,
    whole: bytes,
    ensure: async () => 'ready',
    open: (span: ByteSpan | undefined, signal) =>
      Readable.from([span === undefined ? bytes : bytes.subarray(span.first, span.last + 1)], {
        signal,
        objectMode: false,
      }),
  };
}
