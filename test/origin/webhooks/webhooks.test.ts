/** Webhooks of a whole origin, to a chat server on a real socket, with a clock that the test moves. */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { CommandDeps } from '../../../origin/upkeep/commands.js';
import { runWebhooks } from '../../../origin/webhooks/commands.js';
import { systemClock } from '../../../src/clock.js';
import { createLog } from '../../../src/log.js';
import { untilInTime } from '../../kit/clock.js';
import {
  answers,
  type HookReceiver,
  isSigned,
  openHookReceiver,
  type Received,
  takes,
} from '../../kit/http/hook-receiver.js';
import { json, sendRequest } from '../../kit/http/request.js';
import { png } from '../../kit/media.js';
import { startOrigin, type TestOrigin } from '../../kit/origin/origin.js';
import { makeJpeg } from '../../kit/pictures.js';
import { untilAsync } from '../../kit/until.js';

const OLD = `whsec_${Buffer.from('the old one'.padEnd(32, '.')).toString('base64')}`;
const NEW = `whsec_${Buffer.from('the new one'.padEnd(32, '.')).toString('base64')}`;
const OTHER = `whsec_${Buffer.from('of no chat'.padEnd(32, '.')).toString('base64')}`;
const NO_THUMBS = { thumbs: { enabled: false } };
const TIMEOUT_MS = 300_000;
const DAY_MS = 86_400_000;

async function setUp(
  t: Test,
  section: Readonly<Record<string, unknown>> = NO_THUMBS,
  webhooks: Readonly<Record<string, unknown>> = {},
): Promise<{ readonly origin: TestOrigin; readonly chat: HookReceiver }> {
  const chat = await openHookReceiver();
  t.teardown(() => chat.close());
  const origin = await startOrigin(
    join(t.testdir(), 'origin'),
    {
      ...section,
      webhooks: { url: chat.url, secrets: ['env:NEW', 'env:OLD'], retry: '10s', timeout: '5m', ...webhooks },
    },
    { secrets: { NEW, OLD } },
  );
  t.teardown(() => origin.close());
  return { origin, chat };
}

function come(
  { origin, chat }: { origin: TestOrigin; chat: HookReceiver },
  count: number,
  stepMs = 100,
): Promise<void> {
  return untilInTime(`request ${count} to the chat server`, origin.clock, () => chat.received.length >= count, stepMs);
}

const told = ({ received }: HookReceiver): readonly string[] => received.map(({ type, id }) => `${type} ${id}`);

void t.test('the chat server is told what happens to media, in order, and signed with every secret', async (t) => {
  const { origin, chat } = await setUp(t);
  const id = await origin.uploaded(png(1), '?filename=one.png');
  await come({ origin, chat }, 1);
  const { body, headers, text } = chat.received[0] as Received;
  const info = json(await origin.as('bob', `/v1/media/${id}/info`));
  t.same(body, { type: 'media.ready', timestamp: '2026-01-01T00:00:00.000Z', data: info });
  t.notOk(text.includes('alice'), 'the owner is not told');
  t.match(headers, {
    'content-type': 'application/json',
    'webhook-id': /^msg_[0-9a-f]{32}$/,
    'webhook-timestamp': /^176722560\d$/,
  });
  for (const [secret, right] of [
    [NEW, true],
    [OLD, true],
    [OTHER, false],
  ] as const) {
    t.equal(await isSigned({ headers, text }, secret), right);
  }
  t.notOk(await isSigned({ headers, text: text.replace('one.png', 'two.png') }, NEW), 'nor may it be changed');

  const open = await origin.uploaded(png(1), '?public=true');
  await origin.asAdmin(`/v1/media/${id}/quarantine`, { method: 'POST' });
  await origin.asAdmin(`/v1/media/${id}/quarantine`, { method: 'DELETE' });
  await origin.asAdmin(`/v1/media/${id}`, { method: 'DELETE' });
  await origin.asAdmin(`/v1/media/${id}`, { method: 'DELETE' });
  await come({ origin, chat }, 7);
  const about = (of: string): readonly string[] =>
    chat.received.filter((one) => one.id === of).map(({ type }) => type.slice('media.'.length));
  t.same(about(id), ['ready', 'quarantined', 'restored', 'deleted'], 'one event for each');
  t.same(about(open), ['ready', 'quarantined', 'restored'], 'and for each id of the same bytes');
  t.same(new Set(chat.received.map(({ name }) => name)).size, 7);
  t.same(chat.received.find(({ type }) => type === 'media.deleted')?.body.data, { id });

  const brief = await origin.uploaded(png(2), '?expires_in=60');
  await come({ origin, chat }, 8);
  origin.clock.advance(60_000);
  await come({ origin, chat }, 9);
  t.same(told(chat).slice(7), [`media.ready ${brief}`, `media.expired ${brief}`]);
  await counted(origin, 'outcome="sent"} 9');
});

