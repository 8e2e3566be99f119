/** What only admins may do, asked by others, and fields by which a stranger claims to be somebody else. */
import { FORGED_FIELDS } from '../kit/http/forged-fields.js';
import { ask, type Row, type Stage, send } from './row.js';

export function adminRows({ id, user, reader, uploader }: Stage): readonly Row[] {
  const hash = '0'.repeat(64);
  const acts = [
    `DELETE /v1/media/${id.hidden}`,
    `DELETE /v1/media/${id.hidden}?wait=edges`,
    `DELETE /v1/media/${id.unknown}`,
    `DELETE /v1/media/${id.deleted}`,
    `POST /v1/media/${id.hidden}/quarantine`,
    `DELETE /v1/media/${id.hidden}/quarantine`,
    'GET /v1/admin/media',
    'GET /v1/admin/media?owner=alice&limit=1000',
    `GET /v1/admin/media/${id.hidden}`,
    `POST /v1/admin/blobs/${hash}/quarantine`,
    `DELETE /v1/admin/blobs/${hash}/quarantine`,
    'POST /v1/admin/owners/alice/quarantine',
    'POST /v1/admin/owners/alice/restore',
    'POST /v1/admin/owners/alice/delete?wait=edges',
    'POST /v1/admin/owners/%2e%2e%2fadmin/delete',
  ];
  const claims: readonly Readonly<Record<string, string>>[] = [
    { 'x-admin': 'true' },
    { 'x-role': 'media:admin' },
    { 'x-user': 'mo' },
    { 'x-remote-user': 'mo' },
    { 'media-caller': 'edge' },
    { 'edge-authorization': 'Bearer x' },
    { 'edge-authorization': '' },
    { cookie: 'admin=1; role=media:admin' },
    { 'x-http-method-override': 'GET' },
  ];
  return [
    ...acts.flatMap((request) => [
      ask(`a stranger: ${request.slice(0, 24)}`, request, {}, 401),
      ask(`a user: ${request.slice(0, 24)}`, request, user, 403),
      ask(`a reader: ${request.slice(0, 24)}`, request, reader, 403),
      ask(`an uploader: ${request.slice(0, 24)}`, request, uploader, 403),
    ]),
    ...claims.flatMap((fields) => [
      ask('a field that claims rights', `DELETE /v1/media/${id.hidden}`, fields, 401),
      ask('the same of a user', `DELETE /v1/media/${id.hidden}`, { ...user, ...fields }, 403),
      ask('the same for reading', `GET /v1/media/${id.hidden}`, fields, 401),
    ]),
    ask('media with a token for uploading', `GET /v1/media/${id.hidden}`, uploader, 403),
    ask('their thumbnail', `GET /v1/media/${id.hidden}/thumb`, uploader, 403),
    ask('the info with a token for uploading', `GET /v1/media/${id.hidden}/info`, uploader, 403),
    ask('many links of a stranger', 'POST /v1/links', {}, 401),
    ask('many links of an uploader', 'POST /v1/links', uploader, 403),
    ask('an upload link of a stranger', 'POST /v1/uploads/link', {}, 401),
    ask('an upload link of a reader', 'POST /v1/uploads/link', reader, 403),
    send('an upload link in the name of another', 'POST /v1/uploads/link', user, '{"subject":"mo"}', 403),
    ask('a link of a stranger', `POST /v1/media/${id.hidden}/link`, {}, 401),
    send('a takedown with a body', `DELETE /v1/media/${id.hidden}`, {}, 'x', 401),
  ];
}

export function forwardingRows({ id }: Stage): readonly Row[] {
  const values = ['127.0.0.1', 'http://127.0.0.1/metrics', '/v1/admin/media', 'DELETE', 'evil.example'];
  return FORGED_FIELDS.flatMap((name, at) => {
    const headers = { [name]: values[at % values.length] ?? '' };
    return [
      ask(`${name} of a stranger`, `GET /v1/media/${id.hidden}`, headers, 401),
      ask(`${name} for a public path`, 'GET /healthz', headers, 200),
    ];
  });
}

export function sizeRows({ id, user }: Stage): readonly Row[] {
  const hidden = `GET /v1/media/${id.hidden}`;
  const many = Object.fromEntries(Array.from({ length: 150 }, (_, at) => [`x-${at}`, '1']));
  return [
    ask('a very long path', `GET /${'a'.repeat(9_000)}`, user, 414),
    ask('a very long query', `${hidden}?${'a'.repeat(9_000)}`, user, 414),
    ask('very many parameters', `${hidden}/thumb?${'w=1&'.repeat(1_500)}`, {}, 401),
    { ...ask('a very long field', hidden, { 'x-long': 'a'.repeat(40_000) }, 431), endsSession: true },
    { ...ask('very many fields', hidden, many, 431), endsSession: true },
    ask('a very long If-None-Match', hidden, { 'if-none-match': '"a",'.repeat(2_000) }, 401),
    ask('a very long Accept', `${hidden}/thumb`, { accept: 'image/webp,'.repeat(600) }, 401),
    ask('a very long cookie', hidden, { cookie: 'a=b; '.repeat(1_500) }, 401),
    ...[
      'w=-1',
      'w=0',
      'w=1e9',
      'w=99999999999',
      'w=x',
      'w=1&w=2',
      'h=-0',
      'w=%00',
      'w[]=1',
      'format=exe',
      'url=http://evil.example',
    ].map((query) => ask(`a size: ${query}`, `${hidden}/thumb?${query}`, {}, 401)),
  ];
}
