/**
 * The origin's endpoints as one table, which routes, validates and describes.
 * What an endpoint does is in its handler's own file.
 */
import type { Health } from '../../src/server/health.js';
import { type JsonSchema, type Route, route } from '../../src/server/routes.js';
import type { AdminDeps } from '../admin.js';
import type { ResumableDeps } from '../resumable.js';
import type { OriginRequest } from '../server/request.js';
import type { OwnerActDeps } from '../takedown/of-owner.js';
import { adminRoutes } from './admin-routes.js';
import { createDocument, type DocumentReply } from './document.js';
import { type MediaRouteDeps, mediaRoutes } from './media-routes.js';
import { describeRoutes } from './openapi.js';
import { none, refusal, withCommonRefusals } from './route-notes.js';
import { WELL_KNOWN_SCHEMA } from './schemas.js';
import { uploadRoutes } from './upload-routes.js';
import { WEBHOOKS } from './webhooks.js';
import type { WellKnown, WellKnownConfig } from './well-known.js';

export type RouteDeps = MediaRouteDeps &
  ResumableDeps &
  AdminDeps &
  OwnerActDeps & {
    readonly health: Health;
    readonly wellKnown: Pick<WellKnown, 'reply'>;
    readonly config: { readonly wellKnown: WellKnownConfig };
  };

export function originRoutes(deps: RouteDeps): readonly Route<OriginRequest>[] {
  const openapi = createDocument(() => describeRoutes(rows, deps.baseUri, WEBHOOKS), deps.config.wellKnown.maxAgeMs);
  const rows = withCommonRefusals([
    ...mediaRoutes(deps),
    ...uploadRoutes(deps),
    ...adminRoutes(deps),
    ...healthRoutes(deps.health),
    documentRoute(
      '/.well-known',
      'Capabilities',
      'What the service can do.',
      (request) => deps.wellKnown.reply(request),
      WELL_KNOWN_SCHEMA,
    ),
    documentRoute(
      '/.well-known/media-service',
      'ServiceCapabilities',
      'The same document.',
      (request) => deps.wellKnown.reply(request),
      WELL_KNOWN_SCHEMA,
    ),
    documentRoute('/openapi.json', 'Description', 'This document.', openapi),
  ]);
  return rows;
}

/** A document that everyone may read. */
function documentRoute(
  pattern: string,
  name: string,
  summary: string,
  answer: DocumentReply,
  schema: JsonSchema = { type: 'object' },
): Route<OriginRequest> {
  return route({
    methods: ['GET', 'HEAD'],
    pattern,
    operations: { GET: `get${name}`, HEAD: `head${name}` },
    fields: ['If-None-Match'],
    summary,
    audience: 'anyone',
    path: none,
    query: none,
    responses: [
      {
        status: 200,
        help: 'The document.',
        content: { type: 'application/json', schema },
        fields: ['ETag', 'Cache-Control'],
      },
      { status: 304, help: 'The copy of the client is current.', fields: ['ETag', 'Cache-Control'] },
      refusal(412, 'precondition_failed'),
    ],
    handle: async (request: OriginRequest) => answer(request),
  });
}

/** Also used on the operators' listener. */
export function healthRoutes(health: Health): readonly Route<OriginRequest>[] {
  const json = { type: 'application/json', schema: { type: 'object' } };
  return [
    route({
      methods: ['GET', 'HEAD'],
      pattern: '/healthz',
      operations: { GET: 'getLiveness', HEAD: 'headLiveness' },
      summary: 'Whether the process runs.',
      audience: 'anyone',
      path: none,
      query: none,
      responses: [{ status: 200, help: 'It does.', content: json }],
      handle: async () => health.live(),
    }),
    route({
      methods: ['GET', 'HEAD'],
      pattern: '/readyz',
      operations: { GET: 'getReadiness', HEAD: 'headReadiness' },
      summary: 'Whether the service can work: database, storage, disk and keys.',
      audience: 'anyone',
      path: none,
      query: none,
      responses: [
        { status: 200, help: 'It can.', content: json },
        { status: 503, help: 'It cannot; `failed` names why.', content: json },
      ],
      handle: async () => await health.ready(),
    }),
  ];
}
