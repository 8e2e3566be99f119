/** Heads as they are written: each with its own fields, however many others were written in between. */
import t from 'tap';
import { createHeadWriter } from '../../../edge/server/fastlane/write-head.js';
import type { HeaderList } from '../../../src/http/reply.js';

void t.test('the fields of a head are its own, also when very many are written in turn', (t) => {
  const writer = createHeadWriter({ now: () => 0 }, 5_000);
  const lists = Array.from({ length: 5_000 }, (_, n): HeaderList => [['x-number', String(n)]]);
  for (let round = 0; round < 2; round += 1) {
    for (const [n, leading] of lists.entries()) {
      for (const status of n % 1_000 === 0 ? [200, 304, 200] : [200]) {
        const body = { kind: 'none' } as const;
        const head = writer.write({ status, leading, headers: [], body }, 'GET', false);
        const text = Buffer.from(head.shared).toString('latin1') + head.own;
        if (text.startsWith(`HTTP/1.1 ${status} `) && text.includes(`\r\nx-number: ${n}\r\n`)) continue;
        t.fail(text);
        return t.end();
      }
    }
  }
  t.pass();
  return t.end();
});
