/** The documents that describe the service, made from small tables and settings, and the whole table of its endpoints. */
import t from 'tap';
import { createDocument } from '../../../origin/api/document.js';
import { describeRoutes } from '../../../origin/api/openapi.js';
import { mediaResponses, refusal, refusals, TAKEN_DOWN, withCommonRefusals } from '../../../origin/api/route-notes.js';
import { originRoutes, type RouteDeps } from '../../../origin/api/routes.js';
import { LINK_SCHEMA, MEDIA_JSON } from '../../../origin/api/schemas.js';
import { WEBHOOKS } from '../../../origin/api/webhooks.js';
import { createWellKnown, retentionText, wellKnownSection } from '../../../origin/api/well-known.js';
import { uploadSection } from '../../../origin/ingest/config.js';
import { resumableSection } from '../../../origin/ingest/resumable/resumable-uploads.js';
import type { Media } from '../../../origin/meta/media.js';
import { EVENT_TYPES } from '../../../origin/meta/outbox/outbox.js';
import { quotaSection } from '../../../origin/quota.js';
import { describeDuplicate, describeMedia } from '../../../origin/respond/media-json.js';
import { type RetentionConfig, retentionSection } from '../../../origin/retention-rules.js';
import { rateLimitsSection } from '../../../origin/server/rate-limits.js';
import { FAULTS } from '../../../src/errors.js';
import { emptyReply, type Reply } from '../../../src/http/reply.js';
import type { MediaId, Sha256 } from '../../../src/ids.js';
import { type Audience, integerParameter, mediaId, type Route, route } from '../../../src/server/routes.js';
import { configured } from '../../kit/deps.js';
import { PLACE } from '../../kit/origin/keys.js';

const ID = '01ARZ3NDEKTSV4RRFFQ69G5FAV' as MediaId;
const SHA = 'ab'.repeat(32) as Sha256;
const head = (method: string, fields: Readonly<Record<string, string>> = {}) => ({
  method,
  header: (name: string): string | undefined => fields[name],
});
const documentIn = ({ body }: Reply): unknown =>
  JSON.parse(body.kind === 'bytes' ? Buffer.from(body.bytes).toString() : 'null');

void t.test('a document is made once, and may be kept and asked for again', (t) => {
  let made = 0;
  const answer = createDocument(() => {
    made += 1;
    return { made };
  }, 90_999);
  t.equal(made, 0, 'not before it is asked for');
  const reply = answer(head('GET'));
  const [type, tag, control] = reply.headers;
  t.same(
    [reply.status, type, control],
    [200, ['content-type', 'application/json'], ['cache-control', 'public, max-age=90']],
  );
  t.equal(reply.headers.length, 3);
  t.same(documentIn(reply), { made: 1 });
  t.same(answer(head('HEAD')), reply);
  t.same(answer(head('GET', { 'if-none-match': tag?.[1] ?? '' })), {
    status: 304,
    headers: [tag, control],
    body: { kind: 'none' },
  });
  t.throws(() => answer(head('GET', { 'if-match': '"other"' })), { code: 'precondition_failed' });
  t.equal(made, 1);
  t.end();
});

const row = (audience: Audience, given: Partial<Route<never>> = {}): Route<never> => ({
  ...route({
    methods: ['GET', 'HEAD'],
    pattern: '/a/{id}',
    summary: 'A.',
    audience,
    path: {},
    query: {},
    responses: [{ status: 204, help: 'Done.' }],
    handle: async (_context: never) => emptyReply(204),
  }),
  ...given,
});

const HEADERS = { 'X-Request-Id': { $ref: '#/components/headers/X-Request-Id' } };

