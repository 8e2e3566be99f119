/**
 * What a check works with: the two places, the tokens, media of its own, and time. It keeps a list of all that was
 * uploaded, and removes it at the end. Nothing else is ever changed: no id that was not uploaded here is deleted or
 * quarantined, and each upload expires by itself soon, also where the run is killed.
 */
import { randomBytes } from 'node:crypto';
import type { Clock } from '../clock.js';
import { Answer, Broken, NotTried, sentLines } from './answer.js';
import type { Client, Sent } from './client.js';
import { png, text } from './samples.js';

export type Who = 'user' | 'other' | 'admin';

export interface TokenRequest {
  readonly subject: string;
  readonly admin?: boolean;
  readonly audience?: string;
  readonly issuer?: string;
  /** Seconds from now; negative: it is over. */
  readonly expiresInS?: number;
  /** Seconds from now at which it begins. */
  readonly beginsInS?: number;
}

export interface Tokens {
  readonly user?: string;
  readonly other?: string;
  readonly admin?: string;
  /** Makes tokens of the deployment's own Authentication Service. */
  make?(request: TokenRequest): Promise<string>;
}

export interface SendOptions {
  /** Whose token is sent. */
  readonly as?: Who;
  readonly token?: string;
  readonly fields?: Readonly<Record<string, string>>;
  readonly body?: Buffer | string;
  readonly expectContinue?: boolean;
  readonly cutAfter?: number;
}

export interface Place {
  readonly name: 'edge' | 'origin';
  readonly url: string;
  send(method: string, path: string, options?: SendOptions): Promise<Answer>;
  get(path: string, options?: SendOptions): Promise<Answer>;
  head(path: string, options?: SendOptions): Promise<Answer>;
  post(path: string, options?: SendOptions): Promise<Answer>;
  /** Sends a part of the body and breaks the connection. */
  cut(path: string, options: SendOptions & { readonly cutAfter: number }): Promise<void>;
}

export interface Media {
  readonly id: string;
  readonly path: string;
  readonly bytes: Buffer;
  readonly answer: Answer;
}

export interface UploadOptions {
  readonly type?: string;
  readonly query?: string;
  readonly as?: Who;
  readonly at?: Place;
  readonly fields?: Readonly<Record<string, string>>;
}

export interface World {
  readonly edge: Place;
  readonly origin: Place;
  readonly tokens: Tokens;
  readonly wellKnown: Readonly<Record<string, unknown>>;
  readonly capabilities: Readonly<Record<string, unknown>>;
  readonly takedownWithinMs: number;
  /** Uploads by POST, expects 201, and deletes it at the end. */
  upload(bytes: Buffer, options?: UploadOptions): Promise<Media>;
  /** Notes what another way of uploading has made, so that it is deleted at the end. */
  note(id: string): void;
  /** Notes an unfinished upload by its path. */
  noteUnfinished(path: string): void;
  noteQuarantined(id: string): void;
  /** Media that several checks read: text of 1000 bytes, the same in public, and a PNG of 400 x 300. */
  shared(kind: 'text' | 'public' | 'picture'): Promise<Media>;
  /** Who may delete what was uploaded here. */
  remover(): Who;
  /** Waits until the check returns an answer that is right; fails with the last one. */
  until(
    expected: string,
    withinMs: number,
    ask: () => Promise<Answer>,
    right: (answer: Answer) => boolean,
  ): Promise<Answer>;
  pause(ms: number): Promise<void>;
  nowMs(): number;
  monotonicMs(): number;
}

export interface WorldDeps {
  readonly client: Client;
  /** Removes what was uploaded, also after the run was stopped. */
  readonly cleaner: Client;
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly edge: string;
  readonly origin: string;
  readonly tokens: Tokens;
  readonly takedownWithinMs: number;
}

/** Long enough for a run; then what was left behind is gone. */
export const LIFETIME_S = 900;
const BUSY_TRIES = 4;
const BUSY_WAIT_MAX_S = 15;
const POLL_MS = 25;

/** `removeAll` resolves with how many media were uploaded and how many of them remain until they expire. */
export interface OwnedWorld {
  readonly world: World;
  removeAll(): Promise<{ readonly uploaded: number; readonly left: number }>;
}

