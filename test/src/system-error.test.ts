/** Errors of the system as a person reads them. Most are made by the system itself. */
import { once } from 'node:events';
import { mkdir, readFile, readlink, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { sentenceOf } from '../../src/system-error.js';
import { ownPort } from '../kit/ports.js';

const thrownBy = (act: () => Promise<unknown>): Promise<unknown> =>
  act().then(
    () => new Error('it did not fail'),
    (thrown: unknown) => thrown,
  );

void t.test('an error of a file says which, and what is wrong with it', async (t) => {
  const folder = t.testdir({ file: '' });
  const file = join(folder, 'file');
  const long = join(folder, 'x'.repeat(300));
  const cases: readonly (readonly [act: () => Promise<unknown>, said: string])[] = [
    [() => mkdir(join(file, 'below')), `${file}/below: a part of it is a file and not a folder (ENOTDIR)`],
    [() => writeFile(folder, ''), `${folder}: it is a folder and not a file (EISDIR)`],
    [() => readFile(join(folder, 'none')), `${folder}/none: it does not exist (ENOENT)`],
    [() => mkdir(folder), `${folder}: it is there already (EEXIST)`],
    [() => readFile(long), `${long}: its name is too long (ENAMETOOLONG)`],
    [() => readlink(file), `EINVAL: invalid argument, readlink '${file}'`],
  ];
  for (const [act, said] of cases) t.equal(sentenceOf(await thrownBy(act)), said);
});

void t.test('an error of an address says which, and what is wrong there', async (t) => {
  const port = await ownPort();
  const [refused] = await once(connect(port, '127.0.0.1').resume(), 'error');
  t.equal(sentenceOf(refused), `127.0.0.1:${port}: nothing listens there (ECONNREFUSED)`);

  const first = createServer().listen(0, '127.0.0.1');
  await once(first, 'listening');
  const taken = first.address();
  const takenPort = typeof taken === 'object' && taken !== null ? taken.port : 0;
  const second = createServer().listen(takenPort, '127.0.0.1');
  const [inUse] = await once(second, 'error');
  first.close();
  t.equal(
    sentenceOf(inUse),
    `another process already listens on 127.0.0.1:${takenPort}; stop it or choose another port in the configuration.`,
  );
  t.equal(
    sentenceOf(Object.assign(new AggregateError([refused], ''), { code: 'ECONNREFUSED' })),
    sentenceOf(refused),
    'of several addresses the first stands for all',
  );
  t.equal(
    sentenceOf(Object.assign(new Error('getaddrinfo'), { code: 'ENOTFOUND', hostname: 'none.example' })),
    'none.example: there is no machine of that name (ENOTFOUND)',
  );
});

void t.test('what is no error of the system is said in its own words', async (t) => {
  t.equal(sentenceOf(new Error('something else')), 'something else');
  t.equal(sentenceOf(Object.assign(new Error('something else'), { code: 'EOTHER', path: '/x' })), 'something else');
  t.equal(sentenceOf('a text'), 'a text');
  t.equal(sentenceOf(undefined), 'undefined');
});
