/** The `webhooks` section of the origin, and what of it is wrong together. */
import { duration, flag, integer, list, optionalUrl, secret, section, type ValueOf } from '../../src/config/field.js';
import type { ConfigFault } from '../../src/config/load.js';
import { isLoopback } from '../../src/server/operators.js';
import { keyOf } from './sign.js';

export const webhooksSection = section('Webhooks: what the chat server is told of media (Standard Webhooks).', {
  url: optionalUrl({
    default: null,
    help: 'Where events are posted. https, unless it is on loopback or `insecure` is set. Null: none are kept and none are sent.',
  }),
  insecure: flag({ default: false, help: 'Allow http to another host. Whoever is on the way can then read events.' }),
  secrets: list({
    default: [],
    of: secret({ default: '', minLength: 32, help: 'A secret, as `media-service secret --webhook` makes it.' }),
    max: 10,
    live: true,
    help: 'Secrets that sign events: `whsec_` and 24 to 64 bytes in base64. Each event is signed with all of them, so that the chat server can change from one to another.',
  }),
  everyMs: duration({
    default: '1s',
    min: 50,
    max: 3_600_000,
    live: true,
    help: 'How often the origin looks for events to send.',
  }),
  atOnce: integer({
    default: 8,
    min: 1,
    max: 100,
    live: true,
    help: 'Most events that are being sent at once, each of another id.',
  }),
  timeoutMs: duration({
    default: '10s',
    min: 100,
    max: 300_000,
    live: true,
    help: 'Longest time until the chat server has answered.',
  }),
  retryMs: duration({
    default: '5s',
    min: 100,
    live: true,
    help: 'Pause after an attempt that failed; it doubles with each further one. Half of it is random.',
  }),
  retryMaxMs: duration({ default: '1h', min: 100, live: true, help: 'Longest such pause.' }),
  giveUpMs: duration({
    default: '24h',
    min: 1_000,
    live: true,
    help: 'Age at which an event whose attempts fail is given up. It is kept as a dead letter then.',
  }),
  keepDeadMs: duration({ default: '30d', min: 60_000, live: true, help: 'How long dead letters are kept.' }),
});

export type WebhooksConfig = ValueOf<typeof webhooksSection>;

export function webhooksFaults({ url, insecure, secrets }: WebhooksConfig): readonly ConfigFault[] {
  if (url === null) return [];
  const { protocol, hostname, username, password } = new URL(url);
  const faults: ConfigFault[] = [];
  if (username !== '' || password !== '') faults.push({ path: 'url', message: 'must have no user or password in it' });
  if (protocol !== 'https:' && !insecure && !isLoopback(hostname.replace(/^\[|\]$/g, ''))) {
    faults.push({ path: 'url', message: 'must be https, unless it is on loopback or `insecure` is set' });
  }
  if (secrets.length === 0) faults.push({ path: 'secrets', message: 'is needed, because `url` is set' });
  if (secrets.some((one) => keyOf(one) === undefined)) {
    faults.push({ path: 'secrets', message: 'has one that is not `whsec_` and 24 to 64 bytes in base64' });
  }
  return faults;
}
