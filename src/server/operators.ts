/**
 * Who may use a listener for operators, for origin and edge: requests for a host
 * name of ours, never from a foreign web page, and with the token where one is
 * needed. Decided before anything else looks at the request.
 */
import { hash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import { integer, list, optionalSecret, text } from '../config/field.js';
import type { ConfigFault } from '../config/load.js';
import { Fault } from '../errors.js';

/** Keys of a section for operators, beside its port. */
export const operatorAccess = {
  host: text({
    default: '127.0.0.1',
    help: 'The address to listen on. Any other than loopback needs a token. Keep it private.',
  }),
  hostNames: list({
    default: [],
    of: text({ default: '', pattern: /^[A-Za-z0-9.-]{1,253}$/, accepts: 'a host name', help: 'A host name.' }),
    max: 100,
    help: 'Host names that requests may name, besides localhost, `host` and addresses. This protects against web pages whose name points here.',
  }),
  token: optionalSecret({
    default: null,
    help: 'What operators send as a bearer token. Needed to change something, and on any address other than loopback for all but /healthz and /readyz. Null: whoever can connect may do everything but see and take down media at the origin.',
  }),
  pagesMax: integer({ default: 20, min: 0, max: 1_000, help: 'How many live pages may be open at once.' }),
};

export interface OperatorAccess {
  readonly host: string;
  readonly hostNames: readonly string[];
  readonly token: string | null;
}

/** Faults of keys that are valid alone but not together. `path` is that of the section. */
export function operatorFaults({ host, token }: OperatorAccess, path: string): readonly ConfigFault[] {
  if (token !== null || isLoopback(host)) return [];
  return [{ path: `${path}.token`, message: 'is needed, because `host` is not a loopback address' }];
}

export interface OperatorRequest {
  readonly method: string;
  readonly path: string;
  header(name: string): string | undefined;
}

/** Throws the refusal. */
export function admitOperator(access: OperatorAccess, request: OperatorRequest): void {
  requireOwnHost(access, request);
  const acts = request.method !== 'GET' && request.method !== 'HEAD';
  if (acts) requireNoForeignPage(request);
  const open = PROBES.has(request.path) || (!acts && isLoopback(access.host));
  if (!open && access.token !== null) requireToken(access.token, request);
}

const PROBES: ReadonlySet<string> = new Set(['/healthz', '/readyz']);

/** A page whose name an attacker made point to this address (DNS rebinding) names that host. */
function requireOwnHost({ host, hostNames }: OperatorAccess, request: OperatorRequest): void {
  const name = (request.header('host') ?? '')
    .replace(/:\d+$/, '')
    .replace(/^\[|\]$/g, '')
    .toLowerCase();
  const known = isIP(name) !== 0 || [...hostNames, host, 'localhost'].some((each) => each.toLowerCase() === name);
  if (!known) throw new Fault('forbidden', 'This host name is not one of this listener.');
}

/** Only browsers send these fields, and they say which site a request comes from. */
function requireNoForeignPage(request: OperatorRequest): void {
  const site = request.header('sec-fetch-site');
  const origin = request.header('origin');
  const own = origin === undefined || origin === `http://${request.header('host') ?? ''}`;
  if (own && (site === undefined || site === 'same-origin')) return;
  throw new Fault('forbidden', 'A page of another site may not do this.');
}

/** For what only operators with a token may see: without one in the configuration, nobody. */
export function requireOperator({ token }: Pick<OperatorAccess, 'token'>, request: OperatorRequest): void {
  if (token === null) throw new Fault('forbidden', 'This needs `operators.token` in the configuration.');
  requireToken(token, request);
}

function requireToken(token: string, request: OperatorRequest): void {
  const sent = /^bearer +(.+)$/i.exec(request.header('authorization') ?? '')?.[1] ?? '';
  // Hashes have one length, and the comparison takes the same time for all.
  if (timingSafeEqual(hash('sha256', sent, 'buffer'), hash('sha256', token, 'buffer'))) return;
  throw new Fault('unauthorized', 'This needs the token for operators.', {
    headers: { 'www-authenticate': 'Bearer realm="operators"' },
  });
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(?:\.\d{1,3}){3}$/.test(host);
}

/** The URL of a listener for a command on the same machine, and what such a command sends. */
export function operatorTarget(access: OperatorAccess & { readonly port: number }): {
  readonly base: string;
  readonly headers: Readonly<Record<string, string>>;
} {
  const { host, port, token } = access;
  const reached = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  return {
    base: `http://${reached.includes(':') ? `[${reached}]` : reached}:${port}`,
    headers: token === null ? {} : { authorization: `Bearer ${token}` },
  };
}
