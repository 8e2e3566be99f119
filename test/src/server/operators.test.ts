/** Who may use the listeners for operators: host names, foreign pages, the token, and what commands send. */
import t from 'tap';
import { admitOperator, type OperatorAccess, operatorFaults, operatorTarget } from '../../../src/server/operators.js';

const TOKEN = 'operators-token-of-the-tests';
const local: OperatorAccess = { host: '127.0.0.1', hostNames: ['Edge-1.internal'], token: null };
const guarded: OperatorAccess = { ...local, token: TOKEN };
const remote: OperatorAccess = { ...guarded, host: '0.0.0.0' };

void t.test('each request is admitted or refused by its host, its page and its token', async (t) => {
  type Row = readonly [
    OperatorAccess,
    string,
    Readonly<Record<string, string>>,
    'admitted' | 'forbidden' | 'unauthorized',
  ];
  const bearer = { authorization: `Bearer ${TOKEN}` };
  const TABLE: readonly Row[] = [
    [local, 'GET /stats', {}, 'admitted'],
    [local, 'POST /purge', {}, 'admitted'],
    [local, 'GET /stats', { host: 'localhost:9001' }, 'admitted'],
    [local, 'GET /stats', { host: '[::1]:9001' }, 'admitted'],
    [local, 'GET /stats', { host: 'edge-1.INTERNAL' }, 'admitted'],
    [local, 'GET /stats', { host: 'evil.example' }, 'forbidden'],
    [local, 'GET /metrics', { host: 'localhost.evil.example' }, 'forbidden'],
    [local, 'GET /healthz', { host: '' }, 'forbidden'],
    [local, 'POST /purge', { origin: 'http://evil.example' }, 'forbidden'],
    [local, 'POST /purge', { origin: 'http://127.0.0.1', 'sec-fetch-site': 'same-origin' }, 'admitted'],
    [local, 'POST /purge', { 'sec-fetch-site': 'cross-site' }, 'forbidden'],
    [local, 'POST /purge', { origin: 'http://127.0.0.1', 'sec-fetch-site': 'same-site' }, 'forbidden'],
    [local, 'POST /purge', { origin: 'https://127.0.0.1' }, 'forbidden'],
    [local, 'GET /stats', { origin: 'http://evil.example', 'sec-fetch-site': 'cross-site' }, 'admitted'],
    [local, 'HEAD /stats', { 'sec-fetch-site': 'cross-site' }, 'admitted'],
    [guarded, 'GET /stats', {}, 'admitted'],
    [guarded, 'POST /healthz', {}, 'admitted'],
    [guarded, 'POST /purge', { authorization: `bearer  ${TOKEN}` }, 'admitted'],
    [guarded, 'POST /purge', { authorization: `Bearer ${TOKEN} ` }, 'unauthorized'],
    [guarded, 'POST /purge', {}, 'unauthorized'],
    [guarded, 'POST /reload', { authorization: 'Bearer wrong' }, 'unauthorized'],
    [guarded, 'POST /reload', { authorization: `Basic ${TOKEN}` }, 'unauthorized'],
    [guarded, 'POST /purge', bearer, 'admitted'],
    [guarded, 'DELETE /purge', {}, 'unauthorized'],
    [remote, 'GET /stats', {}, 'unauthorized'],
    [remote, 'GET /metrics', bearer, 'admitted'],
    [remote, 'GET /readyz', {}, 'admitted'],
    [remote, 'GET /healthz', {}, 'admitted'],
  ];
  for (const [access, line, fields, wanted] of TABLE) {
    const [method = '', path = ''] = line.split(' ');
    const headers: Readonly<Record<string, string>> = { host: '127.0.0.1', ...fields };
    const admit = () => admitOperator(access, { method, path, header: (name) => headers[name] });
    const name = `${line} ${JSON.stringify(fields)}`;
    if (wanted === 'admitted') t.doesNotThrow(admit, name);
    else t.throws(admit, { code: wanted }, name);
  }
});

void t.test('a listener beyond loopback needs a token', async (t) => {
  for (const host of ['127.0.0.1', '127.1.2.3', '::1', 'localhost'])
    t.same(operatorFaults({ ...local, host }, 'x'), []);
  for (const host of ['0.0.0.0', '::', '10.0.0.1', 'edge.internal', '127.0.0.1.evil.example']) {
    t.match(operatorFaults({ ...local, host }, 'edge.operators'), [{ path: 'edge.operators.token' }], host);
    t.same(operatorFaults({ ...remote, host }, 'x'), []);
  }
});

void t.test('a command reaches the listener and sends the token', async (t) => {
  t.same(operatorTarget({ ...remote, port: 9 }), {
    base: 'http://127.0.0.1:9',
    headers: { authorization: `Bearer ${TOKEN}` },
  });
  t.same(operatorTarget({ ...local, host: '::', port: 9 }), { base: 'http://[::1]:9', headers: {} });
});
