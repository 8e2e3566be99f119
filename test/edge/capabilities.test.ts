/** What the edge learns of the origin's capabilities: when it asks, what it takes, and what it keeps. */
import { Readable } from 'node:stream';
import t from 'tap';
import { type Capabilities, capabilitiesSection, followCapabilities } from '../../edge/capabilities.js';
import type { UpstreamOutcome, UpstreamRequest } from '../../edge/upstream/request.js';
import type { Upstream } from '../../edge/upstream/upstream.js';
import { ManualClock } from '../kit/clock.js';
import { configured, testDeps } from '../kit/deps.js';
import { respondWith } from '../kit/edge/direct-edge.js';
import { until } from '../kit/until.js';

const THUMBNAILS = {
  variants: [{ name: 'small', width: 100, height: 100, fit: 'inside' }],
  formats: ['webp', 'jpeg'],
  default: 'small',
};
const RATES = { window_seconds: 60, subject: { requests: 5 }, address: { requests: 7 } };
const stated = (thumbnails: unknown = THUMBNAILS, rates: unknown = RATES) => ({
  capabilities: { thumbnails, rate_limits: rates },
});

function followed(maxBytes = 10_000) {
  const clock = new ManualClock();
  const { log, lines } = testDeps();
  const asked: {
    readonly request: UpstreamRequest;
    readonly signal: AbortSignal;
    readonly answer: (outcome: UpstreamOutcome) => void;
  }[] = [];
  const upstream = {
    fetch: (request: UpstreamRequest, signal: AbortSignal) =>
      new Promise<UpstreamOutcome>((answer) => asked.push({ request, signal, answer })),
  } as unknown as Upstream;
  const config = configured(capabilitiesSection, { refreshMs: 60_000, retryMs: 1_000, maxBytes });
  const capabilities: Capabilities = followCapabilities({ config, upstream, clock, log });
  return {
    clock,
    lines,
    asked,
    capabilities,
    /** Answers the latest question, and waits until the next one is due. */
    say: async (document: unknown, status = 200): Promise<number> => {
      const bytes = Buffer.from(typeof document === 'string' ? document : JSON.stringify(document));
      asked.at(-1)?.answer(respondWith(clock, { status, bytes }));
      await until('the next question is due', () => clock.pending === 1);
      const before = asked.length;
      clock.advance(1_000);
      return asked.length > before ? 1_000 : 60_000;
    },
  };
}

void t.test('the origin is asked at the start, then at intervals, and sooner after no valid answer', async (t) => {
  const { asked, capabilities, say, clock, lines } = followed();
  t.same(
    asked.map(({ request }) => request),
    [{ method: 'GET', target: '/.well-known', headers: [['accept', 'application/json']] }],
  );
  t.same([capabilities.thumbOptions, capabilities.rates], [undefined, undefined]);
  t.equal(await say(stated()), 60_000);
  const { thumbOptions, rates } = capabilities;
  t.same([thumbOptions?.variants.length, thumbOptions?.formats, thumbOptions?.default], [1, ['webp', 'jpeg'], 'small']);
  t.same(rates, { windowMs: 60_000, subjectMax: 5, addressMax: 7 });
  t.match(lines, [{ level: 'info', variants: 1, formats: ['webp', 'jpeg'] }]);
  clock.advance(58_999);
  t.equal(asked.length, 1);
  clock.advance(1);
  t.equal(asked.length, 2);
  t.equal(await say(stated()), 60_000);
  t.equal(capabilities.thumbOptions, thumbOptions, 'the same object while the same is stated');
  t.equal(capabilities.rates, rates);
  t.equal(lines.length, 1);
  clock.advance(59_000);
  t.equal(await say(stated(THUMBNAILS, { ...RATES, window_seconds: 30 })), 60_000);
  t.equal(capabilities.thumbOptions, thumbOptions);
  t.equal(capabilities.rates?.windowMs, 30_000);
  clock.advance(59_000);
  t.equal(await say(stated({ ...THUMBNAILS, formats: ['jpeg'] }, null)), 60_000);
  t.same([capabilities.thumbOptions?.formats, capabilities.rates], [['jpeg'], undefined]);
});

void t.test('what is no valid answer changes nothing', async (t) => {
  const { asked, capabilities, say, clock } = followed(500);
  for (const [what, document, status] of [
    ['another status', stated(), 503],
    ['no JSON', '{', 200],
    ['no object', '7', 200],
    ['null', 'null', 200],
    ['no capabilities', {}, 200],
    ['capabilities that are none', { capabilities: 'none' }, 200],
    ['no thumbnails', { capabilities: { rate_limits: RATES } }, 200],
    ['thumbnails that are not valid', stated({ ...THUMBNAILS, default: 'other' }), 200],
    ['too long', { ...stated(), filler: 'x'.repeat(500) }, 200],
  ] as const) {
    t.equal(await say(document, status), 1_000, what);
    t.equal(capabilities.thumbOptions, undefined, what);
  }
  asked.at(-1)?.answer({ kind: 'failed', failure: 'connect' });
  await until('the next question is due', () => clock.pending === 1);
  clock.advance(1_000);
  t.equal(await say(stated()), 60_000);
});

void t.test('a body that is not read is ended, and after the end nothing is asked or learnt', async (t) => {
  const refused = followed();
  const body = new Readable({ read() {} });
  refused.asked[0]?.answer(respondWith(refused.clock, { status: 503, body }));
  await until('it is ended', () => body.destroyed);
  await until('the next question is due', () => refused.clock.pending === 1);
  refused.capabilities.close();
  t.equal(refused.clock.pending, 0);
  const open = followed();
  open.capabilities.close();
  t.equal(open.asked[0]?.signal.aborted, true);
  open.asked[0]?.answer(respondWith(open.clock, { bytes: Buffer.from(JSON.stringify(stated())) }));
  for (let turns = 0; turns < 10; turns += 1) await new Promise(setImmediate);
  t.same([open.capabilities.thumbOptions, open.clock.pending], [undefined, 0]);
});
