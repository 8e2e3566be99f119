/** Sees to the body behind a HEAD that missed, as warming.ts decides. Never waited for. */
import type { CacheKey, Entry } from './cache/entry.js';
import type { Engine } from './engine.js';
import type { Landing } from './fill.js';
import type { FlightOrder } from './flight.js';
import type { Treatment } from './rules.js';

export function warm(engine: Engine, entry: Entry, treatment: Treatment, order: FlightOrder<Landing>): void {
  const { warming } = engine.fills;
  switch (warming.decide(entry, treatment)) {
    case 'off':
      return;
    case 'mark':
      warming.mark(entry.key);
      return;
    case 'now':
      fetchBody(engine, entry.key, order);
  }
}

function fetchBody(engine: Engine, key: CacheKey, order: FlightOrder<Landing>): void {
  const { warming, cache } = engine.fills;
  const boarding = engine.flights.board(order, undefined);
  if (boarding.kind !== 'started') return;
  warming.started();
  void boarding.flight.landed.then(() => warming.ended(key, cache.peek(key) !== undefined));
}
