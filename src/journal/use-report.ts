/**
 * The report of an edge about the media that it served from its cache, for
 * retention by `unused_for`: `POST /internal/v1/uses` with the edge secret is
 * answered 204 once the report is stored. A report may be sent twice.
 *
 * A use is reported by how long ago it was, so that the two wall clocks need not
 * agree. It is rounded to the latest moment that it can have been.
 */
import { type MediaId, parseMediaId } from '../ids.js';

export const USES_PATH = '/internal/v1/uses';

/** Of one report; an edge with more ids sends several reports. */
export const USE_REPORT_IDS_MAX = 4_096;
/** An id with its quotes and comma takes 29 bytes. */
export const USE_REPORT_MAX_BYTES = USE_REPORT_IDS_MAX * 32 + 4_096;

export interface UseReport {
  readonly uses: readonly Used[];
}

export interface Used {
  readonly agoMs: number;
  readonly ids: readonly MediaId[];
}

export function formatUseReport(report: UseReport): string {
  return JSON.stringify(report);
}

/** Undefined for anything that is not a report. */
export function parseUseReport(text: string): UseReport | undefined {
  const uses = memberOf(parsed(text), 'uses');
  if (!Array.isArray(uses)) return undefined;
  const read = uses.map(readUsed);
  if (!read.every((each) => each !== undefined)) return undefined;
  const count = read.reduce((sum, { ids }) => sum + ids.length, 0);
  return count > USE_REPORT_IDS_MAX ? undefined : { uses: read };
}

function readUsed(value: unknown): Used | undefined {
  const agoMs = memberOf(value, 'agoMs');
  const given = memberOf(value, 'ids');
  if (typeof agoMs !== 'number' || !Number.isSafeInteger(agoMs) || agoMs < 0 || !Array.isArray(given)) return undefined;
  const ids = given.map((id) => (typeof id === 'string' ? parseMediaId(id) : undefined));
  return ids.every((id) => id !== undefined) ? { agoMs, ids } : undefined;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>)[name] : undefined;
}
