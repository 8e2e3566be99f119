/** Thumbnails that are not made yet, as callers of an edge get them. The origin is a whole one. */
import { join } from 'node:path';
import t from 'tap';
import { startEdge } from '../../kit/edge/media-edge.js';
import { type HttpResponse, sendRequest } from '../../kit/http/request.js';
import { png } from '../../kit/media.js';
import { startOrigin } from '../../kit/origin/origin.js';

void t.test(
  'callers who can show only a picture wait longer, apart from the others, and the placeholder is not stored',
  async (t) => {
    const origin = await startOrigin(join(t.testdir(), 'origin'), {
      thumbs: { enabled: false, wait: '2345ms', picture_wait: '19123ms', video: { enabled: false } },
    });
    t.teardown(() => origin.close());
    const edge = await startEdge(join(t.testdirName, 'edge'), origin, {}, origin.clock);
    t.teardown(() => edge.close());
    const url = `${edge.url}/v1/media/${await origin.uploaded(png(1, 900, 600))}/thumb?w=300`;
    const authorization = `Bearer ${origin.auth.token({ sub: 'bob' })}`;
    const get = (fields: Record<string, string>): Promise<HttpResponse> =>
      sendRequest(url, { headers: { authorization, ...fields } });
    const picture = { accept: 'image/webp,*/*;q=0.8', 'sec-fetch-dest': 'image' };

    const pictures = [get(picture), get(picture), get({ accept: 'image/webp' })];
    await origin.clock.timerSet(19_123);
    const other = get({ accept: 'image/webp,*/*;q=0.8' });
    await origin.clock.timerSet(2_345);
    origin.clock.advance(2_345);
    t.match(await other, { status: 202, headers: { 'retry-after': '2' } });
    origin.clock.advance(19_123 - 2_345);
    for (const response of await Promise.all(pictures)) {
      t.match(response, {
        status: 200,
        headers: { 'content-type': 'image/png', 'media-placeholder': '?1', 'cache-control': 'no-store' },
      });
      t.notMatch(response.headers['cache-status'], /stored/);
      t.match(response.headers['access-control-expose-headers'], /Media-Placeholder/);
    }

    const again = get(picture);
    await origin.clock.timerSet(19_123);
    origin.clock.advance(19_123);
    t.match((await again).headers['cache-status'], /fwd=uri-miss; fwd-status=200/, 'the origin is asked again');
  },
);
