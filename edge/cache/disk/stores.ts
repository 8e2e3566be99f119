/**
 * Stores responses on disk: decides whether one is admitted, writes its body,
 * and enters it once its content file is complete. Content that is there already,
 * or is being written, is shared and not written again. Bounded in the bodies
 * that are written at once and in those that wait.
 *
 * Promises: an outcome for each store, never a rejection; on any other outcome
 * than `stored` nothing of the response is left.
 */
import { sharedController } from '../../../src/abort.js';
import { createSlots } from '../../../src/slots.js';
import type { CacheKey, SizedEntry } from '../../entry.js';
import { rememberedBytes } from '../limits.js';
import { type AdmissionName, createAdmission } from '../policy/registry.js';
import type { Admission } from '../policy/second-hit.js';
import type { ContentRefs } from './content-refs.js';
import type { DiskIndex } from './disk-index.js';
import type { DiskEntries, Pending } from './entries.js';
import { type DiskRecord, digestOf, diskWeight } from './record.js';
import { NoRoom, type SpoolFile, type SpoolFolder } from './spool.js';

/** Where the bytes to store are. */
export type Source =
  | { readonly kind: 'bytes'; readonly bytes: Buffer }
  | { readonly kind: 'spool'; readonly spool: SpoolFile };

export interface StoreRequest {
  readonly entry: SizedEntry;
  readonly sha256: string;
  readonly source: Source;
  /** Instead of the tier's own. */
  readonly admission: AdmissionName | undefined;
  readonly isCancelled: () => boolean;
}

export type StoreOutcome = 'stored' | 'too_large' | 'not_admitted' | 'disk_full' | 'cancelled';

/** The limits are read whenever they are needed: a reload may change them. */
export interface DiskStoresDeps {
  readonly index: DiskIndex;
  readonly entries: DiskEntries;
  readonly contentRefs: ContentRefs;
  readonly spools: SpoolFolder;
  readonly capacityBytes: number;
  readonly maxObjectBytes: number;
  /** The tier's own admission. */
  readonly admission: AdmissionName;
  /** Most stores that wait or are under way. */
  readonly storesMax: number;
  onError(thrown: unknown): void;
}

/** Bodies that are written to files at the same time: enough for the disk, and few open files. */
const WRITES_AT_ONCE = 32;
/** A store that waits is ended by its cancellation, which it looks at in its turn. */
const NEVER = sharedController().signal;

export class DiskStores {
  readonly #deps: DiskStoresDeps;
  readonly #underWay = new Set<Promise<StoreOutcome>>();
  readonly #writes = createSlots(WRITES_AT_ONCE);
  /** By content: ends when the store that writes it has ended. */
  readonly #writing = new Map<string, Promise<unknown>>();
  /** By name, each made when it is first used: rules may choose another than the tier's own. */
  readonly #admissions = new Map<AdmissionName, Admission>();
  #refused = 0;

  constructor(deps: DiskStoresDeps) {
    this.#deps = deps;
  }

  /** Responses that were not admitted, or found too many waiting. */
  get refused(): number {
    return this.#refused;
  }

  /** Whether a body of this size can be stored at all. */
  takes(sizeBytes: number): boolean {
    return sizeBytes <= this.#deps.maxObjectBytes;
  }

  /** Whether a response would be admitted, were it complete now. */
  wouldAdmit(key: CacheKey, admission: AdmissionName | undefined): boolean {
    return this.#admissionOf(admission).wouldAdmit(digestOf(key)) && this.#underWay.size < this.#deps.storesMax;
  }

