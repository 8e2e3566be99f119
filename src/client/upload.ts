/**
 * One upload from its first attempt to the service's answer: it can be watched,
 * paused, continued and cancelled, and goes on by itself after cut connections and
 * refusals that pass. Below a size it is one POST, which starts again after a
 * pause; above it goes over tus and continues where it was.
 */
import { type ClientClock, pause } from './clock.js';
import { aborted, asMediaError, errorOf, MediaError, parseObject, type Received } from './errors.js';
import { Events } from './events.js';
import type { Resumable, TusModule } from './resumable.js';
import { type RetryRules, waitBeforeRetry } from './retry.js';
import type { Service } from './service.js';
import type { Media, Uploaded, UploadLink } from './wire.js';

export interface UploadOptions {
  /** The media type; that of the blob is the default. Left out, the bytes decide. */
  readonly type?: string;
  /** The name that others see; that of a File is the default. */
  readonly filename?: string;
  /** Whether anyone may see it. Default false. */
  readonly public?: boolean;
  /** Seconds after which it expires. */
  readonly expiresIn?: number;
  /** An upload link of the chat server, in place of a token. What it fixes counts. */
  readonly link?: UploadLink;
  /** Cancels the upload. */
  readonly signal?: AbortSignal;
}

/** `waiting` for a free slot, `sending`, `paused` by the caller, `retrying` after a failure, or at an end. */
export type UploadState = 'waiting' | 'sending' | 'paused' | 'retrying' | 'finished' | 'failed';

export interface UploadProgress {
  readonly sentBytes: number;
  readonly totalBytes: number;
}

export interface UploadEvents {
  readonly state: UploadState;
  /** May go back when an attempt is repeated. */
  readonly progress: UploadProgress;
  /** An attempt failed, and the next begins after `waitMs`. */
  readonly retry: { readonly error: MediaError; readonly waitMs: number };
}

export interface UploadDeps {
  readonly service: Service;
  readonly fetch: typeof fetch;
  readonly clock: ClientClock;
  readonly random: () => number;
  readonly retry: RetryRules;
  readonly resumableAboveBytes: number;
  readonly digestMaxBytes: number;
  readonly pieceBytes: number;
  readonly stallMs: number;
  readonly loadTus?: () => Promise<TusModule>;
  /** Waits for a free slot, and gives the function that frees it. */
  slot(signal: AbortSignal): Promise<() => void>;
  readonly info: (id: string, signal: AbortSignal) => Promise<Media>;
}

export class Upload {
  /** Resolves with the service's answer once the bytes are durable there. Rejects with a MediaError. */
  readonly done: Promise<Uploaded>;
  readonly #deps: UploadDeps;
  readonly #body: Blob;
  readonly #options: UploadOptions;
  readonly #events = new Events<UploadEvents>();
  readonly #cancelled = new AbortController();
  #attempt = new AbortController();
  #state: UploadState = 'waiting';
  #sentBytes = 0;
  /** Of these, what the service has said that it has. */
  #acceptedBytes = 0;
  #moved: (sentBytes: number) => void = () => undefined;
  #paused = false;
  #continue: () => void = () => undefined;
  #refreshed = false;
  #resumable: Resumable | undefined;

  constructor(body: Blob, options: UploadOptions, deps: UploadDeps) {
    this.#body = body;
    this.#options = options;
    this.#deps = deps;
    const { signal } = options;
    const onAbort = (): void => this.cancel();
    signal?.addEventListener('abort', onAbort);
    this.done = this.#run().finally(() => signal?.removeEventListener('abort', onAbort));
    // Whoever only listens to events has no handler for it.
    this.done.catch(() => undefined);
    if (signal?.aborted === true) this.cancel();
  }

  get state(): UploadState {
    return this.#state;
  }

