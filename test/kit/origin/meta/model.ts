/**
 * A naive model of the metadata store in plain arrays: no indexes, no
 * transactions, every read searches everything. Every store must give the same
 * answers.
 */
import { type BlobKey, mediaKey, type Place } from '../../../../origin/blobs/blob-store.js';
import type { BlobRecord, Found, MediaRecord, MediaState, Quarantine } from '../../../../origin/meta/media.js';
import type {
  CommitOutcome,
  NewMedia,
  OwnedOutcome,
  OwnerAct,
  QuarantineOutcome,
  RemoveOutcome,
  Usage,
} from '../../../../origin/meta/store.js';
import type { EpochMs } from '../../../../src/clock.js';
import type { MediaId, Sha256 } from '../../../../src/ids.js';
import type { JournalCause, JournalEntry } from '../../../../src/journal/entry.js';

interface Row {
  record: MediaRecord;
  endedSeq: number;
}

interface BlobRow {
  blob: BlobRecord;
  unreferencedAt: EpochMs | null;
  markSeq: number;
}

export class MetaModel {
  readonly rows: Row[] = [];
  readonly blobs: BlobRow[] = [];
  /** Without their marks, which are random. */
  readonly journal: Omit<JournalEntry, 'mark'>[] = [];
  readonly queued = new Set<Sha256>();
  readonly used = new Map<string, Usage>();
  /** Keys that no record names any more, in any order. */
  readonly trash: BlobKey[] = [];

  commitUpload(upload: NewMedia): CommitOutcome {
    const before = this.#blob(upload.sha256)?.blob;
    const outcome = this.#record(upload);
    const { quarantine: mark } = upload;
    if (mark?.cause !== 'held' || !('media' in outcome)) return outcome;
    const row = this.#blob(upload.sha256);
    const { record, blob } = outcome.media;
    if (row === undefined || blob !== row.blob || blob.quarantine !== null || before?.quarantine === null)
      return outcome;
    this.#mark(row, mark, 'quarantine', mark.at);
    return { ...outcome, media: { record, blob: row.blob } };
  }