void t.test('routes are described as OpenAPI', (t) => {
  const rows = [
    row('viewer', {
      path: { id: mediaId },
      query: { w: integerParameter('Width.', { min: 1, max: 9 }) },
      responses: [
        { status: 200, help: 'The bytes.', content: { type: 'image/*' } },
        { status: 200, help: 'Not told: the first one is.' },
        refusal(404, 'not_found'),
        refusal(404, 'thumbnail_unavailable', 'not_found'),
      ],
    }),
    row('token', {
      methods: ['POST'],
      requestBody: { help: 'Bytes.', types: ['*/*', 'multipart/form-data'] },
      responses: [{ status: 201, help: 'Made.', content: { type: 'application/json', schema: { type: 'object' } } }],
    }),
    row('admin', { methods: ['DELETE'] }),
    row('anyone', { pattern: '/b' }),
    row('anyone', { pattern: '/hidden', hidden: true }),
  ];
  const document = describeRoutes(rows, 'https://media.example');
  const get = {
    summary: 'A.',
    security: [{}, { token: [] }, { link: [] }],
    parameters: [
      { name: 'id', in: 'path', required: true, description: mediaId.help, schema: mediaId.schema },
      {
        name: 'w',
        in: 'query',
        required: false,
        description: 'Width.',
        schema: { type: 'integer', minimum: 1, maximum: 9 },
      },
    ],
    responses: {
      200: { description: 'The bytes.', headers: HEADERS, content: { 'image/*': { schema: {} } } },
      404: {
        headers: HEADERS,
        description: `\`not_found\`: ${FAULTS.not_found.title}; \`thumbnail_unavailable\`: ${FAULTS.thumbnail_unavailable.title}`,
        content: {
          'application/problem+json': {
            schema: {
              allOf: [
                { $ref: '#/components/schemas/Problem' },
                { type: 'object', properties: { code: { enum: ['not_found', 'thumbnail_unavailable'] } } },
              ],
            },
          },
        },
      },
    },
  };
  const plain = (security: readonly object[]): object => ({
    summary: 'A.',
    security,
    parameters: [],
    responses: { 204: { description: 'Done.', headers: HEADERS } },
  });
  t.same(document['paths'], {
    '/a/{id}': {
      get,
      head: get,
      post: {
        summary: 'A.',
        security: [{ token: [] }],
        parameters: [],
        requestBody: {
          description: 'Bytes.',
          required: true,
          content: {
            '*/*': {},
            'multipart/form-data': { schema: { type: 'object', properties: { file: {} }, required: ['file'] } },
          },
        },
        responses: {
          201: {
            description: 'Made.',
            headers: HEADERS,
            content: { 'application/json': { schema: { type: 'object' } } },
          },
        },
      },
      delete: plain([{ token: [] }]),
    },
    '/b': { get: plain([{}]), head: plain([{}]) },
  });
  t.match(document, {
    openapi: '3.1.0',
    info: { title: 'Media service', version: /^\d+\.\d+\.\d+$/ },
    servers: [{ url: 'https://media.example' }],
    components: {
      securitySchemes: {
        token: { type: 'http', scheme: 'bearer' },
        link: { type: 'apiKey', in: 'query', name: 'sig' },
      },
      schemas: { Problem: { type: 'object' } },
    },
  });
  const { Problem } = (
    document['components'] as { schemas: { Problem: { required: unknown; properties: Record<string, unknown> } } }
  ).schemas;
  t.same(Problem.required, ['type', 'title', 'status', 'detail', 'code'], 'RFC 9457, and the code');
  t.same(Object.keys(Problem.properties), Problem.required);
  t.same(Problem.properties['code'], { type: 'string', enum: Object.keys(FAULTS) });
  t.end();
});

void t.test('refusals are described by their status and codes', (t) => {
  const told = (notes: readonly { status: number; codes?: readonly string[] }[]): readonly string[] =>
    notes.map(({ status, codes }) => [status, ...(codes ?? [])].join(' '));
  t.same(refusal(404, 'not_found'), {
    status: 404,
    help: 'Refused.',
    codes: ['not_found'],
    content: { type: 'application/problem+json' },
  });
  const read = [
    '400 invalid_id malformed',
    '401 unauthorized',
    '403 forbidden quarantined',
    '404 not_found',
    '410 deleted expired',
  ];
  t.same(told(refusals(400, 401, 403, 404, 410)), read);
  t.same(told(mediaResponses('The bytes.', '*/*')), [
    '200',
    '206',
    '304',
    ...read.map((line) => line.replace('unauthorized', 'unauthorized link_expired')),
    '412 precondition_failed',
    '416 range_not_satisfiable',
  ]);
  const common = ['429 rate_limited', '500 internal', '503 auth_unavailable overloaded storage_unavailable'];
  const responses = (audience: Audience): readonly string[] =>
    told(withCommonRefusals([row(audience)]).flatMap((one) => one.responses));
  t.same(responses('anyone'), ['204', '431 headers_too_large']);
  for (const audience of ['viewer', 'token', 'admin'] as const) t.same(responses(audience), ['204', ...common]);
  t.end();
});