  store(request: StoreRequest): Promise<StoreOutcome> {
    const storing = this.#store(request);
    this.#underWay.add(storing);
    return storing.finally(() => this.#underWay.delete(storing));
  }

  /** The capacity has changed. */
  resizeAdmissions(): void {
    for (const admission of this.#admissions.values()) {
      admission.resize(rememberedBytes(this.#deps.capacityBytes));
    }
  }

  /** What was asked for once counts no more. */
  forgetAdmissions(): void {
    this.#admissions.clear();
  }

  /** Resolves when all stores that are under way have ended. */
  async ended(): Promise<void> {
    await Promise.allSettled(this.#underWay);
  }

  async #store(request: StoreRequest): Promise<StoreOutcome> {
    const { entry, sha256, source, admission } = request;
    const weightBytes = diskWeight(entry, entry.sizeBytes);
    if (!this.takes(entry.sizeBytes)) return 'too_large';
    if (!this.#admissionOf(admission).admits(digestOf(entry.key), weightBytes)) return this.#refuse();
    if (this.#underWay.size >= this.#deps.storesMax) return this.#refuse();
    const pending = this.#deps.entries.begin(entry.key);
    const store: Store = {
      pending,
      placed: { entry, content: entry.sizeBytes === 0 ? null : sha256, weightBytes },
      cancelled: () => pending.state === 'cancelled' || request.isCancelled(),
    };
    const spool = source.kind === 'spool' ? source.spool : undefined;
    try {
      return this.#share(store) ?? (await this.#writeOnce(store, source));
    } catch (thrown) {
      if (!(thrown instanceof NoRoom)) this.#deps.onError(thrown);
      return 'disk_full';
    } finally {
      this.#deps.entries.end(pending);
      await this.#discard(spool);
    }
  }

  /** Enters the response with content that another entry has, or with none. Undefined if its content has to be written. */
  #share({ pending, placed, cancelled }: Store): StoreOutcome | undefined {
    const { index, entries } = this.#deps;
    const { content, weightBytes } = placed;
    const sharing = content === null ? undefined : index.anyWithContent(content);
    if (content !== null && sharing === undefined) return undefined;
    if (cancelled()) return 'cancelled';
    if (!entries.admit(pending, weightBytes)) return this.#refuse();
    // To make room, the policy may have evicted the entry with which it would be shared.
    if (content !== null && index.anyWithContent(content) === undefined) return undefined;
    // Content that an earlier run has written is verified before it is served.
    entries.enter(pending, placed, sharing === undefined || index.isVerified(sharing) ? index.run : sharing.run);
    return 'stored';
  }

  /** Writes the content, unless another store does so meanwhile. */
  async #writeOnce(store: Store, source: Source): Promise<StoreOutcome> {
    const { sha256 } = contentOf(store);
    for (let other = this.#writing.get(sha256); other !== undefined; other = this.#writing.get(sha256)) {
      await other;
      const shared = this.#share(store);
      if (shared !== undefined) return shared;
    }
    const writing = this.#write(store, source);
    const ended = writing.then(
      () => undefined,
      () => undefined,
    );
    this.#writing.set(sha256, ended);
    try {
      return await writing;
    } finally {
      if (this.#writing.get(sha256) === ended) this.#writing.delete(sha256);
    }
  }

  async #write(store: Store, source: Source): Promise<StoreOutcome> {
    const { pending, placed, cancelled } = store;
    const release = await this.#writes.take(NEVER);
    let spool: SpoolFile | undefined;
    try {
      if (cancelled()) return 'cancelled';
      spool = source.kind === 'spool' ? source.spool : await this.#deps.spools.createWhenRoom(placed.entry.sizeBytes);
      if (spool === undefined) return 'disk_full';
      if (cancelled()) return 'cancelled';
      if (!this.#deps.entries.admit(pending, placed.weightBytes)) return this.#refuse();
      const bytes = source.kind === 'bytes' ? source.bytes : undefined;
      return (await this.#place(store, spool, bytes)) ? 'stored' : 'cancelled';
    } finally {
      release();
      if (source.kind === 'bytes') await this.#discard(spool);
    }
  }

  /** Moves the file to its place, or writes it there, and enters the entry. False if the store was cancelled before. */
  async #place(store: Store, spool: SpoolFile, bytes: Buffer | undefined): Promise<boolean> {
    const { pending, placed, cancelled } = store;
    const { contentRefs, entries, index } = this.#deps;
    if (cancelled()) return false;
    return contentRefs.publish(spool.path, contentOf(store).sha256, bytes, () => {
      spool.becameContent();
      if (cancelled()) {
        contentRefs.release(placed);
        return false;
      }
      entries.enter(pending, placed, index.run);
      return true;
    });
  }

  /** Removes the file unless it became a content. */
  async #discard(spool: SpoolFile | undefined): Promise<void> {
    await spool?.discard().catch((thrown: unknown) => this.#deps.onError(thrown));
  }

  #admissionOf(wanted: AdmissionName | undefined): Admission {
    const name = wanted ?? this.#deps.admission;
    const found = this.#admissions.get(name);
    if (found !== undefined) return found;
    const made = createAdmission(name, rememberedBytes(this.#deps.capacityBytes));
    this.#admissions.set(name, made);
    return made;
  }

  #refuse(): 'not_admitted' {
    this.#refused += 1;
    return 'not_admitted';
  }
}

/** One response on its way into the index. */
interface Store {
  readonly pending: Pending;
  readonly placed: Omit<DiskRecord, 'seq' | 'run'>;
  readonly cancelled: () => boolean;
}

function contentOf({ placed }: Store): { readonly sha256: string } {
  if (placed.content === null) throw new Error('an empty body has no content to write');
  return { sha256: placed.content };
}
