/**
 * Whose request it is: the peer of the connection, or whom trusted proxies say
 * they speak for. X-Forwarded-For of anyone else is only text.
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
  help: 'Proxies, edges among them, whose X-Forwarded-For counts. That of anyone else is ignored.',
});

/** Throws for a range that is none. */
export function createAddressOf(trusted: readonly string[]): (request: IncomingMessage) => string {
  const isTrusted = proxyaddr.compile([...trusted]);
  return (request) => {
    const address = proxyaddr(request, isTrusted);
    // A trusted proxy may pass on what its own client wrote; what is no address names nobody.
    return ADDRESS.test(address) ? address : (request.socket.remoteAddress ?? '');
  };
}

const ADDRESS = /^[0-9a-fA-F:.]{2,45}$/;

/** Ranges that only look like some. `path` is that of the list. */
export function proxyFaults(trusted: readonly string[], path: string): readonly ConfigFault[] {
  return trusted.flatMap((range, index) => {
    try {
      createAddressOf([range]);
      return [];
    } catch {
      return [{ path: `${path}.${index}`, message: 'is no address and no range' }];
    }
  });
}
