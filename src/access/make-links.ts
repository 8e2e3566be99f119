/**
 * The links that callers ask for, of one media or of many, the same at origin and edge. Pure. Leaves to others: who may
 * ask. Links to many media are made without looking at any of them, so they tell nothing of what exists.
 */
import type { EpochMs } from '../clock.js';
import { Fault } from '../errors.js';
import { type MediaId, parseMediaId } from '../ids.js';
import { type LinkKey, linkEnd, signLink } from './link.js';

export interface LinkSigning {
  /** The key that signs now; undefined: no links are signed. */
  key(): LinkKey | undefined;
  readonly lifetimeMs: number;
  readonly lifetimeMaxMs: number;
  readonly windowMs: number;
  /** In one request for many links. */
  readonly idsMax: number;
}

export const LINKS_PATH = '/v1/links';

export interface LinkDocument {
  readonly url: string;
  readonly thumb_url: string;
  readonly info_url: string;
  /** RFC 3339. */
  readonly expires_at: string;
}

/** `size`: the query of the thumbnail, such as `w=320`; empty for the default one. It is not signed. */
export function describeLinks(
  id: MediaId,
  expiresAt: EpochMs,
  key: LinkKey,
  { baseUri, size = '' }: { readonly baseUri: string; readonly size?: string },
): LinkDocument {
  const to = (kind: 'original' | 'thumb' | 'info'): string => baseUri + signLink({ kind, id }, expiresAt, key);
  return {
    url: to('original'),
    thumb_url: size === '' ? to('thumb') : to('thumb').replace('?', `?${size}&`),
    info_url: to('info'),
    expires_at: new Date(expiresAt).toISOString(),
  };
}

/** Throws a Fault if no links are signed. */
export function requireKey(signing: Pick<LinkSigning, 'key'>): LinkKey {
  const key = signing.key();
  if (key === undefined) throw new Fault('not_found', 'This service does not sign links.');
  return key;
}

/** Throws a Fault for a lifetime that is too long. Undefined: as configured. */
export function endOfLinks(signing: LinkSigning, seconds: number | undefined, now: EpochMs): EpochMs {
  const { lifetimeMs, lifetimeMaxMs, windowMs } = signing;
  const wantedMs = seconds === undefined ? lifetimeMs : seconds * 1_000;
  if (wantedMs > lifetimeMaxMs) {
    throw new Fault('malformed', `A link is valid for at most ${Math.floor(lifetimeMaxMs / 1_000)} seconds.`);
  }
  return linkEnd(now, wantedMs, windowMs);
}

/** The longest body of a request for links: ids in quotes, with room for spaces. */
export function linksBodyMaxBytes({ idsMax }: Pick<LinkSigning, 'idsMax'>): number {
  return 1_024 + 64 * idsMax;
}

/** The answer to `{ids, lifetime}` as text. Throws a Fault for anything else. */
export function makeLinks(body: string, signing: LinkSigning, baseUri: string, now: EpochMs): unknown {
  const { ids, lifetime } = readWanted(body, signing.idsMax);
  const key = requireKey(signing);
  const expiresAt = endOfLinks(signing, lifetime, now);
  return {
    links: ids.map((id) => ({ id, ...describeLinks(id, expiresAt, key, { baseUri }) })),
    expires_at: new Date(expiresAt).toISOString(),
  };
}

interface Wanted {
  readonly ids: readonly MediaId[];
  readonly lifetime: number | undefined;
}

function readWanted(body: string, idsMax: number): Wanted {
  const { ids, lifetime } = readObject(body);
  if (!Array.isArray(ids) || ids.length === 0 || ids.length > idsMax) {
    throw new Fault('malformed', `ids is a list of 1 to ${idsMax} media ids.`);
  }
  if (lifetime !== undefined && !(Number.isSafeInteger(lifetime) && Number(lifetime) > 0)) {
    throw new Fault('malformed', 'lifetime is a whole number of seconds, at least 1.');
  }
  return { ids: ids.map(readId), lifetime: lifetime as number | undefined };
}

function readId(value: unknown): MediaId {
  const id = typeof value === 'string' ? parseMediaId(value) : undefined;
  if (id === undefined) throw new Fault('invalid_id', 'A media id is a ULID of 26 characters.');
  return id;
}

/** Throws a Fault for text that is not a JSON object. */
export function readObject(text: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Fault('malformed', 'The body is not JSON.');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Fault('malformed', 'The body is not a JSON object.');
  }
  return value as Readonly<Record<string, unknown>>;
}
