/**
 * The durable index of the disk tier, in LMDB. It finds records by key, by media,
 * by primary key and by content, and lists them in the order of storing.
 * cacache's own index has one file per entry: a million entries would take
 * minutes to read back, and their heads would have to stay in memory.
 *
 * A change is visible at once. Changes wait for others a moment and are committed
 * together, one commit at a time; `flushed` hurries them and resolves when they are
 * durable. If a commit fails, what it
 * would have added is lost (`onLost`), and what it would have removed is tried
 * again. Until that succeeds, such an entry is gone for this run only, and
 * `flushed` rejects.
 */
import { statSync, truncateSync } from 'node:fs';
import { chmod } from 'node:fs/promises';
import { type Database, open, type RootDatabase } from 'lmdb';
import type { Clock, Timer } from '../../../src/clock.js';
import type { JournalPosition } from '../../../src/journal/entry.js';
import type { AppliedToCache } from '../cache.js';
import { appliedRow, readApplied } from './applied.js';
import { type Change, Changes } from './changes.js';
import { type DiskRecord, decodeRecord, digestOf, encodeRecord, type KeyDigest } from './record.js';

/** A row of the order of storing: what the policy needs, without the head. */
export interface OrderRow {
  readonly seq: number;
  readonly digest: KeyDigest;
  readonly weightBytes: number;
}

/** What lmdb says of its file, without a type. */
interface FileStats {
  readonly pageSize: number;
  readonly lastPageNumber: number;
}

/** What a record is found by, beside its key. */
type Handle = 'media' | 'primary' | 'content';

const DIGEST_BYTES = 16;
const ORDER_ROW_BYTES = DIGEST_BYTES + 16;
const DATABASES_MAX = 8;
/** So many records stay decoded. */
const RECENT_MAX = 1_024;
/** So many changes wait for no others. */
const CHANGES_AT_ONCE = 1_024;

export interface CommitPace {
  readonly clock: Pick<Clock, 'after'>;
  /** How long a change may wait for others; 0: for those of its turn of the event loop. */
  readonly commitWithinMs: number;
}

export class DiskIndex {
  /** Called for a record that could not be committed. It is not visible any more. */
  onLost: (record: DiskRecord, thrown: unknown) => void = () => undefined;
  readonly #path: string;
  readonly #root: RootDatabase;
  readonly #entries: Database<readonly unknown[], Buffer>;
  readonly #order: Database<Buffer, number>;
  readonly #handles: Readonly<Record<Handle, Database<Buffer, Buffer>>>;
  readonly #facts: Database<unknown, string>;
  readonly #pace: CommitPace;
  #waiting = new Changes();
  #committing = new Changes();
  /** Committed records that were read last, so that a hit decodes none, and finds what was prepared for its entry. */
  readonly #recent = new Map<KeyDigest, DiskRecord>();
  #verified = new Map<number, Buffer>();
  #discarded = new Map<number, KeyDigest>();
  /** Noted, and not committed yet. */
  #applied: JournalPosition | undefined;
  #appliedBefore: AppliedToCache = { kind: 'nothing_stored' };
  /** Everything that is committed is void: it is cleared with the next commit, or with the current one. */
  #clear = false;
  #clearing = false;
  /** The last commit failed. The next change, flush or retry tries again. */
  #stalled = false;
  #commit: Promise<void> | undefined;
  /** Until the next commit. */
  #pause: Timer | undefined;
  /** The number of all changes, and of those that are durable. */
  #changes = 0;
  #durableChanges = 0;
  #settling: { readonly changes: number; readonly resolve: () => void }[] = [];
  #nextSeq = 1;
  #run = 1;
  /** The last page that the file is known to have. */
  #lastPage = 0;

  private constructor(path: string, root: RootDatabase, pace: CommitPace) {
    this.#path = path;
    this.#pace = pace;
    this.#root = root;
    this.#entries = root.openDB('entries', { keyEncoding: 'binary', encoding: 'msgpack' });
    this.#order = root.openDB('order', { encoding: 'binary' });
    this.#facts = root.openDB('facts', { encoding: 'msgpack' });
    const handle = (name: string): Database<Buffer, Buffer> =>
      root.openDB(name, { keyEncoding: 'binary', encoding: 'binary', dupSort: true });
    this.#handles = { media: handle('media'), primary: handle('primary'), content: handle('content') };
  }

