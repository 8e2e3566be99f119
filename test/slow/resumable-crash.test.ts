/**
 * Resumable uploads whose origin is killed: while it receives bytes, and while it
 * joins partial uploads. The next origin goes on where the dead one was, and
 * nothing is left of what it had begun.
 */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { connectRaw, requestHead } from '../kit/http/raw.js';
import { type HttpResponse, type RequestOptions, sendRequest } from '../kit/http/request.js';
import { largePng } from '../kit/media.js';
import { PATCH, TUS } from '../kit/origin/tus-requests.js';
import { asCaller, type Launched, openProcesses } from '../kit/processes.js';
import { untilAsync } from '../kit/until.js';

const STILL = { thumbs: { enabled: false, video: { enabled: false } } };
const ROUNDS = Number(process.env['CRASH_ROUNDS'] ?? 5);
const SIZE = 2_000_000;

t.setTimeout(60_000 + ROUNDS * 20_000);

void t.test('a kill at any moment loses no confirmed byte, and leaves nothing behind', async (t) => {
  const folder = t.testdir();
  const processes = await openProcesses(folder);
  t.teardown(() => processes.close());
  let origin: Launched = await processes.launch('origin', STILL);
  let url = await origin.ready;
  const send = (path: string, options: RequestOptions = {}): Promise<HttpResponse> =>
    sendRequest(url + path, asCaller(processes.user, { ...options, headers: { ...TUS, ...options.headers } }));
  const restart = async (): Promise<void> => {
    await origin.kill();
    origin = await processes.launch('origin', STILL);
    url = await origin.ready;
    const names = readdirSync(join(folder, 'data', 'origin', 'stage', 'resumable'));
    t.same(
      names.filter((name) => !/^[0-9a-f]{32}(\.json|\.end)?$/.test(name)),
      [],
      'nothing is left',
    );
  };
  const offsetOf = async (path: string): Promise<number> =>
    Number((await send(path, { method: 'HEAD' })).headers['upload-offset']);

  for (let round = 0; round < ROUNDS; round += 1) {
    const bytes = largePng(round, SIZE);
    const cuts = [0, SIZE / 4, SIZE / 2, bytes.length];
    const paths: string[] = [];
    for (const [index, from] of cuts.slice(0, -1).entries()) {
      const part = bytes.subarray(from, cuts[index + 1]);
      const headers = { 'upload-concat': 'partial', 'upload-length': String(part.length) };
      const path = String((await send('/v1/uploads', { method: 'POST', headers })).headers.location);
      paths.push(path);
      if (index === 1) {
        // Killed behind some bytes of the body.
        const wire = await connectRaw(Number(new URL(url).port));
        const fields = { ...PATCH, ...processes.user, 'upload-offset': '0', 'content-length': part.length };
        wire.write(requestHead('PATCH', path, fields));
        wire.write(part.subarray(0, (part.length / ROUNDS) * round + 1));
        const file = join(folder, 'data', 'origin', 'stage', 'resumable', path.slice(-32));
        await untilAsync('bytes arrive', async () => statSync(file).size > 0);
        await restart();
        wire.reset();
      }
      const offset = await offsetOf(path);
      const patch = { ...PATCH, 'upload-offset': String(offset) };
      t.equal((await send(path, { method: 'PATCH', headers: patch, body: part.subarray(offset) })).status, 204);
    }
    const final = (): Promise<HttpResponse> =>
      send('/v1/uploads', { method: 'POST', headers: { 'upload-concat': `final;${paths.join(' ')}` } });
    const joining = final().catch(() => undefined);
    // A different moment in each round, from before the request arrives to after its answer.
    await new Promise((resolve) => setTimeout(resolve, round * 10));
    await restart();
    const before = await joining;
    const answer = await final();
    t.equal(answer.status, 201, 'the same request joins them, or tells what it had made');
    if (before?.status === 201) t.equal(answer.headers.location, before.headers.location);
    const media = await send(String(answer.headers['media-location']));
    t.ok(media.bytes.equals(bytes), `round ${round}: the bytes of the file`);
  }
});