void t.test('pictures are ready once they have thumbnails, and those that are too large are refused', async (t) => {
  const { origin, chat } = await setUp(t, {
    thumbs: { video: { enabled: false }, upload_wait: '0s', pixels_max: 100_000 },
  });
  const infoOf = async (id: string) => json(await origin.as('bob', `/v1/media/${id}/info`));
  const id = await origin.uploaded(await makeJpeg(1, 300, 200));
  await untilAsync('the thumbhash', async () => (await infoOf(id))['thumbhash'] !== null);
  await come({ origin, chat }, 1);
  t.match(chat.received[0], { type: 'media.ready', id, body: { data: { width: 300, thumbhash: /^[\w+/=]{8,}$/ } } });
  const large = await origin.uploaded(await makeJpeg(2, 400, 300));
  await untilAsync('the refusal', async () => (await infoOf(large))['thumb_url'] === null);
  await come({ origin, chat }, 2);
  const data = { reason: 'too_many_pixels', thumb_url: null };
  t.match(chat.received[1], { type: 'media.refused', id: large, body: { data } });
});

void t.test(
  'an event that is not taken is sent again, holds up its own media alone, and ends as a dead letter',
  async (t) => {
    const { origin, chat } = await setUp(t);
    const bad = await origin.uploaded(png(1));
    chat.answer = (request, response) => (request.id === bad ? answers(503) : takes)(request, response);
    await come({ origin, chat }, 1);
    await origin.asAdmin(`/v1/media/${bad}`, { method: 'DELETE' });
    const good = await origin.uploaded(png(2));
    await come({ origin, chat }, 4, 1_000);
    t.same(
      new Set(told(chat)),
      new Set([`media.ready ${bad}`, `media.ready ${good}`]),
      'what follows for the same media waits',
    );
    const tries = chat.received.filter(({ id }) => id === bad);
    t.equal(new Set(tries.map(({ name }) => name)).size, 1, 'each attempt has the name of the event');
    t.ok(new Set(tries.map(({ headers }) => headers['webhook-timestamp'])).size > 1, 'and its own instant');

    const status = () => statusOf(origin);
    await untilInTime('the end of the other', origin.clock, async () => (await status())['waiting'] === 2);
    t.match(await status(), { waiting: 2, dead: 0, oldest_since: '2026-01-01T00:00:00.000Z' });
    await untilInTime('the first dead letter', origin.clock, async () => (await status())['dead'] === 1, 600_000);
    t.ok(origin.clock.now() - Date.UTC(2026, 0, 1) >= DAY_MS, 'after a day');
    t.match(await status(), {
      dead_letters: [{ type: 'media.ready', id: bad, fault: /^(answered 503|no answer within 5m)$/ }],
    });
    t.ok(
      chat.received.filter(({ type, id }) => id === bad && type === 'media.ready').length < 60,
      'with pauses that have grown',
    );
    await untilInTime('the next event', origin.clock, () => told(chat).includes(`media.deleted ${bad}`), 1_000);

    await untilInTime('both', origin.clock, async () => (await status())['dead'] === 2, 600_000);
    chat.answer = takes;
    const before = chat.received.length;
    const refused = await sendRequest(`${origin.operators}/webhooks/retry`, {
      method: 'POST',
      headers: { origin: 'https://elsewhere.example' },
    });
    t.equal(refused.status, 403);
    t.same(await command(origin, 'retry'), { code: 0, lines: ['2 are sent again, 0 left'] });
    await come({ origin, chat }, before + 2);
    t.same(told(chat).slice(before), [`media.ready ${bad}`, `media.deleted ${bad}`], 'in their order');
    await emptied(origin);
    t.same(await command(origin, 'status'), { code: 0, lines: ['0 waiting; 0 given up'] });
    await counted(origin, 'outcome="dead"} 2');
  },
);

