/**
 * What must hold of the folders of an origin after any power cut: everything that was acknowledged before is there and
 * whole, what was taken down stays so, and fsck finds nothing. Throws at the first thing that does not hold.
 */
import { randomUUID } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { openAuditLog } from '../../../origin/audit.js';
import type { BlobStore } from '../../../origin/blobs/blob-store.js';
import { mediaKey } from '../../../origin/blobs/blob-store.js';
import { openLocalStore } from '../../../origin/blobs/local.js';
import { openUploadsInFolder } from '../../../origin/ingest/resumable/uploads-in-folder.js';
import { metaSection } from '../../../origin/meta/config.js';
import { openMetaStore } from '../../../origin/meta/lmdb.js';
import type { MetaStore } from '../../../origin/meta/store.js';
import { fsck } from '../../../origin/upkeep/fsck.js';
import type { MediaId, Sha256 } from '../../../src/ids.js';
import { createLog } from '../../../src/log.js';
import { ManualClock } from '../clock.js';
import { configured } from '../deps.js';
import { startOrigin } from '../origin/origin.js';
import { sha256Of } from '../origin/stores.js';
import { type OriginNote, PART_BYTES, PARTS, words, workloadSection } from './origin-note.js';

/** What must be true of media. `maybe`: an act that was not answered. */
interface ExpectedMedia {
  readonly sha256: Sha256;
  state: 'live' | 'quarantined' | 'deleted';
  maybe: 'live' | 'quarantined' | 'deleted' | undefined;
}

interface ExpectedUpload {
  readonly source: number;
  offset: number;
  /** An answer to a request that ends it is, or may be, out. */
  ending: 'none' | 'asked' | 'finished' | 'dropped';
}

export interface Expected {
  readonly media: ReadonlyMap<MediaId, ExpectedMedia>;
  readonly uploads: ReadonlyMap<string, ExpectedUpload>;
  /** The acts of admins, as they stand in the audit log. */
  readonly acts: readonly { readonly act: string; readonly target: MediaId }[];
}

const STATE_AFTER = { delete: 'deleted', quarantine: 'quarantined', restore: 'live' } as const;

export function expectedAfter(notes: readonly OriginNote[]): Expected {
  const media = new Map<MediaId, ExpectedMedia>();
  const uploads = new Map<string, ExpectedUpload>();
  const acts: { act: string; target: MediaId }[] = [];
  for (const note of notes) {
    if ('will' in note) {
      if ('upload' in note) of(uploads, note.upload).ending = 'asked';
      else of(media, note.id).maybe = STATE_AFTER[note.will];
      continue;
    }
    switch (note.did) {
      case 'upload':
        if (!media.has(note.id)) media.set(note.id, { sha256: note.sha256, state: 'live', maybe: undefined });
        break;
      case 'offset':
        uploads.set(note.upload, { source: note.source, offset: note.offset, ending: 'none' });
        break;
      case 'finish':
        of(uploads, note.upload).ending = 'finished';
        break;
      case 'drop':
        of(uploads, note.upload).ending = 'dropped';
        break;
      default: {
        const ended = of(media, note.id);
        ended.state = STATE_AFTER[note.did];
        ended.maybe = undefined;
        acts.push({ act: note.did, target: note.id });
      }
    }
  }
  return { media, uploads, acts };
}

function of<K, V>(map: ReadonlyMap<K, V>, key: K): V {
  const found = map.get(key);
  if (found === undefined) throw new Error(`${String(key)} was never noted`);
  return found;
}

const NEVER = new AbortController().signal;
const SILENT = createLog('power', { level: 'silent' });
/** Younger bytes without a record are no finding. */
const GRACE_MS = 1e15;

export async function checkOrigin(folder: string, notes: readonly OriginNote[]): Promise<void> {
  const expected = expectedAfter(notes);
  const clock = new ManualClock(Date.UTC(2026, 0, 2));
  const config = configured(metaSection, { folder: join(folder, 'meta'), reserveBytes: 65_536 });
  const meta = await openMetaStore(config, { clock, log: SILENT, randomName: randomUUID });
  try {
    const blobs = await openLocalStore({ folder: join(folder, 'blobs'), stageFolder: join(folder, 'stage') });
    for (const [id, each] of expected.media) await checkMedia(meta, blobs, id, each);
    await checkJournal(meta, expected);
    await checkUploads(folder, expected);
    await checkAudit(folder, expected);
    const found: string[] = [];
    await fsck(
      { meta, blobs, clock, graceMs: GRACE_MS, makesThumbs: () => true },
      {
        repair: false,
        signal: NEVER,
        onFinding: ({ kind, subject, detail }) => found.push(`${kind} ${subject}: ${detail}`),
        onProgress: () => undefined,
      },
    );
    if (found.length > 0) throw new Error(`fsck: ${found.join('; ')}`);
  } finally {
    await meta.close();
  }
}

