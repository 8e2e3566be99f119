/**
 * Facts about the types of texts: which types are text, and which of them clients
 * give to source code, logs and tables for want of a better one.
 */

const TEXT_APPLICATION_TYPES = new Set([
  'application/json',
  'application/xml',
  'application/x-ndjson',
  'application/yaml',
]);

/** Types whose bytes must be UTF-8. */
export function isText(type: string): boolean {
  return (
    type.startsWith('text/') || TEXT_APPLICATION_TYPES.has(type) || type.endsWith('+json') || type.endsWith('+xml')
  );
}

/** Types that browsers run or style. Texts of these are never taken for plain ones. */
const ACTIVE_TYPES = new Set([
  'text/html',
  'text/xsl',
  'application/xml',
  'application/xhtml+xml',
  'application/xslt+xml',
  'image/svg+xml',
]);

/**
 * Types outside `text/` that systems give to texts by the extension of the file, and
 * as what they are stored. Spreadsheet programs claim `.csv`; the others are scripts
 * and their like.
 */
const LABELS: ReadonlyMap<string, string> = new Map([
  ['application/vnd.ms-excel', 'text/csv'],
  ...[
    'bat',
    'ecmascript',
    'graphql',
    'javascript',
    'jsonl',
    'log',
    'pgp-keys',
    'pgp-signature',
    'sql',
    'toml',
    'typescript',
    'vnd.apple.mpegurl',
    'x-bat',
    'x-csh',
    'x-httpd-php',
    'x-httpd-php-source',
    'x-java',
    'x-javascript',
    'x-latex',
    'x-log',
    'x-lua',
    'x-pem-file',
    'x-perl',
    'x-php',
    'x-powershell',
    'x-python',
    'x-python-code',
    'x-ruby',
    'x-rust',
    'x-sh',
    'x-shellscript',
    'x-sql',
    'x-subrip',
    'x-tex',
    'x-texinfo',
    'x-toml',
    'x-typescript',
    'x-x509-ca-cert',
    'x-yaml',
  ].map((name) => [`application/${name}`, 'text/plain'] as const),
  // The extension of TypeScript is also that of MPEG transport streams.
  ['video/mp2t', 'text/plain'],
  ['video/vnd.dlna.mpeg-tts', 'text/plain'],
]);

/**
 * The type as which a text is stored whose client declares `declared`. A text of a
 * type that is not accepted is plain text, unless a browser would run it. Undefined
 * if texts do not have the declared type.
 */
export function storedTextType(declared: string, accepted: readonly string[]): string | undefined {
  const label = LABELS.get(declared);
  if (label === undefined && !isText(declared)) return undefined;
  if (accepted.includes(declared) || ACTIVE_TYPES.has(declared)) return declared;
  return label !== undefined && accepted.includes(label) ? label : 'text/plain';
}
