/** Sees to the body behind a HEAD that missed, as warm-marks.ts decides. Never waited for. */
import { headerOf } from '../../src/http/reply.js';
import type { Entry } from '../entry.js';
import { keyOf, placeOfThumb } from '../key.js';
import type { Engine } from './engine.js';
import type { FlightOrder } from './flight.js';
import type { Errand } from './origin-request.js';
import type { Landing } from './result.js';
import type { Treatment } from './rules.js';

/** `orderFor` makes the flight that brings an errand's body. */
export function warm(
  engine: Engine,
  errand: Errand,
  entry: Entry,
  treatment: Treatment,
  orderFor: (errand: Errand) => FlightOrder<Landing>,
): void {
  const { warming } = engine;
  switch (warming.decide(entry, treatment)) {
    case 'off':
      break;
    case 'mark':
      warming.mark(entry.key);
      break;
    case 'now':
      fetchBody(engine, orderFor(errand));
  }
  if (warming.modeOf(treatment) !== 'now' || !warming.hasRoom()) return;
  // Small whatever the image is: also where that is too large to be fetched itself.
  const thumb = thumbOf(engine, errand, entry);
  if (thumb !== undefined) fetchBody(engine, orderFor(thumb));
}

/** The default thumbnail of an image, in the format that this client takes; undefined where none is wanted or held already. */
function thumbOf(engine: Engine, errand: Errand, entry: Entry): Errand | undefined {
  const menu = engine.menu();
  const { mediaId, pathKind } = errand.place;
  if (!engine.policy().warm.thumbnail || menu === undefined || mediaId === null || pathKind !== 'original') {
    return undefined;
  }
  if (headerOf(entry.headers, 'content-type')?.startsWith('image/') !== true) return undefined;
  const place = placeOfThumb(mediaId, '', errand.ask.header('accept'), menu);
  const held = engine.cache.peek(keyOf(place.primaryKey, {}));
  return held === undefined ? { ...errand, place } : undefined;
}

function fetchBody(engine: Engine, order: FlightOrder<Landing>): void {
  const { warming, cache } = engine;
  const boarding = engine.flights.board(order, undefined);
  if (boarding.kind !== 'started') return;
  const { flight } = boarding;
  const key = keyOf(order.primaryKey, {});
  warming.started(key);
  void flight.outcome.then((landing) => {
    if (landing.kind === 'lone') landing.take()?.body.destroy();
  });
  void flight.landed.then(() => warming.ended(key, cache.peek(key) !== undefined));
}
