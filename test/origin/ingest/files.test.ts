import { createHash } from 'node:crypto';
import { mkdtemp, readFile, stat, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import * as fc from 'fast-check';
import sharp, { type Sharp } from 'sharp';
import t, { type Test } from 'tap';
import { createScanner, type Scanner, scanFaults, scanSection } from '../../../origin/ingest/scan.js';
import { type StripOutcome, stripMetadata } from '../../../origin/ingest/strip-metadata.js';
import { openLauncher } from '../../../origin/thumbs/render/launcher.js';
import { systemClock } from '../../../src/clock.js';
import { createLog } from '../../../src/log.js';
import { readDimensions } from '../../../src/media/dimensions.js';
import { createMetrics } from '../../../src/metrics.js';
import { apngOf } from '../../kit/origin/apng.js';

const root = t.testdir({});

// Removing metadata from files.

interface Stripped {
  readonly outcome: StripOutcome;
  /** The new file, or the original if none was written. */
  readonly bytes: Buffer;
}

async function strip(bytes: Buffer, mime: string): Promise<Stripped> {
  const folder = await mkdtemp(join(root, 's-'));
  const [source, target] = [join(folder, 'source'), join(folder, 'target')];
  await writeFile(source, bytes);
  const outcome = await stripMetadata(source, target, mime);
  const made = await readFile(target).catch(() => undefined);
  if ((made !== undefined) !== (outcome.kind === 'stripped'))
    throw new Error('a file was written, or not, against the outcome');
  return { outcome, bytes: made ?? bytes };
}

/** A picture with metadata that must be removed and a colour profile that must stay. */
function withMetadata(orientation: number): Sharp {
  const pixels = Buffer.from(Array.from({ length: 40 * 24 * 3 }, (_, at) => (at * 7) % 256));
  return sharp(pixels, { raw: { width: 40, height: 24, channels: 3 } })
    .withIccProfile('p3')
    .withMetadata({ orientation })
    .withExifMerge({
      IFD0: { Copyright: 'TELLTALE', Orientation: String(orientation) },
      IFD3: { GPSMapDatum: 'TELLTALE', GPSLatitude: '51/1 30/1 3230/100' },
    })
    .withXmp('<x:xmpmeta xmlns:x="adobe:ns:meta/"><TELLTALE/></x:xmpmeta>');
}

const FILES: Readonly<Record<string, (picture: Sharp) => Promise<Buffer>>> = {
  'image/jpeg': (picture) => picture.jpeg({ progressive: true }).toBuffer(),
  'image/png': (picture) => picture.png().toBuffer(),
  'image/webp': (picture) => picture.webp().toBuffer(),
};

void t.test('stripping', async (t) => {
  for (const [mime, make] of Object.entries(FILES)) {
    await t.test(`${mime} keeps every pixel, the profile and the orientation, and no other metadata`, async (t) => {
      for (const orientation of [1, 6]) {
        const original = await make(withMetadata(orientation));
        t.ok(original.includes('TELLTALE'), 'the original has the metadata');
        const { outcome, bytes } = await strip(original, mime);
        t.same(outcome, { kind: 'stripped' });
        for (const mark of ['TELLTALE', 'GPS', 'xmp', 'XMP', 'adobe:ns']) t.notOk(bytes.includes(mark), mark);
        t.same(await sharp(bytes).raw().toBuffer(), await sharp(original).raw().toBuffer(), 'the pixels');
        const [before, after] = [await sharp(original).metadata(), await sharp(bytes).metadata()];
        t.same(after.icc, before.icc, 'the profile');
        t.equal(after.orientation ?? 1, orientation);
        t.equal(readDimensions(bytes)?.orientation, orientation);
        t.equal(after.exif === undefined, orientation === 1, 'EXIF only if the picture must be turned');
        t.same((await strip(bytes, mime)).outcome, { kind: 'clean' }, 'a stripped file is clean');
      }
    });
  }

  await t.test('leaves a file without metadata unchanged', async (t) => {
    const plain = sharp({ create: { width: 9, height: 9, channels: 3, background: 'teal' } });
    for (const [mime, make] of Object.entries(FILES)) {
      t.same((await strip(await make(plain.clone()), mime)).outcome, { kind: 'clean' }, mime);
    }
    t.same((await strip(Buffer.from('GIF89a'), 'image/gif')).outcome, { kind: 'unsupported' });
  });

  await t.test('drops data after the end of the picture', async (t) => {
    const plain = sharp({ create: { width: 9, height: 9, channels: 3, background: 'teal' } });
    for (const [mime, make] of Object.entries(FILES)) {
      const alone = await make(plain.clone());
      const { outcome, bytes } = await strip(Buffer.concat([alone, await make(withMetadata(1))]), mime);
      t.match(outcome, { kind: 'stripped' }, mime);
      t.same(bytes, alone);
    }
  });

  await t.test(
    'drops comments, other application data and other pictures of a JPEG, and keeps restart markers',
    async (t) => {
      const plain = await sharp({ create: { width: 64, height: 64, channels: 3, background: 'teal' } })
        .jpeg()
        .toBuffer();
      const segment = (code: number, content: string): Buffer => {
        const head = Buffer.from([0xff, code, 0, 0]);
        head.writeUInt16BE(content.length + 2, 2);
        return Buffer.concat([head, Buffer.from(content, 'latin1')]);
      };
      const dropped = [
        segment(0xfe, 'TELLTALE'),
        segment(0xed, 'Photoshop 3.0\0TELLTALE'),
        segment(0xe2, 'MPF\0TELLTALE'),
        segment(0xe0, 'JFXX\0TELLTALE'),
        segment(0xeb, 'JP TELLTALE'),
      ];
      const kept = segment(0xee, 'Adobe\0d\0\0\0\0\x01');
      const original = Buffer.concat([plain.subarray(0, 2), ...dropped, kept, plain.subarray(2)]);
      t.same(
        (await strip(original, 'image/jpeg')).bytes,
        Buffer.concat([plain.subarray(0, 2), kept, plain.subarray(2)]),
      );
      const scanned = Buffer.concat([
        plain.subarray(0, -2),
        Buffer.from([0xff, 0xd0, 1, 0xff, 0, 0xff, 0xff]),
        plain.subarray(-2),
      ]);
      t.same((await strip(scanned, 'image/jpeg')).outcome, { kind: 'clean' });
      const endless = plain.subarray(0, -2);
      t.same((await strip(endless, 'image/jpeg')).outcome, { kind: 'clean' }, 'a missing end is not malformed');
    },
  );

  await t.test('reads a JPEG as its decoder does', async (t) => {
    const original = await withMetadata(6).jpeg().toBuffer();
    const table = original.indexOf('ffdb', 0, 'hex');
    const inserted = (hex: string): Buffer =>
      Buffer.concat([original.subarray(0, table), Buffer.from(hex, 'hex'), original.subarray(table)]);
    const files: Readonly<Record<string, Buffer>> = {
      'bytes between markers': inserted(Buffer.from('\0\0TELLTALE').toString('hex')),
      'bytes and stuffing between markers': inserted('01ff0002'),
      'fill bytes': inserted('ffffff'),
      'a restart marker before the scan': inserted('ffd0'),
      'a segment whose length is 0': inserted('ffec0000'),
      'no end': original.subarray(0, -2),
    };
    for (const [name, file] of Object.entries(files)) {
      const { outcome, bytes } = await strip(file, 'image/jpeg');
      t.same(outcome, { kind: 'stripped' }, name);
      t.notOk(bytes.includes('TELLTALE'), name);
      const pixels = (picture: Buffer): Promise<Buffer> => sharp(picture, { failOn: 'none' }).raw().toBuffer();
      t.same(await pixels(bytes), await pixels(original), `${name}: the pixels`);
      t.equal(readDimensions(bytes)?.orientation, 6, name);
    }
    const headers = original.subarray(0, original.indexOf('ffda', 0, 'hex'));
    t.same((await strip(headers, 'image/jpeg')).outcome, { kind: 'broken' }, 'no scan');
  });

  await t.test('keeps the frames of an animated PNG', async (t) => {
    const png = await sharp({ create: { width: 8, height: 8, channels: 4, background: 'red' } })
      .png()
      .toBuffer();
    const frame = { png, left: 0, top: 0, delayMs: 10, dispose: 'none', blend: 'source' } as const;
    const apng = apngOf([frame, frame]);
    const text = await sharp(png)
      .withExif({ IFD0: { Copyright: 'TELLTALE' } })
      .png()
      .toBuffer();
    const exif = text.subarray(
      text.indexOf('eXIf') - 4,
      text.indexOf('eXIf') + 8 + text.readUInt32BE(text.indexOf('eXIf') - 4),
    );
    const { bytes } = await strip(Buffer.concat([apng.subarray(0, 33), exif, apng.subarray(33)]), 'image/apng');
    t.same(bytes, apng);
  });

  await t.test('reports a malformed file, and writes nothing', async (t) => {
    for (const [mime, make] of Object.entries(FILES)) {
      const whole = await make(withMetadata(6));
      t.same((await strip(whole.subarray(0, 60), mime)).outcome, { kind: 'broken' }, mime);
      t.same((await strip(Buffer.alloc(0), mime)).outcome, { kind: 'broken' }, mime);
    }
    const unknown = Buffer.from((await FILES['image/png']?.(withMetadata(1))) ?? Buffer.alloc(0));
    unknown.write('CgBI', 37, 'latin1');
    t.same((await strip(unknown, 'image/png')).outcome, { kind: 'broken' }, 'an unknown critical chunk');
    t.same((await strip(Buffer.from('RIFF\xff\xff\xff\xffWEBPVP8 \0\0\0\0', 'latin1'), 'image/webp')).outcome, {
      kind: 'broken',
    });
  });

  await t.test('never throws on damaged files, and what it writes is clean', async () => {
    const wholes = await Promise.all(
      Object.entries(FILES).map(async ([mime, make]) => [mime, await make(withMetadata(6))] as const),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...wholes),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        fc.nat(),
        async ([mime, whole], changes, cut) => {
          const damaged = Buffer.from(whole.subarray(0, cut % 3 === 0 ? cut % whole.length : whole.length));
          for (const [at, value] of changes) if (damaged.length > 0) damaged[at % damaged.length] = value;
          const once = await strip(damaged, mime);
          if (once.outcome.kind !== 'stripped') return true;
          return (await strip(once.bytes, mime)).outcome.kind === 'clean';
        },
      ),
      { numRuns: 150 },
    );
  });
});

// The virus scanner.

const log = createLog('test', { level: 'silent', requests: 'none' });
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
      peer.end(say);
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
