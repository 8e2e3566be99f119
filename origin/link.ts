/** POST of a signed link: authorize > find > sign. Whoever may read the media may share it for a limited time. */
import type { Gate } from '../src/access/grant.js';
import { mayRead } from '../src/access/grant.js';
import { type LinkKey, signLink } from '../src/access/link.js';
import { faultOfGrant } from '../src/access/refusal.js';
import { Fault } from '../src/errors.js';
import { jsonReply, type Reply } from '../src/http/reply.js';
import type { MediaId } from '../src/ids.js';
import { admitViewer, requireCaller } from './authorize.js';
import type { MetaStore } from './meta/store.js';
import type { OriginRequest } from './server/request.js';

export interface LinkDeps {
  readonly gate: Gate;
  readonly meta: Pick<MetaStore, 'find'>;
  readonly links: LinkSigning;
  readonly baseUri: string;
}

export interface LinkSigning {
  /** The key that signs now; undefined: no links are signed. */
  key(): LinkKey | undefined;
  readonly lifetimeMs: number;
  readonly lifetimeMaxMs: number;
}

export interface LinkOptions {
  readonly expiresInSeconds: number | undefined;
  /** Of the thumbnail that `thumb_url` opens. */
  readonly width: number | undefined;
  readonly height: number | undefined;
}

export async function link(deps: LinkDeps, request: OriginRequest, id: MediaId, options: LinkOptions): Promise<Reply> {
  const now = request.receivedAt;
  const caller = await requireCaller(deps.gate, request);
  const grant = { kind: 'caller', caller } as const;
  if (!mayRead(grant, false)) throw faultOfGrant(grant);
  const { record } = admitViewer({ kind: 'client', grant, edge: false }, await deps.meta.find(id, now));

  const { links } = deps;
  const key = links.key();
  if (key === undefined) throw new Fault('not_found', 'This service does not sign links.');
  const lifetimeMs = options.expiresInSeconds === undefined ? links.lifetimeMs : options.expiresInSeconds * 1_000;
  if (lifetimeMs > links.lifetimeMaxMs) {
    throw new Fault('malformed', `A link is valid for at most ${Math.floor(links.lifetimeMaxMs / 1_000)} seconds.`);
  }
  const untilAt = Math.min(now + lifetimeMs, record.expiresAt ?? Number.POSITIVE_INFINITY);
  const expiresAt = Math.floor(untilAt / 1_000) * 1_000;
  const thumb = { kind: 'thumb', id, width: options.width ?? null, height: options.height ?? null } as const;
  return jsonReply(200, {
    url: deps.baseUri + signLink({ kind: 'original', id }, expiresAt, key),
    thumb_url: deps.baseUri + signLink(thumb, expiresAt, key),
    expires_at: new Date(expiresAt).toISOString(),
  });
}
