/**
 * The address of the client: the peer of the connection, or the address that
 * trusted proxies name in X-Forwarded-For. From anyone else, that field is
 * ignored.
 */
import type { IncomingMessage } from 'node:http';
import proxyaddr from 'proxy-addr';
import { list, text } from '../config/field.js';
import type { ConfigFault } from '../config/load.js';

export const trustedProxies = list({
  default: ['loopback'],
  of: text({
    default: '',
    pattern: /^(?:loopback|linklocal|uniquelocal|[0-9a-fA-F:.]+(?:\/\d{1,3})?)$/,
    accepts: 'an address, a range such as 10.0.0.0/8, loopback, linklocal or uniquelocal',
    help: 'An address.',
  }),
  max: 100,
  help: 'Proxies (including edges) whose X-Forwarded-For is used. From anyone else, it is ignored.',
});

/** What the address is read from: the peer of the connection, and the fields of the request. */
export interface Peer {
  readonly socket: { readonly remoteAddress?: string | undefined };
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

export type AddressOf = (request: Peer) => string;

/** Whether the peer of a connection is one of the trusted proxies. Throws if one of the ranges is invalid. */
export function createTrust(trusted: readonly string[]): (peer: string | undefined) => boolean {
  const isTrusted = proxyaddr.compile([...trusted]);
  return (peer) => peer !== undefined && isTrusted(peer, 0);
}

/** Throws if one of the ranges is invalid. */
export function createAddressOf(trusted: readonly string[]): AddressOf {
  const isTrusted = proxyaddr.compile([...trusted]);
  return (request) => {
    // The library reads these two members alone.
    const address = proxyaddr(request as IncomingMessage, isTrusted);
    // A trusted proxy may pass on text that its own client wrote and that is not an address.
    return ADDRESS.test(address) ? address : (request.socket.remoteAddress ?? '');
  };
}

const ADDRESS = /^[0-9a-fA-F:.]{2,45}$/;

/** Faults of ranges that the pattern of the key does not find. `path` is that of the list. */
export function proxyFaults(trusted: readonly string[], path: string): readonly ConfigFault[] {
  return trusted.flatMap((range, index) => {
    try {
      createAddressOf([range]);
      return [];
    } catch {
      return [{ path: `${path}.${index}`, message: 'is neither an address nor a range' }];
    }
  });
}