  #record(upload: NewMedia): CommitOutcome {
    const { sha256, sentSha256 = sha256, now } = upload;
    const twins = this.rows.filter(
      ({ record }) =>
        record.sentSha256 === sentSha256 && record.public === upload.public && record.state.kind === 'live',
    );
    for (const row of twins.filter((twin) => isPast(twin.record, now))) this.#expire([row], now, true);
    const stored = this.#blob(sha256);
    if (this.#refuses(sentSha256) || stored?.blob.quarantine?.cause === 'admin') return { kind: 'quarantined' };

    const place = this.#placeOf(upload);
    const twin = twins.find(({ record }) => record.state.kind === 'live');
    const other = twin !== undefined && twin.record.sha256 !== sha256 && this.#blob(twin.record.sha256) !== undefined;
    if (place === undefined && !other) return { kind: 'bytes_gone' };
    if (twin !== undefined) {
      const { expiresAt, usedAt } = twin.record;
      const later = expiresAt === null || upload.expiresAt === null ? null : Math.max(expiresAt, upload.expiresAt);
      twin.record = { ...twin.record, expiresAt: later, usedAt: Math.max(usedAt, now) };
      const blob = twin.record.sha256 === sha256 ? this.#keep(upload) : this.#blob(twin.record.sha256)?.blob;
      if (blob === undefined) throw new Error('the model lost a blob');
      return { kind: 'duplicate', media: { record: twin.record, blob } };
    }
    const usage = this.usage(upload);
    const after = { files: usage.files + 1, bytes: usage.bytes + (stored === undefined ? upload.sizeBytes : 0) };
    const { quota } = upload;
    if (quota !== undefined) {
      if (after.files > quota.filesMax || after.bytes > quota.bytesMax) return { kind: 'over_quota' };
      this.used.set(`${upload.owner} ${quota.periodStartAt}`, after);
    }
    const { id, owner, filename, expiresAt } = upload;
    const facts = { id, sha256, sentSha256, public: upload.public, owner, filename, expiresAt };
    const record: MediaRecord = { ...facts, createdAt: now, usedAt: now, state: { kind: 'live' } };
    this.rows.push({ record, endedSeq: 0 });
    return { kind: 'created', media: { record, blob: this.#keep(upload) } };
  }

  /** Where the bytes are once an upload is recorded. */
  #placeOf({ sha256, bytes }: NewMedia): Place | undefined {
    const known = this.#blob(sha256)?.blob;
    const isGood = known !== undefined && known.quarantine?.cause !== 'rot';
    if (bytes.kind === 'found') return isGood ? known.place : undefined;
    return isGood && known.place !== bytes.damaged ? known.place : bytes.place;
  }

  usage(upload: NewMedia): Usage {
    return this.used.get(`${upload.owner} ${upload.quota?.periodStartAt}`) ?? { bytes: 0, files: 0 };
  }

  find(id: MediaId, now: EpochMs): Found {
    const row = this.rows.find(({ record }) => record.id === id);
    if (row === undefined) return { kind: 'unknown' };
    const { record } = row;
    if (record.state.kind !== 'live') return { kind: record.state.kind, record };
    if (isPast(record, now)) {
      return { kind: 'expired', record: { ...record, state: { kind: 'expired', at: record.expiresAt ?? 0 } } };
    }
    const stored = this.#blob(record.sha256);
    if (stored === undefined) throw new Error(`the model lost the blob of ${id}`);
    return { kind: stored.blob.quarantine === null ? 'live' : 'quarantined', media: { record, blob: stored.blob } };
  }

  remove(id: MediaId, by: string, now: EpochMs): RemoveOutcome {
    const row = this.rows.find(({ record }) => record.id === id);
    if (row === undefined) return { kind: 'unknown' };
    if (row.record.state.kind !== 'live') return { kind: 'already', seq: row.endedSeq };
    const seq = this.#note('delete', [id], now);
    this.#end(row, { kind: 'deleted', at: now, by }, seq, now);
    return { kind: 'removed', seq };
  }

  quarantine(target: MediaId | Sha256, mark: Quarantine): QuarantineOutcome {
    const found = this.#target(target, mark.at);
    if (!('blob' in found)) return found;
    const existing = found.blob.quarantine;
    if (existing?.cause === 'admin' || (existing !== null && mark.cause === 'rot')) {
      return { kind: 'already', seq: found.markSeq };
    }
    return this.#mark(found, mark, 'quarantine', mark.at);
  }

  restore(target: MediaId | Sha256, now: EpochMs): QuarantineOutcome {
    const found = this.#target(target, now);
    if (!('blob' in found)) return found;
    if (found.blob.quarantine === null) return { kind: 'already', seq: found.markSeq };
    return this.#mark(found, null, 'restore', now);
  }

  resolveScan(sha256: Sha256, mark: Quarantine | null, now: EpochMs): boolean {
    const row = this.#blob(sha256);
    if (row?.blob.quarantine?.cause !== 'held') return false;
    this.#mark(row, mark, mark === null ? 'restore' : 'quarantine', now);
    return true;
  }

  blobsAwaitingScan(): readonly Sha256[] {
    return this.blobs
      .filter(({ blob }) => blob.quarantine?.cause === 'held')
      .sort(by(({ blob }) => [blob.quarantine?.at ?? 0, blob.sha256]))
      .map(({ blob }) => blob.sha256);
  }

  /** The blobs that store bytes sent with this hash, under any id. */
  blobsBySent(sentSha256: Sha256): readonly BlobRecord[] {
    const hashes = this.rows
      .filter(({ record }) => record.sentSha256 === sentSha256)
      .map(({ record }) => record.sha256);
    const known = [sentSha256, ...hashes].map((sha256) => this.#blob(sha256)?.blob);
    return known.filter((blob) => blob !== undefined);
  }

  #refuses(sentSha256: Sha256): boolean {
    return this.blobsBySent(sentSha256).some(({ quarantine }) => quarantine?.cause === 'admin');
  }

  /** Of the first `limit` media of an owner. */
  owned(owner: string, act: OwnerAct['kind'], limit: number, now: EpochMs): readonly MediaId[] {
    const own = this.rows.filter(({ record }) => record.owner === owner).sort(by(({ record }) => [0, record.id]));
    const wanted = own.slice(0, limit).filter(({ record }) => {
      if (record.state.kind !== 'live') return false;
      const isAdmins = this.#blob(record.sha256)?.blob.quarantine?.cause === 'admin';
      return act === 'delete' || (!isPast(record, now) && isAdmins === (act === 'restore'));
    });
    return wanted.map(({ record }) => record.id);
  }

  /** All of a step are in one entry: there are too few for two. */
  takeDownOwned(owner: string, ids: readonly MediaId[], act: OwnerAct, now: EpochMs): OwnedOutcome {
    const rows = this.rows.filter(({ record }) => ids.includes(record.id)).sort(by(({ record }) => [0, record.id]));
    if (rows.length === 0) return { media: 0, others: 0 };
    if (act.kind === 'delete') {
      const seq = this.#note('delete', ids, now);
      for (const row of rows) this.#end(row, { kind: 'deleted', at: now, by: act.by }, seq, now);
      return { media: rows.length, others: 0 };
    }
    const blobs = [...new Set(rows.map(({ record }) => this.#blob(record.sha256)))].filter((row) => row !== undefined);
    const marked = blobs.flatMap((row) => this.#liveInOrder(row));
    const seq = this.#note(
      act.kind,
      marked.map(({ record }) => record.id),
      now,
    );
    for (const row of blobs) {
      row.blob = { ...row.blob, quarantine: act.kind === 'restore' ? null : act.mark };
      row.markSeq = seq;
    }
    const media = marked.filter(({ record }) => record.owner === owner).length;
    return { media, others: marked.length - media };
  }

  expireDue(now: EpochMs, limit: number): readonly MediaId[] {
    const due = this.rows
      .filter(({ record }) => record.state.kind === 'live' && isPast(record, now))
      .sort(by(({ record }) => [record.expiresAt ?? 0, record.id]))
      .slice(0, limit);
    this.#expire(due, now, true);
    return due.map(({ record }) => record.id);
  }

  expireUnused(before: EpochMs, now: EpochMs, limit: number): readonly MediaId[] {
    const idle = this.rows
      .filter(({ record }) => record.state.kind === 'live' && record.usedAt < before)
      .sort(by(({ record }) => [record.usedAt, record.id]))
      .slice(0, limit);
    this.#expire(idle, now, false);
    return idle.map(({ record }) => record.id);
  }

  forgetTombstones(before: EpochMs, limit: number): number {
    const old = this.rows
      .filter(({ record: { state } }) => state.kind !== 'live' && state.at < before)
      .filter(({ record: { sha256, sentSha256 } }) => {
        return sha256 === sentSha256 || this.#blob(sha256)?.blob.quarantine?.cause !== 'admin';
      })
      .sort(by(({ record: { state, id } }) => [state.kind === 'live' ? 0 : state.at, id]))
      .slice(0, limit);
    for (const row of old) this.rows.splice(this.rows.indexOf(row), 1);
    return old.length;
  }

  unreferencedBlobs(before: EpochMs, limit: number): readonly BlobRecord[] {
    return this.blobs
      .filter((row) => row.unreferencedAt !== null && row.unreferencedAt < before)
      .filter((row) => row.blob.quarantine?.cause !== 'admin')
      .sort(by((row) => [row.unreferencedAt ?? 0, row.blob.sha256]))
      .slice(0, limit)
      .map((row) => row.blob);
  }

  isUnreferenced(sha256: Sha256): boolean {
    const row = this.#blob(sha256);
    return row !== undefined && row.blob.quarantine?.cause !== 'admin' && this.#liveRowsOf(sha256).length === 0;
  }

  forgetBlob(sha256: Sha256): readonly BlobKey[] | undefined {
    const row = this.#blob(sha256);
    if (row === undefined || !this.isUnreferenced(sha256)) return undefined;
    this.blobs.splice(this.blobs.indexOf(row), 1);
    this.queued.delete(sha256);
    this.trash.push(mediaKey(row.blob));
    return [mediaKey(row.blob)];
  }

  markUsed(ids: readonly MediaId[], at: EpochMs, stepMs: number): void {
    for (const row of this.rows.filter(({ record }) => ids.includes(record.id))) {
      if (row.record.state.kind === 'live' && at - row.record.usedAt >= stepMs) {
        row.record = { ...row.record, usedAt: at };
      }
    }
  }

  idsOfBlob(sha256: Sha256): readonly MediaId[] {
    return this.rows
      .filter(({ record }) => record.sha256 === sha256)
      .map(({ record }) => record.id)
      .sort();
  }

  #blob(sha256: Sha256): BlobRow | undefined {
    return this.blobs.find((row) => row.blob.sha256 === sha256);
  }

  #liveRowsOf(sha256: Sha256): Row[] {
    return this.rows.filter(({ record }) => record.sha256 === sha256 && record.state.kind === 'live');
  }

  /** The blob that an upload brings or finds; it is referenced from now on. */
  #keep(upload: NewMedia): BlobRecord {
    const { sha256, sizeBytes, mime, picture, now } = upload;
    const place = this.#placeOf(upload);
    if (place === undefined) throw new Error('the model has lost some bytes');
    let row = this.#blob(sha256);
    if (row !== undefined && row.blob.place !== place) {
      this.trash.push(mediaKey(row.blob));
      row.blob = { ...row.blob, place };
    }
    if (row === undefined) {
      const thumbs = upload.thumbs.kind === 'queue' ? ({ kind: 'pending' } as const) : upload.thumbs;
      const blob = { sha256, place, sizeBytes, mime, storedAt: now, picture, thumbs, quarantine: null };
      row = { blob, unreferencedAt: null, markSeq: 0 };
      this.blobs.push(row);
    }
    const stays = row.blob.quarantine?.cause === 'held' && upload.quarantine?.cause === 'held';
    if (row.blob.quarantine !== null && !stays) this.#mark(row, null, 'restore', now);
    row.unreferencedAt = null;
    if (row.blob.thumbs.kind === 'pending') this.queued.add(sha256);
    return row.blob;
  }

  #target(
    target: MediaId | Sha256,
    now: EpochMs,
  ): BlobRow | { kind: 'gone'; state: 'deleted' | 'expired' } | { kind: 'unknown' } {
    if (target.length === 64) {
      const found = this.#blob(target as Sha256) ?? this.#changed(target as Sha256);
      return found ?? { kind: 'unknown' };
    }
    const found = this.find(target as MediaId, now);
    if (found.kind === 'deleted' || found.kind === 'expired') return { kind: 'gone', state: found.kind };
    if (found.kind === 'unknown') return { kind: 'unknown' };
    return this.#blob(found.media.record.sha256) ?? { kind: 'unknown' };
  }

