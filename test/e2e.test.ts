/** The service end to end: real processes, real tokens, real bytes. The last test runs both sides in this process. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { lstat, readdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { entry as edgeEntry } from '../edge/main.js';
import { entry as originEntry } from '../origin/main.js';
import { formatFaults, processContext } from '../src/config/load.js';
import { prepareSecrets } from '../src/dev/dev.js';
import { ManualClock } from './kit/clock.js';
import { startEdge } from './kit/edge/media-edge.js';
import { exchangeRaw, requestHead } from './kit/http/raw.js';
import { type HttpResponse, json, member, sendRequest } from './kit/http/request.js';
import { wav } from './kit/media.js';
import { startOrigin } from './kit/origin/origin.js';
import { pausedProbe } from './kit/origin/paused-probe.js';
import { makeJpeg } from './kit/pictures.js';
import { configOf, issueDevToken, ownPorts, runCli, type Service, startCli, startService } from './kit/service.js';
import { FILE_HANGS_AFTER_MS, untilAsync } from './kit/until.js';

const CORPUS = join('..', 'shared', 'corpus', 'valid');
const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** A JPEG, another one for each seed. */
async function picture(seed: number, width = 900, height = 600): Promise<Buffer> {
  return await makeJpeg(seed, width, height);
}

async function upload(
  service: Service,
  token: string,
  bytes: Uint8Array,
  mime: string,
  query = '',
  base = service.edge,
): Promise<HttpResponse> {
  return await sendRequest(`${base}/v1/media${query}`, {
    method: 'POST',
    headers: { ...bearer(token), 'content-type': mime },
    body: bytes,
  });
}

/** Repeats a request until its response is accepted. Resolves with that. */
async function eventually(
  send: () => Promise<HttpResponse>,
  accepts: (response: HttpResponse) => boolean,
): Promise<HttpResponse> {
  let response = await send();
  await untilAsync('an answer that is accepted', async () => {
    if (!accepts(response)) response = await send();
    return accepts(response);
  });
  return response;
}

const isHit = ({ headers }: HttpResponse): boolean => /; hit/.test(String(headers['cache-status']));
const isFound = ({ status }: HttpResponse): boolean => status === 200;

t.setTimeout(FILE_HANGS_AFTER_MS);