void t.test('the schemas allow what is answered, and nothing that never is', (t) => {
  const media: Media = {
    record: {
      id: ID,
      sha256: SHA,
      sentSha256: SHA,
      public: true,
      owner: 'ada',
      filename: 'a.png',
      createdAt: 1,
      expiresAt: 2,
      usedAt: 1,
      state: { kind: 'live' },
    },
    blob: {
      sha256: SHA,
      place: PLACE,
      sizeBytes: 10,
      mime: 'image/png',
      storedAt: 1,
      picture: { width: 1, height: 2, durationMs: 1_500, frames: 1, orientation: 1, thumbhash: 'abc=' },
      thumbs: { kind: 'pending' },
      quarantine: null,
    },
  };
  const sent = { sha256: SHA, sizeBytes: 10, mime: 'image/png', filename: null };
  const answers = [describeMedia(media, ''), describeDuplicate(media, sent, false, '')].map((one) => ({
    ...one,
    duplicate: false,
  }));
  const { properties, required } = MEDIA_JSON.schema;
  t.same(required, Object.keys(answers[0] ?? {}));
  for (const [name, schema] of Object.entries(properties)) {
    const type = 'type' in schema ? schema.type : undefined;
    const typeOf = (value: unknown): string => {
      if (value === null) return 'null';
      return Number.isInteger(value) ? 'integer' : typeof value;
    };
    const answered = answers.map((answer) => typeOf(answer[name as keyof typeof answer]));
    t.same([type].flat().map(String).toSorted(), [...new Set(answered)].sort(), name);
  }
  t.same(LINK_SCHEMA.required, ['url', 'thumb_url', 'info_url', 'expires_at']);
  t.same(Object.keys(LINK_SCHEMA.properties), LINK_SCHEMA.required);
  t.equal(TAKEN_DOWN.status, 204);
  t.end();
});

/** What each endpoint is called with, and what it may answer beside the refusals of all. */
const ENDPOINTS = `
POST /v1/media token -
GET,HEAD /v1/media/{id} viewer id download
GET,HEAD /v1/media/{id}/thumb viewer id w h download
GET,HEAD /v1/media/{id}/info viewer id download
POST /v1/media/{id}/link token id expires_in w h
POST /v1/links token
POST /v1/uploads/link token
DELETE /v1/media/{id} admin id wait reason
POST /v1/media/{id}/quarantine admin id wait reason
DELETE /v1/media/{id}/quarantine admin id wait reason
POST /v1/uploads token
PATCH /v1/uploads/{upload} token upload
HEAD,DELETE,POST /v1/uploads/{upload} token upload
OPTIONS /v1/uploads anyone
OPTIONS /v1/uploads/{upload} anyone upload
GET,HEAD /v1/admin/media admin owner type state from to cursor limit
GET,HEAD /v1/admin/media/{id} admin id
POST /v1/admin/blobs/{sha256}/quarantine admin sha256 wait reason
DELETE /v1/admin/blobs/{sha256}/quarantine admin sha256 wait reason
POST /v1/admin/owners/{subject}/delete admin subject wait reason cursor
POST /v1/admin/owners/{subject}/quarantine admin subject wait reason cursor
POST /v1/admin/owners/{subject}/restore admin subject wait reason cursor
GET,HEAD /healthz anyone
GET,HEAD /readyz anyone
GET,HEAD /.well-known anyone
GET,HEAD /.well-known/media-service anyone
GET,HEAD /openapi.json anyone
`.trim();

