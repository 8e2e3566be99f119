/**
 * Upload links: a signed permission to upload once, in the query of a URL instead of a token. The parameter `upload` has
 * the terms as JSON in base64url, `exp`, `kid` and `sig` are as in links to media (link.ts). The signed text has three
 * lines: `upload-link`, the value of `upload`, exp.
 *
 * A link opens POST of media, and a resumable upload whose id is that of the link. Leaves to others: that it is used once
 * (origin/meta/uploads.ts).
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { EpochMs } from '../clock.js';
import type { LinkKey, LinkRefusal, LinkRules } from './link.js';

/** What an upload may be. Null: as the service allows. */
export interface UploadTerms {
  /** 32 hexadecimal digits: the id of the link, and of its resumable upload. */
  readonly id: string;
  /** Whose upload it is. */
  readonly subject: string;
  readonly sizeMaxBytes: number | null;
  readonly types: readonly string[] | null;
  readonly public: boolean;
  readonly expiresInSeconds: number | null;
  readonly filename: string | null;
  /** When the link ends. */
  readonly expiresAt: EpochMs;
}

export type UploadLinkOutcome =
  /** The request has no upload link, or is none that a link opens. */
  | { readonly kind: 'absent' }
  | { readonly kind: 'valid'; readonly terms: UploadTerms }
  | { readonly kind: 'refused'; readonly refusal: LinkRefusal };

const ABSENT: UploadLinkOutcome = { kind: 'absent' };
/** Not /v1/uploads/link: a link makes no links. */
const TUS_PATH = /^\/v1\/uploads(?:\/[0-9a-f]{32})?$/;
const MEDIA_PATH = '/v1/media';
const METHODS: ReadonlySet<string> = new Set(['POST', 'PATCH', 'HEAD', 'DELETE']);
const ID = /^[0-9a-f]{32}$/;
const EXP = /^[1-9]\d{0,11}$/;
const PAYLOAD_CHARS_MAX = 6_000;

/** The query of a link, without `?`. */
export function signUploadLink(terms: UploadTerms, key: LinkKey): string {
  const { expiresAt, ...others } = terms;
  const upload = Buffer.from(JSON.stringify(others)).toString('base64url');
  const exp = String(Math.floor(expiresAt / 1_000));
  const sig = signature(upload, exp, key.secret).toString('base64url');
  return `upload=${upload}&exp=${exp}&kid=${encodeURIComponent(key.kid)}&sig=${sig}`;
}

export function checkUploadLink(
  request: { readonly method: string; readonly path: string; readonly query: string },
  rules: Pick<LinkRules, 'keys'>,
  now: EpochMs,
): UploadLinkOutcome {
  const { method, path, query } = request;
  if (!query.includes('upload=') || !METHODS.has(method)) return ABSENT;
  if (!(method === 'POST' && path === MEDIA_PATH) && !TUS_PATH.test(path)) return ABSENT;
  const parameters = new URLSearchParams(query);
  const [upload, exp, kid, sig] = ['upload', 'exp', 'kid', 'sig'].map((name) => only(parameters, name));
  if (upload === undefined || exp === undefined || kid === undefined || sig === undefined) return refused('malformed');
  if (!EXP.test(exp) || upload.length > PAYLOAD_CHARS_MAX) return refused('malformed');
  const key = rules.keys.find((each) => each.kid === kid);
  if (key === undefined) return refused('unknown_key');
  const expected = signature(upload, exp, key.secret);
  const given = Buffer.from(sig, 'base64url');
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) return refused('signature');
  const terms = readTerms(upload, Number(exp) * 1_000);
  if (terms === undefined) return refused('malformed');
  return terms.expiresAt <= now ? refused('expired') : { kind: 'valid', terms };
}

/** What was signed was made here: only its form may be of another release. */
function readTerms(upload: string, expiresAt: EpochMs): UploadTerms | undefined {
  try {
    const terms = { ...(JSON.parse(Buffer.from(upload, 'base64url').toString()) as UploadTerms), expiresAt };
    const { id, subject, sizeMaxBytes, types, expiresInSeconds, filename } = terms;
    const isRead =
      ID.test(id) &&
      typeof subject === 'string' &&
      typeof terms.public === 'boolean' &&
      (types === null || Array.isArray(types)) &&
      [sizeMaxBytes, expiresInSeconds].every((value) => value === null || Number.isSafeInteger(value)) &&
      (filename === null || typeof filename === 'string');
    return isRead ? terms : undefined;
  } catch {
    return undefined;
  }
}

function only(parameters: URLSearchParams, name: string): string | undefined {
  const values = parameters.getAll(name);
  return values.length === 1 ? values[0] : undefined;
}

function signature(upload: string, exp: string, secret: string): Buffer {
  return createHmac('sha256', secret).update(`upload-link\n${upload}\n${exp}`).digest();
}

function refused(refusal: LinkRefusal): UploadLinkOutcome {
  return { kind: 'refused', refusal };
}
