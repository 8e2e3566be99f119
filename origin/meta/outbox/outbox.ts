/**
 * The events that wait to be sent to the chat server, and those that were given up. Adding is part of the transactions
 * that cause events. Only the first waiting event of an id is due, so events of one id go out in their order.
 */
import type { EpochMs } from '../../../src/clock.js';
import type { MediaId } from '../../../src/ids.js';
import { choice, count, createCodec, mediaId, nullable, number, text } from '../codec.js';
import type { Media } from '../media.js';

export const EVENT_TYPES = [
  'media.ready',
  'media.refused',
  'media.expired',
  'media.deleted',
  'media.quarantined',
  'media.restored',
] as const;
export type EventType = (typeof EVENT_TYPES)[number];

/** What the chat server is told of media with one id. */
export interface MediaEvent {
  /** Sent with each attempt, so that a receiver notices that it has the event already. */
  readonly name: string;
  readonly type: EventType;
  readonly at: EpochMs;
  readonly id: MediaId;
  /** The member `data` of the body: a JSON object. */
  readonly data: string;
}

/** How events are made. A store without it keeps none. */
export interface EventMaker {
  /** The document of media, as their info says it. */
  describe(media: Media): object;
  /** Whether thumbnails are rendered at all. Otherwise media are ready without. */
  readonly waitsForThumbs: boolean;
}

export interface OutboxEvent extends MediaEvent {
  /** Among events of one id, the lower goes first. */
  readonly turn: number;
  /** When it was told, or when an operator wanted it to be sent again. */
  readonly since: EpochMs;
  readonly readyAt: EpochMs;
  readonly attempts: number;
  /** Why the last attempt failed. */
  readonly fault: string | null;
  /** Null while it waits. */
  readonly diedAt: EpochMs | null;
}

/** Each method is one transaction. Names that are gone are left alone. */
export interface Outbox {
  /** Up to `limit` events, each the first one of its id, that are ready, the longest ready first. */
  due(now: EpochMs, limit: number): Promise<readonly OutboxEvent[]>;
  sent(name: string): Promise<void>;
  /** Counts an attempt. This event, and those of its id behind it, wait until `readyAt`. */
  failed(name: string, fault: string, readyAt: EpochMs): Promise<void>;
  /** Makes it a dead letter. Those behind it go on. */
  bury(name: string, fault: string, now: EpochMs): Promise<void>;
  /** The newest dead letters. */
  dead(limit: number): Promise<readonly OutboxEvent[]>;
  /** Moves up to `limit` dead letters back, the oldest first. Returns how many. */
  revive(limit: number, now: EpochMs): Promise<number>;
  /** Removes up to `limit` dead letters that died before `before`. Returns how many. */
  forget(before: EpochMs, limit: number): Promise<number>;
  counts(): Promise<OutboxCounts>;
}

export interface OutboxCounts {
  readonly waiting: number;
  readonly dead: number;
  /** Since when the oldest of them waits. */
  readonly oldestSince: EpochMs | null;
}

export const outboxCodec = createCodec<OutboxEvent>({
  1: (fields) => ({
    name: fields.take('name', text),
    type: fields.take('type', choice(EVENT_TYPES)),
    at: fields.take('at', number),
    id: fields.take('id', mediaId) satisfies MediaId,
    data: fields.take('data', text),
    turn: fields.take('turn', count),
    since: fields.take('since', number),
    readyAt: fields.take('readyAt', number),
    attempts: fields.take('attempts', count),
    fault: fields.take('fault', nullable(text)),
    diedAt: fields.take('diedAt', nullable(number)),
  }),
});
