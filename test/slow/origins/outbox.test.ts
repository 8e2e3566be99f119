/** The outbox in PostgreSQL, with a server of the system: by the contract, from two origins at once, and moved with all else. */
import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { openMetaStore } from '../../../origin/meta/lmdb.js';
import { moveToLmdb, moveToPostgres } from '../../../origin/meta/move.js';
import type { EventMaker } from '../../../origin/meta/outbox/outbox.js';
import { type Opener, openPostgresStore } from '../../../origin/meta/postgres/store.js';
import type { MetaStore } from '../../../origin/meta/store.js';
import type { Sha256 } from '../../../src/ids.js';
import { createLog } from '../../../src/log.js';
import { ManualClock } from '../../kit/clock.js';
import { adminMark, announced, T0, uploadOf } from '../../kit/origin/meta/contract.js';
import { EVENTS, outboxContract } from '../../kit/origin/meta/outbox-contract.js';
import { openPostgres } from '../../kit/postgres/server.js';
import { postgresConfig } from '../../kit/postgres/stores.js';

const postgres = await openPostgres();
const skip = postgres === null ? 'there is no PostgreSQL server on this machine' : false;
t.teardown(() => postgres?.close());

const deps = {
  clock: new ManualClock(),
  log: createLog('test', { level: 'silent' }),
  randomName: () => randomUUID(),
  random: Math.random,
} as const;
const NO_THUMBS = { thumbs: { kind: 'none', reason: 'unsupported_type' } } as const;
const hashOf = (n: number): Sha256 => n.toString(16).padStart(64, '0') as Sha256;

async function open(
  url: string,
  eventMaker: EventMaker | undefined,
  opener: Opener = { kind: 'alone' },
): Promise<MetaStore> {
  return announced(await openPostgresStore(postgresConfig(url), { ...deps, opener, eventMaker }));
}

void t.test('the outbox in PostgreSQL fulfils the contract', { skip }, async (t) => {
  const urls = new Map<MetaStore, string>();
  const opened = async (url: string, eventMaker: EventMaker | undefined): Promise<MetaStore> => {
    const store = await open(url, eventMaker);
    urls.set(store, url);
    return store;
  };
  await outboxContract(t, {
    fresh: async (eventMaker) => opened((await postgres?.database()) ?? '', eventMaker),
    async again(store, eventMaker) {
      await store.close();
      return opened(urls.get(store) ?? '', eventMaker);
    },
  });
});

void t.test(
  'what two origins do with the same media is told in the order in which it was done',
  { skip },
  async (t) => {
    const url = (await postgres?.database()) ?? '';
    const [one, other] = [
      await open(url, EVENTS, { kind: 'origin', name: 'a' }),
      await open(url, EVENTS, { kind: 'origin', name: 'b' }),
    ];
    t.teardown(() => Promise.all([one.close(), other.close()]));
    const uploads = Array.from({ length: 20 }, (_, n) => uploadOf(hashOf(n), NO_THUMBS));
    const history = async (n: number): Promise<void> => {
      const upload = uploads[n] as (typeof uploads)[number];
      const [first, second] = n % 2 === 0 ? [one, other] : [other, one];
      await first.commitUpload(upload);
      await second.quarantine(upload.id, adminMark(T0));
      await first.restore(upload.id, T0);
      await second.remove(upload.id, 'eve', T0);
    };
    // Sent meanwhile, by the other one of them.
    const told = new Map<string, string[]>();
    let done = false;
    const sending = (async () => {
      for (;;) {
        const last = done;
        const due = await other.outbox.due(T0 + 1e12, 7);
        for (const { name, type, id } of due) {
          told.set(id, [...(told.get(id) ?? []), type]);
          await other.outbox.sent(name);
        }
        if (last && due.length === 0) return;
      }
    })();
    await Promise.all(uploads.map((_, n) => history(n)));
    done = true;
    await sending;
    t.same(
      uploads.map(({ id }) => told.get(id)),
      uploads.map(() => ['media.ready', 'media.quarantined', 'media.restored', 'media.deleted']),
    );
  },
);

void t.test('events move to PostgreSQL and back, and later ones come after them', { skip }, async (t) => {
  const folder = t.testdir();
  const config = postgresConfig((await postgres?.database()) ?? '', join(folder, 'meta'));
  const metaDeps = { ...deps, eventMaker: EVENTS };
  const never = new AbortController().signal;
  const source = announced(await openMetaStore(config, metaDeps));
  const [upload, dead] = [uploadOf(hashOf(1), NO_THUMBS), uploadOf(hashOf(2), NO_THUMBS)];
  await source.commitUpload(dead);
  await source.outbox.bury((await source.outbox.due(T0 + 1e12, 1))[0]?.name ?? '', 'why\0', T0);
  await source.commitUpload(upload);
  await source.quarantine(upload.id, adminMark(T0));
  const [first] = await source.outbox.due(T0 + 1e12, 9);
  const letters = await source.outbox.dead(9);
  await source.close();
  await moveToPostgres(config, metaDeps, never, () => undefined);

  const moved = await open(config.postgres.url ?? '', EVENTS);
  t.same(await moved.outbox.due(T0 + 1e12, 9), [first]);
  t.same(await moved.outbox.dead(9), letters);
  await moved.restore(upload.id, T0);
  await moved.outbox.sent(first?.name ?? '');
  t.match(await moved.outbox.due(T0 + 1e12, 9), [{ type: 'media.quarantined' }]);
  await moved.close();

  const back = { ...config, folder: join(folder, 'back') };
  await mkdir(back.folder);
  await moveToLmdb(back, metaDeps, never, () => undefined);
  const returned = announced(await openMetaStore(back, metaDeps));
  await returned.remove(upload.id, 'eve', T0);
  const types: string[] = [];
  for (;;) {
    const [event] = await returned.outbox.due(T0 + 1e12, 9);
    if (event === undefined) break;
    types.push(event.type);
    await returned.outbox.sent(event.name);
  }
  t.same(types, ['media.quarantined', 'media.restored', 'media.deleted']);
  t.equal((await returned.outbox.dead(9)).length, 1);
  await returned.close();
});