void t.test('names and fields in the description serve generators', (t) => {
  const rows = [
    row('anyone', {
      methods: ['GET'],
      operations: { GET: 'getThings' },
      fields: ['If-None-Match'],
      requestBody: { help: 'One.', types: ['application/json'], schema: { title: 'Thing', type: 'object' } },
      responses: [
        {
          status: 200,
          help: 'All.',
          fields: ['ETag', 'Takedown-Confirmed'],
          content: {
            type: 'application/json',
            schema: {
              title: 'Things',
              properties: { title: { type: 'string' }, items: { items: { title: 'Thing', type: 'object' } } },
            },
          },
        },
        refusal(401, 'unauthorized'),
        refusal(429, 'rate_limited'),
      ],
    }),
  ];
  const { paths, components } = describeRoutes(rows, '') as {
    paths: Record<string, Record<string, { responses: Record<string, { headers: object }> }>>;
    components: { schemas: Record<string, unknown>; headers: object };
  };
  const get = paths['/a/{id}']?.['get'];
  t.match(get, {
    operationId: 'getThings',
    parameters: [{ name: 'If-None-Match', in: 'header', required: false }],
    requestBody: { content: { 'application/json': { schema: { $ref: '#/components/schemas/Thing' } } } },
    responses: { 200: { content: { 'application/json': { schema: { $ref: '#/components/schemas/Things' } } } } },
  });
  const headersOf = (status: number): readonly string[] => Object.keys(get?.responses[status]?.headers ?? {});
  t.same(headersOf(200), ['ETag', 'Takedown-Confirmed', 'X-Request-Id']);
  t.same(headersOf(401), ['WWW-Authenticate', 'X-Request-Id']);
  t.same(headersOf(429), ['Retry-After', 'RateLimit', 'RateLimit-Policy', 'X-Request-Id']);
  t.match(components.schemas, {
    Thing: { type: 'object' },
    Things: { properties: { title: { type: 'string' }, items: { items: { $ref: '#/components/schemas/Thing' } } } },
  });
  t.ok(Object.keys(components.headers).includes('Retry-After'));
  t.throws(() => describeRoutes([row('anyone', { fields: ['Unheard-Of'] })], ''), /the field Unheard-Of is described/);
  t.end();
});

void t.test('every operation has a name of its own, and every field and schema that is named is described', (t) => {
  const rows = originRoutes({ baseUri: '', config: { wellKnown: configured(wellKnownSection) } } as RouteDeps);
  const described = describeRoutes(rows, 'https://media.example', WEBHOOKS) as {
    paths: Record<string, Record<string, { operationId?: string }>>;
    webhooks: Record<string, Record<string, { operationId?: string }>>;
    components: { schemas: object; headers: object };
  };
  const ids = [...Object.values(described.paths), ...Object.values(described.webhooks)].flatMap((path) =>
    Object.values(path).map(({ operationId }) => operationId),
  );
  t.same(Object.keys(described.webhooks), EVENT_TYPES);
  t.notOk(ids.includes(undefined));
  t.equal(new Set(ids).size, ids.length);
  const named = [...JSON.stringify(described).matchAll(/"#\/components\/(schemas|headers)\/([^"]+)"/g)];
  for (const [, kind, name] of named) {
    if (!(String(name) in described.components[kind as 'schemas'])) t.fail(`${String(kind)} ${String(name)}`);
  }
  const used = new Set(named.map(([, , name]) => name));
  for (const name of [...Object.keys(described.components.schemas), ...Object.keys(described.components.headers)]) {
    t.ok(used.has(name), `${name} is used`);
  }
  t.end();
});

void t.test('each endpoint has its methods, its audience and its parameters', (t) => {
  const deps = { baseUri: '', config: { wellKnown: configured(wellKnownSection) } } as RouteDeps;
  const described = originRoutes(deps).map(({ methods, pattern, audience, path, query }) => {
    const parameters = pattern === '/v1/media' ? ['-'] : [...Object.keys(path), ...Object.keys(query)];
    return [methods.join(), pattern, audience, ...parameters].join(' ');
  });
  t.same(described, ENDPOINTS.split('\n'));
  for (const { methods, pattern, audience, responses } of originRoutes(deps)) {
    const what = `${methods.join()} ${pattern}`;
    const statuses = responses.map(({ status }) => status);
    t.equal(statuses.includes(401), audience !== 'anyone', what);
    t.equal(statuses.includes(503), audience !== 'anyone' || pattern === '/readyz', what);
    if (audience === 'admin') t.ok(statuses.includes(403), what);
  }
  t.end();
});