  get progress(): UploadProgress {
    return { sentBytes: this.#sentBytes, totalBytes: this.#body.size };
  }

  /** Calls `listener` at each event. The result takes it away again. */
  on<Name extends keyof UploadEvents>(name: Name, listener: (event: UploadEvents[Name]) => void): () => void {
    return this.#events.on(name, listener);
  }

  /** Stops sending, and gives the connection up, until `resume`. */
  pause(): void {
    if (this.#paused || this.#ended) return;
    this.#paused = true;
    this.#attempt.abort(PAUSED);
    this.#setState('paused');
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#continue();
  }

  /** Ends it for good. `done` rejects with the code `aborted`, unless it has ended already. */
  cancel(): void {
    if (this.#ended) return;
    this.#cancelled.abort(aborted(this.#options.signal?.reason));
    this.#attempt.abort(this.#cancelled.signal.reason);
    this.#continue();
    this.#resumable?.forget();
  }

  get #ended(): boolean {
    return this.#state === 'finished' || this.#state === 'failed';
  }

  async #run(): Promise<Uploaded> {
    // Not before the caller has its listeners.
    await Promise.resolve();
    let free: (() => void) | undefined;
    try {
      free = await this.#deps.slot(this.#cancelled.signal);
      const media = await this.#attempts();
      this.#setState('finished');
      return media;
    } catch (thrown) {
      this.#setState('failed');
      throw asMediaError(thrown);
    } finally {
      free?.();
    }
  }

  /** Until one succeeds, or fails in a way that will not pass. */
  async #attempts(): Promise<Uploaded> {
    const { clock, retry, random } = this.#deps;
    let failures = 0;
    for (;;) {
      await this.#unpaused();
      const before = this.#acceptedBytes;
      try {
        this.#setState('sending');
        return await this.#once();
      } catch (thrown) {
        this.#cancelled.signal.throwIfAborted();
        if (thrown === PAUSED) continue;
        const error = asMediaError(thrown);
        if (this.#acceptedBytes > before) [failures, this.#refreshed] = [0, false];
        if (error.code === 'unauthorized' && !this.#refreshed && this.#options.link === undefined) {
          this.#refreshed = true;
          await this.#deps.service.credential(true);
          continue;
        }
        const waitMs = waitBeforeRetry(error, failures, retry, random());
        if (waitMs === undefined) throw error;
        failures += 1;
        this.#setState('retrying');
        this.#events.emit('retry', { error, waitMs });
        await pause(clock, waitMs, this.#attempt.signal).catch(() => this.#cancelled.signal.throwIfAborted());
      }
    }
  }

  async #unpaused(): Promise<void> {
    while (this.#paused) await new Promise<void>((resolve) => (this.#continue = resolve));
    this.#cancelled.signal.throwIfAborted();
    this.#attempt = new AbortController();
  }

  /** One attempt, which ends when nothing has moved for too long. */
  async #once(): Promise<Uploaded> {
    const { clock, stallMs } = this.#deps;
    const attempt = this.#attempt;
    const stalled = (): void => attempt.abort(new MediaError('stalled', 'Nothing moved for too long.'));
    let stopWatch = clock.after(stallMs, stalled);
    this.#moved = (sentBytes) => {
      if (attempt.signal.aborted) return;
      stopWatch();
      stopWatch = clock.after(stallMs, stalled);
      this.#sentBytes = sentBytes;
      this.#events.emit('progress', this.progress);
    };
    try {
      const resumable = this.#body.size > this.#deps.resumableAboveBytes;
      return await (resumable ? this.#sendPieces(attempt.signal) : this.#sendWhole(attempt.signal));
    } finally {
      stopWatch();
    }
  }

  async #sendWhole(signal: AbortSignal): Promise<Uploaded> {
    const { service, clock, digestMaxBytes, fetch } = this.#deps;
    const { link, expiresIn, public: isPublic } = this.#options;
    const { filename, type } = this.#named;
    const { sendWhole } = await import('./whole.js');
    const query = link === undefined ? { filename, public: isPublic, expires_in: expiresIn } : { filename };
    const answer = await sendWhole({
      url: service.address(link?.url ?? '/v1/media', query),
      headers: { ...(await this.#credential()), ...(type !== '' && { 'content-type': type }) },
      body: this.#body,
      digestMaxBytes,
      fetch,
      signal,
      onProgress: (sentBytes) => this.#moved(sentBytes),
    });
    if (answer.status > 201) throw errorOf(answer, clock.now());
    return uploaded(answer);
  }

  async #sendPieces(signal: AbortSignal): Promise<Uploaded> {
    const { service, clock, info } = this.#deps;
    this.#resumable ??= (await import('./resumable.js')).openResumable(this.#body, {
      ...this.#deps,
      ...this.#options,
      ...this.#named,
      endpoint: this.#options.link?.tus_url ?? service.address('/v1/uploads'),
      credential: () => this.#credential(),
      now: () => clock.now(),
      onProgress: (sentBytes) => this.#moved(sentBytes),
      onAccepted: (bytes) => (this.#acceptedBytes = bytes),
    });
    const answer = await this.#resumable.attempt(signal);
    if (answer.kind === 'described') return uploaded(answer.received);
    return { ...(await info(answer.id, signal)), duplicate: false };
  }

  async #credential(): Promise<Record<string, string>> {
    return this.#options.link === undefined ? await this.#deps.service.credential(false) : {};
  }

  get #named(): { readonly filename: string | undefined; readonly type: string } {
    const { filename, type } = this.#options;
    const { name } = this.#body as Blob & { readonly name?: string };
    return { filename: filename ?? name, type: (type ?? this.#body.type).toLowerCase() };
  }

  #setState(state: UploadState): void {
    if (this.#state === state || this.#ended) return;
    this.#state = state;
    this.#events.emit('state', state);
  }
}

const PAUSED = new MediaError('aborted', 'It was paused.');

function uploaded(answer: Received): Uploaded {
  const media = parseObject(answer.text);
  if (typeof media?.['id'] === 'string') return media as unknown as Uploaded;
  throw new MediaError('unexpected', 'The answer is not that of an upload.', { status: answer.status });
}
