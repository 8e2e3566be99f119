/** Requests and gates as doubles, for handlers that are called without a socket. */
import { Readable } from 'node:stream';
import type { OriginRequest } from '../../../../origin/server/request.js';
import type { Caller, Gate, Grant } from '../../../../src/access/grant.js';
import type { MediaId } from '../../../../src/ids.js';

export const NOW = Date.UTC(2026, 0, 2, 3, 4, 5);
export const ID = '01ARZ3NDEKTSV4RRFFQ69G5FAV' as MediaId;

const caller: Caller = {
  subject: 'ada',
  issuer: 'https://auth.example',
  roles: new Set(),
  scope: 'all',
  expiresAt: NOW + 1e6,
};
/** What the gate says of a token. */
export const granted = (given: Partial<Caller> = {}): Grant => ({ kind: 'caller', caller: { ...caller, ...given } });
export const ANONYMOUS: Grant = { kind: 'anonymous', refusal: 'none' };

export interface Asked {
  readonly method?: string;
  readonly sender?: OriginRequest['sender'];
  readonly fields?: Readonly<Record<string, string>>;
  readonly query?: string;
}

/** A request and what it was counted and logged as. */
export function requestOf({ method = 'GET', sender = 'client', fields = {}, query = '' }: Asked = {}) {
  const counted: string[] = [];
  const count = (what: string) => (): void => void counted.push(what);
  const request: OriginRequest = {
    id: 'request 1',
    method,
    path: `/v1/media/${ID}`,
    query,
    sender,
    address: '192.0.2.1',
    receivedAt: NOW,
    signal: new AbortController().signal,
    body: { sizeBytes: 0, open: () => Readable.from([]) },
    header: (name) => fields[name],
    identify: count('identify'),
    note: (noted) => void counted.push(`note ${Object.keys(noted).join()}`),
    meter: {
      address: count('address'),
      subject: (name) => void counted.push(`subject ${name}`),
      admitUpload: count('upload'),
      uploaded: count('uploaded'),
      admitDownload: count('download'),
      downloaded: count('downloaded'),
      headers: () => [],
    },
  };
  return { request, counted };
}

export function gateOf(grant: Grant): Gate {
  const unused = (): never => {
    throw new Error('it is not asked for');
  };
  return { open: () => grant, probe: unused, issuers: unused, renewLinks: unused, close: unused };
}