  /** The blob of a changed record of bytes sent with this hash: a refused one first, then the one of the oldest id. */
  #changed(sentSha256: Sha256): BlobRow | undefined {
    const rows = this.rows
      .filter(({ record }) => record.sentSha256 === sentSha256)
      .sort(by(({ record }) => [0, record.id]))
      .map(({ record }) => this.#blob(record.sha256))
      .filter((row) => row !== undefined);
    return rows.find(({ blob }) => blob.quarantine?.cause === 'admin') ?? rows[0];
  }

  #mark(
    row: BlobRow,
    mark: Quarantine | null,
    cause: JournalCause,
    now: EpochMs,
  ): QuarantineOutcome & { kind: 'done' } {
    const ids = this.#liveInOrder(row).map(({ record }) => record.id);
    row.blob = { ...row.blob, quarantine: mark };
    row.markSeq = this.#note(cause, ids, now);
    if (mark === null && row.unreferencedAt !== null) row.unreferencedAt = now;
    return { kind: 'done', seq: row.markSeq };
  }

  #liveInOrder({ blob: { sha256 } }: BlobRow): readonly Row[] {
    return this.#liveRowsOf(sha256).sort(
      by(({ record }) => [record.public ? 1 : 0, record.sentSha256 === sha256 ? '' : record.sentSha256]),
    );
  }

  #expire(rows: readonly Row[], now: EpochMs, atItsInstant: boolean): void {
    if (rows.length === 0) return;
    const seq = this.#note(
      'expire',
      rows.map(({ record }) => record.id),
      now,
    );
    for (const row of rows) {
      this.#end(row, { kind: 'expired', at: atItsInstant ? (row.record.expiresAt ?? 0) : now }, seq, now);
    }
  }

  #end(row: Row, state: MediaState, seq: number, now: EpochMs): void {
    row.record = { ...row.record, state };
    row.endedSeq = seq;
    const stored = this.#blob(row.record.sha256);
    if (stored === undefined || this.#liveRowsOf(row.record.sha256).length > 0) return;
    stored.unreferencedAt = now;
    this.queued.delete(stored.blob.sha256);
  }

  #note(cause: JournalCause, ids: readonly MediaId[], at: EpochMs): number {
    this.journal.push({ seq: this.journal.length + 1, at, cause, ids });
    return this.journal.length;
  }
}

function isPast(record: MediaRecord, now: EpochMs): boolean {
  return record.expiresAt !== null && record.expiresAt <= now;
}

/** Sorts by a number, then by a string. */
function by<T>(keyOf: (item: T) => readonly [number, string]): (one: T, other: T) => number {
  return (one, other) => {
    const [a, idA] = keyOf(one);
    const [b, idB] = keyOf(other);
    return a - b || (idA < idB ? -1 : 1);
  };
}
