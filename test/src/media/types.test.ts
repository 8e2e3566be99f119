/** The names of media types: which mean the same, which may stand for each other, and what is known of each. */
import t from 'tap';
import { readDeclared } from '../../../src/media/declared.js';
import { isText, storedTextType } from '../../../src/media/text-types.js';
import {
  ACCEPTED_TYPES,
  agrees,
  canonicalType,
  coveredBy,
  essenceOf,
  extensionOf,
  INLINE_TYPES,
  isZipBased,
  servedType,
} from '../../../src/media/types.js';

const words = (text: string): readonly string[] => text.split(/\s+/).filter((word) => word !== '');

void t.test('the essence of a type is its two tokens in lower case', async (t) => {
  const long = 'a'.repeat(127);
  for (const [given, expected] of [
    ['image/jpeg', 'image/jpeg'],
    [' Image/JPEG ; q="a;b"', 'image/jpeg'],
    ["a!#$%&'*+.^`|~-_9/b", "a!#$%&'*+.^`|~-_9/b"],
    [`${long}/${long}`, `${long}/${long}`],
    [`${long}a/b`, undefined],
    [`b/${long}a`, undefined],
    ['image', undefined],
    ['image/', undefined],
    ['/jpeg', undefined],
    ['image/jpeg/x', undefined],
    ['image/jp eg', undefined],
    ['image/jpég', undefined],
    ['image/jpeg, image/png', undefined],
    ['', undefined],
    ['; charset=utf-8', undefined],
  ] as const) {
    t.equal(essenceOf(given), expected, given);
  }
});

/** Names that clients have for one format, under the registered or most usual one. */
const SAME: Readonly<Record<string, string>> = {
  'image/jpeg': 'image/jpg image/pjpeg image/mpo',
  'image/png': 'image/x-png',
  'image/apng': 'image/vnd.mozilla.apng',
  'image/bmp': 'image/x-bmp image/x-ms-bmp',
  'image/x-icon': 'image/vnd.microsoft.icon image/ico',
  'image/heic-sequence': 'image/heics',
  'audio/mp4': 'audio/x-m4a audio/m4a audio/mp4a-latm',
  'audio/mpeg': 'audio/mp3 audio/x-mp3 audio/x-mpeg audio/mpeg3 audio/mpg',
  'audio/wav': 'audio/x-wav audio/wave audio/vnd.wave audio/x-pn-wav',
  'audio/flac': 'audio/x-flac',
  'audio/aac': 'audio/x-aac audio/aacp audio/vnd.dlna.adts audio/x-hx-aac-adts',
  'audio/ogg': 'audio/opus audio/x-opus+ogg audio/vorbis audio/x-vorbis+ogg',
  'audio/aiff': 'audio/x-aiff',
  'audio/x-caf': 'audio/caf',
  'audio/amr': 'audio/x-amr audio/amr-nb',
  'audio/3gpp': 'audio/3gp',
  'audio/matroska': 'audio/x-matroska',
  'video/mp4': 'video/x-m4v video/m4v application/mp4',
  'video/matroska': 'video/x-matroska',
  'video/vnd.avi': 'video/x-msvideo video/avi video/msvideo',
  'application/pdf': 'application/x-pdf',
  'application/zip': 'application/x-zip-compressed application/x-zip',
  'application/gzip': 'application/x-gzip',
  'application/x-7z-compressed': 'application/7z',
  'application/x-rar-compressed': 'application/vnd.rar application/x-rar',
  'application/rtf': 'text/rtf',
  'application/json': 'text/json',
  'application/xml': 'text/xml',
  'text/markdown': 'text/x-markdown',
  'text/csv': 'application/csv text/comma-separated-values text/x-comma-separated-values text/x-csv application/x-csv',
  'text/vcard': 'text/x-vcard',
};

void t.test('every name of a format is taken for the same one', async (t) => {
  for (const [name, others] of Object.entries(SAME)) {
    t.equal(canonicalType(name), name);
    for (const other of words(others)) t.equal(canonicalType(other), name, other);
  }
  for (const alone of ['image/gif', 'audio/amr-wb', 'video/3gpp', 'x/y']) t.equal(canonicalType(alone), alone);
});

const WORD = 'application/vnd.openxmlformats-officedocument.wordprocessingml.document';
const EXCEL = 'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet';
const POWERPOINT = 'application/vnd.openxmlformats-officedocument.presentationml.presentation';
const OPEN_DOCUMENT = 'application/vnd.oasis.opendocument';

