import t from 'tap';
import { createAdmissions } from '../../../origin/ingest/admit.js';
import { uploadSection } from '../../../origin/ingest/config.js';
import { Fault } from '../../../src/errors.js';
import { createMetrics } from '../../../src/metrics.js';
import { configured, testDeps } from '../../kit/deps.js';

const KIB = 1_024;

function admissionsOf(given: Readonly<Record<string, unknown>>, roomBytes = Number.POSITIVE_INFINITY) {
  const config = uploadSection.schema({ env: () => undefined, file: () => undefined }).parse(given);
  const room = { takes: async (bodyBytes: number) => bodyBytes <= roomBytes, noteFull: () => undefined };
  const metrics = createMetrics('');
  const admissions = createAdmissions({ config, room, relieve: async () => undefined, metrics });
  return {
    admit: (subject: string, sizeBytes: number | null) => admissions.admit({ subject, sizeBytes, form: false }),
    announced: async () => Number(/^uploads_now_bytes (\d+)/m.exec((await metrics.render()).text)?.[1]),
  };
}

void t.test('one sender fills its own share of the uploads, and not those of others', async (t) => {
  const { admit } = admissionsOf({ uploads_max: 4, uploads_per_subject_max: 2 });
  const [first] = [await admit('ann', 10), await admit('ann', 10)];
  await t.rejects(admit('ann', 10), { code: 'rate_limited', headers: { 'retry-after': '2' } });
  await admit('bob', 10);
  await admit('eve', 10);
  await t.rejects(admit('dan', 10), { code: 'overloaded' }, 'all together have a limit too');
  first?.release();
  first?.release();
  await admit('dan', 10);
  await t.rejects(admit('ann', 10), { code: 'overloaded' });
});

void t.test('one sender fills its own share of the bytes, whether it announces them or not', async (t) => {
  const { admit, announced } = admissionsOf({ in_hand_max: '10MB', in_hand_per_subject_max: '1MB', size_max: '2MB' });
  const large = await admit('ann', 2_000_000);
  await t.rejects(admit('ann', 1), { code: 'rate_limited' });
  large.release();
  const quiet = await admit('ann', null);
  await admit('ann', 500_000);
  await t.rejects(admit('ann', 500_000), { code: 'rate_limited' });
  await quiet.hold(256 * KIB);
  await t.rejects(async () => quiet.hold(600_000), { code: 'rate_limited' }, 'what arrives counts too');
  await admit('bob', 1_000_000);
  quiet.release();
  t.equal(await announced(), 1_500_000);
});

void t.test('a body of unknown length reserves room as it arrives', async (t) => {
  const { admit, announced } = admissionsOf({ size_max: '10MB', in_hand_max: '20MB', in_hand_per_subject_max: '0' });
  const all = await Promise.all(Array.from({ length: 60 }, () => admit('ann', null)));
  t.equal(await announced(), 60 * 256 * KIB, 'sixty small ones are not taken for sixty of the largest');
  const [one] = all;
  if (one === undefined) throw new Error('it was admitted');
  t.equal(one.hold(256 * KIB), undefined, 'nothing to wait for');
  await one.hold(256 * KIB + 1);
  t.equal(await announced(), 61 * 256 * KIB);
  await one.hold(2_000_000);
  t.equal(await announced(), 59 * 256 * KIB + 2_000_000);
  await t.rejects(async () => one.hold(8_000_000), { code: 'overloaded' });
  for (const each of all.slice(1)) each.release();
  await one.hold(8_000_000);
  t.equal(await announced(), 8_000_000);
  await one.hold(9_999_999);
  t.equal(await announced(), 10_000_000, 'and no more than the largest size');
  t.equal(one.hold(20_000_000), undefined);
  one.release();
  t.equal(await announced(), 0);

  const small = admissionsOf({ size_max: '10MB' }, 1_000_000);
  const last = await small.admit('ann', null);
  await last.hold(400_000);
  await t.rejects(async () => last.hold(3_000_000), { code: 'storage_full' }, 'a disk that fills up meanwhile');
  last.release();
  t.equal(await small.announced(), 0);
  await t.rejects(small.admit('ann', 3_000_000), { code: 'storage_full' });
  t.equal(await small.announced(), 0);
});

