/**
 * Sends one file to the service as an upload in the name of its owner: by an upload link (src/access/upload-link.ts) that is
 * signed here, so that every rule of an upload holds, at whichever origin. The body follows once the service has asked for it
 * (100-continue), so a refused file is not sent.
 *
 * Where the service is busy, cannot be reached or fails, the upload is tried again. Leaves to others: what is refused, and
 * that the same file is sent again after a crash.
 */
import { randomBytes } from 'node:crypto';
import { type ClientRequest, Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { pipeline } from 'node:stream/promises';
import { onAbort } from '../../src/abort.js';
import type { LinkKey } from '../../src/access/link.js';
import { signUploadLink } from '../../src/access/upload-link.js';
import { type Clock, sleep } from '../../src/clock.js';
import { errorCode } from '../../src/errors.js';
import { formatDigest } from '../../src/http/digest.js';
import type { Entry, Refusal } from './entry.js';
import type { OpenedFile } from './file.js';

export interface SendDeps {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Signs the links. */
  readonly key: LinkKey;
  readonly linkLifetimeMs: number;
  /** Where the service is; with several, each upload begins at the next one. */
  readonly urls: readonly string[];
  /** Whether the type that the list states is sent along. */
  readonly statesTypes: boolean;
}

export interface StoredMedia {
  readonly id: string;
  readonly url: string;
  readonly sha256: string;
  readonly duplicate: boolean;
}

export type SendOutcome =
  | { readonly kind: 'stored'; readonly media: StoredMedia }
  | { readonly kind: 'refused'; readonly refusal: Refusal };

export interface Sender {
  /** Rejects with ServiceUnusable where no upload can succeed. */
  send(entry: Entry, file: OpenedFile): Promise<SendOutcome>;
  close(): void;
}

/** Its message is a sentence for the operator. */
export class ServiceUnusable extends Error {
  override readonly name = 'ServiceUnusable';
}

/** Pauses after failures; a file is tried once more than there are pauses. */
const PAUSES_MS = [500, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000, 30_000];
/** So long a connection may be silent. */
const SILENT_MAX_MS = 120_000;
/** RFC 9110 10.1.1: who waits for 100 does not wait for ever. */
const CONTINUE_WITHIN_MS = 1_500;
const ANSWER_MAX_BYTES = 65_536;
const DETAIL_CHARS_MAX = 300;

export function createSender(deps: SendDeps, slots: number): Sender {
  const options = { keepAlive: true, maxSockets: slots, timeout: SILENT_MAX_MS };
  const agents = { http: new HttpAgent(options), https: new HttpsAgent(options) };
  let turn = 0;
  return {
    async send(entry, file) {
      const first = turn++;
      for (let failures = 0, tries = 0; ; tries += 1) {
        const base = deps.urls[(first + tries) % deps.urls.length] ?? '';
        const outcome = judge(await tryOnce(deps, agents, base, entry, file), base);
        if (outcome.kind !== 'again') return outcome;
        const pauseMs = outcome.afterMs ?? PAUSES_MS[failures++];
        if (pauseMs === undefined)
          throw new ServiceUnusable(`The service at ${base} takes no uploads: ${outcome.reason}.`);
        await sleep(deps.clock, pauseMs, deps.signal);
      }
    },
    close() {
      agents.http.destroy();
      agents.https.destroy();
    },
  };
}

type Tried =
  | { readonly kind: 'unreadable'; readonly reason: string }
  | { readonly kind: 'answered'; readonly status: number; readonly retryAfter: string | undefined; readonly body: Body }
  | { readonly kind: 'broken'; readonly reason: string };

type Body = Readonly<Record<string, unknown>>;

type Judged =
  | SendOutcome
  /** `afterMs`: as long as the service says; null: it failed. */
  | { readonly kind: 'again'; readonly afterMs: number | null; readonly reason: string };

/** What an answer means. Throws ServiceUnusable for what the next file would be answered too. */
export function judge(tried: Tried, base: string): Judged {
  if (tried.kind === 'unreadable') return { kind: 'refused', refusal: { code: 'unreadable', detail: tried.reason } };
  if (tried.kind === 'broken') return { kind: 'again', afterMs: null, reason: tried.reason };
  const { status, body, retryAfter } = tried;
  const code = textIn(body, 'code') ?? `status_${status}`;
  const detail = (textIn(body, 'detail') ?? '').slice(0, DETAIL_CHARS_MAX);
  if (status === 200 || status === 201) {
    const media = mediaIn(body);
    if (media === undefined) throw new ServiceUnusable(`${base} does not answer as a media service does.`);
    return { kind: 'stored', media };
  }
  if (status === 401) {
    throw new ServiceUnusable(
      `The service at ${base} does not accept upload links of this configuration (${code}): access.links.secrets must be that of the service, and the clocks must agree.`,
    );
  }
  if (status < 400 || status === 404 || status === 405) {
    throw new ServiceUnusable(`There is no media service at ${base}: it answers ${status}.`);
  }
  if (status === 507) throw new ServiceUnusable(`The service at ${base} has no room left. ${detail}`.trim());
  // The link of each try is new, so this is not about its use.
  const isBusy = code === 'rate_limited' || code === 'overloaded';
  if (isBusy) return { kind: 'again', afterMs: secondsIn(retryAfter), reason: code };
  if (status >= 500 || status === 408) return { kind: 'again', afterMs: null, reason: `${status} ${code}` };
  return { kind: 'refused', refusal: { code, detail } };
}

/** A wait that is asked for is at least this long and at most a minute. */
const WAIT_MIN_S = 1;
const WAIT_MAX_S = 60;

function secondsIn(retryAfter: string | undefined): number {
  const seconds = /^\d{1,9}$/.test(retryAfter ?? '') ? Number(retryAfter) : WAIT_MIN_S;
  return Math.min(Math.max(seconds, WAIT_MIN_S), WAIT_MAX_S) * 1_000;
}

function mediaIn(body: Body): StoredMedia | undefined {
  const [id, url, etag] = ['id', 'url', 'etag'].map((name) => textIn(body, name));
  const sha256 = /^"sha256:([0-9a-f]{64})"$/.exec(etag ?? '')?.[1];
  if (id === undefined || url === undefined || sha256 === undefined) return undefined;
  return { id, url, sha256, duplicate: body['duplicate'] === true };
}

function textIn(body: Body, name: string): string | undefined {
  const value = body[name];
  return typeof value === 'string' ? value : undefined;
}

interface Agents {
  readonly http: HttpAgent;
  readonly https: HttpsAgent;
}

async function tryOnce(deps: SendDeps, agents: Agents, base: string, entry: Entry, file: OpenedFile): Promise<Tried> {
  const target = new URL(`${base}/v1/media?${signUploadLink(termsOf(deps, entry), deps.key)}`);
  const headers = {
    'content-length': file.sizeBytes,
    expect: '100-continue',
    ...(deps.statesTypes && entry.type !== null && { 'content-type': plainField(entry.type) }),
    ...(entry.sha256 !== null && { 'repr-digest': formatDigest(entry.sha256) }),
  };
  const sent =
    target.protocol === 'https:'
      ? httpsRequest(target, { method: 'POST', agent: agents.https, headers })
      : httpRequest(target, { method: 'POST', agent: agents.http, headers });
  const stopListening = onAbort(deps.signal, () => sent.destroy(new Error('stopped')));
  try {
    return await exchange(deps, sent, file);
  } catch (thrown) {
    deps.signal.throwIfAborted();
    if (thrown instanceof Unreadable) return { kind: 'unreadable', reason: thrown.message };
    return { kind: 'broken', reason: errorCode(thrown) ?? (thrown instanceof Error ? thrown.message : String(thrown)) };
  } finally {
    stopListening();
    // A body that was not wanted is not owed either: the connection is given up.
    if (!sent.writableFinished) sent.destroy();
  }
}

async function exchange({ clock }: SendDeps, sent: ClientRequest, file: OpenedFile): Promise<Tried> {
  // Silence at any time.
  sent.once('timeout', () => sent.destroy(new Error('the service is silent')));
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    sent.once('response', resolve);
    sent.on('error', reject);
  });
  answered.catch(() => undefined);
  const wanted = new Promise<'body'>((resolve) => {
    sent.once('continue', () => resolve('body'));
    const timer = clock.after(CONTINUE_WITHIN_MS, () => resolve('body'));
    const cancel = (): void => timer.cancel();
    void answered.then(cancel, cancel);
  });
  sent.flushHeaders();
  const first = await Promise.race([answered, wanted]);
  if (first !== 'body') return await readAnswer(first);
  // Whoever answers early breaks the pipeline, and the answer counts.
  const sending = pipeline(bytesOf(file), sent);
  sending.catch(() => undefined);
  return await readAnswer(await Promise.race([answered, sending.then(() => answered)]));
}

