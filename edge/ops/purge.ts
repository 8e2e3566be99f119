/** Purges the cache by hand: reads an operator's order and carries it out. */
import { type MediaId, parseMediaId } from '../../src/ids.js';
import type { EdgeCache } from '../cache/cache.js';

export type PurgeOrder =
  | { readonly kind: 'ids'; readonly ids: readonly MediaId[] }
  /** The start of the normalised target, such as `/v1/media/01J`. */
  | { readonly kind: 'prefix'; readonly prefix: string }
  | { readonly kind: 'all' };

export type PurgeRead =
  | { readonly kind: 'order'; readonly order: PurgeOrder }
  | { readonly kind: 'refused'; readonly detail: string };

export interface PurgeDeps {
  readonly cache: Pick<EdgeCache, 'takeDown' | 'purge'>;
  /** Both end the fetches whose responses are not in the cache yet. */
  onTakedown(id: MediaId): void;
  onPurge(which: { readonly prefix: string } | { readonly all: true }): void;
}

/** Takes exactly one of `{ids}`, `{prefix}` and `{all: true}`, and refuses everything else. */
export function readPurge(value: unknown): PurgeRead {
  const given = typeof value === 'object' && value !== null && !Array.isArray(value) ? Object.entries(value) : [];
  const [entry, ...others] = given;
  if (entry === undefined || others.length > 0) return refused('give exactly one of `ids`, `prefix` and `all`');
  const [key, wanted] = entry as [string, unknown];
  switch (key) {
    case 'ids':
      return readIds(wanted);
    case 'prefix':
      return typeof wanted === 'string' && wanted.startsWith('/')
        ? { kind: 'order', order: { kind: 'prefix', prefix: wanted } }
        : refused('`prefix` must be a text that starts with `/`');
    case 'all':
      return wanted === true ? { kind: 'order', order: { kind: 'all' } } : refused('`all` can only be true');
    default:
      return refused(`\`${key.slice(0, 40)}\` is unknown`);
  }
}

function readIds(wanted: unknown): PurgeRead {
  if (!Array.isArray(wanted) || wanted.length === 0) return refused('`ids` must be a list of media ids');
  const ids: MediaId[] = [];
  for (const text of wanted as unknown[]) {
    const id = typeof text === 'string' ? parseMediaId(text) : undefined;
    if (id === undefined) return refused(`${JSON.stringify(text).slice(0, 60)} is not a media id`);
    ids.push(id);
  }
  return { kind: 'order', order: { kind: 'ids', ids } };
}

function refused(detail: string): PurgeRead {
  return { kind: 'refused', detail };
}

/** Resolves with the number of stored responses that were dropped, once none of them can come back. */
export async function purge(order: PurgeOrder, hooks: PurgeDeps): Promise<number> {
  const { cache } = hooks;
  switch (order.kind) {
    case 'ids': {
      for (const id of order.ids) hooks.onTakedown(id);
      const dropped = await Promise.all(order.ids.map((id) => cache.takeDown(id)));
      return dropped.reduce((total, count) => total + count, 0);
    }
    case 'prefix':
      hooks.onPurge({ prefix: order.prefix });
      return cache.purge({ prefix: order.prefix });
    case 'all':
      hooks.onPurge({ all: true });
      return cache.purge({ all: true });
  }
}