  static async open(path: string, pace: CommitPace): Promise<DiskIndex> {
    // With batching by event turn, a failed commit would also reject promises that nobody can catch.
    const root = open({
      path,
      noSubdir: true,
      maxDbs: DATABASES_MAX,
      overlappingSync: false,
      eventTurnBatching: false,
      encoding: 'binary',
    });
    await chmod(path, 0o600);
    const index = new DiskIndex(path, root, pace);
    const [newest] = index.#order.getKeys({ reverse: true, limit: 1 });
    index.#nextSeq = (newest ?? 0) + 1;
    const run = index.#facts.get('run');
    index.#run = (typeof run === 'number' ? run : 0) + 1;
    await index.#facts.put('run', index.#run);
    if (newest !== undefined) {
      const position = readApplied(index.#facts.get('applied'));
      index.#appliedBefore = position === undefined ? { kind: 'unknown' } : { kind: 'applied', position };
    }
    return index;
  }

  /** How often the index has been opened, this time included. */
  get run(): number {
    return this.#run;
  }

  /** How far the journal was applied to the entries of earlier runs. */
  get appliedBefore(): AppliedToCache {
    return this.#appliedBefore;
  }

  /** Is committed with the changes before it, or after them. */
  noteApplied(position: JournalPosition): void {
    this.#applied = position;
    this.#changed();
  }

  takeSeq(): number {
    const seq = this.#nextSeq;
    this.#nextSeq += 1;
    return seq;
  }

  get(digest: KeyDigest): DiskRecord | undefined {
    const change = this.#changeOf(digest);
    return change === undefined ? this.#committed(digest) : change.after;
  }

  put(digest: KeyDigest, record: DiskRecord): void {
    this.#change(digest, record);
  }

  remove(digest: KeyDigest): void {
    this.#change(digest, undefined);
  }

  byMedia(id: string): readonly DiskRecord[] {
    const pending = (changes: Changes): readonly KeyDigest[] => changes.ofMedia(id);
    return this.#find('media', Buffer.from(id, 'latin1'), pending, (record) => record.entry.mediaId === id);
  }

  byPrimary(primaryKey: string): readonly DiskRecord[] {
    const handle = binary(digestOf(primaryKey));
    const pending = (changes: Changes): readonly KeyDigest[] => changes.ofPrimary(primaryKey);
    return this.#find('primary', handle, pending, (record) => record.entry.primaryKey === primaryKey);
  }

  byContent(sha256: string): readonly DiskRecord[] {
    const pending = (changes: Changes): readonly KeyDigest[] => changes.ofContent(sha256);
    return this.#find('content', Buffer.from(sha256, 'hex'), pending, (record) => record.content === sha256);
  }

  /** One of the records that have this content. */
  anyWithContent(sha256: string): DiskRecord | undefined {
    for (const changes of [this.#waiting, this.#committing]) {
      for (const digest of changes.ofContent(sha256)) {
        const record = this.get(digest);
        if (record?.content === sha256) return record;
      }
    }
    const value = Buffer.from(sha256, 'hex');
    if (this.#void) return undefined;
    for (const row of this.#handles.content.getValues(value)) {
      const record = this.get(row.toString('latin1', 0, DIGEST_BYTES) as KeyDigest);
      if (record?.content === sha256) return record;
    }
    return undefined;
  }

  /**
   * False only if no record has this content. Cheaper than byContent, but true also while such a record
   * is being removed.
   */
  mayHaveContent(sha256: string): boolean {
    if (!this.#void && this.#handles.content.doesExist(Buffer.from(sha256, 'hex'))) return true;
    return this.#committing.ofContent(sha256).length > 0 || this.#waiting.ofContent(sha256).length > 0;
  }

  /** Whether this run has written or verified its content. */
  isVerified(record: DiskRecord): boolean {
    if (record.run === this.#run || this.#verified.has(record.seq)) return true;
    return this.#order.get(record.seq)?.readDoubleLE(DIGEST_BYTES + 8) === this.#run;
  }

  markVerified(digest: KeyDigest, record: DiskRecord): void {
    if (this.get(digest)?.seq !== record.seq) return;
    this.#verified.set(record.seq, orderRow(digest, record.weightBytes, this.#run));
    this.#changed();
  }

  /** All committed rows in the order of storing, in batches. The index may change between two batches. */
  *inOrder(batchMax: number): Generator<readonly OrderRow[], void> {
    let seq = 0;
    for (;;) {
      const rows = this.#rowsFrom(seq, batchMax);
      const last = rows.at(-1);
      if (last === undefined) return;
      seq = last.seq + 1;
      yield rows;
    }
  }

  #rowsFrom(seq: number, limit: number): readonly OrderRow[] {
    if (this.#void) return [];
    const rows: OrderRow[] = [];
    for (const { key, value } of this.#order.getRange({ start: seq, limit })) {
      if (value.length !== ORDER_ROW_BYTES) continue;
      const digest = value.toString('latin1', 0, DIGEST_BYTES) as KeyDigest;
      rows.push({ seq: key, digest, weightBytes: value.readDoubleLE(DIGEST_BYTES) });
    }
    return rows;
  }

  /** Removes a row that leads to no readable record. */
  discard(row: Pick<OrderRow, 'seq' | 'digest'>): void {
    this.#discarded.set(row.seq, row.digest);
    this.#recent.delete(row.digest);
    this.#changed();
  }

  /** Removes everything. */
  clear(): void {
    this.#waiting = new Changes();
    this.#committing = new Changes();
    this.#recent.clear();
    this.#verified.clear();
    this.#discarded.clear();
    this.#clear = true;
    this.#changed();
  }

  /** Tries again what an earlier commit failed to do. */
  retry(): void {
    if (this.#dirty) this.#startCommit();
  }

  /** Resolves when all changes so far are durable. Rejects if a commit fails. */
  async flushed(): Promise<void> {
    const changes = this.#changes;
    while (this.#durableChanges < changes) {
      this.#startCommit();
      await this.#commit;
    }
  }

  /** Resolves when all changes so far are durable, or a commit has failed. Hurries nothing. */
  async settled(): Promise<void> {
    if (this.#durableChanges >= this.#changes) return;
    this.#schedule();
    await new Promise<void>((resolve) => this.#settling.push({ changes: this.#changes, resolve }));
  }

  /** Commits what is left. Rejects if that fails; the index is closed all the same. */
  async close(): Promise<void> {
    try {
      await this.flushed();
    } finally {
      await this.#root.close();
    }
  }

  get #dirty(): boolean {
    if (this.#clear || this.#applied !== undefined) return true;
    return this.#waiting.size > 0 || this.#verified.size > 0 || this.#discarded.size > 0;
  }

  /** Whether everything that is committed is void. */
  get #void(): boolean {
    return this.#clear || this.#clearing;
  }

  #committed(digest: KeyDigest): DiskRecord | undefined {
    if (this.#void) return undefined;
    const recent = this.#recent.get(digest);
    this.#recent.delete(digest);
    const record = recent ?? readRecord(this.#entries, digest);
    if (record === undefined || (recent === undefined && digestOf(record.entry.key) !== digest)) return undefined;
    this.#recent.set(digest, record);
    for (const oldest of this.#recent.keys()) {
      if (this.#recent.size <= RECENT_MAX) break;
      this.#recent.delete(oldest);
    }
    return record;
  }

  #changeOf(digest: KeyDigest): Change | undefined {
    return this.#waiting.get(digest) ?? this.#committing.get(digest);
  }

  #change(digest: KeyDigest, after: DiskRecord | undefined): void {
    this.#waiting.add(digest, () => this.get(digest), after);
    this.#recent.delete(digest);
    this.#changed();
  }

  #changed(): void {
    this.#changes += 1;
    this.#schedule();
  }

  #find(
    handle: Handle,
    value: Buffer,
    pending: (changes: Changes) => readonly KeyDigest[],
    matches: (record: DiskRecord) => boolean,
  ): readonly DiskRecord[] {
    const found = new Map<KeyDigest, DiskRecord>();
    const rows = this.#handles[handle];
    if (!this.#void && rows.doesExist(value)) {
      for (const row of rows.getValues(value)) {
        const digest = row.toString('latin1', 0, DIGEST_BYTES) as KeyDigest;
        const record = this.get(digest);
        if (record !== undefined && matches(record)) found.set(digest, record);
      }
    }
    for (const changes of [this.#committing, this.#waiting]) {
      for (const digest of pending(changes)) {
        const record = this.get(digest);
        if (record !== undefined && matches(record)) found.set(digest, record);
      }
    }
    return [...found.values()];
  }

  #schedule(): void {
    const { clock, commitWithinMs } = this.#pace;
    if (commitWithinMs === 0 || this.#waiting.size >= CHANGES_AT_ONCE) this.#startCommit();
    else if (this.#commit === undefined) this.#pause ??= clock.after(commitWithinMs, () => this.#startCommit());
  }

  #startCommit(): void {
    if (this.#commit !== undefined) return;
    this.#pause?.cancel();
    this.#pause = undefined;
    this.#commit = this.#commitWaiting().finally(() => {
      this.#commit = undefined;
      this.#resolveSettled();
      if (this.#dirty && !this.#stalled) this.#schedule();
    });
    this.#commit.catch(() => undefined);
  }

  #resolveSettled(): void {
    const settling = this.#settling;
    this.#settling = [];
    for (const each of settling) {
      if (this.#stalled || each.changes <= this.#durableChanges) each.resolve();
      else this.#settling.push(each);
    }
  }

  async #commitWaiting(): Promise<void> {
    // Changes of one turn of the event loop are committed together.
    await new Promise(setImmediate);
    const upTo = this.#changes;
    const changes = this.#waiting;
    const verified = this.#verified;
    const discarded = this.#discarded;
    const applied = this.#applied;
    this.#applied = undefined;
    this.#waiting = new Changes();
    this.#verified = new Map();
    this.#discarded = new Map();
    this.#committing = changes;
    this.#clearing = this.#clear;
    this.#clear = false;
    try {
      await this.#root.batch(() => {
        this.#apply(changes, verified, discarded);
        if (applied !== undefined) void this.#facts.put('applied', appliedRow(applied));
      });
      this.#stalled = false;
      this.#durableChanges = upTo;
      this.#lengthenFile();
    } catch (thrown) {
      this.#stalled = true;
      handleCommitError(thrown);
      this.#clear ||= this.#clearing;
      this.#applied ??= applied;
      this.#takeBack(changes, thrown);
      throw thrown;
    } finally {
      this.#committing = new Changes();
      this.#clearing = false;
    }
  }

  /**
   * LMDB does not write a page that it took and freed within one commit. If that was the last one, the file ends before
   * the page that its head names as the last, as if it were truncated (index-guard.ts).
   */
  #lengthenFile(): void {
    const { lastPageNumber, pageSize } = this.#root.getStats() as FileStats;
    if (lastPageNumber <= this.#lastPage) return;
    const sizeBytes = (lastPageNumber + 1) * pageSize;
    try {
      if (statSync(this.#path).size < sizeBytes) truncateSync(this.#path, sizeBytes);
      this.#lastPage = lastPageNumber;
    } catch {
      // The commit is durable all the same. A later one tries again.
    }
  }

  #apply(
    changes: Iterable<readonly [KeyDigest, Change]>,
    verified: ReadonlyMap<number, Buffer>,
    discarded: ReadonlyMap<number, KeyDigest>,
  ): void {
    if (this.#clearing) {
      for (const database of [this.#entries, this.#order, ...Object.values(this.#handles)]) void database.clearAsync();
    }
    for (const [seq, row] of verified) void this.#order.put(seq, row);
    for (const [seq, digest] of discarded) {
      void this.#order.remove(seq);
      void this.#entries.remove(binary(digest));
    }
    for (const [digest, { before, after }] of changes) {
      if (before !== undefined) this.#unlink(digest, before);
      if (after !== undefined) this.#link(digest, after);
      else if (before !== undefined) void this.#entries.remove(binary(digest));
    }
  }

  #link(digest: KeyDigest, record: DiskRecord): void {
    void this.#entries.put(binary(digest), encodeRecord(record));
    void this.#order.put(record.seq, orderRow(digest, record.weightBytes, record.run));
    for (const [handle, value] of handlesOf(record)) void this.#handles[handle].put(value, binary(digest));
  }

  #unlink(digest: KeyDigest, record: DiskRecord): void {
    void this.#order.remove(record.seq);
    for (const [handle, value] of handlesOf(record)) void this.#handles[handle].remove(value, binary(digest));
  }

  /** After a failed commit: what it added is lost; what it removed will be removed again. */
  #takeBack(changes: Changes, thrown: unknown): void {
    // If everything was cleared meanwhile, there is nothing to take back.
    if (this.#committing !== changes) return;
    const lost: DiskRecord[] = [];
    for (const [digest, { before, after }] of changes) {
      const newer = this.#waiting.get(digest);
      if (newer !== undefined) newer.before = before;
      else if (before !== undefined) this.#waiting.add(digest, () => before, undefined);
      if (newer === undefined && after !== undefined) lost.push(after);
    }
    this.#committing = new Changes();
    for (const record of lost) this.onLost(record, thrown);
  }
}

function binary(digest: KeyDigest): Buffer {
  return Buffer.from(digest, 'latin1');
}

/** A row that cannot be decoded is no record. */
function readRecord(entries: Database<readonly unknown[], Buffer>, digest: KeyDigest): DiskRecord | undefined {
  try {
    return decodeRecord(entries.get(binary(digest)));
  } catch {
    return undefined;
  }
}

function handlesOf({ entry, content }: DiskRecord): readonly (readonly [Handle, Buffer])[] {
  const handles: [Handle, Buffer][] = [['primary', binary(digestOf(entry.primaryKey))]];
  if (entry.mediaId !== null) handles.push(['media', Buffer.from(entry.mediaId, 'latin1')]);
  if (content !== null) handles.push(['content', Buffer.from(content, 'hex')]);
  return handles;
}

function orderRow(digest: KeyDigest, weightBytes: number, run: number): Buffer {
  const row = Buffer.alloc(ORDER_ROW_BYTES);
  row.write(digest, 'latin1');
  row.writeDoubleLE(weightBytes, DIGEST_BYTES);
  row.writeDoubleLE(run, DIGEST_BYTES + 8);
  return row;
}

/** lmdb's error carries the cause as another promise that rejects; without a handler it would end the process. */
function handleCommitError(thrown: unknown): void {
  const { commitError } = Object(thrown) as { readonly commitError?: unknown };
  Promise.resolve(commitError).catch(() => undefined);
}
