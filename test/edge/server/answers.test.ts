/**
 * What an origin may answer, on its way through the edge: each status, with each way to delimit a body,
 * to each method, stored or not, over each protocol and in both lanes.
 */
import t, { type Test } from 'tap';
import { hasOpenssl, selfSigned } from '../../kit/certificates.js';
import { openTestEdge } from '../../kit/edge/edge.js';
import { openRawOrigin, type RawAnswer, type RawRequest } from '../../kit/edge/raw-origin.js';
import { type Fetching, overHttp1, overHttp2, overNodeHttp } from '../../kit/http/fetch.js';

const BODY = 'the body';
const STATUSES = [200, 204, 205, 206, 302, 304, 404, 410, 503];
/** To requests that are passed on. */
const PASSED_STATUSES = [200, 204, 205, 304, 500];
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PROPFIND'];
const WITH_BODY = new Set(['POST', 'PUT']);

/** How the origin delimits the body, and what is before it. A 204 and a 304 end at their head, whatever it says; a 205 has no content. */
const FRAMINGS = {
  none: { fields: 'content-length: 0', bytes: '' },
  length: { fields: `content-length: ${BODY.length}`, bytes: BODY },
  chunked: {
    fields: 'transfer-encoding: chunked',
    bytes: `3\r\n${BODY.slice(0, 3)}\r\n${(BODY.length - 3).toString(16)}\r\n${BODY.slice(3)}\r\n0\r\n\r\n`,
  },
  close: { fields: 'connection: close', bytes: BODY, ends: true },
  hinted: {
    fields: `content-length: ${BODY.length}`,
    bytes: BODY,
    before: 'HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n',
  },
} as const;
type Framing = keyof typeof FRAMINGS;

const hasContent = (method: string, status: number): boolean => method !== 'HEAD' && status !== 204 && status !== 304;

/** The target says what is answered: /STATUS/FRAMING/STORABLE/NAME. */
function answered({ method, target }: RawRequest): RawAnswer {
  const [, status = '', framing = '', storable] = target.split('/');
  const {
    fields,
    bytes,
    before = '',
    ends = false,
  }: { fields: string; bytes: string; before?: string; ends?: boolean } = FRAMINGS[framing as Framing];
  const lines = [
    `HTTP/1.1 ${status} Whatever`,
    `cache-control: ${storable === 'stored' ? 'max-age=60' : 'no-store'}`,
    'etag: "x"',
    ...(status === '206' ? [`content-range: bytes 0-${BODY.length - 1}/100`] : []),
    ...(status.startsWith('30') ? ['location: /elsewhere'] : []),
    fields,
  ];
  const content = hasContent(method, Number(status)) ? bytes : '';
  return { bytes: `${before}${lines.join('\r\n')}\r\n\r\n${content}`, ends };
}

async function openClients(t: Test, answer: (request: RawRequest) => RawAnswer): Promise<readonly Fetching[]> {
  const origin = await openRawOrigin(answer);
  t.teardown(() => origin.close());
  const options = { edge: ['access: off'], originUrl: origin.url };
  const plain = await openTestEdge(t.testdir({ plain: {}, tls: {} }), options);
  t.teardown(() => plain.close());
  const clients = [overHttp1('the fast lane', plain.url), overNodeHttp('node:http', plain.url)];
  if (hasOpenssl) {
    const { certFile, keyFile, cert } = selfSigned(t.testdirName, 'answers');
    const tls = `certificate_file: ${JSON.stringify(certFile)}, key_file: ${JSON.stringify(keyFile)}`;
    const encrypted = await openTestEdge(`${t.testdirName}/tls`, { ...options, tls });
    t.teardown(() => encrypted.close());
    clients.push(overHttp1('the fast lane, encrypted', encrypted.url, cert));
    clients.push(await overHttp2('HTTP/2', encrypted.url, cert));
    // A request with `te` is not plain, and node:http answers it.
    clients.push(await overHttp2('HTTP/2, node:http', encrypted.url, cert, { te: 'trailers' }));
  } else t.comment('openssl is missing: without encrypted listeners');
  for (const client of clients) t.teardown(() => client.close());
  return clients;
}

void t.test('every status with every body reaches the client, by every method and over every protocol', async (t) => {
  const clients = await openClients(t, answered);
  const wrong = await Promise.all(clients.map(faultsOf));
  for (const [number, { name }] of clients.entries()) t.same(wrong[number], [], name);
});

