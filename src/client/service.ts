/**
 * Requests to the service: addresses, the token and its refresh, and refusals as
 * errors. Repeats nothing but a request that was refused for its old token.
 */
import type { ClientClock } from './clock.js';
import { aborted, asMediaError, errorOf, type MediaError } from './errors.js';

/** Gives the token. `refresh` is true after the service refused the one before. */
export type TokenSource = (request: { readonly refresh: boolean }) => string | undefined | Promise<string | undefined>;

export interface ServiceOptions {
  readonly baseUrl: string;
  readonly token: TokenSource;
  readonly fetch: typeof fetch;
  readonly clock: ClientClock;
}

export interface ServiceRequest {
  readonly method?: string;
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON. */
  readonly body?: unknown;
  readonly signal?: AbortSignal | undefined;
  /** How the browser's own cache is used. */
  readonly cache?: RequestCache;
}

export class Service {
  readonly #options: ServiceOptions;
  readonly #base: string;
  #refreshing: Promise<string | undefined> | undefined;

  constructor(options: ServiceOptions) {
    this.#options = options;
    this.#base = options.baseUrl.replace(/\/+$/, '');
  }

  /** An address of the service. Those that it answered itself stay as they are. */
  address(path: string, query: ServiceRequest['query'] = {}): string {
    const given = Object.entries(query).filter(([, value]) => value !== undefined);
    const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
    const url = /^https?:/.test(path) ? path : this.#base + path;
    return text === '' ? url : `${url}${url.includes('?') ? '&' : '?'}${text}`;
  }

  /** The field Authorization; none where the application has no token. Callers that refresh at once share one refresh. */
  async credential(refresh: boolean): Promise<Record<string, string>> {
    if (refresh) {
      this.#refreshing ??= Promise.resolve(this.#options.token({ refresh })).finally(() => {
        this.#refreshing = undefined;
      });
    }
    const token = await (this.#refreshing ?? this.#options.token({ refresh: false }));
    return token === undefined ? {} : { authorization: `Bearer ${token}` };
  }

  /** The answer, which is none of the refusals. */
  async fetch(path: string, request: ServiceRequest = {}): Promise<Response> {
    const first = await this.#send(path, request, false);
    const answer = first.status === 401 ? await this.#send(path, request, true) : first;
    if (answer.ok) return answer;
    throw await this.#refusal(answer);
  }

  async json<T>(path: string, request: ServiceRequest = {}): Promise<T> {
    const answer = await this.fetch(path, request);
    return (await answer.json().catch((thrown: unknown) => Promise.reject(asMediaError(thrown)))) as T;
  }

  async #send(path: string, request: ServiceRequest, refresh: boolean): Promise<Response> {
    const { method = 'GET', query, headers, body, signal, cache } = request;
    const json = body === undefined ? {} : { 'content-type': 'application/json' };
    const credential = await this.credential(refresh);
    try {
      return await this.#options.fetch(this.address(path, query), {
        method,
        headers: { ...json, ...headers, ...credential },
        body: body === undefined ? null : JSON.stringify(body),
        signal: signal ?? null,
        ...(cache !== undefined && { cache }),
      });
    } catch (thrown) {
      throw signal?.aborted === true ? aborted(signal.reason) : asMediaError(thrown);
    }
  }

  async #refusal(answer: Response): Promise<MediaError> {
    const text = await answer.text().catch(() => '');
    const { status, headers } = answer;
    return errorOf({ status, text, field: (name) => headers.get(name) }, this.#options.clock.now());
  }
}