void t.test('numbers and instants of a query are bounded', async (t) => {
  const rows = originRoutes({ baseUri: '', config: { wellKnown: configured(wellKnownSection) } } as RouteDeps);
  const read = (pattern: string, name: string, text: string | undefined): unknown => {
    const parameter = rows
      .map((one) => (one.pattern === pattern ? one.query[name] : undefined))
      .find((one) => one !== undefined);
    try {
      return parameter?.read(text, name);
    } catch (thrown) {
      return (thrown as { readonly code: string }).code;
    }
  };
  const link = '/v1/media/{id}/link';
  t.same(
    ['0', '1', '999999', '1000000'].map((text) => read(link, 'w', text)),
    ['malformed', 1, 999_999, 'malformed'],
  );
  t.same(
    ['0', '1', '999999', '1000000'].map((text) => read(link, 'h', text)),
    ['malformed', 1, 999_999, 'malformed'],
  );
  t.same(
    ['0', '1'].map((text) => read(link, 'expires_in', text)),
    ['malformed', 1],
  );
  const list = '/v1/admin/media';
  t.same(
    ['0', '1', '1000', '1001', undefined].map((text) => read(list, 'limit', text)),
    ['malformed', 1, 1_000, 'malformed', undefined],
  );
  t.same(
    [undefined, 'x', '01arz3ndektsv4rrffq69g5fav'].map((text) => read(list, 'cursor', text)),
    [undefined, 'invalid_id', '01ARZ3NDEKTSV4RRFFQ69G5FAV'],
  );
  t.same(
    ['a'.repeat(1_024), 'a'.repeat(1_025)].map((text) => read(list, 'owner', text)),
    ['a'.repeat(1_024), 'malformed'],
  );
  t.same(
    ['a'.repeat(255), 'a'.repeat(256)].map((text) => read(list, 'type', text)),
    ['a'.repeat(255), 'malformed'],
  );
  for (const state of ['live', 'deleted', 'expired', 'quarantined', 'held']) t.equal(read(list, 'state', state), state);
  t.equal(read(list, 'state', 'other'), 'malformed');
  const quarantine = '/v1/media/{id}/quarantine';
  t.same(
    ['edges', 'all'].map((text) => read(quarantine, 'wait', text)),
    ['edges', 'malformed'],
  );
  t.same(
    ['a'.repeat(512), 'a'.repeat(513)].map((text) => read(quarantine, 'reason', text)),
    ['a'.repeat(512), 'malformed'],
  );
  t.end();
});

const HOUR = 3_600_000;

void t.test('what clients should know is in one document', (t) => {
  const config = {
    upload: configured(uploadSection, { types: ['image/jpeg', 'text/plain'], sizeMaxBytes: 1_000 }),
    resumable: configured(resumableSection, { expiresAfterMs: 2_500 }),
    quota: configured(quotaSection, { periodMs: HOUR, totalBytes: 5_000 }),
    rateLimits: {
      ...configured(rateLimitsSection),
      windowMs: 10_000,
      subject: { requestsMax: 1, uploadedMaxBytes: 2, downloadedMaxBytes: 0 },
      address: { requestsMax: 0, uploadedMaxBytes: 0, downloadedMaxBytes: 3 },
    },
    retention: configured(retentionSection),
    wellKnown: configured(wellKnownSection),
  };
  let signs = true;
  const thumbs = {
    variants: [{ name: 'a', width: 1, height: 2, fit: 'inside' as const }],
    formats: ['webp'],
    default: 'a',
    animated: true,
    types: ['image/png'],
    video: { available: false, reason: 'no ffmpeg' },
  };
  const answer = (given: object = {}, blobs: object = { kind: 'local', region: null }): Record<string, unknown> => {
    const deps = {
      baseUri: 'https://media.example',
      links: {
        lifetimeMs: 60_999,
        lifetimeMaxMs: 120_000,
        windowMs: 600_000,
        idsMax: 500,
        uploadLifetimeMs: 3_000,
        uploadLifetimeMaxMs: 4_000,
      },
      ownersMayDelete: true,
      facts: { uploadWaitMs: 250 },
      signsLinks: () => signs,
      blobs,
      thumbs,
      config: { ...config, ...given },
    };
    return documentIn(createWellKnown(deps as Parameters<typeof createWellKnown>[0]).reply(head('GET'))) as Record<
      string,
      unknown
    >;
  };
  const { capabilities, ...rest } = answer();
  t.same(rest, {
    base_uri: 'https://media.example',
    auth_required: true,
    max_upload_size: 1_000,
    storage_mode: 'local',
  });
  const whole = capabilities as Record<string, unknown>;
  t.match(whole, {
    accepted_types: ['image/jpeg', 'text/plain'],
    thumbnails: { ...thumbs, video: false },
    digest_algorithms: ['sha-256'],
    signed_links: { lifetime_seconds: 60, lifetime_max_seconds: 120, window_seconds: 600, ids_max: 500 },
    upload_links: { lifetime_seconds: 3, lifetime_max_seconds: 4 },
    info: true,
    download_parameter: 'download',
    thumbhash_wait_seconds: 0.25,
    owners_may_delete: true,
    retention: { rules: [], unused_seconds: null },
    quota: { period_seconds: 3_600, bytes: 5_000, files: null },
    rate_limits: {
      window_seconds: 10,
      subject: { requests: 1, upload_bytes: 2, download_bytes: null },
      address: { requests: null, upload_bytes: null, download_bytes: 3 },
    },
    resumable: { endpoint: 'https://media.example/v1/uploads', version: '1.0.0', expires_seconds: 2 },
  });
  const { extensions, checksum_algorithms } = whole['resumable'] as {
    extensions: string[];
    checksum_algorithms: string[];
  };
  t.same(extensions.toSorted(), [
    'checksum',
    'concatenation',
    'creation',
    'creation-defer-length',
    'creation-with-upload',
    'expiration',
    'termination',
  ]);
  t.ok(checksum_algorithms.includes('sha1'), 'tus asks for SHA-1');
  t.same(answer({}, { kind: 's3', region: 'eu-1' })['region'], 'eu-1');
  const part = (name: string, given: object): unknown =>
    (answer(given)['capabilities'] as Record<string, unknown>)[name];
  const stripping = (enabled: boolean): object => ({
    upload: { ...config.upload, stripOriginals: { ...config.upload.stripOriginals, enabled } },
  });
  t.equal(part('stripped_types', stripping(false)), null);
  t.same(part('stripped_types', stripping(true)), ['image/jpeg'], 'those of the accepted ones');
  t.equal(part('quota', { quota: configured(quotaSection) }), null);
  t.same(part('quota', { quota: configured(quotaSection, { filesMax: 3, periodMs: HOUR }) }), {
    period_seconds: 3_600,
    bytes: null,
    files: 3,
  });
  const rule = { types: ['video/*'], visibility: 'public', minSizeBytes: 5, keepMs: 2_000 } as const;
  t.match(part('retention', { retention: configured(retentionSection, { rules: [rule], unusedForMs: HOUR }) }), {
    rules: [{ types: ['video/*'], visibility: 'public', min_size: 5, seconds: 2 }],
    unused_seconds: 3_600,
  });
  signs = false;
  t.equal(part('signed_links', {}), null);
  t.equal(part('upload_links', {}), null);
  t.end();
});

