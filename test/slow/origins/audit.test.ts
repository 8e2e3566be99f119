/** The audit log in PostgreSQL: a takedown and its line are one transaction. */
import t from 'tap';
import { auditSection, openAudit } from '../../../origin/audit.js';
import type { AuditLine } from '../../../origin/meta/origins/shared.js';
import type { Sha256 } from '../../../src/ids.js';
import { configured } from '../../kit/deps.js';
import { adminMark, T0, uploadOf } from '../../kit/origin/meta/contract.js';
import { openPostgres } from '../../kit/postgres/server.js';
import { openStore } from '../../kit/postgres/stores.js';

const postgres = await openPostgres();
const skip = postgres === null ? 'there is no PostgreSQL server on this machine' : false;
t.teardown(() => postgres?.close());

const A = 'a'.repeat(64) as Sha256;

void t.test('a takedown and its line are committed together, or neither is', { skip }, async (t) => {
  const url = (await postgres?.database()) ?? '';
  const [one, other] = [
    await openStore(url, { kind: 'origin', name: 'a' }),
    await openStore(url, { kind: 'origin', name: 'b' }),
  ];
  t.teardown(() => Promise.all([one.close(), other.close()]));
  const lines = async (): Promise<readonly unknown[]> =>
    ((await postgres?.query(url, 'SELECT at::float8 AS at, line FROM audit ORDER BY n')) ?? []).map((row) => row);
  const upload = uploadOf(A);
  await one.commitUpload(upload);
  const note = (outcome: { readonly kind: string }): AuditLine => ({
    at: T0,
    line: JSON.stringify({ outcome: outcome.kind, reason: 'grüße\0\ud800' }),
  });

  const broken = new Error('the line cannot be made');
  const failing = (): never => {
    throw broken;
  };
  await t.rejects(one.remove(upload.id, 'eve', T0, failing), broken);
  await t.rejects(
    one.quarantine(A, adminMark(T0), () => ({ at: T0, line: 'no JSON' })),
    { code: '22P02' },
  );
  t.equal((await one.find(upload.id, T0)).kind, 'live', 'nothing was taken down');
  t.same(await lines(), []);

  await one.quarantine(A, adminMark(T0), note);
  await other.restore(A, T0, note);
  await one.remove(upload.id, 'eve', T0, note);
  await other.remove(upload.id, 'eve', T0, note);
  t.same(
    ((await lines()) as readonly { line: { outcome: string } }[]).map(({ line }) => line.outcome),
    ['done', 'done', 'removed', 'already'],
  );

  const log = await openAudit(configured(auditSection), one.shared);
  const act = { by: 'mo', act: 'inspect', target: null, outcome: 'done', seq: null, reason: null } as const;
  await Promise.all([1, 2, 3].map((n) => log.append({ ...act, at: T0 + n, requestId: `${n}`, address: null })));
  t.equal((await lines()).length, 7);
});
