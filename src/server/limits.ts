/** Bounds of a listener, as config.yaml has them. Declarations alone. */
import { duration, integer, section, size, type ValueOf } from '../config/field.js';

/** The keys of a listener; host and port are the owner's, for their defaults differ. */
export const limitsSection = section('Bounds on what one client may hold or make the server wait for.', {
  connectionsMax: integer({ default: 10_000, min: 1, max: 1_000_000, help: 'Connections at once.' }),
  headersMaxBytes: size({
    default: '16KiB',
    min: 1_024,
    max: 262_144,
    help: 'Request line and header fields together.',
  }),
  headersMaxCount: integer({ default: 100, min: 10, max: 2_000, help: 'Header fields in a request.' }),
  targetMaxBytes: size({ default: '8KiB', min: 256, max: 262_144, help: 'The target of a request, query included.' }),
  connectionsPerClientMax: integer({
    default: 2_000,
    min: 0,
    max: 1_000_000,
    help: 'Connections of one IPv4 address or IPv6 /64 network at once; 0: any number, as behind a balancer.',
  }),
  stalledMs: duration({
    default: '2m',
    min: 100,
    help: 'Time for which a connection in use may move nothing, either way, before it is broken off.',
  }),
  headersWithinMs: duration({ default: '10s', min: 100, help: 'Time for a request head to arrive.' }),
  requestWithinMs: duration({ default: '1h', min: 1_000, help: 'Time for a whole request, body included, to arrive.' }),
  idleMs: duration({ default: '65s', min: 100, help: 'Time a kept-alive connection may wait for its next request.' }),
  closeWithinMs: duration({ default: '10s', min: 0, help: 'Time that requests in hand get at shutdown.' }),
});

export type ListenLimits = ValueOf<typeof limitsSection>;