void t.test('the service from end to end', async (t) => {
  // As an earlier release may have left it.
  const service = await startService(t.testdir({ data: { origin: { meta: {}, stage: {} }, edge: { cache: {} } } }));
  t.teardown(() => service.stop());
  const issued = await runCli(service.folder, ['token']);
  const [alice, admin] = [issued.out.trim(), await service.token({ subject: 'mo', admin: true })];
  const { edge, origin } = service;

  await t.test('prints all addresses and a first command to try', async (t) => {
    t.match(service.output(), edge);
    t.match(service.output(), origin);
    t.match(service.output(), 'npx media-service token');
    t.match(issued, { code: 0, err: '', out: /^\S+\n$/ });
  });

  await t.test('origin and edge are healthy, ready and described', async (t) => {
    for (const base of [edge, origin]) {
      t.equal((await sendRequest(`${base}/healthz`)).status, 200);
      const ready = await sendRequest(`${base}/readyz`);
      t.equal(ready.status, 200, ready.bytes.toString());
      const known = await sendRequest(`${base}/.well-known`);
      t.match(json(known), { base_uri: edge, auth_required: true, max_upload_size: 10_000_000, storage_mode: 'local' });
      t.ok(known.headers.etag);
    }
  });

  await t.test('an upload is answered, although what follows it on its connection is refused', async (t) => {
    const bytes = Buffer.from('sent before something else');
    const head = requestHead('POST', '/v1/media', {
      ...bearer(alice),
      'content-type': 'text/plain',
      'content-length': bytes.length,
    });
    for (const base of [edge, origin]) {
      const answers = await exchangeRaw(
        Number(new URL(base).port),
        `${head}${bytes.toString()}no request at all\r\n\r\n`,
      );
      t.match(answers, /^HTTP\/1\.1 20[01] [\s\S]*"duplicate":(true|false)[\s\S]*HTTP\/1\.1 400 /, base);
      const refused = requestHead('POST', '/v1/media', { ...bearer(alice), 'content-length': 5, expect: '200-ok' });
      t.match(
        await exchangeRaw(Number(new URL(base).port), `${refused}hello`),
        /^HTTP\/1\.1 417 [\s\S]*problem\+json[\s\S]*"code":"expectation_failed"/,
        base,
      );
    }
  });

  await t.test(
    'a picture is uploaded through the edge, served with the same bytes, and the second time from the cache',
    async (t) => {
      const bytes = await picture(1);
      const created = await upload(service, alice, bytes, 'image/jpeg', '?filename=gr%C3%BC%C3%9Fe.jpg');
      t.equal(created.status, 201, created.bytes.toString());
      t.match(json(created), {
        sha256: sha256(bytes),
        size: bytes.length,
        mime: 'image/jpeg',
        public: false,
        width: 900,
        height: 600,
        duplicate: false,
        filename: 'grüße.jpg',
      });
      const url = `${edge}/v1/media/${member(created, 'id')}`;
      t.equal(created.headers.location?.endsWith(`/v1/media/${member(created, 'id')}`), true);

      const first = await sendRequest(url, { headers: bearer(alice) });
      t.equal(first.status, 200);
      t.ok(first.bytes.equals(bytes));
      t.match(first.headers, {
        etag: `"sha256:${sha256(bytes)}"`,
        'content-type': 'image/jpeg',
        'accept-ranges': 'bytes',
        'x-content-type-options': 'nosniff',
        'cache-control': /^private, max-age=\d+$/,
        'cache-status': /fwd=/,
      });
      t.notOk(first.headers['cdn-cache-control'], 'the lifetime for edges is not sent to clients');

      const second = await eventually(() => sendRequest(url, { headers: bearer(alice) }), isHit);
      t.match(second.headers['cache-status'], /; hit; ttl=\d+; detail=\w+/);
      t.ok(second.bytes.equals(bytes));
      t.match(second.headers.age, /^\d+$/);

      const other = await sendRequest(url, { headers: bearer(await service.token({ subject: 'bob' })) });
      t.match(other.headers['cache-status'], /; hit/, 'one copy serves every authorised caller');

      const head = await sendRequest(url, { method: 'HEAD', headers: bearer(alice) });
      t.match(head, { status: 200, headers: { 'content-length': String(bytes.length), etag: first.headers.etag } });
      t.equal(head.bytes.length, 0);

      const range = await sendRequest(url, { headers: { ...bearer(alice), range: 'bytes=100-199' } });
      t.match(range, { status: 206, headers: { 'content-range': `bytes 100-199/${bytes.length}` } });
      t.ok(range.bytes.equals(bytes.subarray(100, 200)));

      const same = await sendRequest(url, {
        headers: { ...bearer(alice), 'if-none-match': String(first.headers.etag) },
      });
      t.equal(same.status, 304);
      t.equal(same.bytes.length, 0);
      t.equal((await sendRequest(url, { headers: { ...bearer(alice), range: 'bytes=99999999-' } })).status, 416);

      const again = await upload(service, alice, bytes, 'image/jpeg', '', origin);
      t.match(json(again), { id: member(created, 'id'), duplicate: true });
      t.equal(again.status, 200);
    },
  );

  await t.test('without a valid token, private, unknown and removed media get the same answer', async (t) => {
    const created = await upload(service, alice, await picture(2), 'image/jpeg');
    const removed = await upload(service, alice, await picture(3), 'image/jpeg');
    await sendRequest(`${edge}/v1/media/${member(removed, 'id')}`, { method: 'DELETE', headers: bearer(admin) });
    const ids = [member(created, 'id'), '01ARZ3NDEKTSV4RRFFQ69G5FAV', member(removed, 'id')];
    for (const headers of [{}, bearer('nonsense'), bearer(`${alice.slice(0, -4)}AAAA`)]) {
      for (const base of [edge, origin]) {
        const answers = await Promise.all(ids.map((id) => sendRequest(`${base}/v1/media/${id}`, { headers })));
        const shapes = answers.map(({ status, bytes, headers: got }) => [
          status,
          bytes.toString(),
          got['www-authenticate'],
        ]);
        t.equal(shapes[0]?.[0], 401);
        t.same(shapes[1], shapes[0]);
        t.same(shapes[2], shapes[0]);
      }
    }
    t.equal((await sendRequest(`${edge}/v1/media/not-an-id`, { headers: bearer(alice) })).status, 400);
    t.equal((await upload(service, 'nonsense', Buffer.from('x'), 'text/plain')).status, 401);
  });

  await t.test('public media need no token', async (t) => {
    const created = await upload(service, alice, await picture(4), 'image/jpeg', '?public=true');
    const answer = await sendRequest(`${edge}/v1/media/${member(created, 'id')}`);
    t.match(answer, { status: 200, headers: { 'cache-control': /^public, max-age=/ } });
  });

  await t.test('a signed link gives access to its own media only', async (t) => {
    const bytes = await picture(5);
    const id = member(await upload(service, alice, bytes, 'image/jpeg'), 'id');
    const link = await sendRequest(`${edge}/v1/media/${id}/link`, { method: 'POST', headers: bearer(alice) });
    t.equal(link.status, 200, link.bytes.toString());
    const url = new URL(member(link, 'url'));
    const answer = await sendRequest(`${edge}${url.pathname}${url.search}`);
    t.equal(answer.status, 200);
    t.ok(answer.bytes.equals(bytes));
    const other = member(await upload(service, alice, await picture(6), 'image/jpeg'), 'id');
    t.equal((await sendRequest(`${edge}/v1/media/${other}${url.search}`)).status, 401);
  });

  await t.test('a thumbnail is made after the upload, in a format that the client accepts, and cached', async (t) => {
    const id = member(await upload(service, alice, await picture(7), 'image/jpeg'), 'id');
    const url = `${edge}/v1/media/${id}/thumb?w=300`;
    const get = (accept: string): Promise<HttpResponse> => sendRequest(url, { headers: { ...bearer(alice), accept } });
    const webp = await eventually(() => get('image/webp,*/*'), isFound);
    t.match(webp, { status: 200, headers: { 'content-type': 'image/webp', vary: /accept/i } });
    t.equal(webp.bytes.subarray(8, 12).toString(), 'WEBP');
    const jpeg = await eventually(() => get('image/jpeg'), isFound);
    t.match(jpeg, { status: 200, headers: { 'content-type': 'image/jpeg' } });
    const hit = await eventually(() => get('image/webp;q=0.9, image/png;q=0.1'), isHit);
    t.match(hit.headers['cache-status'], /; hit/, 'another Accept that leads to the same format gets the same copy');
    t.ok(hit.bytes.equals(webp.bytes));
    const none = member(await upload(service, alice, Buffer.from('only words'), 'text/plain'), 'id');
    t.match(json(await sendRequest(`${edge}/v1/media/${none}/thumb`, { headers: bearer(alice) })), {
      code: 'thumbnail_unavailable',
    });
  });

  for (const kind of ['delete', 'quarantine'] as const) {
    await t.test(`once a ${kind} is confirmed, the edge serves the media in no form`, async (t) => {
      const bytes = await picture(kind === 'delete' ? 8 : 9);
      const id = member(await upload(service, alice, bytes, 'image/jpeg'), 'id');
      const url = `${edge}/v1/media/${id}`;
      const forms: [string, string, Record<string, string>][] = [
        ['GET', url, {}],
        ['HEAD', url, {}],
        ['GET', url, { range: 'bytes=0-9' }],
        ['GET', url, { 'if-none-match': `"sha256:${sha256(bytes)}"` }],
        ['GET', `${url}/thumb`, {}],
      ];
      const tryForm = ([method, target, headers]: [string, string, Record<string, string>]): Promise<HttpResponse> =>
        sendRequest(target, { method, headers: { ...bearer(alice), ...headers } });
      await eventually(() => tryForm(['GET', `${url}/thumb`, {}]), isFound);
      for (const form of forms) {
        const answer = await eventually(() => tryForm(form), isHit);
        t.match(answer.headers['cache-status'], /; hit/, `${form[0]} ${JSON.stringify(form[2])} is a hit before`);
      }
      const [method, target] = kind === 'delete' ? ['DELETE', url] : ['POST', `${url}/quarantine`];
      const done = await sendRequest(`${target}?wait=edges`, { method, headers: bearer(admin) });
      t.match(done, { status: 204, headers: { 'takedown-confirmed': '1/1' } }, done.bytes.toString());
      const status = kind === 'delete' ? 410 : 403;
      for (const form of forms) {
        const answer = await tryForm(form);
        t.equal(answer.status, status, `${form[0]} ${JSON.stringify(form[2])}`);
      }
      t.equal(
        (await sendRequest(target, { method, headers: bearer(admin) })).status,
        204,
        'repeating it changes nothing',
      );
      t.equal((await sendRequest(target, { method, headers: bearer(alice) })).status, 403, 'it needs an admin');
      if (kind === 'quarantine') {
        const refused = await upload(service, alice, bytes, 'image/jpeg', '?public=true');
        t.match(json(refused), { code: 'quarantined' });
        t.equal((await sendRequest(target, { method: 'DELETE', headers: bearer(admin) })).status, 204);
        const restored = await eventually(() => tryForm(['GET', url, {}]), isFound);
        t.ok(restored.bytes.equals(bytes));
      }
    });
  }

  await t.test(
    'files of every kind are served as they were uploaded',
    { skip: existsSync(CORPUS) ? false : 'no corpus beside this checkout' },
    async (t) => {
      const manifest = (await readFile(join(CORPUS, 'manifest.csv'), 'utf8')).trim().split('\n').slice(1);
      for (const line of manifest) {
        const [name = ''] = line.split(',');
        const bytes = await readFile(join(CORPUS, name));
        const created = await upload(service, alice, bytes, 'application/octet-stream');
        if (created.status === 415 && line.includes('accept or 415')) continue;
        t.ok([200, 201].includes(created.status), `${name}: ${created.status} ${created.bytes.toString()}`);
        const url = `${edge}/v1/media/${member(created, 'id')}`;
        const got = await sendRequest(url, { headers: bearer(alice) });
        t.ok(got.bytes.equals(bytes), `${name} byte for byte`);
        const hit = await eventually(() => sendRequest(url, { headers: bearer(alice) }), isHit);
        t.match(hit.headers['cache-status'], /; hit/, name);
      }
    },
  );

  await t.test('the edge passes the request id to the origin, and no token is logged', async (t) => {
    const id = 'e2e-request-0001';
    await sendRequest(`${edge}/v1/media/01ARZ3NDEKTSV4RRFFQ69G5FAV`, {
      headers: { ...bearer(alice), 'x-request-id': id },
    });
    const read = (name: string): Promise<string> =>
      readFile(join(service.folder, 'data', 'logs', `${name}.log`), 'utf8');
    for (const name of ['edge', 'origin']) {
      await untilAsync(`the request in the log of the ${name}`, async () => (await read(name)).includes(id));
      t.notMatch(await read(name), alice.split('.')[2] ?? alice);
    }
  });

  await t.test('SIGTERM stops it cleanly', async (t) => {
    t.equal(await service.stop(), 0);
  });

  await t.test('writes nothing that other users may read', async (t) => {
    const open: string[] = [];
    for (const name of ['', ...(await readdir(join(service.folder, 'data'), { recursive: true }))]) {
      const { mode } = await lstat(join(service.folder, 'data', name)).catch(() => ({ mode: 0 }));
      if (name.includes('/') && (mode & 0o077) !== 0) open.push(`${name} ${(mode & 0o777).toString(8)}`);
    }
    t.same(open, []);
  });
});

