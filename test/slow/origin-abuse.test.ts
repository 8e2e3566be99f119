/**
 * Bad clients and full disks, at the origin and at an edge: clients that stall or disconnect, bodies that are too large,
 * simultaneous uploads of the same bytes, a full disk.
 */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { startDownload } from '../kit/http/download.js';
import { connectRaw, type RawConnection, requestHead } from '../kit/http/raw.js';
import { type HttpResponse, member, sendRequest } from '../kit/http/request.js';
import { largePng, png } from '../kit/media.js';
import { openLightS3 } from '../kit/origin/light-s3.js';
import { startOrigin } from '../kit/origin/origin.js';
import { asCaller, openProcesses } from '../kit/processes.js';
import { onSmallDisk } from '../kit/small-disk.js';

const TIMEOUT_MS = 300_000;
const SIZE_MAX_BYTES = 900_000;
/** Thumbnails have tests of their own. */
const STILL = { thumbs: { enabled: false, video: { enabled: false } } };
const LIMITS = { headers_within: '1s', stalled: '4s', idle: '4s' };
const UPLOAD = { size_max: SIZE_MAX_BYTES, idle: '1s', grace: '1s', free_min: '0B' };
/** Longer than every limit above, also on a busy machine. */
const ENDED_WITHIN_MS = 20_000;
const STALLED_EACH = 10;
const DRIP_MS = 100;

const portOf = (url: string): number => Number(new URL(url).port);
const staged = (folder: string): string[] =>
  readdirSync(join(folder, 'data/origin/stage')).filter((name) => name.startsWith('upload-'));
const outcome = (answer: HttpResponse): string =>
  answer.status < 300 ? String(answer.status) : member(answer, 'code');

async function untilNothingStaged(folder: string): Promise<void> {
  while (staged(folder).length > 0) await pause(10);
}

t.setTimeout(TIMEOUT_MS);
void t.test('an origin and an edge as processes', { timeout: TIMEOUT_MS }, async (t) => {
  const processes = await openProcesses(t.testdir());
  t.teardown(() => processes.close());
  const origin = await processes.launch('origin', {
    listen: { port: 0, limits: LIMITS },
    upload: UPLOAD,
    refused_bodies: { within: '1s' },
    ...STILL,
  });
  const originUrl = await origin.ready;
  const edge = await processes.launch('edge', {
    listen: { port: 0, limits: LIMITS },
    upstream: { url: originUrl },
    pass: { client_timeout: '1s', drain_within: '1s' },
  });
  const servers = [
    ['the origin', originUrl],
    ['the edge', await edge.ready],
  ] as const;
  let seed = 0;
  const nextSeed = (): number => {
    seed += 1;
    return seed;
  };
  const upload = (url: string, body: Buffer, headers: Readonly<Record<string, string>> = {}): Promise<HttpResponse> =>
    sendRequest(`${url}/v1/media`, asCaller(processes.user, { method: 'POST', headers, body }));
  const uploadHead = (headers: Readonly<Record<string, string | number>>): string =>
    requestHead('POST', '/v1/media', { ...processes.user, ...headers });

  for (const [name, url] of servers) {
    await t.test(`${name} disconnects clients that stall, and serves the others meanwhile`, async (t) => {
      const stalls: Readonly<Record<string, (client: RawConnection) => void>> = {
        silent: () => undefined,
        'a slow head': (client) => drip(client, 'GET /healthz HTTP/1.1\r\nhost: test\r\nx-slow: '),
        'a slow body': (client) => drip(client, uploadHead({ 'content-length': 100_000 })),
        'a body that stops': (client) => client.write(`${uploadHead({ 'content-length': 100_000 })}half`),
        'a chunk that stops': (client) => client.write(`${uploadHead({ 'transfer-encoding': 'chunked' })}64\r\nhalf`),
        'half open': (client) => {
          client.write(`${uploadHead({ 'content-length': 100_000 })}half`);
          client.end();
        },
      };
      const clients: (readonly [string, RawConnection])[] = [];
      for (const [kind, stall] of Object.entries(stalls)) {
        for (let each = 0; each < STALLED_EACH; each += 1) {
          const client = await connectRaw(portOf(url));
          stall(client);
          clients.push([kind, client]);
        }
      }
      const served = await Promise.all(Array.from({ length: 20 }, () => upload(url, png(nextSeed()))));
      t.same(new Set(served.map(outcome)), new Set(['201']));
      const left = pause(ENDED_WITHIN_MS, 'left open' as const, { ref: false });
      const ends = await Promise.all(
        clients.map(async ([kind, client]) =>
          [kind, await Promise.race([client.closed, left]), client.text.slice(0, 12)].join(),
        ),
      );
      for (const [, client] of clients) client.socket.destroy();
      const wrong = ends.filter((end) => /left open|HTTP\/1\.1 2/.test(end));
      t.same([...new Set(wrong)], []);
      const gotTimeout = (kind: string): boolean =>
        clients.filter(([each]) => each === kind).every(([, { text }]) => text.startsWith('HTTP/1.1 408 '));
      for (const kind of ['a slow head', 'a slow body', 'a body that stops', 'a chunk that stops'])
        t.ok(gotTimeout(kind), kind);
      await untilNothingStaged(processes.folder);
    });

    await t.test(`uploads that are broken off at ${name} leave nothing`, async (t) => {
      // So large that the first bytes are staged before the rest arrives.
      const half = largePng(nextSeed(), 700_000);
      const clients: RawConnection[] = [];
      for (const [headers, part] of [
        [{ 'content-length': 800_000 }, half],
        [{ 'transfer-encoding': 'chunked' }, Buffer.concat([Buffer.from('c3500\r\n'), half])],
      ] as const) {
        const client = await connectRaw(portOf(url));
        client.write(uploadHead(headers));
        client.write(part);
        clients.push(client);
      }
      while (staged(processes.folder).length < clients.length) await pause(1);
      for (const client of clients) client.reset();
      await untilNothingStaged(processes.folder);
      t.equal(outcome(await upload(url, half)), '201', 'and were not stored');
    });

    await t.test(`a body that is too large for ${name} is refused, and the client can read the refusal`, async (t) => {
      const large = largePng(nextSeed(), 6 * SIZE_MAX_BYTES);
      t.equal(outcome(await upload(url, large)), 'too_large');
      t.equal(outcome(await upload(url, large, { 'transfer-encoding': 'chunked' })), 'too_large');
      const client = await connectRaw(portOf(url));
      client.write(uploadHead({ 'content-length': large.length, expect: '100-continue' }));
      t.match(await client.until(/"code":\s*"too_large"/), /^HTTP\/1\.1 413 /, 'without 100 Continue');
      client.socket.destroy();
      await untilNothingStaged(processes.folder);
      t.equal(outcome(await upload(url, png(nextSeed()))), '201');
    });
  }
});