class Unreadable extends Error {}

const READ_BYTES = 256 * 1_024;

/** The bytes from the beginning, at every try; as many as the file had when it was opened. */
async function* bytesOf({ handle, sizeBytes }: OpenedFile): AsyncGenerator<Buffer> {
  for (let at = 0; at < sizeBytes; ) {
    const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, sizeBytes - at));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, at).catch((thrown: unknown) => {
      throw new Unreadable(`The file cannot be read (${errorCode(thrown) ?? 'failed'}).`);
    });
    if (bytesRead === 0) throw new Unreadable('The file became shorter while it was read.');
    yield buffer.subarray(0, bytesRead);
    at += bytesRead;
  }
}

async function readAnswer(response: IncomingMessage): Promise<Tried> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of response as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > ANSWER_MAX_BYTES) throw new Error('the answer is too long');
    pieces.push(piece);
  }
  const retryAfter = response.headers['retry-after'];
  return { kind: 'answered', status: response.statusCode ?? 0, retryAfter, body: objectOf(Buffer.concat(pieces)) };
}

function objectOf(bytes: Buffer): Body {
  try {
    const value: unknown = JSON.parse(bytes.toString());
    return typeof value === 'object' && value !== null ? { ...value } : {};
  } catch {
    return {};
  }
}

function termsOf({ clock, linkLifetimeMs }: SendDeps, entry: Entry) {
  return {
    id: randomBytes(16).toString('hex'),
    subject: entry.owner,
    sizeMaxBytes: null,
    types: null,
    public: entry.public,
    expiresInSeconds: null,
    filename: entry.name,
    expiresAt: clock.now() + linkLifetimeMs,
  };
}

/** Node refuses what a field cannot carry; such a type agrees with no bytes anyway. */
function plainField(type: string): string {
  return type.replace(/[^\x20-\x7e]/g, '?');
}
