/** Tokens that are not valid, and signed links that were altered. */
import { createHmac } from 'node:crypto';
import { forgeToken, makeKey, signToken } from '../kit/auth-service.js';
import { ask, bearer, type Row, type Stage } from './row.js';

const reversed = (text: string): string => text.split('').toReversed().join('');

export function tokenRows({ auth, id, now }: Stage): readonly Row[] {
  const hidden = `GET /v1/media/${id.hidden}`;
  const [key = makeKey('none')] = auth.keys;
  const stranger = makeKey(key.kid);
  const seconds = Math.floor(now / 1_000);
  const good = auth.token({ sub: 'eve' });
  const [head = '', claims = '', signature = ''] = good.split('.');
  const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const publicKey = JSON.stringify(key.jwk);
  const wrongClaims: readonly (readonly [string, Readonly<Record<string, unknown>>])[] = [
    ['expired', { exp: seconds - 3_600 }],
    ['expired long ago', { exp: 1 }],
    ['never expires', { exp: undefined }],
    ['an expiry that is text', { exp: '9999999999' }],
    ['an expiry beyond numbers', { exp: 1e300 * 1e10 }],
    ['not valid yet', { nbf: seconds + 3_600 }],
    ['another audience', { aud: 'bank' }],
    ['no audience', { aud: undefined }],
    ['an empty list of audiences', { aud: [] }],
    ['an audience that contains ours', { aud: 'media2' }],
    ['an audience in other case', { aud: 'MEDIA' }],
    ['another issuer', { iss: 'https://evil.example' }],
    ['no issuer', { iss: undefined }],
    ['an issuer that begins as ours', { iss: `${auth.issuer}/x` }],
    ['no subject', { sub: undefined }],
    ['an empty subject', { sub: '' }],
    ['a subject that is a number', { sub: 7 }],
    ['a subject that is an object', { sub: { $ne: '' } }],
  ];
  const headers: readonly (readonly [string, Readonly<Record<string, unknown>>])[] = [
    ['alg none', { alg: 'none' }],
    ['alg None', { alg: 'None' }],
    ['alg nOnE', { alg: 'nOnE' }],
    ['no alg', { alg: undefined }],
    ['alg empty', { alg: '' }],
    ['HS256', { alg: 'HS256' }],
    ['HS512', { alg: 'HS512' }],
    ['RS256 with a key of another kind', { alg: 'RS256' }],
    ['an algorithm in a list', { alg: ['EdDSA'] }],
    ['an unknown key', { kid: 'two' }],
    ['a path as key', { kid: '../../dev/null' }],
    ['an injection as key', { kid: "x' UNION SELECT 'a" }],
    ['a prototype as key', { kid: '__proto__' }],
    ['a critical header', { crit: ['exp'] }],
    ['an unknown critical header', { crit: ['x'], x: 1 }],
    ['a key of its own', { jwk: stranger.jwk }],
    ['a key from elsewhere', { jku: 'https://evil.example/jwks.json' }],
    ['a certificate from elsewhere', { x5u: 'https://evil.example/cert.pem' }],
  ];
  const raw: readonly (readonly [string, string])[] = [
    ['no signature', `${head}.${claims}.`],
    ['two parts', `${head}.${claims}`],
    ['four parts', `${good}.x`],
    ['five parts', `${good}.x.y`],
    ['no parts', '..'],
    ['a part that is no base64', `${head}.${claims}.@@@`],
    ['another signature', `${head}.${claims}.${reversed(signature)}`],
    ['other claims under its signature', `${head}.${encode({ ...auth.claims(), scope: 'media:admin' })}.${signature}`],
    ['another header under its signature', `${encode({ alg: 'none' })}.${claims}.${signature}`],
    ['a nested token', signToken(key, auth.claims({ iss: undefined, sub: good }))],
    ['a token in its claims', forgeToken({ alg: 'EdDSA', kid: key.kid }, { token: good })],
    ['claims that are no object', `${head}.${encode([auth.claims()])}.${signature}`],
    ['a header that is no object', `${encode('EdDSA')}.${claims}.${signature}`],
    ['spaces', `${head} . ${claims} . ${signature}`],
    ['in quotes', `"${good}"`],
    ['twice', `${good}, Bearer ${good}`],
    ['very long', `${head}.${'A'.repeat(9_000)}.${signature}`],
    ['many parts', 'a.'.repeat(1_000)],
    ['one letter', 'x'],
  ];
  const schemes = [
    '',
    'Bearer',
    'Bearer ',
    'Basic YWRtaW46YWRtaW4=',
    `Basic ${good}`,
    'Digest username="a"',
    'Negotiate x',
    good,
  ];
  return [
    ...wrongClaims.map(([name, over]) => ask(`a token: ${name}`, hidden, bearer(auth.token(over)), 401)),
    ...headers.map(([name, over]) =>
      ask(`a token: ${name}`, hidden, bearer(signToken(stranger, auth.claims(), over)), 401),
    ),
    ...headers
      .slice(0, 5)
      .map(([name, over]) => ask(`without a signature: ${name}`, hidden, bearer(forgeToken(over, auth.claims())), 401)),
    ...[publicKey, JSON.stringify(key.jwk['x'] ?? ''), key.kid, ''].map((secret) =>
      ask(
        'signed with the public key as a secret',
        hidden,
        bearer(forgeToken({ alg: 'HS256', kid: key.kid }, auth.claims(), secret)),
        401,
      ),
    ),
    ...raw.map(([name, token]) => ask(`a token: ${name}`, hidden, bearer(token), 401)),
    ...schemes.map((authorization) =>
      ask(`a credential: ${authorization.slice(0, 9)}`, hidden, { authorization }, 401),
    ),
    ask('a token in the query', `${hidden}?access_token=${good}`, {}, 401),
    ask('a token in the query by another name', `${hidden}?token=${good}`, {}, 401),
    ask('a token in a cookie', hidden, { cookie: `token=${good}; authorization=${good}` }, 401),
    ask(
      'a token in another field',
      hidden,
      { 'x-authorization': `Bearer ${good}`, 'proxy-authorization': `Bearer ${good}` },
      401,
    ),
  ];
}

