/** What the service says of itself. */
import { NotTried } from '../answer.js';
import { type Check, checksOf } from '../check.js';

const { both } = checksOf('documents');

const PATHS = [
  '/v1/media',
  '/v1/media/{id}',
  '/v1/media/{id}/thumb',
  '/v1/media/{id}/info',
  '/v1/media/{id}/link',
  '/v1/links',
  '/v1/uploads',
  '/v1/uploads/link',
  '/v1/media/{id}/quarantine',
  '/healthz',
  '/readyz',
  '/.well-known',
];

export const documentChecks: readonly Check[] = [
  both('well-known/members', '/.well-known says what clients need to know', async (_world, at) => {
    const answer = (await at.get('/.well-known')).is(200).has('content-type', /^application\/json\b/);
    const { base_uri: base, auth_required: auth, max_upload_size: size, storage_mode: mode, region } = answer.json;
    answer.holds('"base_uri" is a URL', URL.canParse(String(base)));
    answer.equals('the type of "auth_required"', typeof auth, 'boolean');
    answer.holds('"max_upload_size" is a number of bytes', Number.isSafeInteger(size) && Number(size) > 0);
    answer.equals('the type of "storage_mode"', typeof mode, 'string');
    if (mode === 's3') answer.equals('the type of "region"', typeof region, 'string');
    const capabilities = answer.json['capabilities'] as Readonly<Record<string, unknown>> | undefined;
    const names = [
      'accepted_types',
      'thumbnails',
      'resumable',
      'digest_algorithms',
      'signed_links',
      'retention',
      'rate_limits',
    ];
    answer.equals(
      'missing capabilities',
      names.filter((name) => !(name in (capabilities ?? {}))),
      [],
    );
    const retention = capabilities?.['retention'] as Readonly<Record<string, unknown>> | undefined;
    answer.equals('the type of "retention.text"', typeof retention?.['text'], 'string');
  }),
  both('well-known/cached', '/.well-known has an ETag and is cacheable for minutes', async (_world, at) => {
    const answer = (await at.get('/.well-known'))
      .is(200)
      .has('etag')
      .has('cache-control', /max-age=\d+/);
    const maxAge = Number(/max-age=(\d+)/.exec(answer.field('cache-control') ?? '')?.[1]);
    answer.holds('max-age of 60 to 3600', maxAge >= 60 && maxAge <= 3_600);
    (await at.get('/.well-known', { fields: { 'if-none-match': answer.field('etag') ?? '' } })).is(304);
    const head = (await at.head('/.well-known')).is(200).has('etag', answer.field('etag') ?? '');
    head.equals('the size of the body', head.body.length, 0);
  }),
  both('well-known/same', 'edge and origin say the same', async (world, at) => {
    const answer = (await at.get('/.well-known')).is(200);
    answer.equals('the document', answer.json, world.wellKnown);
  }),
  both('openapi', '/openapi.json describes the paths', async (_world, at) => {
    const answer = (await at.get('/openapi.json')).is(200).has('content-type', /json/);
    answer.holds('OpenAPI 3.1', answer.text('openapi').startsWith('3.1.'));
    const paths = Object.keys(answer.json['paths'] ?? {});
    answer.equals(
      'missing paths',
      PATHS.filter((path) => !paths.includes(path)),
      [],
    );
  }),
  both('health/live', '/healthz answers 200 while the process lives', async (_world, at) => {
    (await at.get('/healthz')).is(200);
    (await at.head('/healthz')).is(200);
  }),
  both('health/ready', '/readyz says ready, or names each failed check', async (_world, at) => {
    const answer = (await at.get('/readyz')).is(200, 503).has('content-type', /json/);
    const { failed } = answer.json;
    answer.holds('"failed" is a list', Array.isArray(failed));
    answer.equals('whether a check is named', (failed as readonly unknown[]).length > 0, answer.status === 503);
    answer.is(200);
  }),
  both('health/http-2', 'HTTP/2 is spoken over TLS', async (_world, at) => {
    if (!at.url.startsWith('https:')) throw new NotTried(`the ${at.name} is reached without TLS`);
    const answer = await at.get('/healthz');
    const { connect } = await import('node:http2');
    const status = await new Promise<number>((resolve) => {
      const session = connect(at.url);
      const end = (found: number): void => {
        session.destroy();
        resolve(found);
      };
      session.once('error', () => end(0));
      const stream = session.request({ ':path': '/healthz' });
      stream.once('error', () => end(0));
      stream.once('response', (fields) => end(Number(fields[':status'])));
      stream.end();
    });
    answer.equals('the status over HTTP/2 (0: none)', status, 200);
  }),
];
