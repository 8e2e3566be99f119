/**
 * What admins do to media, for operators: the same routes and handlers as for clients, on the operators' listener, by the
 * operators' token in place of an admin's. Without the token nobody learns here which media there are or whose they are.
 */
import type { Caller, Gate } from '../../src/access/grant.js';
import { jsonReply } from '../../src/http/reply.js';
import { recentTakedowns } from '../../src/journal/recent.js';
import type { JournalSource } from '../../src/journal/source.js';
import { type OperatorAccess, requireOperator } from '../../src/server/operators.js';
import { type Route, route } from '../../src/server/routes.js';
import { adminRoutes } from '../api/admin-routes.js';
import { takedownRoutes } from '../api/media-routes.js';
import type { OriginRequest } from '../server/request.js';

type AdminRouteDeps = Parameters<typeof adminRoutes>[0] & Parameters<typeof takedownRoutes>[0];

export interface OperatorMediaDeps extends Omit<AdminRouteDeps, 'gate' | 'meta'> {
  readonly meta: AdminRouteDeps['meta'] & { readonly journal: Pick<JournalSource, 'newest' | 'read' | 'refresh'> };
}

export function operatorMediaRoutes(
  deps: OperatorMediaDeps,
  access: Pick<OperatorAccess, 'token'>,
): readonly Route<OriginRequest>[] {
  const asAdmin = { ...deps, gate: OPERATORS_GATE };
  const rows = [...adminRoutes(asAdmin), ...takedownRoutes(asAdmin), takedownsRoute(deps)];
  return rows.map((row) => ({
    ...row,
    hidden: true,
    // Before anything looks at the parameters.
    async run(request, segments, query) {
      requireOperator(access, request);
      return await row.run(request, segments, query);
    },
  }));
}

/** Whoever comes so far has shown the token. The audit log calls all of them so. */
const OPERATOR: Caller = {
  subject: 'operator',
  issuer: '',
  roles: new Set(['admin'] as const),
  scope: 'all',
  expiresAt: Number.POSITIVE_INFINITY,
};

const OPERATORS_GATE: Gate = {
  open: () => ({ kind: 'caller', caller: OPERATOR }),
  probe: () => Promise.resolve(),
  issuers: () => ({}),
  renewLinks: () => undefined,
  close: () => Promise.resolve(),
};

function takedownsRoute({ meta, journal }: OperatorMediaDeps): Route<OriginRequest> {
  return route({
    methods: ['GET'],
    pattern: '/takedowns',
    summary: 'The newest takedowns, and which edges have confirmed them.',
    audience: 'admin',
    path: {},
    query: {},
    responses: [],
    async handle() {
      // Other origins may have added some.
      await meta.journal.refresh();
      return jsonReply(200, { takedowns: await recentTakedowns(meta.journal, await journal.positions()) });
    },
  });
}