void t.test('what arrives of an upload in hand needs no further place among the uploads', async (t) => {
  const { admit } = admissionsOf({
    uploads_max: 1,
    size_max: '10MB',
    in_hand_max: '20MB',
    in_hand_per_subject_max: '0',
  });
  const quiet = await admit('ann', null);
  await quiet.hold(1_000_000);
  await t.rejects(admit('bob', 1), { code: 'overloaded' });
});

void t.test('an upload that is refused gives its share back, whatever it was refused for', async (t) => {
  const config = configured(uploadSection, { uploadsMax: 2, uploadsPerSubjectMax: 2, sizeMaxBytes: 1_000 });
  let takes = async (_bodyBytes: number): Promise<boolean> => false;
  let relieved = 0;
  let full = 0;
  let relieve = async (): Promise<void> => {
    relieved += 1;
  };
  const counting = relieve;
  const { metrics, sample } = testDeps();
  const admissions = createAdmissions({
    config,
    room: {
      takes: (bodyBytes) => takes(bodyBytes),
      noteFull() {
        full += 1;
      },
    },
    relieve: () => relieve(),
    metrics,
  });
  const admit = (sizeBytes: number | null) => admissions.admit({ subject: 'ann', sizeBytes, form: false });
  const inHand = async () => [await sample('uploads_now'), await sample('uploads_now_bytes')];
  for (let upload = 0; upload < 4; upload += 1) {
    await t.rejects(admit(10), { code: 'storage_full' }, 'one more than there are shares gets the same answer');
    t.same(await inHand(), [0, 0]);
  }
  t.equal(relieved, 4, 'each has tried to make room');
  takes = () => Promise.reject(new Error('the disk does not answer'));
  for (let upload = 0; upload < 4; upload += 1) await t.rejects(admit(10), { message: 'the disk does not answer' });
  t.same(await inHand(), [0, 0]);
  for (const [sizeBytes, code] of [
    [1_001, 'too_large'],
    [0, 'empty'],
  ] as const) {
    for (let upload = 0; upload < 4; upload += 1) await t.rejects(admit(sizeBytes), { code });
  }
  t.same(await inHand(), [0, 0]);

  const asked: number[] = [];
  takes = async (bodyBytes) => {
    asked.push(bodyBytes);
    return asked.length > 1;
  };
  const admitted = await admit(10);
  t.same([asked, relieved], [[10, 10], 5], 'what was freed for it is enough');
  t.same(await inHand(), [1, 10]);
  await admit(30);
  t.equal(asked.at(-1), 40, 'what all have announced has to fit');
  await t.rejects(admit(1), { code: 'rate_limited' });
  t.same(await inHand(), [2, 40]);
  admitted.release();
  admitted.release();
  t.same(await inHand(), [1, 30], 'a second release counts for nothing');
  t.equal(admitted.hold(1_000), undefined, 'nor does what arrives after it');
  const again = await admit(5);
  await t.rejects(admit(5), { code: 'rate_limited' }, 'what the sender still has in hand counts');
  again.release();

  let freed = false;
  takes = async () => freed;
  relieve = async () => {
    await new Promise(setImmediate);
    freed = true;
  };
  (await admit(5)).release();
  t.ok(freed, 'an upload waits for the room that is being made');

  relieve = counting;
  admissions.failed(new Fault('malformed', 'No form.'));
  t.same([full, relieved], [0, 5]);
  admissions.failed(new Fault('storage_full', 'No room.'));
  t.same([full, relieved], [1, 6], 'a full disk is noted, and room is made for the next upload');
  takes = async () => false;
  await t.rejects(admissions.requireRoom(), { code: 'storage_full' });
  takes = async () => true;
  await admissions.requireRoom();
});
