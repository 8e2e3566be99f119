/**
 * What each of several workers gets of the edge's configuration: a name and a cache folder of its own, and its share of
 * what is limited for the whole edge. Pure.
 */
import type { EdgeConfig } from '../config.js';

/** One of the workers of an edge. */
export interface Place {
  /** From 1. */
  readonly number: number;
  /** How many there are. */
  readonly of: number;
}

/** The configuration of one worker. Limits on one client stay as they are: each worker counts by itself. */
export function shareOf(config: EdgeConfig, { number, of }: Place): EdgeConfig {
  const share = (whole: number): number => Math.ceil(whole / of);
  const bytes = (whole: number): number => Math.floor(whole / of);
  const { listen, operators, upstream, cache, fill, warm, pass, trace } = config;
  return {
    ...config,
    name: `${config.name}-${number}`,
    listen: {
      ...listen,
      limits: { ...listen.limits, connectionsMax: share(listen.limits.connectionsMax) },
    },
    operators: { ...operators, enabled: false },
    upstream: {
      ...upstream,
      connectionsMax: share(upstream.connectionsMax),
      waitingMax: share(upstream.waitingMax),
      slowMax: share(upstream.slowMax),
      ahead: { ...upstream.ahead, totalBytes: bytes(upstream.ahead.totalBytes) },
    },
    cache: {
      ...cache,
      folder: `${cache.folder}-${number}`,
      memory: { ...cache.memory, sizeBytes: bytes(cache.memory.sizeBytes) },
      disk: {
        ...cache.disk,
        sizeBytes: bytes(cache.disk.sizeBytes),
        fillRoomBytes: Math.max(65_536, bytes(cache.disk.fillRoomBytes)),
        storesMax: share(cache.disk.storesMax),
        readMemoryBytes: bytes(cache.disk.readMemoryBytes),
        openFilesMax: share(cache.disk.openFilesMax),
        verifyPerSecondBytes: bytes(cache.disk.verifyPerSecondBytes),
      },
      parts: { ...cache.parts, sizeBytes: bytes(cache.parts.sizeBytes) },
      fill: {
        ...cache.fill,
        memoryBytes: Math.max(65_536, bytes(cache.fill.memoryBytes)),
        wholeReadsBytes: bytes(cache.fill.wholeReadsBytes),
      },
    },
    trace: {
      ...trace,
      filesMax: Math.max(2, share(trace.filesMax)),
      waitingMaxBytes: Math.max(65_536, bytes(trace.waitingMaxBytes)),
    },
    fill: { ...fill, concurrentMax: share(fill.concurrentMax) },
    warm: { ...warm, concurrentMax: share(warm.concurrentMax) },
    pass: {
      ...pass,
      concurrentMax: share(pass.concurrentMax),
      reservedMax: share(pass.reservedMax),
      drainsMax: share(pass.drainsMax),
    },
  };
}

/**
 * The worker whose disk holds what is stored for this target, from 1: FNV-1a, the same in every process. All that a
 * primary key adds to its target begins with `#` and does not count.
 */
export function ownerOf(target: string, of: number): number {
  let hash = 0x81_1c_9d_c5;
  const end = target.indexOf('#');
  const length = end < 0 ? target.length : end;
  for (let at = 0; at < length; at += 1) {
    hash = Math.imul(hash ^ target.charCodeAt(at), 0x01_00_01_93);
  }
  // The lowest bits of FNV mix least.
  return ((((hash >>> 0) ^ (hash >>> 15)) >>> 0) % of) + 1;
}
