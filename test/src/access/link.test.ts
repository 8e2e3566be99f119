/** Signed links to media and for uploads: how they are written and made, what each opens, and that nothing else is opened. */
import { createHmac } from 'node:crypto';
import * as fc from 'fast-check';
import t from 'tap';
import { checkLink, type LinkRules, type LinkTarget, linkEnd, signLink } from '../../../src/access/link.js';
import { describeLinks, type LinkSigning, linksBodyMaxBytes, makeLinks } from '../../../src/access/make-links.js';
import { checkUploadLink, signUploadLink, type UploadTerms } from '../../../src/access/upload-link.js';
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
        'the info, by the earlier form of the thumbnail',
        follow(earlier(`${PATH}/thumb`).replace('/thumb', '/info')),
        'signature',
      ],
      [
        'another width, by the earlier form',
        follow(earlier(`${PATH}/thumb?w=320`).replace('w=320', 'w=640')),
        'signature',
      ],
      ['a height beside, by the earlier form', follow(`${earlier(`${PATH}/thumb?w=320`)}&h=200`), 'signature'],
      ['a width of no pixels, by the earlier form', follow(earlier(`${PATH}/thumb?w=0`)), 'signature'],
      ['a width without a number, by the earlier form', follow(earlier(`${PATH}/thumb?w=`)), 'signature'],
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
      ['a name of 33 letters', follow(link.replace('kid=new', `kid=${'x'.repeat(33)}`)), 'malformed'],
      ['a name with a space', follow(link.replace('kid=new', 'kid=new%20')), 'malformed'],
      ...query.split('&').map((one) => [`nothing but ${one}`, follow(`${path}?${one}`), 'malformed'] as const),
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

const TERMS: UploadTerms = {
  id: '0123456789abcdef'.repeat(2),
  subject: 'alice',
  sizeMaxBytes: 1_000,
  types: ['image/png'],
  public: true,
  expiresInSeconds: 60,
  filename: 'a.png',
  expiresAt: NOW + 60_000,
};
const TUS = `/v1/uploads/${TERMS.id}`;

/** What an upload link opens, or why not. */
function upload(query: string, over: { method?: string; path?: string; now?: number } = {}): string {
  const request = { method: over.method ?? 'POST', path: over.path ?? '/v1/media', query };
  const outcome = checkUploadLink(request, { keys: LINK_KEYS }, over.now ?? NOW);
  return outcome.kind === 'refused' ? outcome.refusal : outcome.kind;
}

/** A link over any text, as somebody who has the secret could sign it. */
function signedOver(text: string, exp = '1767225660'): string {
  const terms = Buffer.from(text).toString('base64url');
  const sig = createHmac('sha256', LINK_KEYS[0].secret).update(`upload-link\n${terms}\n${exp}`).digest('base64url');
  return `upload=${terms}&exp=${exp}&kid=new&sig=${sig}`;
}

