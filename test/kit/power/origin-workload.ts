/**
 * A whole origin that is used in every way that changes its disk: first start, uploads of several sizes, resumable ones,
 * duplicates, takedowns, a sweep, the bytes of swept media again, a second start. It notes what was answered.
 *
 * node origin-workload.js FOLDER NOTES-FILE
 */
import { mkdirSync, openSync, writeSync } from 'node:fs';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import type { MediaId, Sha256 } from '../../../src/ids.js';
import { type HttpResponse, member } from '../http/request.js';
import { largePng, pdf, text } from '../media.js';
import { startOrigin } from '../origin/origin.js';
import { sha256Of } from '../origin/stores.js';
import { begin, checksum, head, patch, remove } from '../origin/tus-requests.js';
import { untilAsync } from '../until.js';
import { type Act, type OriginNote, PART_BYTES, PARTS, words, workloadSection } from './origin-note.js';

const [folder = '', notesPath = ''] = process.argv.slice(2);
const GRACE_MS = 60_000;
/** More than one write, and more than the origin writes without a sync. */
const LARGE_BYTES = 2_700_000;

const notes = openSync(notesPath, 'a');
mkdirSync(folder);
const origin = await startOrigin(folder, workloadSection(folder));

await upload(text(1));
await upload(text(1));
await upload(text(1), '?public=true');
const large = await upload(words(2, LARGE_BYTES));
// A picture, whose text is removed before it is stored.
await upload(largePng(3, 2_000));
const first = await upload(pdf(4));
await act('quarantine', first);
await act('restore', first);
await act('quarantine', await upload(pdf(5)));
await act('delete', large);
const ended = await upload(text(6));
await act('delete', ended);
await swept(text(6));
await upload(text(6));

await resumable(7, [{}, checksum('sha256', partOf(7, 1)), {}]);
await resumable(8, [{}, {}]);
const dropped = await resumable(9, [{}]);
note({ will: 'drop', upload: dropped.slice(-32) });
done(await remove(origin, dropped), 204);
note({ did: 'drop', upload: dropped.slice(-32) });

await origin.restart();
await Promise.all([upload(text(10)), upload(text(11)), upload(pdf(12))]);
await act('delete', first);
await origin.stop();
await origin.auth.close();

async function upload(bytes: Uint8Array, query = ''): Promise<MediaId> {
  const answer = done(await origin.upload(bytes, query), 200, 201);
  const id = member(answer, 'id') as MediaId;
  note({ did: 'upload', id, sha256: member(answer, 'sha256') as Sha256 });
  return id;
}

async function act(what: Act, id: MediaId): Promise<void> {
  note({ will: what, id });
  const path = `/v1/media/${id}${what === 'delete' ? '' : '/quarantine'}`;
  done(await origin.asAdmin(path, { method: what === 'quarantine' ? 'POST' : 'DELETE' }), 204);
  note({ did: what, id });
}

/** Waits until the sweep has removed the bytes of media that ended. */
async function swept(bytes: Buffer): Promise<void> {
  const sha256 = sha256Of(bytes);
  const path = join(folder, 'blobs', 'media', sha256.slice(0, 2), sha256);
  origin.clock.advance(20 * GRACE_MS);
  await untilAsync('the sweep', () =>
    access(path).then(
      () => false,
      () => true,
    ),
  );
}

/** An upload in parts, as far as there are fields for their requests. Returns its path. */
async function resumable(source: number, fields: readonly Readonly<Record<string, string>>[]): Promise<string> {
  const whole = words(source, PARTS * PART_BYTES);
  const path = await begin(origin, whole.length);
  const upload = path.slice(-32);
  note({ did: 'offset', upload, source, offset: 0 });
  for (const [nth, each] of fields.entries()) {
    const last = nth + 1 === PARTS;
    if (last) note({ will: 'finish', upload });
    done(await patch(origin, path, nth * PART_BYTES, partOf(source, nth), each), 204);
    if (!last) note({ did: 'offset', upload, source, offset: (nth + 1) * PART_BYTES });
  }
  if (fields.length < PARTS) return path;
  note({ did: 'finish', upload });
  const id = String((await head(origin, path)).headers['media-location'])
    .split('/')
    .at(-1) as MediaId;
  note({ did: 'upload', id, sha256: sha256Of(whole) });
  return path;
}

function partOf(source: number, nth: number): Buffer {
  return words(source, PARTS * PART_BYTES).subarray(nth * PART_BYTES, (nth + 1) * PART_BYTES);
}

function done(answer: HttpResponse, ...wanted: readonly number[]): HttpResponse {
  if (wanted.includes(answer.status)) return answer;
  throw new Error(`${answer.status} ${answer.bytes.toString()}`);
}

function note(line: OriginNote): void {
  writeSync(notes, `${JSON.stringify(line)}\n`);
}
