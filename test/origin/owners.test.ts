/** Those who uploaded media delete them and list what they uploaded, where that is allowed. */
import t from 'tap';
import { type HttpResponse, json, member } from '../kit/http/request.js';
import { png } from '../kit/media.js';
import { startOrigin, type TestOrigin } from '../kit/origin/origin.js';

const NO_THUMBS = { thumbs: { enabled: false } };
const UNKNOWN = '01J9ZC8GZ0000000000000000A';
const code = (response: HttpResponse): string => `${response.status} ${member(response, 'code')}`;

/** `as`: the claims of the token. */
function asking(origin: TestOrigin) {
  return (method: string, target: string, as: object): Promise<HttpResponse> =>
    origin.send(target, { method, headers: { authorization: `Bearer ${origin.auth.token(as as never)}` } });
}

const listed = (response: HttpResponse): readonly string[] =>
  (json(response)['items'] as readonly { id: string }[]).map(({ id }) => id);

void t.test('an owner deletes and lists their own media, and no others', async (t) => {
  const origin = await startOrigin(t.testdir(), NO_THUMBS, { access: { owners_may_delete: true } });
  t.teardown(() => origin.close());
  const ask = asking(origin);
  const alice = { sub: 'alice' };
  const [first, second] = [await origin.uploaded(png(1)), await origin.uploaded(png(2))];
  const theirs = member(await origin.as('bob', '/v1/media', { method: 'POST', body: png(3) }), 'id');

  t.same(listed(await ask('GET', '/v1/admin/media', alice)), [first, second]);
  t.same(listed(await ask('GET', '/v1/admin/media?owner=alice', alice)), [first, second]);
  t.equal(code(await ask('GET', '/v1/admin/media?owner=bob', alice)), '403 forbidden');
  t.equal((await ask('GET', `/v1/admin/media/${first}`, alice)).status, 403, 'details are for admins');

  t.equal(code(await ask('DELETE', `/v1/media/${theirs}`, alice)), '403 forbidden');
  t.equal(code(await ask('DELETE', `/v1/media/${UNKNOWN}`, alice)), '404 not_found');
  for (const scope of ['media:read', 'media:upload']) {
    t.equal(code(await ask('DELETE', `/v1/media/${first}`, { ...alice, scope })), '403 forbidden', scope);
    t.equal(code(await ask('GET', '/v1/admin/media', { ...alice, scope })), '403 forbidden', scope);
  }
  t.equal((await origin.send(`/v1/media/${first}`, { method: 'DELETE' })).status, 401);
  for (const again of ['now', 'again']) t.equal((await ask('DELETE', `/v1/media/${first}`, alice)).status, 204, again);
  const waited = await ask('DELETE', `/v1/media/${first}?wait=edges`, alice);
  t.equal(waited.headers['takedown-confirmed'], '0/0', 'as for an admin');
  t.equal((await origin.as('alice', `/v1/media/${first}`)).status, 410);
  await origin.asAdmin(`/v1/media/${second}`, { method: 'DELETE' });
  const ended = json(await ask('GET', '/v1/admin/media?state=deleted', alice))['items'] as readonly object[];
  t.equal(ended.length, 2);
  t.notOk(
    ended.some((item) => 'deleted_by' in item),
    'admins are not named',
  );
  t.same(listed(await origin.asAdmin('/v1/admin/media')).length, 3, 'an admin lists all');
  t.strictSame(await origin.undescribed(), []);
});

void t.test('unless it is allowed, only admins delete and list', async (t) => {
  const origin = await startOrigin(t.testdir(), NO_THUMBS);
  t.teardown(() => origin.close());
  const ask = asking(origin);
  const id = await origin.uploaded(png(1));
  t.equal(code(await ask('DELETE', `/v1/media/${id}`, { sub: 'alice' })), '403 forbidden');
  t.equal(code(await ask('GET', '/v1/admin/media', { sub: 'alice' })), '403 forbidden');
});
