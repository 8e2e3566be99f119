/** What the chat server receives, for the description of the interface: one webhook for each type of event. */
import type { JsonSchema } from '../../src/server/routes.js';
import { mediaId } from '../../src/server/routes.js';
import { THUMB_REFUSALS } from '../meta/media.js';
import { EVENT_TYPES, type EventType } from '../meta/outbox/outbox.js';
import type { FieldNote } from './fields.js';
import { INFO_JSON } from './schemas.js';

export interface WebhookNote {
  readonly type: EventType;
  readonly operationId: string;
  readonly summary: string;
  readonly schema: JsonSchema;
}

/** The fields of Standard Webhooks. */
export const WEBHOOK_FIELDS: Readonly<Record<string, FieldNote>> = {
  'webhook-id': { help: 'The name of the event, the same at each attempt.', schema: { type: 'string' } },
  'webhook-timestamp': { help: 'When it was sent, in unix seconds.', schema: { type: 'string', pattern: '^\\d+$' } },
  'webhook-signature': {
    help: 'One signature for each secret, with spaces between: `v1,` and the HMAC-SHA-256 of `id.timestamp.body` in base64.',
    schema: { type: 'string' },
  },
};

const { examples, properties } = INFO_JSON.schema;
const [example] = examples;

function objectOf(title: string, members: Readonly<Record<string, JsonSchema>>): JsonSchema {
  return { title, type: 'object', properties: members, required: Object.keys(members) };
}

const ONLY_ID = objectOf('MediaEnded', { id: mediaId.schema });
const withReason = (title: string, reasons: readonly string[]): JsonSchema =>
  objectOf(title, { id: mediaId.schema, reason: { type: 'string', enum: reasons } });

const DATA: Readonly<Record<EventType, { summary: string; data: JsonSchema; sample: object }>> = {
  'media.ready': {
    summary: 'Media can be seen, and thumbnails and facts are known.',
    data: INFO_JSON.schema,
    sample: example ?? {},
  },
  'media.refused': {
    summary: 'The scanner refused media after the upload, or no thumbnails can be made of them.',
    data: {
      anyOf: [
        withReason('MediaRefusedByScanner', ['quarantined']),
        objectOf('MediaWithoutThumbnails', { ...properties, reason: { type: 'string', enum: THUMB_REFUSALS } }),
      ],
    },
    sample: { id: example?.id, reason: 'quarantined' },
  },
  'media.expired': { summary: 'Media have expired.', data: ONLY_ID, sample: { id: example?.id } },
  'media.deleted': { summary: 'Media were deleted.', data: ONLY_ID, sample: { id: example?.id } },
  'media.quarantined': {
    summary: 'The bytes of media are withheld, or are damaged.',
    data: withReason('MediaWithheld', ['quarantined', 'damaged']),
    sample: { id: example?.id, reason: 'quarantined' },
  },
  'media.restored': {
    summary: 'Media can be seen again.',
    data: INFO_JSON.schema,
    sample: example ?? {},
  },
};

export const WEBHOOKS: readonly WebhookNote[] = EVENT_TYPES.map((type) => {
  const { summary, data, sample } = DATA[type];
  const word = type.slice('media.'.length);
  const name = `${word.charAt(0).toUpperCase()}${word.slice(1)}`;
  const members = { type: { const: type }, timestamp: { type: 'string', format: 'date-time' }, data };
  const examples = [{ type, timestamp: '2026-01-01T12:00:00.000Z', data: sample }];
  return { type, operationId: `media${name}`, summary, schema: { ...objectOf(`Event${name}`, members), examples } };
});