export async function openWorld(deps: WorldDeps): Promise<OwnedWorld> {
  const { clock, signal, tokens } = deps;
  const ids = new Set<string>();
  const unfinished = new Set<string>();
  const quarantined = new Set<string>();
  const sharedMedia = new Map<string, Promise<Media>>();

  const pause = (ms: number): Promise<void> =>
    new Promise((resolve, reject) => {
      const stop = (): void => reject(signal.reason as Error);
      if (signal.aborted) return stop();
      signal.addEventListener('abort', stop, { once: true });
      clock.after(ms, () => {
        signal.removeEventListener('abort', stop);
        resolve();
      });
    });

  const edge = placeOf('edge', deps.edge, deps, pause);
  const origin = placeOf('origin', deps.origin, deps, pause);
  const wellKnown = (await origin.get('/.well-known')).is(200).json;
  const capabilities = (wellKnown['capabilities'] ?? {}) as Readonly<Record<string, unknown>>;

  const mayRemove = (): Who | undefined => {
    if (tokens.admin !== undefined) return 'admin';
    return tokens.user !== undefined && capabilities['owners_may_delete'] === true ? 'user' : undefined;
  };

  const world: World = {
    edge,
    origin,
    tokens,
    wellKnown,
    capabilities,
    takedownWithinMs: deps.takedownWithinMs,
    async upload(bytes, { type = 'text/plain', query = '', as = 'user', at = origin, fields = {} } = {}) {
      const lifetime = /(?:^|&)expires_in=/.test(query) ? [] : [`expires_in=${LIFETIME_S}`];
      const path = `/v1/media?${[...lifetime, ...(query === '' ? [] : [query])].join('&')}`;
      const answer = await at.post(path, { as, body: bytes, fields: { 'content-type': type, ...fields } });
      const id = answer.is(201).text('id');
      ids.add(id);
      return { id, path: `/v1/media/${id}`, bytes, answer };
    },
    note: (id) => void ids.add(id),
    noteUnfinished: (path) => void unfinished.add(path),
    noteQuarantined: (id) => void quarantined.add(id),
    shared(kind) {
      const known = sharedMedia.get(kind);
      if (known !== undefined) return known;
      const media =
        kind === 'picture'
          ? world.upload(png({ width: 400, height: 300 }), { type: 'image/png', query: 'filename=picture.png' })
          : world.upload(text(), { query: kind === 'public' ? 'public=true' : '' });
      sharedMedia.set(kind, media);
      return media;
    },
    remover() {
      const who = mayRemove();
      if (who === undefined) throw new NotTried('no token that may delete');
      return who;
    },
    async until(expected, withinMs, ask, right) {
      const from = clock.monotonicMs();
      for (;;) {
        const answer = await ask();
        if (right(answer)) return answer;
        if (clock.monotonicMs() - from > withinMs)
          return answer.holds(`${expected} within ${withinMs / 1_000} s`, false);
        await pause(POLL_MS);
      }
    },
    pause,
    nowMs: () => clock.now(),
    monotonicMs: () => clock.monotonicMs(),
  };

  return {
    world,
    async removeAll() {
      const who = mayRemove();
      const origin = placeOf('origin', deps.origin, { ...deps, client: deps.cleaner }, pause);
      for (const path of unfinished) await quietly(() => origin.send('DELETE', path, { as: 'user', fields: TUS }));
      if (who === undefined) return { uploaded: ids.size, left: ids.size };
      let left = 0;
      for (const id of ids) {
        if (quarantined.has(id)) await quietly(() => origin.send('DELETE', `/v1/media/${id}/quarantine`, { as: who }));
        const answer = await quietly(() => origin.send('DELETE', `/v1/media/${id}`, { as: who }));
        if (![204, 404, 410].includes(answer?.status ?? 0)) left += 1;
      }
      return { uploaded: ids.size, left };
    },
  };
}

/** What is done with media that expire soon. On a busy machine they may be over before it is done; then with longer ones. */
export async function shortLived<T>(world: World, work: (query: string) => Promise<T>): Promise<T> {
  for (const seconds of [3, 12]) {
    const from = world.monotonicMs();
    try {
      return await work(`expires_in=${seconds}`);
    } catch (thrown) {
      const inTime = world.monotonicMs() - from < seconds * 1_000;
      if (!(thrown instanceof Broken) || inTime) throw thrown;
    }
  }
  return await work('expires_in=48');
}

export const TUS = { 'tus-resumable': '1.0.0' } as const;

async function quietly(work: () => Promise<Answer>): Promise<Answer | undefined> {
  try {
    return await work();
  } catch {
    return undefined;
  }
}

function placeOf(name: Place['name'], base: string, deps: WorldDeps, pause: (ms: number) => Promise<void>): Place {
  const { client, tokens } = deps;
  const sentOf = (method: string, path: string, options: SendOptions): Sent => {
    const token = options.token ?? (options.as === undefined ? undefined : tokens[options.as]);
    if (options.as !== undefined && token === undefined) throw new NotTried(`no token of ${NAMES[options.as]}`);
    return {
      method,
      url: base + path,
      fields: { ...(token !== undefined && { authorization: `Bearer ${token}` }), ...options.fields },
      ...(options.body !== undefined && { body: Buffer.from(options.body) }),
      ...(options.expectContinue === true && { expectContinue: true }),
      ...(options.cutAfter !== undefined && { cutAfter: options.cutAfter }),
    };
  };
  async function send(method: string, path: string, options: SendOptions = {}): Promise<Answer> {
    const sent = sentOf(method, path, options);
    for (let tries = 1; ; tries += 1) {
      const answer = new Answer(sent, await received(client, sent));
      const busy = answer.status === 429 || answer.status === 503;
      const waitS = Number(answer.field('retry-after') ?? Number.NaN);
      if (!busy || tries === BUSY_TRIES || !(waitS <= BUSY_WAIT_MAX_S)) return answer;
      // The limits of the deployment hold for this run too.
      await pause(waitS * 1_000 + 50);
    }
  }
  return {
    name,
    url: base,
    send,
    get: (path, options) => send('GET', path, options),
    head: (path, options) => send('HEAD', path, options),
    post: (path, options) => send('POST', path, options),
    cut: (path, options) => client.cut(sentOf('POST', path, options)),
  };
}

const NAMES: Readonly<Record<Who, string>> = { user: 'a user', other: 'another user', admin: 'an admin' };

async function received(client: Client, sent: Sent) {
  try {
    return await client.send(sent);
  } catch (thrown) {
    if (thrown instanceof Error && thrown.name === 'AbortError') throw thrown;
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new Broken('an answer', sentLines(sent), [reason]);
  }
}

/** An id that nothing has. */
export function unknownId(): string {
  const letters = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
  return `0${[...randomBytes(25)].map((byte) => letters[byte % 32]).join('')}`;
}
