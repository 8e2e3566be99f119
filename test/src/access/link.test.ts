/** Signed links: how they are written, what each opens, and that nothing else is opened. */
import { createHmac } from 'node:crypto';
import * as fc from 'fast-check';
import t from 'tap';
import { checkLink, type LinkRules, type LinkTarget, linkEnd, signLink } from '../../../src/access/link.js';
import type { MediaId } from '../../../src/ids.js';
import { ID, PATH } from '../../kit/access/gate.js';

const LINK_KEYS = [
  { kid: 'new', secret: 'the newer secret of at least thirty-two characters' },
  { kid: 'old', secret: 'the older secret of at least thirty-two characters' },
] as const;
const NOW = Date.UTC(2026, 0, 1);
const RULES: LinkRules = { keys: LINK_KEYS, lifetimeMaxMs: 3_600_000, windowMs: 600_000, clockToleranceMs: 5_000 };
const ORIGINAL: LinkTarget = { kind: 'original', id: ID };
const THUMB: LinkTarget = { kind: 'thumb', id: ID };

function follow(link: string, over: { method?: string; now?: number; rules?: LinkRules } = {}): string {
  const [path = '', query = ''] = link.split('?');
  const outcome = checkLink({ method: over.method ?? 'GET', path, query }, over.rules ?? RULES, over.now ?? NOW);
  return outcome.kind === 'refused' ? outcome.refusal : outcome.kind;
}

