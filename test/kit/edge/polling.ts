/** Requests media from an edge in every form, over and over, and notes when each form was last served. */
import { Agent } from 'node:http';
import { type HttpResponse, sendRequest } from '../http/request.js';

export const FORMS = ['GET', 'HEAD', 'Range', '304', 'thumbnail', 'info', 'stale'] as const;
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
  const part = form === 'thumbnail' ? '/thumb' : form === 'info' ? '/info' : '';
  return sendRequest(`${base}${media.path}${part}`, {
    method: form === 'HEAD' ? 'HEAD' : 'GET',
    headers: { ...caller, ...extra },
    ...(agent !== undefined && { agent }),
  });
}

/** Whether a response serves the media in any form. */
export function shows({ status }: Pick<HttpResponse, 'status'>): boolean {
  return (status >= 200 && status < 300 && status !== 202) || status === 304;
}

export interface Polled {
  readonly media: Watched;
  readonly form: Form;
  /** When the last request was sent to which the media were served, by `performance.now()`. */
  lastShownAt: number | undefined;
  /** Requests since the last reset to which the media were not served. */
  notShown: number;
  shown: number;
  /** Every status since the last reset; 0 for no response. */
  readonly statuses: Set<number>;
}

export interface Poller {
  readonly polled: readonly Polled[];
  /** Resolves once everything has been requested at least so many times more. */
  rounds(count: number): Promise<void>;
  /** The average time between two requests for the same. */
  everyMs(): number;
  /** Starts counting again. */
  reset(): void;
  stop(): Promise<void>;
}

/** Requests at the same time. */
const WORKERS = 4;
/** The pause after a request that got no response. */
const RETRY_MS = 5;

export function poll(base: () => string, all: readonly Watched[], caller: Fields): Poller {
  const agent = new Agent({ keepAlive: true, maxSockets: WORKERS });
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
  let answered = 0;
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
    if (answer === undefined) await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
  async function worker(): Promise<void> {
    while (!state.stopping) {
      const each = polled[next % polled.length];
      next += 1;
      if (each === undefined) return;
      await once(each);
      answered += 1;
      for (const watch of watchers) watch();
    }
  }
  const workers = Promise.all(Array.from({ length: WORKERS }, worker));

  return {
    polled,
    rounds(count) {
      // The requests in flight were sent before this call.
      const until = answered + count * polled.length + WORKERS;
      return new Promise((resolve) => {
        const watch = (): void => {
          if (answered < until) return;
          watchers.delete(watch);
          resolve();
        };
        watchers.add(watch);
      });
    },
    everyMs: () => ((performance.now() - startedAt) * polled.length) / Math.max(1, answered),
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
      await workers;
      agent.destroy();
    },
  };
}
