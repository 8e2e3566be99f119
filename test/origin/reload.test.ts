/** Reloading the configuration of a running origin: what is live changes at once, everything else waits for a restart, no secret is logged. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { entry } from '../../origin/main.js';
import { edgeProof } from '../../src/access/edge-proof.js';
import { signLink } from '../../src/access/link.js';
import { systemClock } from '../../src/clock.js';
import { askReload } from '../../src/commands/ask-reload.js';
import type { MediaId } from '../../src/ids.js';
import { JOURNAL_PATH } from '../../src/journal/entry.js';
import { createLog } from '../../src/log.js';
import { createMetrics } from '../../src/metrics.js';
import { openAuthService } from '../kit/auth-service.js';
import { ManualClock } from '../kit/clock.js';
import { type HttpResponse, json, member, type RequestOptions, sendRequest } from '../kit/http/request.js';
import { withToken } from '../kit/origin/origin.js';
import { ownPort } from '../kit/ports.js';
import { until } from '../kit/until.js';

const SECRETS = {
  old: 'the old secret of edges, of forty letters',
  new: 'the new secret of edges, of forty letters',
  link: 'what signs the links until it is changed',
  next: 'what signs the links after it was changed',
} as const;
type SecretName = keyof typeof SECRETS;

interface Others extends Readonly<Record<string, unknown>> {
  readonly origin?: Readonly<Record<string, unknown>>;
}

interface Bench {
  /** The URL of the operators' listener. */
  readonly operators: string;
  readonly clock: ManualClock;
  readonly lines: readonly Readonly<Record<string, unknown>>[];
  /** The file of a secret. */
  path(name: SecretName): string;
  ask(path: string, options?: RequestOptions): Promise<HttpResponse>;
  asAlice(path: string, options?: RequestOptions): Promise<HttpResponse>;
  /** Whether this secret proves an edge: an unknown id gives 404 to edges, 401 to others. */
  knowsEdge(name: SecretName): Promise<boolean>;
  /** Writes config.yaml, and sends SIGHUP. */
  change(access: Readonly<Record<string, unknown>>, others?: Others): Promise<void>;
  /** Of config.yaml. */
  text(access: Readonly<Record<string, unknown>>, others?: Others): string;
  write(text: string): Promise<void>;
  hangUp(): void;
}

async function openBench(t: Test): Promise<Bench> {
  // Not a testdir, which is removed before the origin is closed.
  const folder = await mkdtemp(join(tmpdir(), 'media-reload-'));
  for (const [name, secret] of Object.entries(SECRETS)) await writeFile(join(folder, name), secret);
  const clock = new ManualClock();
  const auth = await openAuthService(clock);
  const configPath = join(folder, 'config.yaml');
  const secretAt = (name: SecretName): string => `file:${join(folder, name)}`;
  const origin = {
    listen: { port: 0 },
    operators: { port: 0 },
    meta: { folder: join(folder, 'meta') },
    audit: { file: join(folder, 'audit.jsonl') },
    journal: { edges_file: join(folder, 'edges.json') },
    blobs: { folder: join(folder, 'blobs'), stage_folder: join(folder, 'stage') },
    upload: { free_min: '0B' },
  };
  const document = (access: object, { origin: more, ...others }: Others = {}): string =>
    JSON.stringify({
      access: {
        issuers: [{ issuer: auth.issuer, jwks_url: auth.jwksUrl }],
        keys: { folder: null },
        edge_secret: secretAt('old'),
        links: { secrets: [{ kid: 'a', secret: secretAt('link') }] },
        ...access,
      },
      origin: { ...origin, ...more },
      ...others,
    });
  await writeFile(configPath, document({}, {}));
  const read = entry.read(configPath);
  if (read.kind === 'faulty') throw new Error(JSON.stringify(read.faults));
  const lines: Readonly<Record<string, unknown>>[] = [];
  const write = (line: string): void => void lines.push(JSON.parse(line) as Readonly<Record<string, unknown>>);
  const log = createLog('origin', { level: 'info' }, { write });
  const running = await read.start({ clock, log, metrics: createMetrics('media_') });
  t.teardown(async () => {
    await running.close();
    await auth.close();
    await rm(folder, { recursive: true, force: true });
  });
  const url = running.urls['media'] ?? '';
  return {
    operators: running.urls['operators'] ?? '',
    clock,
    lines,
    path: (name) => join(folder, name),
    ask: (path, options) => sendRequest(url + path, options),
    asAlice: (path, options) => sendRequest(url + path, withToken(auth.token(), options)),
    async knowsEdge(name) {
      const headers = { 'edge-authorization': edgeProof(SECRETS[name]) };
      return (await sendRequest(`${url}/v1/media/01ARZ3NDEKTSV4RRFFQ69G5FAV`, { headers })).status === 404;
    },
    async change(access, others = {}) {
      await writeFile(configPath, document(access, others));
      process.emit('SIGHUP', 'SIGHUP');
    },
    text: document,
    write: (text) => writeFile(configPath, text),
    hangUp: () => void process.emit('SIGHUP', 'SIGHUP'),
  };
}

