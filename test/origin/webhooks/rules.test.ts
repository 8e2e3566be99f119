/** Signatures, pauses and settings of webhooks. */
import { readFileSync } from 'node:fs';
import t from 'tap';
import { webhooksFaults, webhooksSection } from '../../../origin/webhooks/config.js';
import { nextOf } from '../../../origin/webhooks/sender.js';
import { keyOf, signedFields } from '../../../origin/webhooks/sign.js';
import { newWebhookSecret } from '../../../src/commands/secret.js';
import { configured } from '../../kit/deps.js';

void t.test('the signature is that of the example of Standard Webhooks', (t) => {
  const key = keyOf('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw');
  t.same(
    signedFields(key === undefined ? [] : [key], {
      name: 'msg_p5jXN8AQM9LWM0D4loKWxJek',
      sentAtSeconds: 1_614_265_330,
      body: '{"test": 2432232314}',
    }),
    {
      'webhook-id': 'msg_p5jXN8AQM9LWM0D4loKWxJek',
      'webhook-timestamp': '1614265330',
      'webhook-signature': 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
    },
  );
  t.end();
});

void t.test('a chat server that checks as README shows takes what is sent, and nothing else', async (t) => {
  const code = /```js\n(import \{ createHmac[\s\S]*?)```/.exec(readFileSync('README.md', 'utf8'))?.[1] ?? '';
  const { isFromMedia } = (await import(`data:text/javascript,${encodeURIComponent(code)}`)) as {
    readonly isFromMedia: (fields: object, body: Buffer, secret: string, now: number) => boolean;
  };
  const [secret, other] = [newWebhookSecret(), newWebhookSecret()];
  const keys = [other, secret].flatMap((each) => keyOf(each) ?? []);
  const [now, body] = [1_800_000_000_000, '{"type":"media.ready","data":{"filename":"é"}}'];
  const fields = signedFields(keys, { name: 'msg_1', sentAtSeconds: now / 1_000 - 299, body });
  const taken = (changed: object = {}, text = body, by = secret, at = now) =>
    isFromMedia({ ...fields, ...changed }, Buffer.from(text), by, at);
  t.same([taken(), taken({}, body, other), taken({}, body, newWebhookSecret())], [true, true, false]);
  t.notOk(taken({}, body.replace('é', 'e')));
  t.notOk(taken({ 'webhook-id': 'msg_2' }));
  t.notOk(taken({}, body, secret, now + 2_000), 'too old');
  t.notOk(taken({}, body, secret, now - 601_000), 'of the future');
  for (const name of Object.keys(fields)) t.notOk(taken({ [name]: undefined }), `without ${name}`);
  t.notOk(taken({ 'webhook-signature': 'v1,AAAA v2,' }));
});

void t.test('a secret is whsec_ and 24 to 64 bytes in base64', (t) => {
  const of = (bytes: number): string => `whsec_${Buffer.alloc(bytes, 7).toString('base64')}`;
  t.same(
    [of(23), of(24), of(64), of(65), of(32).slice(6), `${of(32)}!`, `whsec_`].map((one) => keyOf(one)?.length),
    [undefined, 24, 64, undefined, undefined, undefined, undefined],
  );
  t.equal(keyOf(newWebhookSecret())?.length, 32);
  t.end();
});

void t.test(
  'pauses double up to a limit, half of each is random, and the last attempt is at the age of giving up',
  (t) => {
    const config = { retryMs: 1_000, retryMaxMs: 60_000, giveUpMs: 100_000 };
    const failed = { kind: 'failed', why: 'x' } as const;
    const pause = (attempts: number, now: number, random: number): number | string => {
      const next = nextOf(failed, { attempts, since: 0 }, now, config, () => random);
      return next.kind === 'again' ? next.readyAt - now : next.kind;
    };
    for (const [attempts, now, random, expected] of [
      [0, 0, 1, 1_000],
      [0, 0, 0, 500],
      [1, 0, 1, 2_000],
      [5, 0, 1, 32_000],
      [6, 0, 1, 60_000],
      [5_000, 0, 1, 60_000],
      [6, 99_000, 1, 1_000],
      [6, 99_999, 0, 1],
      [6, 100_000, 1, 'dead'],
      [0, 200_000, 1, 'dead'],
    ] as const) {
      t.equal(pause(attempts, now, random), expected, `attempt ${attempts} at ${now}`);
    }
    t.same(
      nextOf({ kind: 'sent' }, { attempts: 9, since: 0 }, 1e9, config, () => 0),
      { kind: 'sent' },
    );
    t.end();
  },
);

void t.test('settings that would send events in the open, or unsigned, are refused', (t) => {
  const secrets = [newWebhookSecret()];
  for (const [given, paths] of [
    [{ url: null, secrets: [] }, []],
    [{ url: 'https://chat.example/hooks', secrets }, []],
    [{ url: 'http://chat.example/hooks', secrets }, ['url']],
    [{ url: 'http://chat.example/hooks', secrets, insecure: true }, []],
    [{ url: 'http://127.0.0.1:1/hooks', secrets }, []],
    [{ url: 'http://[::1]:1/hooks', secrets }, []],
    [{ url: 'http://localhost/hooks', secrets }, []],
    [{ url: 'http://127.0.0.1.example/hooks', secrets }, ['url']],
    [{ url: 'https://user:word@chat.example/hooks', secrets }, ['url']],
    [{ url: 'https://chat.example/hooks', secrets: [] }, ['secrets']],
    [{ url: 'https://chat.example/hooks', secrets: [...secrets, 'a'.repeat(43)] }, ['secrets']],
  ] as const) {
    const faults = webhooksFaults({ ...configured(webhooksSection), ...given });
    t.same(
      faults.map(({ path }) => path),
      paths,
      JSON.stringify(given.url),
    );
  }
  t.end();
});
