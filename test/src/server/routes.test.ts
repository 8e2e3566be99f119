/** The table of endpoints: which row a request finds, and how each kind of parameter is read. */
import t, { type Test } from 'tap';
import { Fault } from '../../../src/errors.js';
import { emptyReply } from '../../../src/http/reply.js';
import {
  booleanParameter,
  choiceParameter,
  createMatcher,
  instantParameter,
  integerParameter,
  type Method,
  mediaId,
  type Parameter,
  type Route,
  route,
  sha256,
  textParameter,
} from '../../../src/server/routes.js';

const NOTES = { summary: '', audience: 'anyone', responses: [] } as const;

function row(pattern: string, ...methods: readonly Method[]): Route<null> {
  return route({
    ...NOTES,
    pattern,
    methods,
    path: {},
    query: {},
    handle: async (_context: null) => emptyReply(204),
  });
}

void t.test('a request finds the row of its path and method, or is told which methods the path has', async (t) => {
  const match = createMatcher([
    row('/', 'GET'),
    row('/v1/media/{id}', 'GET', 'HEAD'),
    row('/v1/media/{id}', 'DELETE', 'HEAD'),
    row('/v1/media/{id}/thumb', 'GET'),
    row('/v1/{kind}/all', 'POST'),
    row('/v1/media/all', 'PUT'),
  ]);
  const told = (method: string, path: string): unknown => {
    const found = match(method, path);
    switch (found.kind) {
      case 'found':
        return [found.route.pattern, found.segments];
      case 'method':
        return found.allowed;
      case 'none':
        return null;
    }
  };
  const cases: readonly (readonly [string, string, unknown])[] = [
    ['GET', '/', ['/', {}]],
    ['GET', '/v1/media/a', ['/v1/media/{id}', { id: 'a' }]],
    ['DELETE', '/v1/media/a', ['/v1/media/{id}', { id: 'a' }]],
    ['GET', '/v1/media/', ['/v1/media/{id}', { id: '' }]],
    ['GET', '/v1/media/a%2Fthumb', ['/v1/media/{id}', { id: 'a%2Fthumb' }]],
    ['GET', '/v1/media/a/thumb', ['/v1/media/{id}/thumb', { id: 'a' }]],
    ['POST', '/v1/media/all', ['/v1/{kind}/all', { kind: 'media' }]],
    ['PUT', '/v1/media/all', ['/v1/media/all', {}]],
    ['PUT', '/v1/media/a', ['GET', 'HEAD', 'DELETE']],
    ['get', '/v1/media/a/thumb', ['GET']],
    ['GET', '', null],
    ['GET', '/v1/media', null],
    ['GET', '/v1/media/a/thumb/', null],
    ['GET', '/V1/media/a', null],
    ['GET', '//v1/media/a', null],
  ];
  for (const [method, path, expected] of cases) t.strictSame(told(method, path), expected, `${method} ${path}`);
});

void t.test('a handler gets its parameters parsed, and an invalid one is a rejection', async (t) => {
  const seen: unknown[] = [];
  const reading = (...methods: readonly Method[]): Route<string> =>
    route({
      ...NOTES,
      pattern: '/{count}',
      methods,
      path: { count: integerParameter('', { min: 1, max: 9 }) },
      query: { name: textParameter('', 5), all: booleanParameter('') },
      async handle(context: string, path, query) {
        seen.push([context, path, query]);
        return emptyReply(204);
      },
    });
  const [read, change] = [reading('GET', 'HEAD'), reading('POST')];
  await read.run('c', { count: '3' }, 'name=a+b&all=true&other=1');
  await read.run('c', { count: '3' }, '');
  await read.run('c', { count: '3' }, 'name=a&name=b');
  t.strictSame(seen.splice(0), [
    ['c', { count: 3 }, { name: 'a b', all: true }],
    ['c', { count: 3 }, { name: undefined, all: undefined }],
    ['c', { count: 3 }, { name: 'a', all: undefined }],
  ]);
  await change.run('c', { count: '3' }, 'name=a&other=1&other=2');
  await t.rejects(change.run('c', { count: '3' }, 'name=a&name=b'), {
    code: 'malformed',
    detail: 'name is given more than once.',
  });
  await t.rejects(read.run('c', { count: '10' }, ''), { code: 'malformed' });
  await t.rejects(read.run('c', { count: '3' }, 'name=abcdef'), { code: 'malformed' });
  t.equal(seen.length, 1);
});

function reads<T>(t: Test, parameter: Parameter<T>, good: readonly (readonly [string | undefined, T])[]): void {
  for (const [text, value] of good) t.strictSame(parameter.read(text, 'p'), value, String(text));
}

function refuses(
  t: Test,
  parameter: Parameter<unknown>,
  bad: readonly (string | undefined)[],
  code = 'malformed',
): void {
  for (const text of bad) {
    try {
      parameter.read(text, 'p');
      t.fail(`${text} is read`);
    } catch (thrown) {
      t.ok(thrown instanceof Fault && thrown.code === code, String(text));
    }
  }
}

void t.test('each kind of parameter takes what it says, and nothing else', async (t) => {
  const left = [[undefined, undefined]] as const;
  const integer = integerParameter('', { min: 2, max: 30 });
  reads(t, integer, [...left, ['2', 2], ['30', 30], ['007', 7]]);
  refuses(t, integer, ['1', '31', '', '-3', '3.5', '3e0', ' 3', 'x']);
  t.strictSame(integer.schema, { type: 'integer', minimum: 2, maximum: 30 });

  reads(t, booleanParameter(''), [...left, ['true', true], ['false', false]]);
  refuses(t, booleanParameter(''), ['', '1', 'TRUE', 'yes']);

  const text = textParameter('', 3);
  reads(t, text, [...left, ['', ''], ['abc', 'abc']]);
  refuses(t, text, ['abcd']);
  t.strictSame(text.schema, { type: 'string', maxLength: 3 });

  const choice = choiceParameter('', ['one', 'two']);
  reads(t, choice, [...left, ['one', 'one'], ['two', 'two']]);
  refuses(t, choice, ['', 'One', 'three', 'one,two']);
  t.strictSame(choice.schema, { type: 'string', enum: ['one', 'two'] });

  const at = Date.UTC(2026, 0, 31, 12, 0, 0);
  reads(t, instantParameter(''), [
    ...left,
    ['2026-01-31T12:00:00Z', at],
    ['2026-01-31t12:00:00z', at],
    ['2026-01-31T13:30:00+01:30', at],
    ['2026-01-31T12:00:00.25Z', at + 250],
  ]);
  refuses(t, instantParameter(''), [
    '',
    '2026-01-31',
    '2026-01-31T12:00:00',
    '2026-01-31 12:00:00Z',
    '2026-13-31T12:00:00Z',
    '2026-01-31T12:00Z',
    '2026-01-31T12:00:00.Z',
    'Sat, 31 Jan 2026 12:00:00 GMT',
  ]);

  const id = '01ARZ3NDEKTSV4RRFFQ69G5FAV';
  t.equal(mediaId.read(id.toLowerCase(), 'id'), id);
  refuses(t, mediaId, [undefined, '', 'x', `${id}0`], 'invalid_id');
  t.equal(sha256.read('0f'.repeat(32), 'hash'), '0f'.repeat(32));
  refuses(t, sha256, [undefined, '', '0F'.repeat(32), '0f'.repeat(31)]);
});
