/** The listeners for operators, with a token, asked by strangers and by pages of other sites. */
import { ask, type Row, send } from './row.js';

export function operatorRows(token: Readonly<Record<string, string>>): readonly Row[] {
  const json = { 'content-type': 'application/json' };
  const hosts = [
    'evil.example',
    'localhost.evil.example',
    'evil.example:9001',
    '127.0.0.1.evil.example',
    'localhost.',
    '127.1',
    '0x7f000001',
    '2130706433',
    'localhost@evil.example',
  ];
  const sites: readonly Readonly<Record<string, string>>[] = [
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { origin: 'http://localhost:1' },
    { origin: 'http://127.0.0.1.evil.example' },
    { origin: '' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
    { 'sec-fetch-site': 'none' },
  ];
  const credentials = ['', 'Bearer', 'Bearer x', 'Basic eDp5', `Basic ${token['authorization'] ?? ''}`, 'Bearer null'];
  const acts = [
    'POST /purge',
    'POST /explain',
    'POST /reload',
    'POST /thumbs/retry',
    `POST /scrub/${'0'.repeat(64)}/thumbs`,
    `DELETE /v1/media/${'0'.repeat(26)}`,
    `POST /v1/media/${'0'.repeat(26)}/quarantine`,
    'POST /v1/admin/owners/ada/delete',
  ];
  return [
    ...hosts.flatMap((host) => [
      // Before the path is looked at, and before the operators' listener is reached where the name is none at all.
      ask(`the host ${host}`, 'GET /metrics', { host }, host.includes('@') ? 400 : 403),
      ask(`an act for the host ${host}`, 'POST /purge', { ...token, host }, host.includes('@') ? 400 : 403),
    ]),
    ...sites.flatMap((fields) =>
      acts.map((act) => ask(`an act of the page ${JSON.stringify(fields)}`, act, { ...token, ...fields }, 403)),
    ),
    ...credentials.flatMap((authorization) =>
      acts.map((act) => ask(`an act as ${authorization.slice(0, 12)}`, act, { authorization }, 401)),
    ),
    ...credentials.flatMap((authorization) =>
      [
        '/v1/admin/media',
        '/v1/admin/media?owner=ada',
        '/v1/admin/media/nonsense',
        '/v1/admin/media?limit=nonsense',
      ].map((path) => ask(`media as ${authorization.slice(0, 12)}`, `GET ${path}`, { authorization }, [401, 404])),
    ),
    ...[
      '/src/live/..%2foperators.js',
      '/src/live/operator.ts',
      '/src/live/',
      '/src/client/%63lock.js',
      '/src/log.js',
    ].map((path) => ask('a file that is none of the page', `GET ${path}`, token, 404)),
    ...[
      '/..',
      '/../../etc/passwd',
      '/%2e%2e/',
      '/v1/media',
      '/config',
      '/env',
      '/metrics/',
      '/Metrics',
      '//metrics',
    ].map((path) => ask('a path that does not exist', `GET ${path}`, {}, 404)),
    ...['OPTIONS', 'PUT', 'DELETE', 'PATCH', 'TRACE', 'PROPFIND'].flatMap((method) => [
      ask('another method', `${method} /metrics`, token, 405),
      ask('the same without the token', `${method} /metrics`, {}, 401),
    ]),
    send('an order that is none', 'POST /purge', { ...token, ...json }, '{', [404, 400]),
    send('an order for everything and nothing', 'POST /purge', { ...token, ...json }, '{"all":"yes"}', [404, 400]),
    send('an order of another type', 'POST /purge', token, '{"all":true}', [404, 415]),
    send(
      'an order that is too long',
      'POST /purge',
      { ...token, ...json },
      `{"ids":[${'"x",'.repeat(600_000)}"x"]}`,
      [404, 413],
    ),
    send('an order with a prototype', 'POST /purge', { ...token, ...json }, '{"__proto__":{"all":true}}', [404, 400]),
  ];
}
