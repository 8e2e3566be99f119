/** What operators ask of the origin, on a listener of their own. */
import type { Reply } from '../src/http/reply.js';
import { type Route, route } from '../src/http/routes.js';
import type { Metrics } from '../src/metrics.js';
import type { Health } from './health.js';
import type { OriginRequest } from './request.js';
import { healthRoutes } from './routes.js';

export function operatorRoutes(parts: {
  readonly health: Health;
  readonly metrics: Metrics;
}): readonly Route<OriginRequest>[] {
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
    ...healthRoutes(parts.health),
  ];
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
