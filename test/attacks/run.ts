/**
 * Runs the attacks of the tables: at the origin, and at an edge in both lanes of HTTP/1.1 and over HTTP/2. Each answer has the status that the table says, is a problem document if it is a refusal, and tells nothing internal.
 */
import { Agent, type IncomingHttpHeaders, request } from 'node:http';
import type { ClientHttp2Session } from 'node:http2';
import { setTimeout as delay } from 'node:timers/promises';
import type { Test } from 'tap';
import { TEST_SECRET } from '../kit/auth-service.js';
import { hasOpenssl, selfSigned } from '../kit/certificates.js';
import type { ManualClock } from '../kit/clock.js';
import { startEdge } from '../kit/edge/media-edge.js';
import { connectHttp2, fetchHttp2 } from '../kit/http/http2.js';
import { member, sendRequest } from '../kit/http/request.js';
import { png } from '../kit/media.js';
import { mediaId } from '../kit/origin/journal.js';
import { startOrigin, type TestOrigin } from '../kit/origin/origin.js';
import { HANGS_AFTER_MS } from '../kit/until.js';
import { operatorRows } from './operators.js';
import { idRows, pathRows } from './paths.js';
import { readRows } from './reads.js';
import { adminRows, forwardingRows, sizeRows } from './rights.js';
import { bearer, HIDDEN_TEXT, type Row, type Stage } from './row.js';
import { linkRows, tokenRows } from './tokens.js';
import { formRows, tusRows, uploadRows } from './writes.js';

const GROUPS: Readonly<Record<string, (stage: Stage) => readonly Row[]>> = {
  paths: pathRows,
  ids: idRows,
  'ranges and conditions': readRows,
  tokens: tokenRows,
  links: linkRows,
  forms: formRows,
  uploads: uploadRows,
  'resumable uploads': tusRows,
  rights: adminRows,
  'forwarding fields': forwardingRows,
  sizes: sizeRows,
};

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

type Way = (row: Row) => Promise<Answer>;

/** What no answer contains: paths, stacks, addresses and names of what is inside, secrets, the media of others. */
const NEVER = new RegExp(
  [String.raw`/(?:tmp|home|root|usr|var)/|node_modules|node:|\.[jt]s:\d|\bat \w+ \(|E(?:NOENT|CONN\w+|ACCES|INVAL)`]
    .concat(['data\\.mdb|lmdb|undici|TypeError|SyntaxError|ZodError|root:x:', TEST_SECRET, HIDDEN_TEXT])
    .join('|'),
);

/** What is wrong with an answer, in words. */
function faultsOf(
  { method, target, headers, expected }: Row,
  at: 'origin' | 'edge',
  answer: Answer,
): readonly string[] {
  const wanted = typeof expected === 'number' ? expected : expected[at === 'origin' ? 0 : 1];
  const faults: string[] = [];
  if (answer.status !== wanted) faults.push(`${answer.status} in place of ${wanted}: ${answer.text.slice(0, 120)}`);
  const given = [target, ...Object.values(headers)];
  const seen = `${JSON.stringify(answer.headers)}${answer.text}`;
  const found = NEVER.exec(given.reduce((text, each) => (each.length > 3 ? text.replaceAll(each, '') : text), seen));
  if (found !== null) faults.push(`it tells ${found[0]}`);
  if (answer.headers['set-cookie'] !== undefined) faults.push('it sets a cookie');
  if (answer.status < 400 || method === 'HEAD') return faults;
  const type = answer.headers['content-type'] ?? '';
  if (type !== 'application/problem+json' || !/"code":"\w+"/.test(answer.text))
    faults.push(`no problem document: ${type}`);
  if (answer.status === 401 && answer.headers['www-authenticate'] === undefined) faults.push('no WWW-Authenticate');
  return faults;
}

/** A way over HTTP/1.1. Targets and fields are sent as they are. */
function plain(url: string, agent: Agent | false, more: Readonly<Record<string, string>> = {}): Way {
  const { hostname: host, port } = new URL(url);
  return ({ method, target: path, headers, body }) =>
    new Promise((resolve, reject) => {
      const fields = {
        ...headers,
        ...more,
        ...(body !== undefined && { 'content-length': String(Buffer.byteLength(body, 'latin1')) }),
      };
      const sent = request({ host, port, method, path, headers: fields, agent }, (response) => {
        let text = '';
        response.setEncoding('latin1').on('data', (chunk: string) => {
          text += chunk;
        });
        response.on('close', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }));
      });
      sent.on('error', reject);
      sent.end(body === undefined ? undefined : Buffer.from(body, 'latin1'));
    });
}

function overHttp2(client: ClientHttp2Session): Way {
  return async ({ method, target, headers, body }) => {
    const fields = { ':method': method, ':path': target, ...headers };
    const {
      status,
      headers: came,
      bytes,
    } = await fetchHttp2(client, fields, body === undefined ? undefined : Buffer.from(body, 'latin1'));
    return { status, headers: came, text: bytes.toString('latin1') };
  };
}

