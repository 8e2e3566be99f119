/**
 * What is measured, as a table: what is asked for, how, and of which servers. A
 * goal compares the edge with another server of the same row.
 */

/** The bodies. Each server has each of them at a path of its own. */
export const CONTENTS = {
  k1: 1_024,
  k16: 16_384,
  k128: 131_072,
  m1: 1_048_576,
  m8: 8_388_608,
} as const;

export type Content = keyof typeof CONTENTS | 'thumb';

export const SERVERS = [
  'edge, token',
  'edge, public',
  'edge, 2 workers',
  'edge, disk',
  'edge, TLS',
  'edge, generic',
  'nginx, same duties',
  'nginx',
  'nginx, TLS',
  'Varnish',
  'node:http',
] as const;
export type ServerName = (typeof SERVERS)[number];

export type What =
  | { readonly kind: 'content'; readonly content: Content }
  /** A path that nobody has asked for before. */
  | { readonly kind: 'new'; readonly sizeBytes: number }
  /** One of `paths` paths, each asked for as often as Zipf's law says. */
  | { readonly kind: 'zipf'; readonly paths: number; readonly sizeBytes: number }
  /** A small POST that is passed on to the origin. */
  | { readonly kind: 'post' };

export interface Goal {
  readonly of: ServerName;
  readonly over: ServerName;
  /** The highest ratio of their processor times. */
  readonly atMost: number;
}

export interface Row {
  readonly name: string;
  readonly what: What;
  readonly method: 'GET' | 'HEAD' | 'POST';
  readonly status: number;
  /** Fields beside Host and what the server needs. */
  readonly fields: string;
  readonly conditional: boolean;
  /** Pieces of this size, at random offsets. */
  readonly rangeBytes: number | null;
  /** `new`: a connection for each request. `closed`: the request also says `Connection: close`. */
  readonly connection: 'kept' | 'new' | 'closed';
  readonly protocol: 'http/1.1' | 'h2';
  readonly connections: number;
  readonly servers: readonly ServerName[];
  readonly goals: readonly Goal[];
}

const PLAIN = 'Accept: */*\r\n';

/** What Chrome sends for a picture on a page. */
const BROWSER = [
  'Connection: keep-alive',
  'sec-ch-ua-platform: "Linux"',
  'User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36',
  'sec-ch-ua: "Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"',
  'sec-ch-ua-mobile: ?0',
  'Accept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8',
  'Sec-Fetch-Site: same-site',
  'Sec-Fetch-Mode: no-cors',
  'Sec-Fetch-Dest: image',
  'Referer: https://chat.example.org/',
  'Accept-Encoding: gzip, deflate, br, zstd',
  'Accept-Language: en-GB,en;q=0.9,de;q=0.8',
  '',
].join('\r\n');

const IN_MEMORY: readonly ServerName[] = [
  'edge, token',
  'nginx, same duties',
  'edge, public',
  'nginx',
  'Varnish',
  'node:http',
];

function row(name: string, what: What, change: Partial<Row> = {}): Row {
  return {
    name,
    what,
    method: 'GET',
    status: 200,
    fields: PLAIN,
    conditional: false,
    rangeBytes: null,
    connection: 'kept',
    protocol: 'http/1.1',
    connections: 32,
    servers: IN_MEMORY,
    goals: [],
    ...change,
  };
}

function content(name: Content): What {
  return { kind: 'content', content: name };
}

/** `[same duties, public over nginx, public over Varnish]` */
function memory(name: string, key: Content, [duties, plain, varnish]: readonly [number, number, number]): Row {
  return row(`memory ${name}`, content(key), {
    goals: [
      { of: 'edge, token', over: 'nginx, same duties', atMost: duties },
      { of: 'edge, public', over: 'nginx', atMost: plain },
      { of: 'edge, public', over: 'Varnish', atMost: varnish },
    ],
  });
}

function besideNginx(of: ServerName, atMost: number, over: ServerName = 'nginx'): Pick<Row, 'servers' | 'goals'> {
  return { servers: [of, over], goals: [{ of, over, atMost }] };
}

const BOTH: Pick<Row, 'goals'> = {
  goals: [
    { of: 'edge, token', over: 'nginx, same duties', atMost: 1 },
    { of: 'edge, public', over: 'nginx', atMost: 1 },
  ],
};

const NEW: Partial<Row> = { ...besideNginx('edge, public', 4), connections: 8 };

export const ROWS: readonly Row[] = [
  memory('1 KiB', 'k1', [0.5, 0.75, 0.45]),
  memory('16 KiB', 'k16', [0.6, 0.85, 0.5]),
  memory('128 KiB', 'k128', [1.1, 1.5, 0.8]),
  memory('1 MiB', 'm1', [1.35, 1.7, 0.95]),
  row('304', content('k1'), { status: 304, conditional: true, ...BOTH }),
  row('HEAD', content('k1'), { method: 'HEAD', ...BOTH }),
  row('thumbnail, browser', content('thumb'), { fields: BROWSER, ...BOTH }),
  row('two workers, 16 KiB', content('k16'), {
    servers: ['edge, public', 'edge, 2 workers', 'nginx'],
    goals: [{ of: 'edge, 2 workers', over: 'edge, public', atMost: 1.11 }],
  }),
  row('1000 connections', content('k1'), { connections: 1_000, servers: ['edge, public', 'nginx'] }),
  row('disk 16 KiB', content('k16'), besideNginx('edge, disk', 3)),
  row('disk 128 KiB', content('k128'), besideNginx('edge, disk', 3)),
  row('disk 1 MiB', content('m1'), besideNginx('edge, disk', 3)),
  row('disk ranges', content('m8'), { status: 206, rangeBytes: 65_536, ...besideNginx('edge, disk', 2.5) }),
  row('zipf', { kind: 'zipf', paths: 20_000, sizeBytes: 8_192 }, besideNginx('edge, generic', 2.5)),
  row('new connection', content('k1'), { ...NEW, connection: 'new' }),
  row('new connection, closed', content('k1'), { ...NEW, connection: 'closed' }),
  row('TLS 1 KiB', content('k1'), besideNginx('edge, TLS', 1.8, 'nginx, TLS')),
  row('TLS 16 KiB', content('k16'), besideNginx('edge, TLS', 1.6, 'nginx, TLS')),
  row('h2 1 KiB', content('k1'), { protocol: 'h2', ...besideNginx('edge, TLS', 2.5, 'nginx, TLS') }),
  row('h2 16 KiB', content('k16'), { protocol: 'h2', ...besideNginx('edge, TLS', 2, 'nginx, TLS') }),
  row('h2 1 MiB', content('m1'), { protocol: 'h2', ...besideNginx('edge, TLS', 1.2, 'nginx, TLS') }),
  row(
    'miss 1 KiB',
    { kind: 'new', sizeBytes: 1_024 },
    { connections: 1, servers: ['edge, generic', 'nginx', 'node:http'] },
  ),
  // Not nginx, which waits 40 ms with the end of a body that arrives in pieces (tcp_nopush).
  row('miss 64 KiB', { kind: 'new', sizeBytes: 65_536 }, { connections: 1, servers: ['edge, generic', 'node:http'] }),
  row('relayed POST', { kind: 'post' }, { method: 'POST', connections: 4, servers: ['edge, token', 'nginx'] }),
];