void t.test(
  'an edge secret is changed while the origin runs, and the old one is accepted until it is removed',
  async (t) => {
    const bench = await openBench(t);
    const file = (name: SecretName): string => `file:${bench.path(name)}`;
    t.ok(await bench.knowsEdge('old'));
    t.notOk(await bench.knowsEdge('new'));
    const following = bench.ask(`${JOURNAL_PATH}?edge=one&instance=i`, {
      headers: { 'edge-authorization': edgeProof(SECRETS.old) },
    });
    await until('the edge to follow', () => bench.lines.some(({ msg }) => msg === 'an edge follows the journal'));

    await bench.change({ edge_secrets_accepted: [file('new')] });
    t.ok(await bench.knowsEdge('old'));
    t.ok(await bench.knowsEdge('new'));
    t.notOk(bench.lines.some(({ msg }) => msg === 'an edge no longer follows the journal'));

    await bench.change({ edge_secret: file('new') });
    t.notOk(await bench.knowsEdge('old'));
    t.ok(await bench.knowsEdge('new'));
    t.match(await following, { status: 200, whole: false }, 'a stream opened with the old secret ends');
    t.match(
      bench.lines.filter(({ msg }) => msg === 'the configuration was read again'),
      [
        { changed: ['access.edge_secrets_accepted'], needRestart: [] },
        { changed: ['access.edge_secret', 'access.edge_secrets_accepted'], needRestart: [] },
      ],
    );
    t.notMatch(JSON.stringify(bench.lines), /secret of edges/);
  },
);

void t.test('links are signed with the first secret, and links of every listed secret are valid', async (t) => {
  const bench = await openBench(t);
  const [link, next] = (['link', 'next'] as const).map((name, index) => ({
    kid: 'ab'.charAt(index),
    secret: `file:${bench.path(name)}`,
  }));
  const created = await bench.asAlice('/v1/media', { method: 'POST', body: 'some words' });
  t.equal(created.status, 201, created.bytes.toString());
  const id = member(created, 'id');
  const linked = async (): Promise<string> => {
    const response = await bench.asAlice(`/v1/media/${id}/link`, { method: 'POST' });
    return response.status === 200
      ? new URL(member(response, 'url')).href.replace(/^.*?\/v1/, '/v1')
      : String(response.status);
  };
  const former = await linked();
  t.match(former, /kid=a&/);
  t.equal((await bench.ask(former)).status, 200);

  await bench.change({ links: { secrets: [next, link] } });
  const latter = await linked();
  t.match(latter, /kid=b&/);
  t.equal((await bench.ask(latter)).status, 200);
  t.equal((await bench.ask(former)).status, 200);

  await bench.change({ links: { secrets: [next] } });
  t.equal((await bench.ask(former)).status, 401);
  const forged = signLink({ kind: 'original', id: id as MediaId }, bench.clock.now() + 60_000, {
    kid: 'b',
    secret: SECRETS.link,
  });
  t.equal((await bench.ask(forged)).status, 401, 'a kid alone opens nothing');

  const described = async () =>
    (json(await bench.ask('/.well-known'))['capabilities'] as { signed_links: unknown }).signed_links;
  t.match(await described(), { lifetime_seconds: 3_600 });
  await bench.change({ links: { secrets: [] } });
  t.equal(await linked(), '404');
  t.equal((await bench.ask(latter)).status, 401);
  t.equal(await described(), null, 'the well-known document says so');
  t.notMatch(JSON.stringify(bench.lines), /what signs the links/);
});

