/**
 * Asks an edge for media in every form in which it could be shown, over and over, and notes when it
 * last showed each.
 */
import { Agent } from 'node:http';
import { type HttpResponse, sendRequest } from '../http/request.js';

export const FORMS = ['GET', 'HEAD', 'Range', '304', 'thumbnail', 'stale'] as const;
export type Form = (typeof FORMS)[number];

export interface Watched {
  readonly path: string;
  readonly etag: string;
  readonly forms: readonly Form[];
}

type Fields = Readonly<Record<string, string>>;

/** One request in one form. */
export function sendIn(form: Form, base: string, media: Watched, caller: Fields, agent?: Agent): Promise<HttpResponse> {
  const extra: Fields =
    form === 'Range' ? { range: 'bytes=0-9' } : form === '304' ? { 'if-none-match': media.etag } : {};
  return sendRequest(`${base}${media.path}${form === 'thumbnail' ? '/thumb' : ''}`, {
    method: form === 'HEAD' ? 'HEAD' : 'GET',
    headers: { ...caller, ...extra },
    ...(agent !== undefined && { agent }),
  });
}

/** Whether an answer shows the media in any way. */
export function shows({ status }: Pick<HttpResponse, 'status'>): boolean {
  return (status >= 200 && status < 300 && status !== 202) || status === 304;
}

export interface Polled {
  readonly media: Watched;
  readonly form: Form;
  /** When the last request was sent that was answered with the media, by `performance.now()`. */
  lastShownAt: number | undefined;
  /** Requests since the last reset that were answered otherwise, or not at all. */
  notShown: number;
  shown: number;
  /** Every status that came since the last reset. */
  readonly statuses: Set<number>;
}

export interface Poller {
  readonly polled: readonly Polled[];
  /** Resolves once everything has been asked for at least so many times more. */
  rounds(count: number): Promise<void>;
  /** How long it takes, on average, until the same is asked for again. */
  everyMs(): number;
  /** Begins to count anew. */
  reset(): void;
  stop(): Promise<void>;
}

/** Requests that are under way at once. */
const LANES = 4;
/** What a lane waits that found nobody listening. */
const AWAY_MS = 5;

export function poll(base: () => string, all: readonly Watched[], caller: Fields): Poller {
  const agent = new Agent({ keepAlive: true, maxSockets: LANES });
  const polled: Polled[] = all.flatMap((media) =>
    media.forms.map((form) => ({
      media,
      form,
      lastShownAt: undefined,
      notShown: 0,
      shown: 0,
      statuses: new Set<number>(),
    })),
  );
  const startedAt = performance.now();
  let next = 0;
  let asked = 0;
  const state = { stopping: false };
  const watchers = new Set<() => void>();

  async function once(each: Polled): Promise<void> {
    const sentAt = performance.now();
    const answer = await sendIn(each.form, base(), each.media, caller, agent).catch(() => undefined);
    if (answer !== undefined && shows(answer)) {
      each.lastShownAt = Math.max(sentAt, each.lastShownAt ?? 0);
      each.shown += 1;
    } else each.notShown += 1;
    each.statuses.add(answer?.status ?? 0);
    if (answer === undefined) await new Promise((resolve) => setTimeout(resolve, AWAY_MS));
  }
  async function lane(): Promise<void> {
    while (!state.stopping) {
      const each = polled[next % polled.length];
      next += 1;
      if (each === undefined) return;
      await once(each);
      asked += 1;
      for (const watch of watchers) watch();
    }
  }
  const lanes = Promise.all(Array.from({ length: LANES }, lane));

  return {
    polled,
    rounds(count) {
      // What is under way now may have been sent before.
      const until = asked + count * polled.length + LANES;
      return new Promise((resolve) => {
        const watch = (): void => {
          if (asked < until) return;
          watchers.delete(watch);
          resolve();
        };
        watchers.add(watch);
      });
    },
    everyMs: () => ((performance.now() - startedAt) * polled.length) / Math.max(1, asked),
    reset() {
      for (const each of polled) {
        each.lastShownAt = undefined;
        each.notShown = 0;
        each.shown = 0;
        each.statuses.clear();
      }
    },
    async stop() {
      state.stopping = true;
      await lanes;
      agent.destroy();
    },
  };
}
