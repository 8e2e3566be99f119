/** The limits of a listener as keys of config.yaml. */
import { duration, integer, section, size, type ValueOf } from '../config/field.js';

/** Host and port are declared by each listener's owner, because their defaults differ. */
export const limitsSection = section('Limits on what one client may occupy or make the server wait for.', {
  connectionsMax: integer({ default: 10_000, min: 1, max: 1_000_000, help: 'Open connections.' }),
  headersMaxBytes: size({
    default: '16KiB',
    min: 1_024,
    max: 262_144,
    help: 'Size of the request line and header fields together.',
  }),
  headersMaxCount: integer({ default: 100, min: 10, max: 2_000, help: 'Header fields in a request.' }),
  targetMaxBytes: size({
    default: '8KiB',
    min: 256,
    max: 262_144,
    help: 'Length of a request target, with its query.',
  }),
  connectionsPerClientMax: integer({
    default: 2_000,
    min: 0,
    max: 1_000_000,
    help: 'Open connections of one IPv4 address or IPv6 /64 network; 0: any number, for use behind a load balancer.',
  }),
  stalledMs: duration({
    default: '2m',
    min: 100,
    help: 'How long a connection in use, or a stream of HTTP/2, may transfer nothing, in either direction, before it is broken off.',
  }),
  headersWithinMs: duration({
    default: '10s',
    min: 100,
    help: 'Time limit for a request head. It counts from the first byte of the head; for the first request, from the opening of the connection.',
  }),
  requestWithinMs: duration({ default: '1h', min: 1_000, help: 'Time for a whole request, body included, to arrive.' }),
  idleMs: duration({
    default: '65s',
    min: 100,
    help: 'How long an idle connection is kept open for its next request.',
  }),
  closeWithinMs: duration({ default: '10s', min: 0, help: 'Time for open requests to finish at shutdown.' }),
});

export type ListenLimits = ValueOf<typeof limitsSection>;
