/** How long copies of media may be used: by clients, by edges, and never longer than the media live. */
import type { EpochMs } from '../../src/clock.js';
import { formatHttpDate } from '../../src/http/date.js';
import type { HeaderList } from '../../src/http/reply.js';
import type { Viewer } from '../authorize.js';
import type { MediaRecord } from '../meta/media.js';
import type { DownloadConfig } from './config.js';

export interface Lifetime {
  readonly public: boolean;
  /** From this instant on no copy may be used; null: no end. */
  readonly endsAt: EpochMs | null;
  readonly clientMaxAgeMs: number;
  /** Null if the copy is not for an edge. */
  readonly edge: EdgeLifetime | null;
}

export interface EdgeLifetime {
  readonly maxAgeMs: number;
  /** The headers may still change, so `maxAgeMs` is short and no rule of the edge may prolong it. */
  readonly provisional: boolean;
  readonly staleWhileRevalidateMs: number;
  readonly staleIfErrorMs: number;
}

/** The lifetime of this viewer's copy. A copy fetched with a link ends with the link. */
export function lifetimeFor(
  viewer: Viewer,
  record: MediaRecord,
  config: DownloadConfig,
  now: EpochMs,
  provisional: boolean,
): Lifetime {
  const forEdge = viewer.kind === 'edge' || viewer.edge;
  const linkLeftMs =
    viewer.kind === 'client' && viewer.grant.kind === 'link' ? viewer.grant.expiresAt - now : Number.POSITIVE_INFINITY;
  return {
    public: record.public,
    endsAt: record.expiresAt,
    clientMaxAgeMs: Math.max(0, Math.min(config.clientMaxAgeMs, linkLeftMs)),
    edge: forEdge
      ? {
          maxAgeMs: provisional ? Math.min(config.edgeMaxAgePendingMs, config.edgeMaxAgeMs) : config.edgeMaxAgeMs,
          provisional,
          staleWhileRevalidateMs: config.edgeStaleWhileRevalidateMs,
          staleIfErrorMs: config.edgeStaleIfErrorMs,
        }
      : null,
  };
}

/**
 * As lifetimeFor, for the info. While facts are awaited, a client's copy is as short-lived as an edge's, and it is
 * never served stale for long: facts are what it is asked for.
 */
export function infoLifetimeFor(
  viewer: Viewer,
  record: MediaRecord,
  config: DownloadConfig,
  now: EpochMs,
  provisional: boolean,
): Lifetime {
  const edgeMaxAgeMs = Math.min(config.edgeMaxAgeInfoMs, config.edgeMaxAgeMs);
  const clientMaxAgeMs = provisional
    ? Math.min(config.edgeMaxAgePendingMs, config.clientMaxAgeMs)
    : config.clientMaxAgeMs;
  const edgeStaleWhileRevalidateMs = provisional ? 0 : config.edgeStaleWhileRevalidateMs;
  return lifetimeFor(
    viewer,
    record,
    { ...config, edgeMaxAgeMs, clientMaxAgeMs, edgeStaleWhileRevalidateMs },
    now,
    provisional,
  );
}

/** Each lifetime is cut to the time that the media have left, each stale time to what is left after the lifetime. */
export function cacheHeaders(lifetime: Lifetime, now: EpochMs): HeaderList {
  const leftMs = lifetime.endsAt === null ? Number.POSITIVE_INFINITY : Math.max(0, lifetime.endsAt - now);
  const seconds = (ms: number): number => Math.floor(ms / 1_000);
  const audience = lifetime.public ? 'public' : 'private';
  const headers: [string, string][] = [
    ['cache-control', `${audience}, max-age=${seconds(Math.min(lifetime.clientMaxAgeMs, leftMs))}`],
  ];
  if (lifetime.edge !== null) {
    const maxAgeMs = Math.min(lifetime.edge.maxAgeMs, leftMs);
    const staleSeconds = (ms: number): number => seconds(Math.min(ms, leftMs - maxAgeMs));
    const directives = [
      ...(lifetime.public ? ['public'] : []),
      `max-age=${seconds(maxAgeMs)}`,
      `stale-while-revalidate=${staleSeconds(lifetime.edge.staleWhileRevalidateMs)}`,
      `stale-if-error=${staleSeconds(lifetime.edge.staleIfErrorMs)}`,
      ...(lifetime.edge.provisional ? ['provisional'] : []),
    ];
    headers.push(['cdn-cache-control', directives.join(', ')]);
  }
  if (lifetime.endsAt !== null) headers.push(['sunset', formatHttpDate(lifetime.endsAt)]);
  return headers;
}
