/** The acceptance run: against the service, against one that breaks promises, and stopped half-way. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { CLI, runCli, type Service, startService } from '../../kit/service.js';
import { FILE_HANGS_AFTER_MS } from '../../kit/until.js';

t.setTimeout(FILE_HANGS_AFTER_MS);

interface Report {
  readonly kept: number;
  readonly broken: number;
  readonly left: number;
  readonly checks: readonly { readonly name: string; readonly outcome: string; readonly why?: string }[];
}

const named = ({ checks }: Report, outcome: string): readonly string[] =>
  checks.filter((check) => check.outcome === outcome).map(({ name }) => name);

/** The ids of all media that are there and live. */
async function liveIds(service: Service): Promise<readonly string[]> {
  const authorization = `Bearer ${await service.token({ admin: true })}`;
  const answer = await fetch(`${service.origin}/v1/admin/media?state=live&limit=1000`, { headers: { authorization } });
  return ((await answer.json()) as { items: readonly { id: string }[] }).items.map(({ id }) => id);
}

/** An edge that drops a field, knows no ranges, and shows what was deleted. */
async function doctored(edge: string): Promise<{ readonly url: string; close(): void }> {
  const shown = new Map<string, Buffer>();
  const server: Server = createServer((asked, response) => {
    const { range: _, ...headers } = asked.headers;
    const forwarded = request(edge + (asked.url ?? ''), { method: asked.method, headers }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk: Buffer) => chunks.push(chunk));
      answer.on('end', () => {
        const body = Buffer.concat(chunks);
        const key = `${asked.method} ${asked.url}`;
        if (asked.method === 'GET' && answer.statusCode === 200) shown.set(key, body);
        const old = answer.statusCode === 410 ? shown.get(key) : undefined;
        const { 'x-content-type-options': dropped, ...fields } = answer.headers;
        if (old === undefined) response.writeHead(answer.statusCode ?? 500, fields).end(body);
        else response.writeHead(200, { 'content-type': 'image/png' }).end(old);
        return dropped;
      });
    });
    forwarded.on('error', () => response.destroy());
    asked.pipe(forwarded);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

void t.test('the service, as a user starts it', async (t) => {
  const folder = t.testdir();
  const service = await startService(folder);
  const { edge, origin } = service;
  try {
    const headers = { authorization: `Bearer ${await service.token()}`, 'content-type': 'text/plain' };
    await fetch(`${origin}/v1/media`, { method: 'POST', headers, body: 'of somebody else' });
    const before = await liveIds(service);
    const run = ['acceptance', '--edge', edge, '--origin', origin, '--takedown-within', '30s'];

    await t.test('keeps every promise that can be tried, and stores what it stored before', async (t) => {
      const { code, out, err } = await runCli(folder, [...run, '--dev', '--json']);
      const report = JSON.parse(out) as Report;
      t.same([code, err, named(report, 'broken')], [0, '', []]);
      t.ok(report.kept > 120, `${report.kept} promises were tried`);
      const untried = report.checks.filter((check) => check.outcome === 'not tried');
      for (const { why } of untried)
        t.match(why, /not to be seen from outside|without TLS|ffmpeg|program for films|did not warm/);
      t.equal(report.left, 0);
      t.same(await liveIds(service), before);
    });

    await t.test(
      'without tokens tries what anyone may ask, and with a token that is refused tries nothing',
      async (t) => {
        const anyone = await runCli(folder, [
          ...run,
          '--only',
          'well-known/',
          '--only',
          'token/none',
          '--only',
          'id/form',
        ]);
        t.equal(anyone.code, 0);
        t.match(anyone.out, /kept +well-known\/members/);
        t.match(anyone.out, /not tried id\/form .*no token of a user/);
        await writeFile(join(folder, 'token'), 'e30.e30.e30\n');
        const refused = await runCli(folder, [...run, '--token-file', 'token']);
        t.same([refused.code, refused.out], [2, '']);
        t.match(refused.err, /^media-service: the edge at \S+ refuses the token of the user\n$/);
      },
    );

    await t.test('broken promises are noticed, and no token is printed', async (t) => {
      const proxy = await doctored(edge);
      try {
        const only = ['get/safety', 'delete/everywhere', 'range/one', 'condition/none-match', 'id/form'];
        const args = ['--edge', proxy.url, '--origin', origin, '--takedown-within', '1s', '--dev'];
        const patterns = only.flatMap((name) => ['--only', name]);
        const { code, out } = await runCli(folder, ['acceptance', ...args, ...patterns]);
        t.equal(code, 1);
        for (const name of ['get/safety', 'delete/everywhere', 'range/one'])
          t.match(out, new RegExp(`^broken +${name} `, 'm'));
        for (const name of ['condition/none-match', 'id/form']) t.match(out, new RegExp(`^kept +${name} `, 'm'));
        t.match(out, /at the edge, expected: field x-content-type-options: nosniff\n +sent +GET \/v1\/media\//);
        t.match(out, /authorization: Bearer \[redacted\]/);
        t.notMatch(out, /eyJ/);
        t.match(out, /^all +5 +2 +3 +0$/m);
      } finally {
        proxy.close();
      }
      t.same(await liveIds(service), before);
    });

    await t.test('Ctrl-C ends it, and what was uploaded is deleted', async (t) => {
      const child = spawn(process.execPath, [CLI, ...run, '--dev'], {
        cwd: folder,
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let [printed, stopped] = ['', false];
      child.stdout.on('data', (chunk: Buffer) => {
        printed += chunk.toString();
        if (!stopped && printed.includes('upload/raw')) stopped = child.kill('SIGINT') && child.kill('SIGINT');
      });
      const [code] = (await once(child, 'close')) as [number | null];
      t.equal(code, 130);
      t.match(printed, /not tried .*the run was stopped/);
      t.match(printed, /media were uploaded, and all of them are deleted/);
      t.same(await liveIds(service), before);
    });
    t.notMatch(await readFile(join(folder, 'data', 'logs', 'origin.log'), 'utf8'), /"status":5\d\d/);
  } finally {
    await service.stop();
  }
});