void t.test('an upload link', async (t) => {
  const query = signUploadLink(TERMS, LINK_KEYS[0]);

  await t.test('is signed as documented, and says its terms', async (t) => {
    const { expiresAt: _, ...terms } = TERMS;
    t.equal(query, signedOver(JSON.stringify(terms)));
    for (const each of [
      TERMS,
      { ...TERMS, public: false },
      { ...TERMS, sizeMaxBytes: null, types: null, expiresInSeconds: null, filename: null },
    ]) {
      const request = { method: 'POST', path: '/v1/media', query: signUploadLink(each, LINK_KEYS[0]) };
      t.strictSame(checkUploadLink(request, { keys: LINK_KEYS }, NOW), { kind: 'valid', terms: each });
    }
  });

  await t.test('opens uploads alone', async (t) => {
    for (const [method, path, opened] of [
      ['POST', '/v1/media', 'valid'],
      ['POST', '/v1/uploads', 'valid'],
      ['POST', TUS, 'valid'],
      ['PATCH', TUS, 'valid'],
      ['HEAD', TUS, 'valid'],
      ['DELETE', TUS, 'valid'],
      ['GET', TUS, 'absent'],
      ['PUT', TUS, 'absent'],
      ['HEAD', '/v1/media', 'absent'],
      ['PATCH', '/v1/media', 'absent'],
      ['DELETE', '/v1/media', 'absent'],
      ['POST', '/v1/media/', 'absent'],
      ['POST', `/v1/media/${ID}`, 'absent'],
      ['DELETE', `/v1/media/${ID}`, 'absent'],
      ['POST', '/v1/uploads/link', 'absent'],
      ['POST', `${TUS}0`, 'absent'],
      ['POST', TUS.slice(0, -1), 'absent'],
      ['POST', TUS.toUpperCase(), 'absent'],
      ['POST', `/x${TUS}`, 'absent'],
    ] as const) {
      t.equal(upload(query, { method, path }), opened, `${method} ${path}`);
    }
    t.equal(upload('exp=1767225660&kid=new&sig=x'), 'absent', 'a link to media is none for uploads');
  });

  await t.test('is refused for every change, and when it has ended', async (t) => {
    const [terms = '', exp = '', kid = '', sig = ''] = query.split('&');
    const other = signUploadLink({ ...TERMS, subject: 'mallory' }, LINK_KEYS[0]);
    for (const [name, opened, expected] of [
      ['the older secret', upload(signUploadLink(TERMS, LINK_KEYS[1])), 'valid'],
      ['the last moment', upload(query, { now: TERMS.expiresAt - 1 }), 'valid'],
      ['its end', upload(query, { now: TERMS.expiresAt }), 'expired'],
      ['no end', upload([terms, kid, sig].join('&')), 'malformed'],
      ['no name', upload([terms, exp, sig].join('&')), 'malformed'],
      ['no signature', upload([terms, exp, kid].join('&')), 'malformed'],
      ['no terms', upload([terms.replace('upload', 'xupload'), exp, kid, sig].join('&')), 'malformed'],
      ...[terms, exp, kid, sig].map((one) => [`two of ${one}`, upload(`${query}&${one}`), 'malformed'] as const),
      ['an end with a zero before', upload(query.replace('exp=', 'exp=0')), 'malformed'],
      ['an end with a sign', upload(query.replace('exp=', 'exp=%2B')), 'malformed'],
      ['an end of thirteen digits', upload(query.replace(/exp=\d+/, 'exp=1767225660000')), 'malformed'],
      ['an unknown name', upload(query.replace('kid=new', 'kid=other')), 'unknown_key'],
      ['the name of another secret', upload(query.replace('kid=new', 'kid=old')), 'signature'],
      ['a later end', upload(query.replace(exp, 'exp=1767225661')), 'signature'],
      ['other terms', upload(query.replace(terms, other.split('&')[0] ?? '')), 'signature'],
      ['a signature cut', upload(query.slice(0, -4)), 'signature'],
      ['no letter of a signature', upload([terms, exp, kid, 'sig='].join('&')), 'signature'],
      ['a changed signature', upload(query.replace(sig, sig.replace(/=./, sig[4] === 'A' ? '=B' : '=A'))), 'signature'],
    ] as const) {
      t.equal(opened, expected, name);
    }
  });

  await t.test('whose terms cannot be read is refused, even if they are signed', async (t) => {
    const { expiresAt: _, ...terms } = TERMS;
    for (const change of [
      { id: 'x' },
      { id: TERMS.id.toUpperCase() },
      { subject: undefined },
      { subject: 7 },
      { public: undefined },
      { public: 'true' },
      { types: 'image/png' },
      { types: undefined },
      { sizeMaxBytes: '1000' },
      { sizeMaxBytes: 1.5 },
      { sizeMaxBytes: undefined },
      { expiresInSeconds: '60' },
      { expiresInSeconds: undefined },
      { filename: 7 },
      { filename: undefined },
    ]) {
      t.equal(upload(signedOver(JSON.stringify({ ...terms, ...change }))), 'malformed', JSON.stringify(change));
    }
    for (const text of ['', 'null', '[]', '"text"', '{}', '{']) t.equal(upload(signedOver(text)), 'malformed', text);
    t.equal(upload(signedOver(JSON.stringify({ ...terms, later: true }))), 'valid', 'what is not known is left alone');
    const padded = (length: number): string => {
      const text = JSON.stringify({ ...terms, filename: '' });
      return signedOver(text.replace('""', `"${'x'.repeat(length - text.length)}"`));
    };
    t.equal(upload(padded(4_500)), 'valid', '4,500 bytes are 6,000 letters');
    t.equal(upload(padded(4_501)), 'malformed', 'and more are not read');
  });
});

