import { createHash } from 'node:crypto';
import { mkdtemp, stat, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { createScanner, type Scanner, scanFaults, scanSection } from '../../../origin/ingest/scan.js';
import { openLauncher } from '../../../origin/thumbs/render/launcher.js';
import { systemClock } from '../../../src/clock.js';
import { createLog } from '../../../src/log.js';
import { createMetrics } from '../../../src/metrics.js';

const root = t.testdir({});

const log = createLog('test', { level: 'silent' });
const never = new AbortController().signal;
const launcher = await openLauncher(root, log);

function scanner(given: Readonly<Record<string, unknown>>): Scanner {
  const config = scanSection.schema({ env: () => undefined, file: () => undefined }).parse(given);
  t.same(scanFaults(config), []);
  return createScanner({ config, launcher, clock: systemClock, log, metrics: createMetrics('test_') });
}

/** A server that speaks as clamd does. It calls `answer` with the bytes of the file once it has all of them. */
async function openClamd(
  t: Test,
  where: string | number,
  answer: (sent: Buffer, peer: Socket) => void,
): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (peer) => {
    let received = Buffer.alloc(0);
    peer.on('error', () => undefined);
    peer.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      const sent = unframe(received);
      if (sent !== undefined) answer(sent, peer);
    });
  });
  await new Promise<void>((resolve) => server.listen(where, resolve));
  t.teardown(() => server.close());
  return server;
}

function unframe(received: Buffer): Buffer | undefined {
  const chunks: Buffer[] = [];
  for (let at = 'zINSTREAM\0'.length; at + 4 <= received.length; ) {
    const length = received.readUInt32BE(at);
    if (length === 0) return received.toString('latin1', 0, 10) === 'zINSTREAM\0' ? Buffer.concat(chunks) : undefined;
    chunks.push(received.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return undefined;
}

void t.test('a scanner', async (t) => {
  const alive = setInterval(() => undefined, 60_000);
  t.teardown(() => clearInterval(alive));
  const folder = await mkdtemp(join(root, 'scan-'));
  const path = join(folder, 'upload');
  const bytes = Buffer.alloc(300_000, 'some bytes ');
  await writeFile(path, bytes);

  await t.test('that is off admits every upload', async (t) => {
    t.same(await scanner({}).scan(path, never), { kind: 'admit' });
  });

  await t.test('that is clamd gets the whole file and gives the verdict', async (t) => {
    const socket = join(folder, 'clamd');
    const replies: Record<string, string | undefined> = {};
    let say = 'stream: OK\0';
    const server = await openClamd(t, socket, (sent, peer) => {
      replies['hash'] = createHash('sha256').update(sent).digest('hex');
      // In two pieces, unless the network joins them.
      peer.write(say.slice(0, 12));
      setImmediate(() => peer.end(say.slice(12)));
    });
    const clamd = scanner({ by: 'clamd', address: `unix:${socket}` });
    t.same(await clamd.scan(path, never), { kind: 'admit' });
    t.equal(replies['hash'], createHash('sha256').update(bytes).digest('hex'));
    const cases = [
      ['stream: Eicar-Test-Signature FOUND\0', { kind: 'quarantine', reason: 'Eicar-Test-Signature' }],
      ['stream: Nasty\u0001\u00ffName FOUND\n', { kind: 'quarantine', reason: 'Nasty Name' }],
      ['INSTREAM size limit exceeded. ERROR\0', { kind: 'await_scan' }],
      ['', { kind: 'await_scan' }],
      ['x'.repeat(5_000), { kind: 'await_scan' }],
    ] as const;
    for (const [said, verdict] of cases) {
      say = said;
      t.same(await clamd.scan(path, never), verdict, JSON.stringify(said.slice(0, 40)));
    }
    say = '';
    t.same(await scanner({ by: 'clamd', address: `unix:${socket}`, when_away: 'admit' }).scan(path, never), {
      kind: 'admit',
    });
    server.close();
    t.same(await clamd.scan(path, never), { kind: 'await_scan' }, 'not running');
    t.same(
      await clamd.scan(join(folder, 'absent'), never),
      { kind: 'await_scan' },
      'a file that cannot be read is not clean',
    );
  });

  await t.test('that does not answer is given up at the time limit, or when the client is gone', async (t) => {
    let heard = (): void => undefined;
    const server = await openClamd(t, 0, () => heard());
    const { port } = server.address() as AddressInfo;
    const given = { by: 'clamd', address: `tcp:127.0.0.1:${port}` };
    t.same(await scanner({ ...given, time_limit: '100ms' }).scan(path, never), { kind: 'await_scan' });
    const leaving = new AbortController();
    const came = new Promise<void>((resolve) => (heard = resolve));
    const scanning = scanner({ ...given, scans_max: 1 }).scan(path, leaving.signal);
    await came;
    leaving.abort(new Error('the client left'));
    await t.rejects(scanning, /the client left/);
  });

  await t.test('that is a command gives the verdict by its exit code', async (t) => {
    const script = join(folder, 'scan.sh');
    const verdict = async (body: string, more = {}) => {
      await writeFile(script, body);
      return scanner({ by: 'command', command: ['/bin/sh', script, '{file}'], ...more }).scan(path, never);
    };
    t.same(await verdict('test -s "$1"'), { kind: 'admit' });
    t.same(await verdict('echo "$1: Some.Virus-7 FOUND"; exit 1'), { kind: 'quarantine', reason: 'Some.Virus-7' });
    t.same(await verdict('exit 1'), { kind: 'quarantine', reason: 'infected' });
    t.same(await verdict('echo "no database" >&2; exit 2'), { kind: 'await_scan' });
    t.same(await verdict('while :; do :; done', { time_limit: '200ms' }), { kind: 'await_scan' });
    t.same(
      await scanner({ by: 'command', command: [join(folder, 'absent'), '{file}'], when_away: 'admit' }).scan(
        path,
        never,
      ),
      {
        kind: 'admit',
      },
    );
    t.ok((await stat(path)).isFile());
    const wrong = scanSection.schema({ env: () => undefined, file: () => undefined }).parse({ by: 'command' });
    t.equal(scanFaults(wrong).length, 1);
  });
});
