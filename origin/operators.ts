/** What operators ask of the origin, on a listener of their own. */
import { Fault } from '../src/errors.js';
import { emptyReply, type Reply } from '../src/http/reply.js';
import { type Route, route, sha256, textParameter } from '../src/http/routes.js';
import type { Metrics } from '../src/metrics.js';
import type { Health } from './health.js';
import type { OriginRequest } from './request.js';
import { healthRoutes } from './routes.js';
import type { ScrubMarks } from './scrub.js';

export interface OperatorParts {
  readonly health: Health;
  readonly metrics: Metrics;
  /** What a scrub in a process of its own found (commands.ts). */
  readonly marks: ScrubMarks;
}

export function operatorRoutes(parts: OperatorParts): readonly Route<OriginRequest>[] {
  return [
    route({
      methods: ['GET', 'HEAD'],
      pattern: '/metrics',
      summary: 'Metrics, as Prometheus reads them.',
      audience: 'anyone',
      path: {},
      query: {},
      responses: [{ status: 200, help: 'The metrics.', content: { type: 'text/plain' } }],
      handle: (_request: OriginRequest) => metricsReply(parts.metrics),
    }),
    route({
      methods: ['POST'],
      pattern: '/scrub/{sha256}/rotten',
      summary: 'Withholds a blob whose stored bytes are lost or wrong, until the same bytes are uploaded again.',
      audience: 'anyone',
      hidden: true,
      path: { sha256 },
      query: { reason: textParameter('What was found.', REASON_LENGTH_MAX) },
      responses: [{ status: 204, help: 'It is withheld.' }],
      handle: (request: OriginRequest, path, query) =>
        marked(request, () => parts.marks.rotten(path.sha256, query.reason ?? 'found by a scrub')),
    }),
    route({
      methods: ['POST'],
      pattern: '/scrub/{sha256}/thumbs',
      summary: 'Has the thumbnails of a blob made again.',
      audience: 'anyone',
      hidden: true,
      path: { sha256 },
      query: {},
      responses: [{ status: 204, help: 'They are queued.' }],
      handle: (request: OriginRequest, path) => marked(request, () => parts.marks.redoThumbs(path.sha256)),
    }),
    ...healthRoutes(parts.health),
  ];
}

const REASON_LENGTH_MAX = 200;

/** Only a browser says where a request comes from, and no page has anything to do here. */
async function marked(request: OriginRequest, mark: () => Promise<void>): Promise<Reply> {
  if (request.header('origin') !== undefined || request.header('sec-fetch-site') !== undefined) {
    throw new Fault('forbidden', 'A page may not do this.');
  }
  await mark();
  return emptyReply(204, [['cache-control', 'no-store']]);
}

async function metricsReply(metrics: Metrics): Promise<Reply> {
  const { contentType, text } = await metrics.render();
  return {
    status: 200,
    headers: [
      ['content-type', contentType],
      ['cache-control', 'no-store'],
    ],
    body: { kind: 'bytes', bytes: Buffer.from(text) },
  };
}