void t.test('links that are asked for', async (t) => {
  const signing: LinkSigning = {
    key: () => LINK_KEYS[0],
    lifetimeMs: 60_000,
    lifetimeMaxMs: 3_600_000,
    windowMs: 0,
    idsMax: 2,
  };
  const OTHER = `${ID.slice(0, -1)}2` as MediaId;
  const BASE = 'https://media.example';
  const made = (body: unknown, over: Partial<LinkSigning> = {}): unknown =>
    makeLinks(typeof body === 'string' ? body : JSON.stringify(body), { ...signing, ...over }, BASE, NOW);

  await t.test('are links to the original, the thumbnail and the info of each media, with one end', async (t) => {
    const linksOf = (id: MediaId, end: number) => ({
      id,
      url: BASE + signLink({ kind: 'original', id }, end, LINK_KEYS[0]),
      thumb_url: BASE + signLink({ kind: 'thumb', id }, end, LINK_KEYS[0]),
      info_url: BASE + signLink({ kind: 'info', id }, end, LINK_KEYS[0]),
      expires_at: new Date(end).toISOString(),
    });
    for (const [lifetime, end, windowMs] of [
      [undefined, NOW + 60_000, 0],
      [1, NOW + 1_000, 0],
      [3_600, NOW + 3_600_000, 0],
      [1, NOW + 600_000, 600_000],
    ] as const) {
      t.strictSame(
        made({ ids: [ID.toLowerCase(), OTHER], lifetime }, { windowMs }),
        { links: [linksOf(ID, end), linksOf(OTHER, end)], expires_at: new Date(end).toISOString() },
        String(lifetime),
      );
    }
    const sized = describeLinks(ID, NOW + 60_000, LINK_KEYS[0], { baseUri: BASE, size: 'w=320&h=200' });
    t.equal(sized.thumb_url, linksOf(ID, NOW + 60_000).thumb_url.replace('?', '?w=320&h=200&'));
    t.equal(sized.url, linksOf(ID, NOW + 60_000).url, 'and the size is in no other');
    t.equal(follow(sized.thumb_url.slice(BASE.length)), 'valid');
  });

  await t.test('are refused with the reason', async (t) => {
    const lifetime = 'lifetime is a whole number of seconds, at least 1.';
    const list = 'ids is a list of 1 to 2 media ids.';
    for (const [body, code, detail] of [
      ['{', 'malformed', 'The body is not JSON.'],
      ['', 'malformed', 'The body is not JSON.'],
      ['null', 'malformed', 'The body is not a JSON object.'],
      ['[]', 'malformed', 'The body is not a JSON object.'],
      ['"ids"', 'malformed', 'The body is not a JSON object.'],
      [{}, 'malformed', list],
      [{ ids: ID }, 'malformed', list],
      [{ ids: { length: 1 } }, 'malformed', list],
      [{ ids: [] }, 'malformed', list],
      [{ ids: [ID, ID, ID] }, 'malformed', list],
      [{ ids: [ID, 7] }, 'invalid_id', 'A media id is a ULID of 26 characters.'],
      [{ ids: [[ID]] }, 'invalid_id', 'A media id is a ULID of 26 characters.'],
      [{ ids: [ID, 'x'] }, 'invalid_id', 'A media id is a ULID of 26 characters.'],
      [{ ids: [ID], lifetime: 0 }, 'malformed', lifetime],
      [{ ids: [ID], lifetime: -1 }, 'malformed', lifetime],
      [{ ids: [ID], lifetime: 1.5 }, 'malformed', lifetime],
      [{ ids: [ID], lifetime: '60' }, 'malformed', lifetime],
      [{ ids: [ID], lifetime: null }, 'malformed', lifetime],
      [{ ids: [ID], lifetime: 3_601 }, 'malformed', 'A link is valid for at most 3600 seconds.'],
    ] as const) {
      t.throws(() => made(body), { code, detail }, JSON.stringify(body));
    }
    t.throws(() => made({ ids: [ID] }, { key: () => undefined }), { code: 'not_found' }, 'no links are signed');
  });

  await t.test('may be as many as are allowed, however the request is laid out', async (t) => {
    for (const idsMax of [1, 500]) {
      const ids = Array.from({ length: idsMax }, () => ID);
      const longest = linksBodyMaxBytes({ idsMax });
      t.ok(JSON.stringify({ ids, lifetime: 3_600 }, null, 8).length <= longest);
      t.ok(longest <= 2_048 + 100 * idsMax, 'and not without bound');
    }
  });
});
