/** The client library as a package: what its users import, and what their browsers load. */
import { readFileSync } from 'node:fs';
import t from 'tap';
import { bundleClient } from '../../../bench/client.js';

void t.test('the bundle for browsers is small, and has nothing of Node or of the server in it', async (t) => {
  const { first, outside } = bundleClient();
  t.ok(first.length < 12_000, `${first.length} bytes`);
  t.same(outside, ['tus-js-client']);
});

void t.test('it is imported by the name of the package, with its types', async (t) => {
  const name = 'media-service/client';
  const module = (await import(name)) as Record<string, unknown>;
  t.type(module['createMediaClient'], 'function');
  const types = readFileSync('dist/src/client/client.d.ts', 'utf8');
  t.match(types, /export declare function createMediaClient/);
});