/** What a client may call the bytes of a type besides by its name. */
const MAY_BE_DECLARED: Readonly<Record<string, string>> = {
  'image/apng': 'image/png',
  'image/heic': 'image/heif',
  'image/heif': 'image/heic',
  'image/avif': 'image/heif image/heif-sequence',
  'image/heic-sequence': 'image/heic image/heif image/heif-sequence',
  'image/heif-sequence': 'image/heic image/heif image/heic-sequence',
  'video/mp4': 'video/quicktime audio/mp4 video/3gpp video/3gpp2',
  'video/quicktime': 'video/mp4',
  'video/3gpp': 'video/mp4 video/3gpp2 audio/3gpp audio/mp4',
  'video/3gpp2': 'video/mp4 video/3gpp audio/3gpp2',
  'audio/mp4': 'video/mp4 video/quicktime audio/aac audio/x-m4b audio/3gpp video/3gpp',
  'audio/3gpp': 'video/3gpp video/3gpp2 audio/3gpp2 audio/mp4 video/mp4 audio/amr audio/amr-wb',
  'audio/3gpp2': 'video/3gpp2 video/3gpp audio/3gpp audio/mp4 video/mp4',
  'audio/amr': 'audio/amr-wb audio/3gpp',
  'audio/webm': 'video/webm audio/matroska video/matroska',
  'audio/matroska': 'video/matroska audio/webm video/webm',
  'video/webm': 'audio/webm video/matroska',
  'video/matroska': 'video/webm audio/webm audio/matroska',
  'audio/ogg': 'application/ogg video/ogg',
  'video/ogg': 'application/ogg audio/ogg',
  'application/ogg': 'audio/ogg video/ogg',
  'video/x-ms-asf': 'video/x-ms-wmv audio/x-ms-wma application/vnd.ms-asf',
  'application/x-cfb': 'application/msword application/vnd.ms-excel application/vnd.ms-powerpoint',
  [WORD]: 'application/msword application/zip',
  [EXCEL]: 'application/vnd.ms-excel application/zip',
  [POWERPOINT]: 'application/vnd.ms-powerpoint application/zip',
  [`${OPEN_DOCUMENT}.text`]: 'application/zip',
  'application/epub+zip': 'application/zip',
  'application/zip': '',
  'image/png': '',
  'image/jpeg': '',
  'application/pdf': '',
  'text/html': '',
};

void t.test('a type may be declared for another one only where the bytes do not tell them apart', async (t) => {
  const names = [...new Set(Object.entries(MAY_BE_DECLARED).flatMap(([name, others]) => [name, ...words(others)]))];
  for (const [detected, others] of Object.entries(MAY_BE_DECLARED)) {
    const allowed = new Set([detected, ...words(others)]);
    t.same(
      names.filter((declared) => agrees(declared, detected)),
      names.filter((declared) => allowed.has(declared)),
      detected,
    );
  }
});

void t.test('a range covers its own types, and those that may be declared as one of them', async (t) => {
  t.ok(coveredBy('image/', 'image/gif'));
  t.notOk(coveredBy('image/', 'video/mp4'));
  t.ok(coveredBy('audio/', 'video/mp4'), 'sound is often declared for the container of a film');
  t.ok(coveredBy('video/', 'audio/webm'));
  t.notOk(coveredBy('audio/', 'video/quicktime'));
  t.notOk(coveredBy('text/', 'application/pdf'));
});

void t.test('documents that are zip files are known as such', async (t) => {
  for (const type of ['application/zip', 'application/epub+zip', WORD, EXCEL, POWERPOINT, `${OPEN_DOCUMENT}.text`]) {
    t.ok(isZipBased(type), type);
  }
  for (const type of ['application/gzip', 'application/x-cfb', 'application/pdf', 'application/vnd.ms-excel']) {
    t.notOk(isZipBased(type), type);
  }
});

void t.test('texts are served as UTF-8, and other types as they are', async (t) => {
  t.equal(servedType('text/plain'), 'text/plain; charset=utf-8');
  t.equal(servedType('application/json'), 'application/json');
  t.equal(servedType('image/png'), 'image/png');
});

/** By extension: the types, marked by what a configuration says that names none. */
const KNOWN: Readonly<Record<string, string>> = {
  jpg: 'image/jpeg:accepted,inline',
  png: 'image/png:accepted,inline image/apng:accepted,inline',
  gif: 'image/gif:accepted,inline',
  webp: 'image/webp:accepted,inline',
  avif: 'image/avif:accepted,inline',
  heic: 'image/heic:accepted,inline image/heic-sequence:accepted,inline',
  heif: 'image/heif:accepted,inline image/heif-sequence:accepted,inline',
  bmp: 'image/bmp:',
  tif: 'image/tiff:',
  mp4: 'video/mp4:accepted,inline',
  webm: 'video/webm:accepted,inline',
  mov: 'video/quicktime:accepted,inline',
  '3gp': 'video/3gpp:accepted audio/3gpp:accepted',
  mkv: 'video/matroska:',
  ogv: 'video/ogg:inline',
  mp3: 'audio/mpeg:accepted,inline',
  m4a: 'audio/mp4:accepted,inline',
  aac: 'audio/aac:accepted,inline',
  ogg: 'audio/ogg:accepted,inline',
  wav: 'audio/wav:accepted,inline',
  flac: 'audio/flac:accepted,inline',
  weba: 'audio/webm:accepted,inline',
  amr: 'audio/amr:accepted',
  caf: 'audio/x-caf:accepted',
  mka: 'audio/matroska:',
  pdf: 'application/pdf:accepted',
  zip: 'application/zip:accepted',
  docx: `${WORD}:accepted`,
  xlsx: `${EXCEL}:accepted`,
  pptx: `${POWERPOINT}:accepted`,
  odt: `${OPEN_DOCUMENT}.text:accepted`,
  ods: `${OPEN_DOCUMENT}.spreadsheet:accepted`,
  odp: `${OPEN_DOCUMENT}.presentation:accepted`,
  json: 'application/json:accepted',
  rtf: 'application/rtf:',
  txt: 'text/plain:accepted',
  csv: 'text/csv:accepted',
  md: 'text/markdown:accepted',
  ics: 'text/calendar:accepted',
  vcf: 'text/vcard:accepted',
  bin: 'text/html: image/svg+xml: application/javascript: application/octet-stream: x/y:',
};

