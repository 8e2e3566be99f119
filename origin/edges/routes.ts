/**
 * The routes that only edges use: the takedown journal, its confirmations, and
 * the use reports. Without the edge secret they look like paths that do not
 * exist.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { Fault } from '../../src/errors.js';
import { header } from '../../src/http/head.js';
import { emptyReply, type Reply } from '../../src/http/reply.js';
import { CONFIRM_PATH, JOURNAL_PATH } from '../../src/journal/entry.js';
import type { JournalStream } from '../../src/journal/journal-stream.js';
import { parseUseReport, USE_REPORT_MAX_BYTES, USES_PATH } from '../../src/journal/use-report.js';
import { readSmallBody } from '../../src/server/small-body.js';
import { EDGE_PROOF } from '../../src/wire.js';
import type { UseReports } from './use-reports.js';

export interface EdgeRoutesDeps {
  readonly journal: Pick<JournalStream, 'follow' | 'confirm'>;
  readonly useReports: Pick<UseReports, 'noteReport'>;
  /** Whether a value of `edge-authorization` proves an edge. */
  readonly isEdge: (proof: string | undefined) => boolean;
}

/** Undefined: not one of these routes. A promise of undefined: the response has been written. */
export type EdgeRoutes = (
  raw: IncomingMessage,
  response: ServerResponse,
  signal: AbortSignal,
) => Promise<Reply | undefined> | undefined;

export function createEdgeRoutes(deps: EdgeRoutesDeps): EdgeRoutes {
  const { journal } = deps;
  return (raw, response, signal) => {
    const path = raw.url?.split('?', 1)[0];
    if (path === JOURNAL_PATH && raw.method === 'GET') {
      return journal.follow(raw, response, signal).then(() => undefined);
    }
    if (path === CONFIRM_PATH && raw.method === 'POST') return journal.confirm(raw, signal);
    if (path === USES_PATH && raw.method === 'POST') return takeReport(deps, raw, signal);
    return undefined;
  };
}

/** Responds when the report is stored: the edge then forgets it. */
async function takeReport(
  { useReports, isEdge }: EdgeRoutesDeps,
  raw: IncomingMessage,
  signal: AbortSignal,
): Promise<Reply> {
  if (!isEdge(header(raw.headers, EDGE_PROOF))) {
    throw new Fault('not_found', 'There is nothing at this path.');
  }
  const tooLong = (): Fault => new Fault('too_large', 'A use report is shorter than this.');
  const report = parseUseReport(await readSmallBody(raw, USE_REPORT_MAX_BYTES, tooLong, signal));
  if (report === undefined) throw new Fault('malformed', 'Not a use report.');
  await useReports.noteReport(report);
  return emptyReply(204, [['cache-control', 'no-store']]);
}
