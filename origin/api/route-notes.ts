/** What several rows of the route table have in common: parameters, and possible responses. */
import type { FaultCode } from '../../src/errors.js';
import {
  choiceParameter,
  type JsonSchema,
  type ResponseNote,
  type Route,
  textParameter,
} from '../../src/server/routes.js';
import { MEDIA_FIELDS, type ResponseField } from './fields.js';
import { OWNER_ACT_SCHEMA } from './schemas.js';

export const none = {};

export const wait = choiceParameter(
  '`edges`: respond only when every connected edge has confirmed or the wait is over.',
  ['edges'],
);

export const reason = textParameter('The reason, for the audit log.', 512);

const CODES: Readonly<Record<number, readonly FaultCode[]>> = {
  400: ['invalid_id', 'malformed'],
  401: ['unauthorized'],
  403: ['forbidden', 'quarantined'],
  404: ['not_found'],
  410: ['deleted', 'expired'],
};

export function refusal(status: number, ...codes: readonly FaultCode[]): ResponseNote {
  return { status, help: 'Refused.', codes, content: { type: 'application/problem+json' } };
}

export function refusals(...statuses: readonly number[]): readonly ResponseNote[] {
  return statuses.map((status) => refusal(status, ...(CODES[status] ?? [])));
}

export function mediaResponses(help: string, type: string, schema?: JsonSchema): readonly ResponseNote[] {
  return [
    { status: 200, help, content: { type, ...(schema !== undefined && { schema }) }, fields: MEDIA_FIELDS },
    { status: 206, help: 'The requested ranges.', content: { type }, fields: MEDIA_FIELDS },
    { status: 304, help: 'The copy of the client is current.', fields: MEDIA_FIELDS },
    ...refusals(400),
    refusal(401, 'unauthorized', 'link_expired'),
    ...refusals(403, 404, 410),
    refusal(412, 'precondition_failed'),
    refusal(416, 'range_not_satisfiable'),
  ];
}

export const TAKEN_DOWN: ResponseNote = {
  status: 204,
  help: 'Done, now or before. With `wait=edges`, Takedown-Confirmed gives the number of edges that have confirmed.',
  fields: ['Takedown-Confirmed'] satisfies readonly ResponseField[],
};

/** 202 and not 200, because edges hear of it afterwards, and more may be left to do. */
export const OWNER_TAKEN_DOWN: ResponseNote = {
  status: 202,
  help: 'Done: `media` of the owner were changed by this request, and `others` that share their bytes. If `next` is not null, time was over: the same request with it as `cursor` goes on, at once. With `wait=edges`, Takedown-Confirmed as for one media.',
  content: { type: 'application/json', schema: OWNER_ACT_SCHEMA },
  fields: ['Takedown-Confirmed', 'Retry-After'] satisfies readonly ResponseField[],
};

const COMMON: readonly ResponseNote[] = [
  refusal(429, 'rate_limited'),
  refusal(500, 'internal'),
  refusal(503, 'auth_unavailable', 'overloaded', 'storage_unavailable'),
];

/** Of every request, by the limits of the listener. */
const OF_ALL = refusal(431, 'headers_too_large');

/** Adds the refusals that every route with a credential has. */
export function withCommonRefusals<C>(rows: readonly Route<C>[]): readonly Route<C>[] {
  return rows.map((row) =>
    row.audience === 'anyone'
      ? { ...row, responses: [...row.responses, OF_ALL] }
      : { ...row, responses: [...row.responses, ...COMMON] },
  );
}

/** Of every request that carries bytes of an upload. */
export function bodyRefusals() {
  return [
    refusal(401, 'unauthorized', 'link_expired'),
    refusal(403, 'quarantined', 'forbidden'),
    refusal(408, 'request_timeout'),
    refusal(413, 'too_large'),
    refusal(415, 'type_refused', 'type_mismatch'),
    refusal(429, 'quota_exceeded'),
    refusal(507, 'storage_full'),
  ];
}