/** Sends a byte from time to time until the connection is closed. */
function drip(client: RawConnection, start: string): void {
  client.write(start);
  const timer = setInterval(() => client.write('x'), DRIP_MS);
  void client.closed.then(() => clearInterval(timer));
}

const UNREAD_BYTES = 24_000_000;
const UNREAD_EACH = 20;
/** How much memory so many unread responses may take: far less than their size. */
const UNREAD_GROWTH_MAX_BYTES = 200_000_000;

void t.test(
  'clients that read nothing cost little memory, and are disconnected',
  { timeout: TIMEOUT_MS },
  async (t) => {
    const processes = await openProcesses(t.testdir());
    t.teardown(() => processes.close());
    const listener = { port: 0, limits: { ...LIMITS, stalled: '3s' } };
    const origin = await processes.launch('origin', {
      listen: listener,
      upload: { size_max: '32MB', free_min: '0B' },
      ...STILL,
    });
    const originUrl = await origin.ready;
    const disk = await processes.launch('edge', {
      listen: listener,
      upstream: { url: originUrl },
      cache: { folder: join(processes.folder, 'disk'), memory: { size: '1MB' } },
    });
    const memory = await processes.launch(
      'edge',
      {
        listen: listener,
        upstream: { url: originUrl },
        cache: { folder: join(processes.folder, 'memory'), memory: { max_object: '32MB' } },
      },
      { as: 'edge-of-memory' },
    );
    await Promise.all([disk.ready, memory.ready]);
    const bytes = largePng(1, UNREAD_BYTES);
    const sent = await sendRequest(
      `${originUrl}/v1/media?public=true`,
      asCaller(processes.user, { method: 'POST', body: bytes }),
    );
    const path = `/v1/media/${member(sent, 'id')}`;
    for (const [name, { pid, ready }] of [
      ['the origin', origin],
      ['an edge with the media on disk', disk],
      ['an edge with the media in memory', memory],
    ] as const) {
      await t.test(name, async (t) => {
        const url = await ready;
        for (let each = 0; each < 2; each += 1) t.ok((await sendRequest(url + path)).bytes.equals(bytes));
        const [openBefore, usedBefore] = [openFiles(pid), residentBytes(pid)];
        const clients = await Promise.all(Array.from({ length: UNREAD_EACH }, () => connectRaw(portOf(url))));
        for (const client of clients) {
          client.socket.pause();
          client.write(requestHead('GET', path, {}));
        }
        const deadline = performance.now() + ENDED_WITHIN_MS;
        // A connection from before that was idle may be closed meanwhile, so not all of the new ones are waited for.
        while (openFiles(pid) < openBefore + UNREAD_EACH / 2 && performance.now() < deadline) await pause(10);
        let most = 0;
        const others = new Set<number>();
        // From outside, only the open files of the process show whether the connections are closed.
        do {
          most = Math.max(most, residentBytes(pid) - usedBefore);
          others.add((await sendRequest(url + path, { method: 'HEAD' })).status);
          await pause(100);
        } while (openFiles(pid) > openBefore && performance.now() < deadline);
        t.ok(openFiles(pid) <= openBefore, `${openFiles(pid) - openBefore} still open`);
        t.same([...others], [200], 'others are served meanwhile');
        t.ok(most < UNREAD_GROWTH_MAX_BYTES, `${most} bytes for ${UNREAD_EACH} responses`);
        for (const client of clients) client.socket.destroy();
        t.ok((await sendRequest(url + path)).bytes.equals(bytes));
      });
    }
  },
);

