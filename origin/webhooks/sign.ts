/** The signature of an event by Standard Webhooks 1.0: HMAC-SHA-256 over name, instant and body, version `v1`. */
import { createHmac } from 'node:crypto';

const KEY_MIN_BYTES = 24;
const KEY_MAX_BYTES = 64;

/** The key in a secret, or undefined if it is none. */
export function keyOf(secret: string): Buffer | undefined {
  const encoded = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(secret)?.[1];
  if (encoded === undefined) return undefined;
  const key = Buffer.from(encoded, 'base64');
  return key.length >= KEY_MIN_BYTES && key.length <= KEY_MAX_BYTES ? key : undefined;
}

/** The fields of a request. A receiver accepts it if any of the signatures is right. */
export function signedFields(
  keys: readonly Buffer[],
  { name, sentAtSeconds, body }: { readonly name: string; readonly sentAtSeconds: number; readonly body: string },
): Readonly<Record<string, string>> {
  const content = `${name}.${sentAtSeconds}.${body}`;
  const signatures = keys.map((key) => `v1,${createHmac('sha256', key).update(content).digest('base64')}`);
  return {
    'webhook-id': name,
    'webhook-timestamp': String(sentAtSeconds),
    'webhook-signature': signatures.join(' '),
  };
}
