/**
 * POST of an upload link: authorize > read the terms > sign. Whoever may upload may let somebody else upload once in
 * their name; an admin may do so in anybody's name.
 */
import { randomBytes } from 'node:crypto';
import type { Gate } from '../src/access/grant.js';
import { readObject, requireKey } from '../src/access/make-links.js';
import { signUploadLink, type UploadTerms } from '../src/access/upload-link.js';
import type { Clock } from '../src/clock.js';
import { Fault } from '../src/errors.js';
import { jsonReply, type Reply } from '../src/http/reply.js';
import { requireUploader } from './authorize.js';
import type { UploadConfig } from './ingest/config.js';
import { EXPIRES_IN_MAX_SECONDS, requireLifetime } from './ingest/options.js';
import { readText } from './ingest/read-text.js';
import type { LinkDeps } from './link.js';
import type { OriginRequest } from './server/request.js';

export interface UploadLinkDeps {
  readonly gate: Gate;
  readonly links: LinkDeps['links'] & { readonly uploadLifetimeMs: number; readonly uploadLifetimeMaxMs: number };
  readonly baseUri: string;
  readonly clock: Clock;
  readonly config: { readonly upload: UploadConfig };
}

const BODY_MAX_BYTES = 8_192;
const FILENAME_CHARS_MAX = 255;
/** As of tokens (src/access/claims.ts). */
const SUBJECT = /^[^\p{Cc}]{1,255}$/u;

export async function uploadLink(deps: UploadLinkDeps, request: OriginRequest): Promise<Reply> {
  const { links, config, baseUri } = deps;
  const caller = await requireUploader(deps.gate, request);
  if (caller.uploadLink !== undefined) throw new Fault('forbidden', 'An upload link makes no links.');
  const wanted = readObject(await readText(request, config.upload, deps.clock, BODY_MAX_BYTES));
  const key = requireKey(links);
  const subject = textIn(wanted, 'subject', SUBJECT) ?? caller.subject;
  if (subject !== caller.subject && !caller.roles.has('admin')) {
    throw new Fault('forbidden', 'Only an admin makes links in the name of others.');
  }
  const lifetimeS = wholeIn(wanted, 'lifetime', Math.floor(links.uploadLifetimeMaxMs / 1_000));
  const terms: UploadTerms = {
    id: randomBytes(16).toString('hex'),
    subject,
    sizeMaxBytes: wholeIn(wanted, 'size', config.upload.sizeMaxBytes),
    types: typesIn(wanted, config.upload.types),
    public: flagIn(wanted, 'public') ?? false,
    expiresInSeconds: wholeIn(wanted, 'expires_in', EXPIRES_IN_MAX_SECONDS),
    filename: textIn(wanted, 'filename', FILENAME),
    expiresAt: Math.floor((request.receivedAt + (lifetimeS ?? links.uploadLifetimeMs / 1_000) * 1_000) / 1_000) * 1_000,
  };
  requireLifetime(
    { public: undefined, expiresInSeconds: terms.expiresInSeconds ?? undefined, filename: undefined },
    config.upload,
  );
  const query = signUploadLink(terms, key);
  return jsonReply(200, {
    url: `${baseUri}/v1/media?${query}`,
    tus_url: `${baseUri}/v1/uploads?${query}`,
    expires_at: new Date(terms.expiresAt).toISOString(),
  });
}

type Wanted = Readonly<Record<string, unknown>>;

const FILENAME = new RegExp(`^.{1,${FILENAME_CHARS_MAX}}$`, 'su');

function wholeIn(wanted: Wanted, name: string, max: number): number | null {
  const value = wanted[name];
  if (value === undefined || value === null) return null;
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 1 && value <= max) return value;
  throw new Fault('malformed', `${name} is a whole number from 1 to ${max}.`);
}

function flagIn(wanted: Wanted, name: string): boolean | undefined {
  const value = wanted[name];
  if (value === undefined || typeof value === 'boolean') return value;
  throw new Fault('malformed', `${name} is true or false.`);
}

function textIn(wanted: Wanted, name: string, pattern: RegExp): string | null {
  const value = wanted[name];
  if (value === undefined || value === null) return null;
  if (typeof value === 'string' && pattern.test(value)) return value;
  throw new Fault('malformed', `${name} is a text of 1 to 255 characters.`);
}

function typesIn({ types }: Wanted, accepted: readonly string[]): readonly string[] | null {
  if (types === undefined || types === null) return null;
  const known = Array.isArray(types) && types.length > 0 && types.every((type) => accepted.includes(type as string));
  if (!known) throw new Fault('malformed', 'types is a list of media types that the service accepts.');
  return types as readonly string[];
}