/** Sockets and files that a process holds open. */
function openFiles(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

function residentBytes(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kib) * 1_024;
}

void t.test('clients that leave during a download leave no connection to the bucket open', async (t) => {
  const s3 = await openLightS3();
  const origin = await startOrigin(t.testdir(), {
    ...STILL,
    upload: { size_max: '32MB' },
    blobs: {
      adaptor: 's3',
      stage_folder: join(t.testdirName, 'stage'),
      s3: {
        endpoint: s3.url,
        bucket: s3.bucket,
        access_key_id: 'env:KEY',
        secret_access_key: 'env:SECRET',
        sockets_max: 2,
      },
    },
  });
  t.teardown(async () => {
    await origin.close();
    await s3.close();
  });
  // More than all buffers on the way can take.
  const bytes = largePng(1, 24_000_000);
  const path = `/v1/media/${await origin.uploaded(bytes, '?public=true')}`;
  for (let round = 0; round < 3; round += 1) {
    const downloads = await Promise.all([0, 1].map(() => startDownload(origin.url + path)));
    for (const download of downloads) {
      download.pause();
      t.equal(download.status, 200);
    }
    for (const download of downloads) download.abort();
  }
  t.ok((await origin.send(path)).bytes.equals(bytes));
});

void t.test('simultaneous uploads of the same bytes make one record for each visibility and one blob', async (t) => {
  const origin = await startOrigin(t.testdir(), STILL);
  t.teardown(() => origin.close());
  const token = `Bearer ${origin.auth.token()}`;
  let contents = 0;
  // The schedule says which client sends its next piece.
  const schedules = fc.record({
    visibilities: fc.array(fc.boolean(), { minLength: 2, maxLength: 8 }),
    turns: fc.array(fc.nat(7), { maxLength: 24 }),
  });
  await fc.assert(
    fc.asyncProperty(schedules, async ({ visibilities, turns }) => {
      contents += 1;
      const bytes = largePng(contents, 50_000);
      const pieces = [bytes.subarray(0, 20_000), bytes.subarray(20_000, 49_000), bytes.subarray(49_000)];
      const clients = await Promise.all(
        visibilities.map(async (isPublic) => {
          const client = await connectRaw(origin.port);
          const headers = { authorization: token, 'content-length': bytes.length, connection: 'close' };
          client.write(requestHead('POST', `/v1/media?public=${isPublic}`, headers));
          return { wire: client, isPublic, left: [...pieces] };
        }),
      );
      for (const turn of turns) {
        const { wire: client, left } = clients[turn % clients.length] ?? { wire: undefined, left: [] };
        const piece = left.shift();
        if (piece !== undefined) client?.write(piece);
        await new Promise(setImmediate);
      }
      for (const { wire: client, left } of clients) for (const piece of left) client.write(piece);
      const answers = await Promise.all(
        clients.map(async ({ wire: client, isPublic }) => {
          const text = await client.whole();
          const [status, id] = [/^HTTP\/1\.1 (\d+)/.exec(text)?.[1], /"id":"(\w+)"/.exec(text)?.[1]];
          return { isPublic, status, id };
        }),
      );
      for (const visibility of new Set(visibilities)) {
        const own = answers.filter(({ isPublic }) => isPublic === visibility);
        if (new Set(own.map(({ id }) => id)).size !== 1) throw new Error(`several ids: ${JSON.stringify(answers)}`);
        const made = own.filter(({ status }) => status === '201').length;
        const met = own.filter(({ status }) => status === '200').length;
        if (made !== 1 || met !== own.length - 1) throw new Error(`wrong statuses: ${JSON.stringify(answers)}`);
      }
      const ids = new Set(answers.map(({ id }) => id));
      if (ids.size !== new Set(visibilities).size) throw new Error('one id for both visibilities');
    }),
    { numRuns: 40 },
  );
  const blobs = readdirSync(join(origin.folder, 'blobs', 'media'), { recursive: true, withFileTypes: true });
  t.equal(blobs.filter((entry) => entry.isFile()).length, contents, 'one blob for each content');
  const left = readdirSync(join(origin.folder, 'stage'), { recursive: true, withFileTypes: true });
  t.same(
    left.filter((entry) => entry.isFile()).map(({ name }) => name),
    ['writer.lock'],
    'nothing is left on the stage',
  );
});

