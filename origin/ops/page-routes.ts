/** The live page of the origin and its figures, which everyone may see who reaches the operators' listener. */

import type { History } from '../../src/history.js';
import { jsonReply } from '../../src/http/reply.js';
import type { FiguresFeed } from '../../src/server/live/figures-feed.js';
import { pageRoutes } from '../../src/server/live/pages.js';
import { type Route, route } from '../../src/server/routes.js';
import type { OriginRequest } from '../server/request.js';
import type { OriginFigures } from './figures.js';

export interface PageDeps {
  readonly history: History;
  readonly feed: FiguresFeed;
  readonly figures: () => Promise<OriginFigures>;
}

export function originPageRoutes({ history, feed, figures }: PageDeps): readonly Route<OriginRequest>[] {
  const notes = { audience: 'anyone', hidden: true, path: {}, query: {}, responses: [] } as const;
  return [
    ...pageRoutes<OriginRequest>('origin/ops/page'),
    route({
      ...notes,
      methods: ['GET'],
      pattern: '/events',
      summary: 'The figures of the page, once a second.',
      handle: async (_request: OriginRequest) => feed.open(),
    }),
    route({
      ...notes,
      methods: ['GET', 'HEAD'],
      pattern: '/stats',
      summary: 'The same once, as JSON.',
      handle: async (_request: OriginRequest) => jsonReply(200, await figures()),
    }),
    route({
      ...notes,
      methods: ['GET', 'HEAD'],
      pattern: '/history',
      summary: 'How the figures went, minute by minute.',
      handle: async (_request: OriginRequest) => jsonReply(200, history.minutes),
    }),
  ];
}
