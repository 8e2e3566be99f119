/** What the claims of a valid token say about its caller: by name, by path, and never by what every object inherits. */
import t from 'tap';
import { callerOf } from '../../../src/access/claims.js';

const ISSUER = 'https://issuer.example';
type Rules = Parameters<typeof callerOf>[3];

function rulesOf(admin: { name: string; value: string }, scope: string | null = null): Rules {
  return {
    issuers: [{ issuer: ISSUER, subjectPrefix: 'p:' }],
    adminClaim: admin,
    scopeClaim: { name: scope, readValue: 'media:read', uploadValue: 'media:upload' },
  } as unknown as Rules;
}

const ROLE = { name: 'roles', value: 'admin' };

void t.test('a claim is found by its exact name, then as a path, and only among what the token says', async (t) => {
  const cases: readonly (readonly [what: string, name: string, claims: object, admin: boolean])[] = [
    ['a list', 'roles', { roles: ['user', 'admin'] }, true],
    ['words', 'roles', { roles: 'user admin' }, true],
    ['a longer word', 'roles', { roles: 'administrator' }, false],
    ['a number beside', 'roles', { roles: [1, 'admin'] }, true],
    ['nothing', 'roles', {}, false],
    ['a path', 'realm.roles', { realm: { roles: ['admin'] } }, true],
    ['a name with dots', 'https://a.example/roles', { 'https://a.example/roles': 'admin' }, true],
    ['a name with dots before a path', 'realm.roles', { 'realm.roles': 'user', realm: { roles: 'admin' } }, false],
    ['a path through a text', 'realm.length', { realm: 'admin' }, false],
    ['a path to what an object inherits', 'realm.roles', { realm: Object.create({ roles: 'admin' }) as object }, false],
    ['a path through null', 'realm.roles', { realm: null }, false],
    ['a path through nothing', 'realm.roles', {}, false],
  ];
  for (const [what, name, claims, admin] of cases) {
    const caller = callerOf({ sub: 'ann', ...claims }, ISSUER, 0, rulesOf({ name, value: 'admin' }));
    t.equal(caller?.roles.has('admin'), admin, what);
  }
  const lettered = callerOf({ sub: 'ann', realm: 'xy' }, ISSUER, 0, rulesOf({ name: 'realm.0', value: 'x' }));
  t.equal(lettered?.roles.has('admin'), false, 'a path leads to no letter of a text');
  for (const [name, value] of [
    ['constructor.name', 'Object'],
    ['toString.name', 'toString'],
    ['realm.constructor.name', 'Object'],
  ] as const) {
    const caller = callerOf({ sub: 'ann', realm: {} }, ISSUER, 0, rulesOf({ name, value }));
    t.equal(caller?.roles.has('admin'), false, `${name} is inherited by every object`);
  }
});

void t.test('a scope limits what a token allows, unless it names both or neither', async (t) => {
  const cases = [
    ['media:read', 'read'],
    ['media:upload', 'upload'],
    ['media:read media:upload', 'all'],
    ['openid', 'all'],
    ['media:reader', 'all'],
  ] as const;
  for (const [scope, allowed] of cases) {
    t.equal(callerOf({ sub: 'ann', scope }, ISSUER, 0, rulesOf(ROLE, 'scope'))?.scope, allowed, scope);
    t.equal(callerOf({ sub: 'ann', scope }, ISSUER, 0, rulesOf(ROLE))?.scope, 'all', 'no claim is named');
  }
});

void t.test('a subject has a prefix by its issuer, and no characters that could break a line', async (t) => {
  const subjectOf = (sub: unknown, issuer = ISSUER): string | undefined =>
    callerOf({ sub }, issuer, 0, rulesOf(ROLE))?.subject;
  t.equal(subjectOf('ann'), 'p:ann');
  t.equal(subjectOf('ann', 'https://other.example'), 'ann');
  t.equal(subjectOf('a'.repeat(255)), `p:${'a'.repeat(255)}`);
  for (const sub of ['', 'a'.repeat(256), 'a\nb', 'a\u0000', 'a\u007f', 'a\u0085', 5, null, undefined, ['ann']]) {
    t.equal(subjectOf(sub), undefined, JSON.stringify(sub));
  }
});