const DISK_BYTES = 12_000_000;

void t.test(
  'a full disk is reported as such, loses nothing, and works again once there is space',
  { timeout: TIMEOUT_MS },
  (t) => onSmallDisk(t, DISK_BYTES, (folder) => fillAndGoOn(t, folder)),
);

async function fillAndGoOn(t: Test, folder: string): Promise<void> {
  const processes = await openProcesses(folder);
  try {
    const section = { upload: { free_min: '0B' }, meta: { reserve: '256KiB' }, ...STILL };
    const first = await processes.launch('origin', section);
    let url = await first.ready;
    const pad = join(folder, 'pad');
    writeFileSync(pad, Buffer.alloc(DISK_BYTES / 3));
    const kept = new Map<string, Buffer>();
    const upload = async (seed: number): Promise<string> => {
      const bytes = seed % 2 === 0 ? largePng(seed, 150_000) : png(seed);
      const answer = await sendRequest(`${url}/v1/media`, asCaller(processes.user, { method: 'POST', body: bytes }));
      if (answer.status === 201) kept.set(member(answer, 'id'), bytes);
      return outcome(answer);
    };
    const allThere = async (): Promise<void> => {
      for (const [id, bytes] of kept) {
        const answer = await sendRequest(`${url}/v1/media/${id}`, asCaller(processes.user));
        if (!answer.bytes.equals(bytes)) t.fail(`${id} is not what it was: ${answer.status}`);
      }
    };
    const tus = (path: string, method: string, headers: Readonly<Record<string, string>>, body?: Buffer) =>
      sendRequest(
        url + path,
        asCaller(processes.user, {
          method,
          headers: { 'tus-resumable': '1.0.0', ...headers },
          ...(body !== undefined && { body }),
        }),
      );
    const resumed = largePng(-1, 400_000);
    const begun = await tus('/v1/uploads', 'POST', { 'upload-length': String(resumed.length) });
    const resume = async (): Promise<HttpResponse> => {
      const at = (await tus(begun.headers.location ?? '', 'HEAD', {})).headers['upload-offset'];
      const part = { 'content-type': 'application/offset+octet-stream', 'upload-offset': String(at) };
      return tus(begun.headers.location ?? '', 'PATCH', part, resumed.subarray(Number(at)));
    };
    const outcomes = new Set<string>();
    let seed = 0;
    // Goes on after the first refusal, as small uploads fit for longer.
    for (let refusals = 0; refusals < 12; ) {
      const four = await Promise.all([1, 2, 3, 4].map((more) => upload(seed + more)));
      seed += 4;
      for (const each of four) outcomes.add(each);
      refusals += four.filter((each) => each !== '201').length;
    }
    t.same(outcomes, new Set(['201', 'storage_full']));
    t.ok(kept.size > 20);
    await allThere();
    t.same(staged(folder), []);

    for (let tries = 0; tries < 3; tries += 1) {
      t.equal(outcome(await resume()), 'storage_full', 'a resumable upload is refused, too');
    }

    rmSync(pad);
    const finished = await resume();
    t.equal(finished.status, 204, 'and continues at its offset once there is space');
    kept.set(String(finished.headers['media-location']).split('/').at(-1) ?? '', resumed);
    const again = await Promise.all([1, 2, 3, 4].map((more) => upload(seed + more)));
    t.same(new Set(again), new Set(['201']), 'with space again uploads work');
    await first.kill();
    const second = await processes.launch('origin', section);
    url = await second.ready;
    await allThere();
    t.equal(await second.stop(), 0);
  } finally {
    await processes.close();
  }
}