export function linkRows({ id, link, upload, uploadLink }: Stage): readonly Row[] {
  const [path = '', query = ''] = link.split('?');
  const fields = new URLSearchParams(query);
  const [exp = '', kid = '', sig = ''] = ['exp', 'kid', 'sig'].map((name) => fields.get(name) ?? '');
  const own = (over: Readonly<Record<string, string>>): string =>
    `GET ${path}?${new URLSearchParams({ ...Object.fromEntries(fields), ...over }).toString()}`;
  const refused: readonly (readonly [string, string])[] = [
    ['a later end', own({ exp: String(Number(exp) + 600) })],
    ['an earlier end', own({ exp: String(Number(exp) - 600) })],
    ['an end long ago', own({ exp: '1' })],
    ['an end that never comes', own({ exp: '99999999999' })],
    ['an end beyond numbers', own({ exp: '9'.repeat(40) })],
    ['a negative end', own({ exp: `-${exp}` })],
    ['an end with a sign', own({ exp: `+${exp}` })],
    ['an end with a fraction', own({ exp: `${exp}.0` })],
    ['an end in hexadecimal', own({ exp: `0x${Number(exp).toString(16)}` })],
    ['an end with zeros', own({ exp: `0${exp}` })],
    ['an end with a space', own({ exp: `${exp} ` })],
    ['no end', own({ exp: '' })],
    ['another key', own({ kid: 'other' })],
    ['no key', own({ kid: '' })],
    ['a prototype as key', own({ kid: '__proto__' })],
    ['a path as key', own({ kid: '../x' })],
    ['another signature', own({ sig: reversed(sig) })],
    ['a shorter signature', own({ sig: sig.slice(0, -1) })],
    ['a longer signature', own({ sig: `${sig}A` })],
    ['a padded signature', own({ sig: `${sig}=` })],
    ['a signature in standard base64', own({ sig: `${sig.slice(0, -1)}/` })],
    ['a signature in lower case', own({ sig: sig.toLowerCase() })],
    ['no signature', own({ sig: '' })],
    ['its own signature', own({ sig: createHmac('sha256', '').update(path).digest('base64url') })],
    ['for other media', `GET /v1/media/${id.deleted}?${query}`],
    ['for the thumbnail of other media', `GET /v1/media/${id.deleted}/thumb?${query}`],
    ['for the info of other media', `GET /v1/media/${id.deleted}/info?${query}`],
    ['an upload link to the original', `GET ${path}?${uploadLink}`],
    ['an upload link to the info', `GET ${path}/info?${uploadLink}`],
    ['for unknown media', `GET /v1/media/${id.unknown}?${query}`],
    ['two ends', `${own({})}&exp=${Number(exp) + 60}`],
    ['two signatures', `${own({})}&sig=${sig}`],
    ['two keys', `GET ${path}?kid=x&${query}`],
    ['names in upper case', `GET ${path}?EXP=${exp}&KID=${kid}&SIG=${sig}`],
    ['separated by semicolons', `GET ${path}?exp=${exp};kid=${kid};sig=${sig}`],
    ['a NUL behind the signature', `${own({})}%00`],
    ['as lists', `GET ${path}?exp[]=${exp}&kid[]=${kid}&sig[]=${sig}`],
    ['a signature alone', `GET ${path}?sig=${sig}`],
    ['an end alone', `GET ${path}?exp=${exp}`],
  ];
  return [
    ...refused.flatMap(([name, request]) => [
      ask(`a signed link: ${name}`, request, {}, 401),
      ask(`a signed link: ${name}, its head`, request.replace(/^GET/, 'HEAD'), {}, 401),
    ]),
    ask('a signed link for a takedown', `DELETE ${link}`, {}, 401),
    ask('a signed link for a link', `POST ${path}/link?${query}`, {}, 401),
    ask('a signed link for an upload', `POST /v1/media?${query}`, {}, 401),
    ask('a signed link for many links', `POST /v1/links?${query}`, {}, 401),
    ask('a signed link for an upload link', `POST /v1/uploads/link?${query}`, {}, 401),
    ask('an upload link for a takedown', `DELETE ${path}?${uploadLink}`, {}, 401),
    ask('an upload link for many links', `POST /v1/links?${uploadLink}`, {}, 401),
    ask('an upload link for another one', `POST /v1/uploads/link?${uploadLink}`, {}, 401),
    ask('an upload link for a list', `GET /v1/admin/media?${uploadLink}`, {}, 401),
    ask(
      "an upload link to the user's other uploads",
      `HEAD ${upload}?${uploadLink}`,
      { 'tus-resumable': '1.0.0' },
      404,
    ),
    ask('an upload link that was altered', `POST /v1/media?${uploadLink.replace('upload=', 'upload=e')}`, {}, 401),
    ask('an upload link that lasts longer', `POST /v1/media?${uploadLink.replace('exp=', 'exp=9')}`, {}, 401),
    ask('an upload link twice', `POST /v1/media?${uploadLink}&${uploadLink}`, {}, 401),
    ask('a signed link for a quarantine', `POST ${path}/quarantine?${query}`, {}, 401),
  ];
}
