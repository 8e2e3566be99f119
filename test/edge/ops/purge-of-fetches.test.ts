/** A purge of a whole edge while bodies arrive: their fetches end, so that nothing from before it is stored. */
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import t from 'tap';
import { startEdge } from '../../kit/edge/media-edge.js';
import { startDownload } from '../../kit/http/download.js';
import { sendRequest } from '../../kit/http/request.js';

void t.test('a purge ends the fetches that it names, and no others', async (t) => {
  const held: ServerResponse[] = [];
  let holds = true;
  const asked: string[] = [];
  const origin = createServer((request, response) => {
    asked.push(String(request.url));
    response.writeHead(200, { 'cache-control': 'max-age=1000', 'content-length': 10 });
    if (holds) {
      response.write('old..');
      held.push(response);
    } else response.end('new.......');
  }).listen(0, '127.0.0.1');
  await once(origin, 'listening');
  const { port } = origin.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}`;
  const edge = await startEdge(
    t.testdir(),
    { url, auth: { issuer: url, jwksUrl: `${url}/jwks` } as never },
    { access: 'off' },
  );
  t.teardown(async () => {
    await edge.close();
    origin.closeAllConnections();
    origin.close();
  });
  const purge = (order: unknown) =>
    sendRequest(`${edge.operators}/purge`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(order),
    });
  const begin = async (path: string) => {
    const download = await startDownload(edge.url + path);
    await download.until(5);
    return download;
  };
  const [a, b] = [await begin('/a/1'), await begin('/b/1')];
  t.equal((await purge({ prefix: '/a' })).status, 200);
  t.equal((await a.ended).whole, false, 'who reads it is cut off');
  for (const response of held) response.end('old..');
  t.equal((await b.ended).whole, true, 'another prefix');
  holds = false;
  t.equal((await sendRequest(`${edge.url}/a/1`)).bytes.toString(), 'new.......');
  t.equal((await sendRequest(`${edge.url}/b/1`)).bytes.toString(), 'old..old..');
  t.same(asked, ['/a/1', '/b/1', '/a/1']);

  holds = true;
  const c = await begin('/c');
  t.equal((await purge({ all: true })).status, 200);
  t.equal((await c.ended).whole, false);
});