void t.test('signed links', async (t) => {
  const expiresAt = NOW + 60_000;
  const link = signLink(ORIGINAL, expiresAt, LINK_KEYS[0]);
  const small = signLink(THUMB, expiresAt, LINK_KEYS[0]);
  const [path = '', query = ''] = link.split('?');
  const hmac = (text: string): string => createHmac('sha256', LINK_KEYS[0].secret).update(text).digest('base64url');
  const exp = expiresAt / 1_000;
  const earlier = (target: string): string => {
    const sig = hmac(`GET\n${target}\n${exp}`);
    return `${target}${target.includes('?') ? '&' : '?'}exp=${exp}&kid=new&sig=${sig}`;
  };

  await t.test('are signed as documented', async (t) => {
    const written = (suffix: string, scope: string): string =>
      `${PATH}${suffix}?exp=${exp}&kid=new&sig=${hmac(`media-link\n${ID}\n${scope}\n${exp}`)}`;
    t.equal(link, written('', 'original'));
    t.equal(small, written('/thumb', 'thumb'));
    t.equal(signLink({ kind: 'info', id: ID }, expiresAt, LINK_KEYS[0]), written('/info', 'thumb'));
  });

  await t.test('end at a multiple of the window, so that links that are asked for within it are equal', async (t) => {
    for (const [at, lifetimeMs, windowMs, end] of [
      [NOW, 60_000, 600_000, NOW + 600_000],
      [NOW + 1, 3_600_000, 600_000, NOW + 4_200_000],
      [NOW + 599_999, 3_600_000, 600_000, NOW + 4_200_000],
      [NOW + 600_000, 3_600_000, 600_000, NOW + 4_200_000],
      [NOW + 600_001, 3_600_000, 600_000, NOW + 4_800_000],
      [NOW + 1, 60_000, 0, NOW + 61_000],
    ] as const) {
      t.equal(linkEnd(at, lifetimeMs, windowMs), end, `${at - NOW} ${lifetimeMs} ${windowMs}`);
    }
  });

  await t.test('open what they were signed for', async (t) => {
    for (const [name, opened] of [
      ['the original', follow(link)],
      ['by HEAD', follow(link, { method: 'HEAD' })],
      ['an id in lower case', follow(link.replace(ID, ID.toLowerCase()))],
      ['parameters in another order', follow(`${path}?${query.split('&').toReversed().join('&')}`)],
      ['beside parameters that are not signed', follow(`${link}&download=a.png&w=10`)],
      ['a name written in percent', follow(link.replace('sig=', '%73ig='))],
      ['the thumbnail, with the scope of the original', follow(link.replace('?', '/thumb?'))],
      ['the info, with the scope of the original', follow(link.replace('?', '/info?'))],
      ['the thumbnail', follow(small)],
      ['the thumbnail of any size', follow(`${small}&w=320&h=200&w=640`)],
      ['the info, with the scope of the thumbnail', follow(small.replace('/thumb', '/info'))],
      ['the older secret', follow(signLink(ORIGINAL, expiresAt, LINK_KEYS[1]))],
      ['at the last moment', follow(link, { now: expiresAt - 1 })],
      ['for the longest time, rounded up', follow(signLink(ORIGINAL, NOW + 4_205_000, LINK_KEYS[0]))],
      ['the original, in the earlier form', follow(earlier(PATH))],
      ['the default thumbnail, in the earlier form', follow(earlier(`${PATH}/thumb`))],
      ['a thumbnail, in the earlier form', follow(earlier(`${PATH}/thumb?w=320&h=200`))],
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
      ['the original of a thumbnail', follow(small.replace('/thumb', '')), 'signature'],
      ['the original of an info', follow(small.replace('/thumb', '')), 'signature'],
      [
        'the original, by the earlier form of its thumbnail',
        follow(earlier(`${PATH}/thumb`).replace('/thumb', '')),
        'signature',
      ],
      ['the thumbnail, by the earlier form', follow(earlier(PATH).replace('?', '/thumb?')), 'signature'],
      ['the info, by the earlier form', follow(earlier(PATH).replace('?', '/info?')), 'signature'],
      [
        'another width, by the earlier form',
        follow(earlier(`${PATH}/thumb?w=320`).replace('w=320', 'w=640')),
        'signature',
      ],
      ['a height beside, by the earlier form', follow(`${earlier(`${PATH}/thumb?w=320`)}&h=200`), 'signature'],
      ['two widths, by the earlier form', follow(`${earlier(`${PATH}/thumb?w=320`)}&w=320`), 'signature'],
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
      ['an end with a sign', follow(link.replace('exp=', 'exp=%2B')), 'malformed'],
      ['an end with a zero before', follow(link.replace('exp=', 'exp=0')), 'malformed'],
      ['an end in another notation', follow(link.replace(/exp=\d+/, 'exp=1e12')), 'malformed'],
      ['a path below', follow(link.replace('?', '/link?')), 'malformed'],
      ['a path with a slash more', follow(link.replace('?', '/?')), 'malformed'],
      ['the id in percent', follow(link.replace(ID, `%30${ID.slice(1)}`)), 'malformed'],
      ['no id', follow(link.replace(ID, 'I'.repeat(26))), 'malformed'],
      ['after its end', follow(link, { now: expiresAt }), 'expired'],
      ['for too long', follow(signLink(ORIGINAL, NOW + 4_206_000, LINK_KEYS[0])), 'too_long'],
    ] as const) {
      t.equal(opened, expected, name);
    }
  });

  const target = fc
    .record({ kind: fc.constantFrom('original', 'thumb', 'info'), last: fc.constantFrom('1', '2') })
    .map(({ kind, last }): LinkTarget => ({ kind, id: `${ID.slice(0, -1)}${last}` as MediaId }));

  await t.test('open what their scope covers in any spelling, and nothing else', async () => {
    fc.assert(
      fc.property(
        target,
        target,
        fc.array(fc.tuple(fc.constantFrom('x', 'W', 'w', 'download', 'expires'), fc.string())),
        fc.nat(),
        (one, other, noise, turn) => {
          const signed = signLink(one, expiresAt, LINK_KEYS[0]);
          const [at = '', parameters = ''] = signed.split('?');
          const all = [...new URLSearchParams(parameters), ...noise];
          const turned = [...all.slice(turn % all.length), ...all.slice(0, turn % all.length)];
          if (
            follow(`${at.replace(one.id, one.id.toLowerCase())}?${new URLSearchParams(turned).toString()}`) !== 'valid'
          )
            return false;
          const [otherAt = ''] = signLink(other, expiresAt, LINK_KEYS[1]).split('?');
          const covers = one.id === other.id && (one.kind === 'original' || other.kind !== 'original');
          return (follow(`${otherAt}?${parameters}`) === 'valid') === covers;
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