void t.test('a changed secret file is noticed without a signal', async (t) => {
  const bench = await openBench(t);
  await writeFile(bench.path('old'), SECRETS.new);
  await until('the change', () => {
    bench.clock.advance(200);
    return bench.lines.some(({ msg }) => msg === 'the configuration was read again');
  });
  t.ok(await bench.knowsEdge('new'));
  t.notOk(await bench.knowsEdge('old'));
});

void t.test('a faulty file is refused with all its faults, and the old configuration stays', async (t) => {
  const bench = await openBench(t);
  await writeFile(bench.path('new'), 'too short');
  await bench.change({ edge_secret: `file:${bench.path('new')}`, surprise: 1 }, { origin: { quota: { period: 'x' } } });
  const refused = bench.lines.find(({ msg }) => msg === 'the changed configuration is refused; the current one stays');
  t.match(refused, {
    level: 'error',
    faults: [
      /^line 1, column \d+: access\.edge_secret: file:\S+new has fewer than 32 characters$/,
      /^line 1, column \d+: access: `surprise` is not a key of this section$/,
      /^line 1, column \d+: origin\.quota\.period: must be a duration/,
    ],
  });
  t.ok(await bench.knowsEdge('old'));

  await bench.write(`access:\n  edge_secret: "${SECRETS.new}\n`);
  bench.hangUp();
  t.equal(bench.lines.filter(({ level }) => level === 'error').length, 2);
  t.ok(await bench.knowsEdge('old'));
  t.notMatch(
    JSON.stringify(bench.lines),
    /secret of edges|too short/,
    'no secret is logged, not even one from the faulty file',
  );
});

void t.test(
  'which requests are logged changes at once; keys that need a restart are listed and stay unchanged',
  async (t) => {
    const bench = await openBench(t);
    const requestsLogged = (): number => bench.lines.filter(({ msg }) => msg === 'request').length;
    await bench.ask('/healthz');
    await until('its line', () => requestsLogged() === 1);
    await bench.change(
      { audiences: ['others'], links: { secrets: [], lifetime: '5m' } },
      { log: { requests: 'none', level: 'debug' } },
    );
    t.match(bench.lines.at(-1), {
      level: 'warn',
      msg: 'only a restart changes access.audiences, access.links.lifetime',
    });
    t.equal((await bench.asAlice('/v1/admin/media')).status, 403, 'tokens for the old audience are still accepted');
    t.equal((await bench.ask('/healthz')).status, 200);
    await bench.change({});
    t.equal(requestsLogged(), 1);
  },
);