/** Read requests are sent twice, to be answered by the cache where that is allowed, and behind another answer. */
async function faultsOf(client: Fetching): Promise<readonly string[]> {
  const faults: string[] = [];
  for (const method of METHODS) {
    const isRead = method === 'GET' || method === 'HEAD';
    for (const status of isRead ? STATUSES : PASSED_STATUSES) {
      for (const framing of Object.keys(FRAMINGS) as Framing[]) {
        for (const [storable, turn] of isRead ? READS : [['unstored', 'once']]) {
          const target = `/${status}/${framing}/${storable}/${encodeURIComponent(client.name)}-${method}`;
          const body = WITH_BODY.has(method) ? 'sent' : undefined;
          const found = await client.fetch(method, target, {}, body).catch((thrown: Error) => thrown.message);
          const fault = typeof found === 'string' ? found : faultIn(found, method, status, framing);
          if (fault !== undefined) faults.push(`${method} ${status} ${framing}, ${storable}, ${turn}: ${fault}`);
        }
      }
    }
  }
  return faults;
}

const READS = [
  ['stored', 'first'],
  ['stored', 'second'],
  ['unstored', 'once'],
] as const;

function faultIn(
  { status, headers, body }: Awaited<ReturnType<Fetching['fetch']>>,
  method: string,
  expected: number,
  framing: Framing,
): string | undefined {
  const content = hasContent(method, expected) && framing !== 'none' && expected !== 205 ? BODY : '';
  if (status !== expected) return `the status is ${status}`;
  if (body !== content) return `the body is ${JSON.stringify(body)}`;
  if (status === 204 && headers['content-length'] !== undefined) return 'a 204 states a length';
  if (headers['cache-status'] === undefined) return 'it has no Cache-Status';
  return undefined;
}

/** RFC 9112 6.1, 7: chunked is the one transfer coding that is understood here. */
const CODINGS = [
  ['chunked', 200],
  ['Chunked', 200],
  ['gzip, chunked', 502],
  ['chunked, gzip', 502],
  ['gzip', 502],
  ['chunked, chunked', 502],
  ['x-unheard-of', 502],
] as const;

void t.test('a body in a transfer coding that nobody here decodes is not taken for the content', async (t) => {
  const clients = await openClients(t, ({ target }) => ({
    bytes: [
      'HTTP/1.1 200 OK',
      'cache-control: max-age=60',
      `transfer-encoding: ${CODINGS[Number(target.split('/')[1])]?.[0]}`,
      '',
      FRAMINGS.chunked.bytes,
    ].join('\r\n'),
    ends: true,
  }));
  for (const client of clients) {
    for (const [number, [coding, status]] of CODINGS.entries()) {
      for (const method of ['GET', 'DELETE']) {
        const found = await client.fetch(method, `/${number}/${method}-${encodeURIComponent(client.name)}`);
        t.equal(found.status, status, `${client.name}: ${method}, ${coding}`);
        if (status === 200) t.equal(found.body, BODY);
        else t.match(found.headers['content-type'], 'application/problem+json');
      }
    }
  }
});

void t.test(
  'a cookie goes to the client for which it was set, unless the origin says that it is for all',
  async (t) => {
    const rows = [
      ['max-age=60', 'for one'],
      ['max-age=60, must-revalidate', 'for one'],
      ['max-age=60, public', 'for all'],
      ['s-maxage=60', 'for all'],
      ['max-age=60, private="set-cookie"', 'the first only'],
    ] as const;
    let made = 0;
    const clients = await openClients(t, ({ method, target }) => {
      made += 1;
      const [cacheControl = ''] = rows[Number(target.split('/')[1])] ?? [];
      const head = [
        'HTTP/1.1 200 OK',
        `cache-control: ${cacheControl}`,
        `set-cookie: made=${made}`,
        `content-length: ${BODY.length}`,
      ];
      return { bytes: `${head.join('\r\n')}\r\n\r\n${method === 'HEAD' ? '' : BODY}` };
    });
    for (const client of clients) {
      for (const [row, [cacheControl, whose]] of rows.entries()) {
        // A HEAD may bring the body into the cache, and then one more answer differs.
        for (const method of whose === 'for one' ? ['GET', 'HEAD'] : ['GET']) {
          const cookies: string[] = [];
          for (let turn = 0; turn < 3; turn += 1) {
            const { headers } = await client.fetch(method, `/${row}/${encodeURIComponent(client.name)}-${method}`);
            cookies.push([headers['set-cookie'] ?? []].flat().join());
          }
          const name = `${client.name}: ${method}, ${cacheControl}`;
          if (whose === 'the first only') t.same(cookies.slice(1), ['', ''], name);
          else t.equal(new Set(cookies).size, whose === 'for one' ? 3 : 1, name);
        }
      }
    }
  },
);
