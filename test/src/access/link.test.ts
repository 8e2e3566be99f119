/** Signed links: how they are written, what each opens, and that nothing else is opened. */
import { createHmac } from 'node:crypto';
import * as fc from 'fast-check';
import t from 'tap';
import { checkLink, type LinkRules, type LinkTarget, signLink } from '../../../src/access/link.js';
import { ID, PATH } from '../../kit/access/gate.js';

const LINK_KEYS = [
  { kid: 'new', secret: 'the newer secret of at least thirty-two characters' },
  { kid: 'old', secret: 'the older secret of at least thirty-two characters' },
] as const;
const NOW = Date.UTC(2026, 0, 1);
const RULES: LinkRules = { keys: LINK_KEYS, lifetimeMaxMs: 3_600_000, clockToleranceMs: 5_000 };
const ORIGINAL: LinkTarget = { kind: 'original', id: ID };
const thumb = (width: number | null, height: number | null): LinkTarget => ({ kind: 'thumb', id: ID, width, height });

function follow(link: string, over: { method?: string; now?: number; rules?: LinkRules } = {}): string {
  const [path = '', query = ''] = link.split('?');
  const outcome = checkLink({ method: over.method ?? 'GET', path, query }, over.rules ?? RULES, over.now ?? NOW);
  return outcome.kind === 'refused' ? outcome.refusal : outcome.kind;
}