async function stageOf(origin: TestOrigin): Promise<Stage> {
  const { auth } = origin;
  const text = { 'content-type': 'text/plain' };
  const hidden = member(await origin.upload(Buffer.from(HIDDEN_TEXT), '', text), 'id');
  const deleted = await origin.uploaded(png(2));
  await origin.asAdmin(`/v1/media/${deleted}`, { method: 'DELETE' });
  const linked = await origin.as('alice', `/v1/media/${hidden}/link`, { method: 'POST' });
  const creation = { 'tus-resumable': '1.0.0', 'upload-length': '100' };
  const created = await origin.as('alice', '/v1/uploads', { method: 'POST', headers: creation });
  const { pathname, search } = new URL(member(linked, 'url'));
  const uploadLinked = await origin.as('alice', '/v1/uploads/link', { method: 'POST', body: Buffer.from('{}') });
  return {
    auth,
    now: origin.clock.now(),
    id: { shown: await origin.uploaded(png(1), '?public=true'), hidden, deleted, unknown: mediaId(99) },
    user: bearer(auth.token({ sub: 'eve' })),
    admin: bearer(auth.token({ sub: 'mo', scope: 'media:admin' })),
    reader: bearer(auth.token({ sub: 'rob', scope: 'media:read' })),
    uploader: bearer(auth.token({ sub: 'ula', scope: 'media:upload' })),
    link: pathname + search,
    uploadLink: new URL(member(uploadLinked, 'url')).search.slice(1),
    upload: String(created.headers.location),
  };
}

/** How many requests of a way are under way at once. */
const AT_ONCE = 8;

const HTTP2 = 'edge, HTTP/2';

interface Place {
  readonly way: string;
  readonly at: 'origin' | 'edge';
  readonly send: Way;
}

type Ways = 'some' | 'all';

/** Undefined where the answer does not come, so that the attack is named. */
async function inTime(answer: Promise<Answer>): Promise<Answer | undefined> {
  const timer = new AbortController();
  const late = delay(HANGS_AFTER_MS, undefined, { signal: timer.signal }).catch(() => undefined);
  try {
    return await Promise.race([answer, late]);
  } finally {
    timer.abort();
  }
}

/** What is wrong with the answers, in words. */
async function faultsOfAll(rows: readonly Row[], places: readonly Place[], ways: Ways): Promise<readonly string[]> {
  const sendings = rows.flatMap((row, at) => {
    const possible = places.filter(({ way }) => way !== HTTP2 || row.endsSession !== true);
    const chosen = ways === 'all' ? possible : possible.slice(at % possible.length).slice(0, 1);
    return chosen.map((place) => ({ row, ...place }));
  });
  const faults: string[] = [];
  const next = sendings.values();
  const work = async (): Promise<void> => {
    for (const { row, way, send, at } of next) {
      const answer = await inTime(send(row));
      for (const fault of answer === undefined ? ['no answer'] : faultsOf(row, at, answer)) {
        faults.push(`${way}: ${row.name}: ${row.method} ${row.target.slice(0, 90)}: ${fault}`);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return faults;
}

/** What the attacks have left open ends by its time limits, and a clock that stands still has none. */
async function whileTimePasses(closing: Promise<void>, clock: ManualClock): Promise<void> {
  const end = closing.then(() => 'over' as const);
  const turn = (): Promise<'on'> => new Promise((resolve) => setImmediate(() => resolve('on')));
  while ((await Promise.race([end, turn()])) === 'on') clock.advance(100);
}

/** `some`: each attack is sent to one place, in turn. `all`: to every place. */
export async function runAttacks(t: Test, ways: Ways): Promise<void> {
  const folder = t.testdir();
  const guarded = { operators: { port: 0, token: 'env:OPERATORS' } };
  const origin = await startOrigin(folder, {
    ...guarded,
    thumbs: { enabled: false, video: { enabled: false } },
    upload: { size_max: '50KB' },
    resumable: { unfinished_max_per_subject: 1_000 },
  });
  t.teardown(() => whileTimePasses(origin.close(), origin.clock));
  const edge = await startEdge(`${folder}/plain`, origin, guarded, origin.clock);
  t.teardown(() => whileTimePasses(edge.close(), origin.clock));
  const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE });
  t.teardown(() => agent.destroy());
  const places: Place[] = [
    { way: 'origin', at: 'origin', send: plain(origin.url, agent) },
    { way: 'edge, fast lane', at: 'edge', send: plain(edge.url, agent) },
    { way: 'edge, node:http', at: 'edge', send: plain(edge.url, false, { connection: 'close' }) },
  ];
  if (hasOpenssl) {
    const { certFile, keyFile, cert } = selfSigned(folder, 'edge');
    const listen = { port: 0, tls: { certificate_file: certFile, key_file: keyFile } };
    const secure = await startEdge(`${folder}/secure`, origin, { listen, name: 'secure' }, origin.clock);
    t.teardown(() => whileTimePasses(secure.close(), origin.clock));
    const client = await connectHttp2(secure.url, cert);
    t.teardown(() => client.destroy());
    places.push({ way: HTTP2, at: 'edge', send: overHttp2(client) });
  }

  const stage = await stageOf(origin);
  let count = 0;
  for (const [group, rowsOf] of Object.entries(GROUPS)) {
    const rows = rowsOf(stage);
    count += rows.length;
    t.same(await faultsOfAll(rows, places, ways), [], `${group}: ${rows.length} attacks`);
  }
  const operators: readonly Place[] = [
    { way: 'operators, origin', at: 'origin', send: plain(origin.operators, agent) },
    { way: 'operators, edge', at: 'edge', send: plain(edge.operators, agent) },
  ];
  const acts = operatorRows(bearer(TEST_SECRET));
  count += acts.length;
  t.same(await faultsOfAll(acts, operators, ways), [], `operators: ${acts.length} attacks`);

  t.ok(count >= 900, `${count} attacks`);
  const untouched = await sendRequest(`${edge.url}/v1/media/${stage.id.hidden}`, { headers: { ...stage.user } });
  t.equal(untouched.bytes.toString(), HIDDEN_TEXT, 'the media are still there, for those who may see them');
  t.equal((await sendRequest(`${origin.url}/readyz`)).status, 200);
  t.notMatch(origin.logged.join('\n'), /"level":"error"/, 'nothing went wrong inside');
}
