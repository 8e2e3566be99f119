/** What each grant allows, how a refusal is answered, and how an edge proves itself. */
import t from 'tap';
import { createEdgeCheck, edgeProof } from '../../../src/access/edge-proof.js';
import { type Caller, type Grant, isAdmin, mayRead, mayUpload } from '../../../src/access/grant.js';
import { faultOfGrant } from '../../../src/access/refusal.js';
import { TEST_SECRET } from '../../kit/auth-service.js';

void t.test('each grant allows what it should, and has its own answer where it allows too little', async (t) => {
  const caller = (scope: Caller['scope'], ...roles: 'admin'[]): Grant => ({
    kind: 'caller',
    caller: { subject: 'a', issuer: 'i', roles: new Set(roles), scope, expiresAt: 1 },
  });
  for (const [name, grant, may] of [
    ['a token', caller('all'), { private: true, public: true, upload: true, admin: false }],
    ['a token for reading', caller('read'), { private: true, public: true, upload: false, admin: false }],
    ['a token for uploads', caller('upload'), { private: false, public: true, upload: true, admin: false }],
    ['an admin', caller('all', 'admin'), { private: true, public: true, upload: true, admin: true }],
    ['a link', { kind: 'link', expiresAt: 1 }, { private: true, public: true, upload: false, admin: false }],
    ['nobody', { kind: 'anonymous', refusal: 'none' }, { private: false, public: true, upload: false, admin: false }],
    [
      'a bad token',
      { kind: 'anonymous', refusal: 'token_expired' },
      { private: false, public: true, upload: false, admin: false },
    ],
    [
      'no way to tell',
      { kind: 'unavailable', retryAfterMs: 1 },
      { private: false, public: false, upload: false, admin: false },
    ],
  ] as const) {
    t.same(
      { private: mayRead(grant, false), public: mayRead(grant, true), upload: mayUpload(grant), admin: isAdmin(grant) },
      may,
      name,
    );
  }

  for (const [grant, status, code, headers] of [
    [{ kind: 'anonymous', refusal: 'none' }, 401, 'unauthorized', { 'www-authenticate': 'Bearer realm="media"' }],
    [
      { kind: 'anonymous', refusal: 'link_expired' },
      401,
      'link_expired',
      { 'www-authenticate': 'Bearer realm="media"' },
    ],
    [{ kind: 'link', expiresAt: 1 }, 401, 'unauthorized', { 'www-authenticate': 'Bearer realm="media"' }],
    [
      { kind: 'anonymous', refusal: 'token_expired' },
      401,
      'unauthorized',
      { 'www-authenticate': 'Bearer realm="media", error="invalid_token", error_description="The token has expired"' },
    ],
    [
      { kind: 'anonymous', refusal: 'token_signature' },
      401,
      'unauthorized',
      {
        'www-authenticate': 'Bearer realm="media", error="invalid_token", error_description="The token is not valid"',
      },
    ],
    [caller('read'), 403, 'forbidden', { 'www-authenticate': 'Bearer realm="media", error="insufficient_scope"' }],
    [{ kind: 'unavailable', retryAfterMs: 0 }, 503, 'auth_unavailable', { 'retry-after': '1' }],
    [{ kind: 'unavailable', retryAfterMs: 1_000 }, 503, 'auth_unavailable', { 'retry-after': '1' }],
    [{ kind: 'unavailable', retryAfterMs: 1_001 }, 503, 'auth_unavailable', { 'retry-after': '2' }],
  ] as const) {
    const fault = faultOfGrant(grant);
    t.same({ status: fault.status, code: fault.code, headers: fault.headers }, { status, code, headers });
  }
  t.equal(
    new Set(
      (['unknown_key', 'signature', 'issuer', 'audience', 'no_subject', 'revoked'] as const).map((refusal) => {
        const { detail, headers } = faultOfGrant({ kind: 'anonymous', refusal: `token_${refusal}` });
        return JSON.stringify([detail, headers]);
      }),
    ).size,
    1,
    'the answer does not say which check failed',
  );
});

void t.test('an edge proves itself with the secret, which is never sent', async (t) => {
  const proof = edgeProof(TEST_SECRET);
  t.notMatch(proof, TEST_SECRET);
  const former = `${TEST_SECRET}-before`;
  const isEdge = createEdgeCheck([TEST_SECRET, former]);
  t.ok(isEdge(proof));
  t.ok(isEdge(edgeProof(former)), 'by any of the secrets that are accepted');
  for (const value of [
    undefined,
    '',
    TEST_SECRET,
    `${proof} `,
    proof.slice(0, -1),
    proof.toUpperCase(),
    edgeProof(`${TEST_SECRET}.`),
  ]) {
    t.notOk(isEdge(value), String(value));
  }
  t.notOk(createEdgeCheck([])(proof), 'none is none');
});