void t.test('signed links', async (t) => {
  const expiresAt = NOW + 60_000;
  const link = signLink(ORIGINAL, expiresAt, LINK_KEYS[0]);
  const small = signLink(thumb(320, null), expiresAt, LINK_KEYS[0]);
  const [path = '', query = ''] = link.split('?');

  await t.test('are signed as documented', async (t) => {
    const exp = expiresAt / 1_000;
    const sig = createHmac('sha256', LINK_KEYS[0].secret)
      .update(`GET\n${PATH}/thumb?w=320&h=200\n${exp}`)
      .digest('base64url');
    t.equal(
      signLink(thumb(320, 200), expiresAt, LINK_KEYS[0]),
      `${PATH}/thumb?w=320&h=200&exp=${exp}&kid=new&sig=${sig}`,
    );
  });

  await t.test('open what they were signed for', async (t) => {
    for (const [name, opened] of [
      ['the original', follow(link)],
      ['by HEAD', follow(link, { method: 'HEAD' })],
      ['an id in lower case', follow(link.replace(ID, ID.toLowerCase()))],
      ['parameters in another order', follow(`${path}?${query.split('&').toReversed().join('&')}`)],
      ['beside a parameter of no meaning', follow(`${link}&download=1&download=2`)],
      ['an original has no width to speak of', follow(`${link}&w=10`)],
      ['a name written in percent', follow(link.replace('sig=', '%73ig='))],
      ['a thumbnail', follow(small)],
      ['the default thumbnail', follow(signLink(thumb(null, null), expiresAt, LINK_KEYS[0]))],
      ['the older secret', follow(signLink(ORIGINAL, expiresAt, LINK_KEYS[1]))],
      ['at the last moment', follow(link, { now: expiresAt - 1 })],
      ['for the longest time', follow(signLink(ORIGINAL, NOW + 3_605_000, LINK_KEYS[0]))],
    ] as const) {
      t.equal(opened, 'valid', name);
    }
  });

  await t.test('open nothing else', async (t) => {
    const sig = /sig=(.{43})/.exec(link)?.[1] ?? '';
    const lastChanged = `${sig.slice(0, -1)}${String.fromCharCode(sig.charCodeAt(42) + 1)}`;
    for (const [name, opened, expected] of [
      ['another method', follow(link, { method: 'DELETE' }), 'absent'],
      ['a POST', follow(link, { method: 'POST' }), 'absent'],
      ['no credentials', follow(`${path}?w=1`), 'absent'],
      ['another media', follow(link.replace(ID, `${ID.slice(0, -1)}2`)), 'signature'],
      ['its thumbnail', follow(link.replace('?', '/thumb?')), 'signature'],
      ['the original of a thumbnail', follow(small.replace('/thumb', '')), 'signature'],
      ['another width', follow(small.replace('w=320', 'w=640')), 'signature'],
      ['a height beside', follow(`${small}&h=200`), 'signature'],
      ['no width', follow(small.replace('w=320&', '')), 'signature'],
      ['a width in percent', follow(`${signLink(thumb(null, null), expiresAt, LINK_KEYS[0])}&%77=640`), 'signature'],
      ['a later end', follow(link.replace(/exp=\d+/, `exp=${expiresAt / 1_000 + 60}`)), 'signature'],
      [
        'a signature changed',
        follow(link.replace(sig, sig.replace(/^./, sig.startsWith('A') ? 'B' : 'A'))),
        'signature',
      ],
      ['another spelling of the same signature', follow(link.replace(sig, lastChanged)), 'signature'],
      ['under another name', follow(link.replace('kid=new', 'kid=old')), 'signature'],
      ['an unknown name', follow(link.replace('kid=new', 'kid=other')), 'unknown_key'],
      ['without any secret', follow(link, { rules: { ...RULES, keys: [] } }), 'unknown_key'],
      ['a signature cut', follow(link.slice(0, -1)), 'malformed'],
      ['a signature padded', follow(`${link}=`), 'malformed'],
      ['no signature', follow(link.replace(/&sig=.*/, '')), 'malformed'],
      ['no end', follow(link.replace(/exp=\d+&/, '')), 'malformed'],
      ['no name', follow(link.replace('&kid=new', '')), 'malformed'],
      ['two ends', follow(`${link}&exp=${expiresAt / 1_000}`), 'malformed'],
      ['two names', follow(`${link}&kid=new`), 'malformed'],
      ['two signatures', follow(`${link}&sig=${sig}`), 'malformed'],
      ['two widths', follow(`${small}&w=320`), 'malformed'],
      ['an end with a sign', follow(link.replace('exp=', 'exp=%2B')), 'malformed'],
      ['an end with a zero before', follow(link.replace('exp=', 'exp=0')), 'malformed'],
      ['an end in another notation', follow(link.replace(/exp=\d+/, 'exp=1e12')), 'malformed'],
      ['a width of nothing', follow(small.replace('w=320', 'w=')), 'malformed'],
      ['a width with a zero before', follow(small.replace('w=320', 'w=0320')), 'malformed'],
      ['a path below', follow(link.replace('?', '/link?')), 'malformed'],
      ['a path with a slash more', follow(link.replace('?', '/?')), 'malformed'],
      ['the id in percent', follow(link.replace(ID, `%30${ID.slice(1)}`)), 'malformed'],
      ['no id', follow(link.replace(ID, 'I'.repeat(26))), 'malformed'],
      ['after its end', follow(link, { now: expiresAt }), 'expired'],
      ['for too long', follow(signLink(ORIGINAL, NOW + 3_606_000, LINK_KEYS[0])), 'too_long'],
    ] as const) {
      t.equal(opened, expected, name);
    }
  });

  const target = fc.oneof(
    fc.constant(ORIGINAL),
    fc
      .record({
        width: fc.option(fc.integer({ min: 1, max: 999_999 })),
        height: fc.option(fc.integer({ min: 1, max: 999_999 })),
      })
      .map(({ width, height }) => thumb(width, height)),
  );

  await t.test('open their target in any spelling, and no other target', async () => {
    fc.assert(
      fc.property(
        target,
        target,
        fc.array(fc.tuple(fc.constantFrom('x', 'W', 'download', 'expires'), fc.string())),
        fc.nat(),
        (one, other, noise, turn) => {
          const signed = signLink(one, expiresAt, LINK_KEYS[0]);
          const [at = '', parameters = ''] = signed.split('?');
          const all = [...new URLSearchParams(parameters), ...noise];
          const turned = [...all.slice(turn % all.length), ...all.slice(0, turn % all.length)];
          if (follow(`${at.replace(ID, ID.toLowerCase())}?${new URLSearchParams(turned).toString()}`) !== 'valid')
            return false;
          const [otherAt = '', otherQuery = ''] = signLink(other, expiresAt, LINK_KEYS[1]).split('?');
          const stolen = new URLSearchParams(otherQuery);
          for (const name of ['kid', 'sig']) stolen.set(name, new URLSearchParams(parameters).get(name) ?? '');
          return (
            (follow(`${otherAt}?${stolen.toString()}`) === 'valid') === (JSON.stringify(one) === JSON.stringify(other))
          );
        },
      ),
      { numRuns: 300 },
    );
  });

  await t.test('never throw, whatever is sent', async () => {
    const word = fc.oneof(
      fc.string(),
      fc.constantFrom('exp', 'kid', 'sig', 'w', 'h', '=', '&', '%', '%zz', '1767225700'),
    );
    fc.assert(
      fc.property(fc.array(word), fc.string(), (words, tail) => {
        const request = { method: 'GET', path: `${PATH}${tail}`, query: words.join('') };
        return checkLink(request, RULES, NOW).kind !== 'valid';
      }),
      { numRuns: 500 },
    );
  });
});
