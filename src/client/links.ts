/**
 * Signed links: asked for in one request for all that are wanted at once, kept, and
 * renewed before they end.
 */
import type { ClientClock } from './clock.js';
import { asMediaError, MediaError } from './errors.js';
import type { Service } from './service.js';
import type { MediaLink } from './wire.js';

export interface LinkBookOptions {
  readonly service: Service;
  readonly clock: ClientClock;
  /** Seconds that a link should last; the service's own default if it is undefined. */
  readonly linkLifetime?: number;
  /** How long before its end a link is not given out any more. */
  readonly renewBeforeMs: number;
}

/** Ids that were asked for in one moment, and the links of all of them by id in upper case. */
interface Batch {
  readonly ids: Set<string>;
  readonly links: Promise<ReadonlyMap<string, MediaLink>>;
}

export function mediaPath(id: string): string {
  return `/v1/media/${encodeURIComponent(id)}`;
}

/** What `POST /v1/links` takes in one request. */
const IDS_MAX = 500;
/** The shortest time between two renewals of watched links. */
const RENEWAL_MIN_MS = 1_000;
const RENEWAL_RETRY_MS = 10_000;

export class LinkBook {
  readonly #options: LinkBookOptions;
  readonly #links = new Map<string, MediaLink>();
  #batch: Batch | undefined;
  readonly #watches = new Set<() => void>();

  constructor(options: LinkBookOptions) {
    this.#options = options;
  }

  /** A link that lasts for a while. Whether there are such media it does not tell. Calls of one moment become one request. */
  async get(id: string): Promise<MediaLink> {
    const kept = this.#links.get(id);
    if (kept !== undefined && this.#lastsMs(kept) > 0) return kept;
    this.#batch ??= { ids: new Set(), links: Promise.resolve().then(() => this.#ask()) };
    this.#batch.ids.add(id);
    const link = (await this.#batch.links).get(id.toUpperCase());
    if (link === undefined) throw new MediaError('unexpected', `The service made no link for ${id}.`);
    this.#links.set(id, link);
    return link;
  }

  /** Links by id. */
  async many(ids: Iterable<string>): Promise<ReadonlyMap<string, MediaLink>> {
    return new Map(await Promise.all([...ids].map(async (id) => [id, await this.get(id)] as const)));
  }

  /**
   * Calls `onLinks` with the links at once, and again with new ones before they end, until the result is
   * called. A renewal that fails is tried again, and `onError` is told.
   */
  watch(
    ids: Iterable<string>,
    onLinks: (links: ReadonlyMap<string, MediaLink>) => void,
    onError: (error: MediaError) => void = () => undefined,
  ): () => void {
    const watched = [...ids];
    let cancel = (): void => undefined;
    let ended = false;
    const { clock } = this.#options;
    const renew = async (): Promise<void> => {
      let waitMs = RENEWAL_RETRY_MS;
      try {
        const links = await this.many(watched);
        if (ended) return;
        onLinks(links);
        if (links.size === 0) return;
        waitMs = Math.min(...[...links.values()].map((link) => this.#lastsMs(link)));
      } catch (thrown) {
        if (!ended) onError(asMediaError(thrown));
      }
      if (!ended) cancel = clock.after(Math.max(waitMs, RENEWAL_MIN_MS), () => void renew());
    };
    const stop = (): void => {
      ended = true;
      cancel();
      this.#watches.delete(stop);
    };
    this.#watches.add(stop);
    void renew();
    return stop;
  }

  /** Ends every watch. */
  close(): void {
    for (const stop of this.#watches) stop();
  }

  async #ask(): Promise<ReadonlyMap<string, MediaLink>> {
    const ids = [...(this.#batch?.ids ?? [])];
    this.#batch = undefined;
    for (const [id, link] of this.#links) if (this.#lastsMs(link) <= 0) this.#links.delete(id);
    const requests = Array.from({ length: Math.ceil(ids.length / IDS_MAX) }, (_, at) =>
      this.#fetch(ids.slice(at * IDS_MAX, (at + 1) * IDS_MAX)),
    );
    return new Map((await Promise.all(requests)).flat().map((link) => [link.id.toUpperCase(), link]));
  }

  async #fetch(ids: readonly string[]): Promise<readonly MediaLink[]> {
    const { service, linkLifetime } = this.#options;
    const body = { ids, lifetime: linkLifetime };
    return (await service.json<{ links: readonly MediaLink[] }>('/v1/links', { method: 'POST', body })).links;
  }

  #lastsMs({ expires_at }: MediaLink): number {
    return Date.parse(expires_at) - this.#options.clock.now() - this.#options.renewBeforeMs;
  }
}