void t.test(
  'each known type has an extension, and is accepted or shown in place only where that is safe',
  async (t) => {
    const lists: Record<'accepted' | 'inline', string[]> = { accepted: [], inline: [] };
    for (const [extension, types] of Object.entries(KNOWN)) {
      for (const each of words(types)) {
        const [type = '', marks = ''] = each.split(':');
        t.equal(extensionOf(type), extension, type);
        for (const list of ['accepted', 'inline'] as const) if (marks.split(',').includes(list)) lists[list].push(type);
      }
    }
    t.same([...ACCEPTED_TYPES].sort(), lists.accepted.sort());
    t.same([...INLINE_TYPES].sort(), lists.inline.sort());
  },
);

const PLAIN_LABELS = words(`
  bat ecmascript graphql javascript jsonl log pgp-keys pgp-signature sql toml typescript vnd.apple.mpegurl x-bat x-csh
  x-httpd-php x-httpd-php-source x-java x-javascript x-latex x-log x-lua x-ndjson x-pem-file x-perl x-php x-powershell
  x-python x-python-code x-ruby x-rust x-sh x-shellscript x-sql x-subrip x-tex x-texinfo x-toml x-typescript
  x-x509-ca-cert x-yaml yaml`);
const TEXTS = words(`text/plain text/css text/x-anything application/json application/xml application/x-ndjson
  application/yaml application/ld+json image/svg+xml application/xhtml+xml`);

void t.test('bytes of some types must be UTF-8', async (t) => {
  for (const type of TEXTS) t.ok(isText(type), type);
  for (const type of words('application/pdf application/jsonp application/x-yaml application/xml-dtd image/png')) {
    t.notOk(isText(type), type);
  }
});

void t.test(
  'a text is stored as what it was called, as its label, or as plain text, and active types keep their name',
  async (t) => {
    const stored = (declared: string, ...accepted: readonly string[]): string | undefined =>
      storedTextType(declared, accepted);
    for (const name of PLAIN_LABELS) t.equal(stored(`application/${name}`, 'text/plain'), 'text/plain', name);
    for (const name of ['video/mp2t', 'video/vnd.dlna.mpeg-tts'])
      t.equal(stored(name, 'text/plain'), 'text/plain', name);
    for (const active of words(
      `text/html text/xsl application/xml application/xhtml+xml application/xslt+xml image/svg+xml`,
    )) {
      t.equal(stored(active, 'text/plain'), active, 'never taken for a plain text');
    }
    t.equal(stored('application/vnd.ms-excel', 'text/csv', 'text/plain'), 'text/csv');
    t.equal(stored('application/vnd.ms-excel', 'text/plain'), 'text/plain', 'tables are not accepted');
    t.equal(stored('application/x-sh', 'application/x-sh'), 'application/x-sh', 'accepted under its own name');
    t.equal(stored('text/x-anything', 'text/plain'), 'text/plain');
    t.equal(stored('text/csv', 'text/csv'), 'text/csv');
    t.equal(stored('application/ld+json', 'text/plain'), 'text/plain');
    for (const other of words('application/pdf image/png video/mp4 application/msword application/x-unknown')) {
      t.equal(stored(other, other, 'text/plain'), undefined, other);
    }
  },
);

void t.test('a declared type names a type, a range or nothing', async (t) => {
  const none = { kind: 'none' };
  const range = (kind: string) => ({ kind: 'range', name: `${kind}/*`, prefix: `${kind}/` });
  const cases: readonly (readonly [string | undefined, object])[] = [
    [undefined, none],
    ['', none],
    [' \t', none],
    ['application/octet-stream', none],
    ['Application/Octet-Stream; x=y', none],
    ['binary/octet-stream', none],
    ['application/x-www-form-urlencoded', none],
    ['application/*', none],
    ['*/*', none],
    ['image/*', range('image')],
    ['image', range('image')],
    [' Audio ', range('audio')],
    ['video', range('video')],
    ['text', range('text')],
    ['font', { kind: 'malformed' }],
    ['images', { kind: 'malformed' }],
    ['not a type', { kind: 'malformed' }],
    ['Image/JPG', { kind: 'type', type: 'image/jpeg' }],
    ['font/woff', { kind: 'type', type: 'font/woff' }],
  ];
  for (const [declared, expected] of cases) t.same(readDeclared(declared), expected, String(declared));
});