void t.test('links may be switched on and off while the service runs', (t) => {
  let signs = false;
  const config = {
    upload: configured(uploadSection),
    resumable: configured(resumableSection),
    quota: configured(quotaSection),
    rateLimits: configured(rateLimitsSection),
    retention: configured(retentionSection),
    wellKnown: configured(wellKnownSection, { maxAgeMs: 7_000 }),
  };
  const thumbs = {
    variants: [],
    formats: [],
    default: '',
    animated: false,
    types: [],
    video: { available: true, reason: null },
  };
  const { reply: answer } = createWellKnown({
    baseUri: '',
    links: {
      lifetimeMs: 1_000,
      lifetimeMaxMs: 2_000,
      windowMs: 600_000,
      idsMax: 500,
      uploadLifetimeMs: 3_000,
      uploadLifetimeMaxMs: 4_000,
    },
    ownersMayDelete: true,
    facts: { uploadWaitMs: 250 },
    signsLinks: () => signs,
    blobs: { kind: 'local', region: null },
    thumbs,
    config,
  } as unknown as Parameters<typeof createWellKnown>[0]);
  const linksNow = (): unknown =>
    (documentIn(answer(head('GET'))) as { capabilities: { signed_links: unknown } }).capabilities.signed_links;
  t.equal(linksNow(), null);
  signs = true;
  t.same(linksNow(), { lifetime_seconds: 1, lifetime_max_seconds: 2, window_seconds: 600, ids_max: 500 });
  t.same(answer(head('GET')).headers.at(-1), ['cache-control', 'public, max-age=7']);
  t.end();
});

void t.test('the retention rules in words', (t) => {
  const text = (rules: RetentionConfig['rules'], unusedForMs: number | null = null): string =>
    retentionText({ rules, unusedForMs });
  const rule = { types: ['*/*'], visibility: 'any', minSizeBytes: 0, keepMs: HOUR } as const;
  t.equal(text([]), 'Kept: everything until it is deleted or its own expiry.');
  t.equal(
    text([rule, { ...rule, types: ['a/b', 'c/*'], visibility: 'private', minSizeBytes: 1 }], 2 * HOUR),
    'Kept: */* for 1h; private a/b, c/* of 1 bytes and more for 1h; everything else until it is deleted or its own expiry. What nobody fetches for 2h expires.',
  );
  t.end();
});
