/** The options of an upload, and the boundary of a form. */
import t from 'tap';
import { uploadSection } from '../../../origin/ingest/config.js';
import { formBoundary } from '../../../origin/ingest/form.js';
import { readOptions, requireLifetime, withDefaults } from '../../../origin/ingest/options.js';
import { configured } from '../../kit/deps.js';

const NONE = { public: undefined, expiresInSeconds: undefined, filename: undefined };
const read = (fields: Readonly<Record<string, string>>) => readOptions(new Map(Object.entries(fields)));

void t.test('options are read from fields of their names, and no others', async (t) => {
  t.same(read({}), NONE);
  t.same(read({ public: 'true', expires_in: '60', filename: 'a.txt', other: 'x' }), {
    public: true,
    expiresInSeconds: 60,
    filename: 'a.txt',
  });
  t.same(read({ public: 'false' }), { ...NONE, public: false });
  const century = 100 * 366 * 24 * 60 * 60;
  t.equal(read({ expires_in: '1' }).expiresInSeconds, 1);
  t.equal(read({ expires_in: String(century) }).expiresInSeconds, century);
  t.equal(read({ filename: 'x'.repeat(1_024) }).filename?.length, 1_024);
  for (const wrong of [
    { public: 'yes' },
    { public: '' },
    { expires_in: '0' },
    { expires_in: '-1' },
    { expires_in: '1.5' },
    { expires_in: '' },
    { expires_in: String(century + 1) },
    { filename: 'x'.repeat(1_025) },
  ]) {
    t.throws(() => read(wrong), { code: 'malformed' }, JSON.stringify(wrong));
  }
});

void t.test('what one place leaves open is taken from another', async (t) => {
  const [one, other] = [
    { public: false, expiresInSeconds: 5, filename: 'one' },
    { public: true, expiresInSeconds: 7, filename: 'other' },
  ];
  t.same(withDefaults(one, other), one);
  t.same(withDefaults(NONE, other), other);
  for (const key of ['public', 'expiresInSeconds', 'filename'] as const) {
    t.same(withDefaults({ ...one, [key]: undefined }, other), { ...one, [key]: other[key] }, key);
    t.same(withDefaults({ ...NONE, [key]: one[key] }, other), { ...other, [key]: one[key] }, key);
  }
  t.same(withDefaults(one, NONE), one);
});

void t.test('a lifetime is at most the configured one', async (t) => {
  const config = configured(uploadSection, { expiresInMaxMs: 60_500 });
  const require = (expiresInSeconds: number | undefined, given = config) =>
    requireLifetime({ ...NONE, expiresInSeconds }, given);
  t.doesNotThrow(() => require(60));
  t.doesNotThrow(() => require(undefined));
  t.doesNotThrow(() => require(1e9, configured(uploadSection)), 'without a limit');
  t.throws(() => require(61), { code: 'malformed', message: 'expires_in is at most 60 seconds.' });
  const exact = configured(uploadSection, { expiresInMaxMs: 60_000 });
  t.doesNotThrow(() => require(60, exact));
  t.throws(() => require(61, exact), { code: 'malformed' });
});

void t.test('a form has one boundary, of up to 70 characters', async (t) => {
  const long = 'b'.repeat(70);
  for (const [type, boundary] of [
    ['multipart/form-data; boundary=abc', 'abc'],
    ['multipart/form-data;boundary="a b;c"', 'a b;c'],
    ['multipart/form-data; charset=utf-8; BOUNDARY=abc; x=y', 'abc'],
    [`multipart/form-data; boundary=${long}`, long],
    [`multipart/form-data; boundary="${long}"`, long],
    [`multipart/form-data; boundary="${long}b"`, undefined],
    ['multipart/form-data; boundary=abc; boundary=abd', undefined],
    ['multipart/form-data; boundary=', undefined],
    ['multipart/form-data; boundary=""', undefined],
    ['multipart/form-data', undefined],
  ] as const) {
    t.equal(formBoundary(type), boundary, type);
  }
});