async function statusOf(origin: TestOrigin): Promise<Readonly<Record<string, unknown>>> {
  return json(await sendRequest(`${origin.operators}/webhooks`));
}

function emptied(origin: TestOrigin): Promise<void> {
  return untilInTime('an empty outbox', origin.clock, async () => (await statusOf(origin))['waiting'] === 0);
}

function counted(origin: TestOrigin, sample: string): Promise<void> {
  return untilAsync(`the metric ${sample}`, async () => {
    const { bytes } = await sendRequest(`${origin.operators}/metrics`);
    return bytes.toString().split('\n').includes(`media_webhook_attempts_total{${sample}`);
  });
}

async function command(origin: TestOrigin, verb: 'status' | 'retry') {
  const lines: string[] = [];
  const { hostname: host, port } = new URL(origin.operators);
  const deps = {
    clock: systemClock,
    log: createLog('test', { level: 'silent' }),
    config: { operators: { host, port: Number(port), hostNames: [], token: null } },
    signal: new AbortController().signal,
    print: (line: string) => void lines.push(line),
    progress: () => undefined,
  } as unknown as CommandDeps;
  return { code: await runWebhooks(deps, { verb }), lines };
}

void t.test('what was not taken before a stop is sent after it, as the same event', async (t) => {
  const { origin, chat } = await setUp(t);
  // Never answered.
  chat.answer = () => undefined;
  const id = await origin.uploaded(png(1));
  await come({ origin, chat }, 1);
  await origin.restart();
  chat.answer = takes;
  await come({ origin, chat }, 2);
  const [first, second] = chat.received;
  t.same([second?.name, second?.text], [first?.name, first?.text]);
  t.equal(second?.id, id);
  await emptied(origin);
  await origin.restart();
  const next = await origin.uploaded(png(2));
  await come({ origin, chat }, 3);
  t.equal(chat.received[2]?.id, next, 'what was taken is not sent again');
});

void t.test('a chat server may answer late, elsewhere or without end', async (t) => {
  const { origin, chat } = await setUp(t);
  const elsewhere = await openHookReceiver();
  t.teardown(() => elsewhere.close());
  const kinds: readonly HookReceiver['answer'][] = [
    () => undefined,
    (_request, response) => void response.writeHead(307, { location: elsewhere.url }).end(),
    (_request, response) => {
      response.on('error', () => undefined);
      const more = (): void => {
        if (response.destroyed) return;
        if (response.write(Buffer.alloc(65_536))) setImmediate(more);
        else response.once('drain', more);
      };
      response.writeHead(200);
      more();
    },
  ];
  let nth = 0;
  chat.answer = (request, response) => {
    kinds[nth]?.(request, response);
    nth += 1;
  };
  await origin.uploaded(png(1));
  await come({ origin, chat }, 1);
  origin.clock.advance(TIMEOUT_MS);
  await come({ origin, chat }, 3);
  t.equal(elsewhere.received.length, 0);
  await emptied(origin);
  t.equal(chat.received.length, 3, 'the third answer was taken by its status');
  const why = origin.logged
    .map((line) => (JSON.parse(line) as { why?: string }).why)
    .filter((one) => one !== undefined);
  t.same(why, ['no answer within 5m', 'answered 307']);
});