const logOf = (service: Service, name: string): string => join(service.folder, 'data', 'logs', `${name}.log`);

async function pidsOf(service: Service): Promise<readonly number[]> {
  return await Promise.all(
    ['origin', 'edge'].map(async (name) => {
      const [line = ''] = (await readFile(logOf(service, name), 'utf8')).split('\n');
      return (JSON.parse(line) as { readonly pid: number }).pid;
    }),
  );
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

void t.test('a failure at the start is reported in a sentence, without a stack', async (t) => {
  await t.test('a secret that would cross a network in clear, as a warning', async (t) => {
    const folder = t.testdir({ 'config.yaml': 'edge:\n  upstream: { url: "http://origin.example:9000" }\n' });
    await prepareSecrets(join(folder, 'data'));
    const checked = await runCli(folder, ['check', '--config', 'config.yaml']);
    t.match(checked, {
      code: 0,
      out: /no faults/,
      err: /^warning: line 2, column 15: edge\.upstream\.url: .*origin\.example in clear/,
    });
    for (const url of ['https://origin.example', 'http://127.0.0.1:9000', 'http://localhost', 'http://[::1]:9000']) {
      await writeFile(join(folder, 'config.yaml'), `edge:\n  upstream: { url: "${url}" }\n`);
      const read = edgeEntry.read(join(folder, 'config.yaml'), { ...processContext, file: () => 'x'.repeat(40) });
      t.same(read.kind === 'loaded' && read.warnings, [], url);
    }
  });

  await t.test('a faulty configuration, with all its faults', async (t) => {
    const folder = t.testdir({
      'config.yaml': 'edge:\n  listen: { port: many }\n  surprise: 1\norigin:\n  listen: { port: 99999 }\n',
    });
    const checked = await runCli(folder, ['check', '--config', 'config.yaml']);
    t.equal(checked.code, 2);
    for (const path of ['edge.listen.port', 'origin.listen.port', 'surprise']) t.match(checked.err, path);
    t.notMatch(checked.err, /\n\s+at /);
    for (const entry of [originEntry, edgeEntry]) {
      const read = entry.read(join(folder, 'absent.yaml'));
      t.match(read.kind === 'faulty' && formatFaults(read.faults), /absent\.yaml: there is no such file/);
    }
  });

  await t.test('a port that is taken', async (t) => {
    const ports = await ownPorts();
    const taken = createServer().listen(ports.origin, '127.0.0.1');
    t.teardown(() => taken.close());
    const folder = t.testdir();
    await writeFile(join(folder, 'config.yaml'), configOf(ports));
    const run = await runCli(folder, ['dev']);
    t.equal(run.code, 1);
    t.match(run.err + run.out, new RegExp(`another process already listens on 127\\.0\\.0\\.1:${ports.origin}`));
    t.notMatch(run.err + run.out, /\n\s+at /);
  });

  await t.test('an unknown command and an impossible duration', async (t) => {
    const folder = t.testdir();
    t.match(await runCli(folder, ['fly']), { code: 1, err: /unknown command/ });
    t.match(await runCli(folder, ['token', '--expires', 'soon']), {
      code: 2,
      err: /--expires soon: must be a duration/,
    });
  });
});

void t.test('an edge starts while the origin is down, and reports what it cannot do', async (t) => {
  const folder = t.testdir();
  const ports = await ownPorts();
  await writeFile(join(folder, 'config.yaml'), configOf(ports));
  await prepareSecrets(join(folder, 'data'));
  const headers = bearer(await issueDevToken(folder, ports));
  const edge = startCli(folder, ['edge']);
  t.teardown(() => edge.stop());
  const base = `http://127.0.0.1:${ports.edge}`;
  await edge.printed('edge is ready');
  const ready = await sendRequest(`${base}/readyz`);
  t.equal(ready.status, 503, ready.bytes.toString());
  t.match(json(ready), { failed: ['origin', 'journal'], journal: 'catching_up' });
  t.equal((await sendRequest(`${base}/healthz`)).status, 200, 'it is healthy from the start');
  const passed = await sendRequest(`${base}/v1/media`, { method: 'POST', body: 'x', headers });
  t.match(json(passed), { status: 502, code: 'bad_gateway' });
  const unknown = `${base}/v1/media/01ARZ3NDEKTSV4RRFFQ69G5FAV`;
  t.match(json(await sendRequest(unknown, { headers })), { status: 503, code: 'auth_unavailable' });
  t.match(json(await sendRequest(unknown)), { status: 502, code: 'bad_gateway' });
  t.equal(await edge.stop(), 0);
});

void t.test('origin and edge end with the process that started them, even when nobody reads their log', async (t) => {
  const service = await startService(t.testdir());
  const pids = await pidsOf(service);
  service.kill();
  await untilAsync('both to have ended', async () => !pids.some(isAlive));
  t.pass('both have ended');
});

void t.test(
  'SIGHUP makes origin and edge reload; sent to the whole group, as by a terminal, it ends them',
  async (t) => {
    const service = await startService(t.testdir(), undefined, { ownGroup: true });
    const pids = await pidsOf(service);
    for (const pid of pids) process.kill(pid, 'SIGHUP');
    for (const name of ['origin', 'edge']) {
      await untilAsync(`the ${name} to reload`, async () =>
        (await readFile(logOf(service, name), 'utf8')).includes('the configuration was read again'),
      );
    }
    t.ok(pids.every(isAlive));
    t.equal(await service.hangUp(), 0);
    t.notOk(pids.some(isAlive));
    const last = (await readFile(logOf(service, 'origin'), 'utf8')).trim().split('\n').at(-1) ?? '';
    t.match(JSON.parse(last), { msg: 'origin has stopped', inTime: true });
  },
);

void t.test('facts that the origin finds after an upload reach the copies in the edge', async (t) => {
  const probe = pausedProbe(t.testdir(), 1.5);
  const origin = await startOrigin(join(t.testdirName, 'origin'), {
    thumbs: { video: probe.video },
    download: { edge_max_age_pending: '1s' },
    journal: { beat: '60s' },
  });
  t.teardown(() => origin.close());
  const clock = new ManualClock();
  const rules = [{ path: 'original', ttl: '7d' }];
  // The origin's clock stands still, so that no beats come: the lease has to outlast the test.
  const journal = { lease: { ttl: '1h' }, silent_beats_max: 100 };
  const edge = await startEdge(join(t.testdirName, 'edge'), origin, { rules, journal }, clock);
  t.teardown(() => edge.close());
  const created = await origin.upload(wav(1));
  t.match(json(created), { duration: null });
  const url = `${edge.url}/v1/media/${member(created, 'id')}`;
  const get = (): Promise<HttpResponse> => sendRequest(url, { headers: bearer(origin.auth.token()) });
  t.notOk((await get()).headers['media-duration'], 'the duration is not known yet');
  const early = await eventually(get, isHit);
  t.match([early.headers['media-duration'], early.headers['cache-status']], [undefined, /; hit/]);
  probe.release();
  const later = await eventually(
    async () => {
      clock.advance(1_000);
      return await get();
    },
    ({ headers }) => headers['media-duration'] !== undefined,
  );
  t.match(later, { status: 200, headers: { 'media-duration': '1.500', 'cache-status': /; hit/ } });
  t.ok(later.bytes.equals(wav(1)));
  t.match(later.headers['cache-status'], /ttl=604[78]\d\d/, 'and the rule of the edge sets the lifetime from now on');
});