void t.test(
  'limits of uploads, quotas and rates hold from the next request on, and /.well-known says so',
  async (t) => {
    const bench = await openBench(t);
    let uploads = 0;
    const upload = async (bytes: number): Promise<string> => {
      uploads += 1;
      const body = `${uploads} `.padEnd(bytes, 'x');
      const response = await bench.asAlice('/v1/media', { method: 'POST', body });
      return response.status === 201 ? 'stored' : member(response, 'code');
    };
    const described = async (): Promise<unknown> => json(await bench.ask('/.well-known'));
    t.equal(await upload(2_000), 'stored');
    await bench.change({}, { origin: { upload: { free_min: '0B', size_max: '1KB' } } });
    t.equal(await upload(2_000), 'too_large');
    t.match(await described(), { max_upload_size: 1_000 });

    await bench.change({}, { origin: { upload: { free_min: '0B', types: ['image/png'] } } });
    t.equal(await upload(100), 'type_refused');
    t.match(await described(), { capabilities: { accepted_types: ['image/png'] } });

    await bench.change({}, { origin: { quota: { files_max: 2 } } });
    t.equal(await upload(100), 'stored', 'what was stored before the quota does not count');
    t.equal(await upload(100), 'stored');
    t.equal(await upload(100), 'quota_exceeded');
    await bench.change({}, { origin: { quota: { files_max: 3 } } });
    t.equal(await upload(100), 'stored', 'what was stored under the former quota counts');
    t.equal(await upload(100), 'quota_exceeded');

    await bench.change({}, { origin: { rate_limits: { subject: { requests_max: 2 } } } });
    const answers: string[] = [];
    for (let request = 0; request < 4; request += 1) answers.push(await upload(100));
    t.equal(answers.at(-1), 'rate_limited');
    await bench.change({});
    t.equal(await upload(100), 'stored');
  },
);

void t.test(
  'an operator is told the old and the new value of each key, and of secrets that they changed',
  async (t) => {
    const bench = await openBench(t);
    const secret = `file:${bench.path('next')}`;
    await bench.write(
      bench.text(
        { edge_secrets_accepted: [secret], audiences: ['a'] },
        { log: { level: 'warn' }, origin: { download: { client_max_age: '5s' } } },
      ),
    );
    const answer = await sendRequest(`${bench.operators}/reload`, { method: 'POST' });
    t.equal(answer.status, 200);
    t.same(json(answer), {
      changed: true,
      changes: [
        'log.level: info -> warn',
        'access.edge_secrets_accepted: changed',
        'origin.download.client_max_age: 1m -> 5s',
        'access.audiences: ["media"] -> ["a"] (needs a restart)',
      ],
      need_restart: ['access.audiences'],
    });
    const before = bench.lines.length;
    await bench.ask('/healthz');
    await bench.change({});
    t.equal(
      bench.lines.slice(before).filter(({ level }) => level === 'info').length,
      1,
      'the level is back, and says so',
    );

    await bench.write('origin:\n  quota:\n    perod: 1h\n');
    const refused = await sendRequest(`${bench.operators}/reload`, { method: 'POST' });
    t.equal(refused.status, 409);
    t.match(json(refused), {
      code: 'conflict',
      faults: [/./, /./, /^line 3, column 5: origin\.quota: `perod` .*did you mean `period`/],
    });
  },
);

void t.test(
  '`media-service reload` prints what changes, and exits by whether it was applied, refused or not heard',
  async (t) => {
    const bench = await openBench(t);
    const { port } = new URL(bench.operators);
    const ask = async (at: number) => {
      const printed: string[] = [];
      const code = await askReload({
        name: 'origin',
        config: { host: '127.0.0.1', hostNames: [], token: null, port: at },
        clock: systemClock,
        print: (line) => void printed.push(line),
        complain: (line) => void printed.push(line),
        signal: new AbortController().signal,
      });
      return { code, printed };
    };
    await bench.write(bench.text({}, { origin: { listen: { port: 1 }, quota: { files_max: 5 } } }));
    t.same(await ask(Number(port)), {
      code: 0,
      printed: ['origin:', '  origin.quota.files_max: 0 -> 5', '  origin.listen.port: 0 -> 1 (needs a restart)'],
    });
    await bench.write(bench.text({}));
    t.match(await ask(Number(port)), { code: 0, printed: ['origin:', '  origin.quota.files_max: 5 -> 0'] });
    t.same(await ask(Number(port)), { code: 0, printed: ['origin: nothing has changed'] });
    await bench.write('origin: { quota: { files_max: many } }');
    const refused = await ask(Number(port));
    t.equal(refused.code, 1);
    t.match(
      refused.printed.join('\n'),
      /^origin: The configuration has faults.*line 1, column 20: origin\.quota\.files_max: /s,
    );
    await t.rejects(ask(await ownPort()), { message: /^No origin answers at / });
  },
);
