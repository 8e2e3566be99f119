/**
 * POST of signed links. For one media: authorize > find > sign. For many: authorize > read > sign, without a look at
 * the media. Whoever may read media may share it for a limited time.
 */
import { type Caller, type Gate, mayRead } from '../src/access/grant.js';
import {
  describeLinks,
  endOfLinks,
  type LinkSigning,
  linksBodyMaxBytes,
  makeLinks,
  requireKey,
} from '../src/access/make-links.js';
import { faultOfGrant } from '../src/access/refusal.js';
import type { Clock } from '../src/clock.js';
import { jsonReply, type Reply } from '../src/http/reply.js';
import type { MediaId } from '../src/ids.js';
import { admitViewer, requireCaller } from './authorize.js';
import type { UploadConfig } from './ingest/config.js';
import { readText } from './ingest/read-text.js';
import type { MetaStore } from './meta/store.js';
import type { OriginRequest } from './server/request.js';

export interface LinkDeps {
  readonly gate: Gate;
  readonly meta: Pick<MetaStore, 'find'>;
  readonly links: LinkSigning;
  readonly baseUri: string;
  readonly clock: Clock;
  readonly config: { readonly upload: UploadConfig };
}

export interface LinkOptions {
  readonly expiresInSeconds: number | undefined;
  /** Of the thumbnail that `thumb_url` shows. */
  readonly width: number | undefined;
  readonly height: number | undefined;
}

export async function link(
  deps: Pick<LinkDeps, 'gate' | 'meta' | 'links' | 'baseUri'>,
  request: OriginRequest,
  id: MediaId,
  options: LinkOptions,
): Promise<Reply> {
  const now = request.receivedAt;
  const caller = await requireSharer(deps.gate, request);
  const grant = { kind: 'caller', caller } as const;
  const { record } = admitViewer({ kind: 'client', grant, edge: false }, await deps.meta.find(id, now));
  const key = requireKey(deps.links);
  const untilAt = endOfLinks(deps.links, options.expiresInSeconds, now);
  const expiresAt = Math.min(untilAt, Math.floor((record.expiresAt ?? untilAt) / 1_000) * 1_000);
  const { width: w, height: h } = options;
  const size = Object.entries({ w, h }).flatMap(([name, pixels]) =>
    pixels === undefined ? [] : [`${name}=${pixels}`],
  );
  return jsonReply(200, describeLinks(id, expiresAt, key, { baseUri: deps.baseUri, size: size.join('&') }));
}

export async function links(deps: LinkDeps, request: OriginRequest): Promise<Reply> {
  await requireSharer(deps.gate, request);
  const body = await readText(request, deps.config.upload, deps.clock, linksBodyMaxBytes(deps.links));
  return jsonReply(200, makeLinks(body, deps.links, deps.baseUri, request.receivedAt));
}

async function requireSharer(gate: Gate, request: OriginRequest): Promise<Caller> {
  const caller = await requireCaller(gate, request);
  const grant = { kind: 'caller', caller } as const;
  if (!mayRead(grant, false)) throw faultOfGrant(grant);
  return caller;
}