/** The same by requests to a whole origin: what is live is served, and what was taken down is refused. */
export async function checkWholeOrigin(folder: string, notes: readonly OriginNote[]): Promise<void> {
  const origin = await startOrigin(folder, workloadSection(folder), { clock: new ManualClock(Date.UTC(2026, 0, 2)) });
  try {
    for (const [id, { sha256, state, maybe }] of expectedAfter(notes).media) {
      const { status, bytes } = await origin.as('alice', `/v1/media/${id}`);
      const wanted: readonly number[] = [state, maybe ?? state].map((each) => STATUS[each]);
      if (!wanted.includes(status)) throw new Error(`${id} was ${state} and is answered ${status}`);
      if (status === 200 && sha256Of(bytes) !== sha256) throw new Error(`${id} is served with other bytes`);
    }
  } finally {
    await origin.stop();
    await origin.auth.close();
  }
}

const STATUS = { live: 200, quarantined: 403, deleted: 410 } as const;

async function checkMedia(
  meta: MetaStore,
  blobs: BlobStore,
  id: MediaId,
  { sha256, state, maybe }: ExpectedMedia,
): Promise<void> {
  // At instant 0 nothing has expired.
  const found = await meta.find(id, 0);
  const is = found.kind === 'live' || found.kind === 'quarantined' ? found.kind : 'deleted';
  if (is !== state && is !== maybe) throw new Error(`${id} was ${state} and is ${found.kind}`);
  if (is === 'deleted') return;
  const key = 'media' in found ? mediaKey(found.media.blob) : undefined;
  if (key === undefined) throw new Error(`${id} has no blob`);
  const read = await blobs.read(key);
  if (read.kind !== 'found') throw new Error(`the bytes of ${id} are ${read.kind}`);
  if (sha256Of(await buffer(read.body)) !== sha256) throw new Error(`the bytes of ${id} are not what they were`);
}

/** It has no gaps, and an entry for each act that was answered. */
async function checkJournal({ journal }: MetaStore, { acts }: Expected): Promise<void> {
  const entries = await journal.read(0, Number.MAX_SAFE_INTEGER);
  for (const [index, { seq }] of entries.entries()) {
    if (seq !== index + 1) throw new Error(`the journal has ${seq} in place of ${index + 1}`);
  }
  for (const { act, target } of acts) {
    if (!entries.some(({ cause, ids }) => cause === act && ids.includes(target))) {
      throw new Error(`the journal has lost the ${act} of ${target}`);
    }
  }
}

/** An unfinished upload has what was confirmed, and never a byte that was not sent. */
async function checkUploads(folder: string, { uploads }: Expected): Promise<void> {
  const kept = join(folder, 'stage', 'resumable');
  const store = await openUploadsInFolder(kept);
  for (const [id, { source, offset, ending }] of uploads) {
    const found = await store.find(id);
    if (found === undefined) {
      if (ending === 'none' || ending === 'finished') throw new Error(`the upload ${id} is lost`);
      continue;
    }
    if (ending === 'dropped') throw new Error(`the upload ${id} was dropped and is back`);
    if (found.mediaId !== null) {
      if (ending === 'none') throw new Error(`the upload ${id} is finished by itself`);
      continue;
    }
    if (ending === 'finished') throw new Error(`the upload ${id} was finished and is not`);
    const has = await store.offset(found);
    if (has < offset) throw new Error(`the upload ${id} has ${has} bytes of ${offset}`);
    const bytes = await readFile(join(kept, id));
    if (!bytes.subarray(0, has).equals(words(source, PARTS * PART_BYTES).subarray(0, has))) {
      throw new Error(`the upload ${id} has ${has} bytes, of which some were never sent`);
    }
  }
}

async function checkAudit(folder: string, { acts }: Expected): Promise<void> {
  const file = join(folder, 'audit', 'audit.jsonl');
  await (await openAuditLog({ file, rotateBytes: 1e9 })).close();
  const names = await readdir(join(folder, 'audit'));
  const texts = await Promise.all(names.map((name) => readFile(join(folder, 'audit', name), 'utf8')));
  for (const { act, target } of acts) {
    const line = (text: string): boolean => text.includes(`"act":"${act}"`) && text.includes(`"target":"${target}"`);
    if (!texts.some((text) => text.split('\n').some(line))) throw new Error(`no audit line of the ${act} of ${target}`);
  }
}
