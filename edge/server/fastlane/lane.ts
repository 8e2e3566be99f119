/** What the connections of the fast lane have in common. Types alone. */
import type { Clock } from '../../../src/clock.js';
import type { ListenLimits } from '../../../src/server/limits.js';
import type { Uses } from '../../use-reports.js';
import type { ExchangeParts } from '../exchange.js';
import type { Departures } from '../outgoing.js';
import type { HeadWriter } from './write-head.js';

export interface LaneParts extends ExchangeParts {
  readonly uses: Pick<Uses, 'note'>;
  readonly departures: Departures;
  newRequestId(): string;
}

export interface Lane {
  readonly parts: LaneParts;
  readonly limits: ListenLimits;
  /** By which clients are waited for. */
  readonly clock: Clock;
  readonly writer: HeadWriter;
  /** The lane ends: each answer is the last of its connection. */
  readonly closing: boolean;
  /** The connection is over, or no longer the lane's. */
  left(connection: object): void;
}
