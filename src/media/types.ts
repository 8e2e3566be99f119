/**
 * Facts about media types: names for the same format, which types are text, which
 * are accepted and shown in place by default, and the extensions of their files.
 */

/** `type/subtype` in lower case, without parameters; undefined if it is not a media type (RFC 9110 8.3.1, 5.6.2). */
export function essenceOf(contentType: string): string | undefined {
  const essence = contentType.split(';', 1)[0]?.trim().toLowerCase() ?? '';
  return /^[\w!#$%&'*+.^`|~-]{1,127}\/[\w!#$%&'*+.^`|~-]{1,127}$/.test(essence) ? essence : undefined;
}

/** Names of the same format. The first is the one used here. */
const SYNONYMS: readonly (readonly string[])[] = [
  ['image/jpeg', 'image/jpg', 'image/pjpeg', 'image/mpo'],
  ['image/png', 'image/x-png'],
  ['image/apng', 'image/vnd.mozilla.apng'],
  ['image/bmp', 'image/x-bmp', 'image/x-ms-bmp'],
  ['image/x-icon', 'image/vnd.microsoft.icon', 'image/ico'],
  ['image/heic-sequence', 'image/heics'],
  ['audio/mp4', 'audio/x-m4a', 'audio/m4a', 'audio/mp4a-latm'],
  ['audio/mpeg', 'audio/mp3', 'audio/x-mp3', 'audio/x-mpeg', 'audio/mpeg3', 'audio/mpg'],
  ['audio/wav', 'audio/x-wav', 'audio/wave', 'audio/vnd.wave', 'audio/x-pn-wav'],
  ['audio/flac', 'audio/x-flac'],
  ['audio/aac', 'audio/x-aac', 'audio/aacp', 'audio/vnd.dlna.adts', 'audio/x-hx-aac-adts'],
  ['audio/ogg', 'audio/opus', 'audio/x-opus+ogg', 'audio/vorbis', 'audio/x-vorbis+ogg'],
  ['audio/aiff', 'audio/x-aiff'],
  ['audio/x-caf', 'audio/caf'],
  ['audio/amr', 'audio/x-amr', 'audio/amr-nb'],
  ['audio/3gpp', 'audio/3gp'],
  ['audio/matroska', 'audio/x-matroska'],
  ['video/mp4', 'video/x-m4v', 'video/m4v', 'application/mp4'],
  ['video/matroska', 'video/x-matroska'],
  ['video/vnd.avi', 'video/x-msvideo', 'video/avi', 'video/msvideo'],
  ['application/pdf', 'application/x-pdf'],
  ['application/zip', 'application/x-zip-compressed', 'application/x-zip'],
  ['application/gzip', 'application/x-gzip'],
  ['application/x-7z-compressed', 'application/7z'],
  ['application/x-rar-compressed', 'application/vnd.rar', 'application/x-rar'],
  ['application/rtf', 'text/rtf'],
  ['application/json', 'text/json'],
  ['application/xml', 'text/xml'],
  ['text/markdown', 'text/x-markdown'],
  [
    'text/csv',
    'application/csv',
    'text/comma-separated-values',
    'text/x-comma-separated-values',
    'text/x-csv',
    'application/x-csv',
  ],
  ['text/vcard', 'text/x-vcard'],
];

const CANONICAL: ReadonlyMap<string, string> = new Map(
  SYNONYMS.flatMap(([canonical = '', ...others]) => others.map((other) => [other, canonical] as const)),
);

/** The name of the format that is used here. */
export function canonicalType(essence: string): string {
  return CANONICAL.get(essence) ?? essence;
}

/**
 * For each detected type, other types that may be declared: the bytes do not show
 * the difference, or the declared type is more general. The detected type is stored.
 */
const COMPATIBLE: Readonly<Record<string, readonly string[]>> = {
  // Many clients call an animated PNG a PNG, and do not tell the brands of HEIF apart.
  'image/apng': ['image/png'],
  'image/heic': ['image/heif'],
  'image/heif': ['image/heic'],
  'image/avif': ['image/heif', 'image/heif-sequence'],
  'image/heic-sequence': ['image/heic', 'image/heif', 'image/heif-sequence'],
  'image/heif-sequence': ['image/heic', 'image/heif', 'image/heic-sequence'],
  // ISO base media files: the container hardly shows which program wrote it.
  'video/mp4': ['video/quicktime', 'audio/mp4', 'video/3gpp', 'video/3gpp2'],
  'video/quicktime': ['video/mp4'],
  'video/3gpp': ['video/mp4', 'video/3gpp2', 'audio/3gpp', 'audio/mp4'],
  'video/3gpp2': ['video/mp4', 'video/3gpp', 'audio/3gpp2'],
  // Many clients give voice messages the type that their container has with a picture.
  'audio/mp4': ['video/mp4', 'video/quicktime', 'audio/aac', 'audio/x-m4b', 'audio/3gpp', 'video/3gpp'],
  'audio/3gpp': ['video/3gpp', 'video/3gpp2', 'audio/3gpp2', 'audio/mp4', 'video/mp4', 'audio/amr', 'audio/amr-wb'],
  'audio/3gpp2': ['video/3gpp2', 'video/3gpp', 'audio/3gpp', 'audio/mp4', 'video/mp4'],
  'audio/amr': ['audio/amr-wb', 'audio/3gpp'],
  'audio/webm': ['video/webm', 'audio/matroska', 'video/matroska'],
  'audio/matroska': ['video/matroska', 'audio/webm', 'video/webm'],
  'video/webm': ['audio/webm', 'video/matroska'],
  'video/matroska': ['video/webm', 'audio/webm', 'audio/matroska'],
  'audio/ogg': ['application/ogg', 'video/ogg'],
  'video/ogg': ['application/ogg', 'audio/ogg'],
  'application/ogg': ['audio/ogg', 'video/ogg'],
  'video/x-ms-asf': ['video/x-ms-wmv', 'audio/x-ms-wma', 'application/vnd.ms-asf'],
  // Old Office documents share one container format.
  'application/x-cfb': ['application/msword', 'application/vnd.ms-excel', 'application/vnd.ms-powerpoint'],
  // Systems without the newer Office give its documents the older types.
  'application/vnd.openxmlformats-officedocument.wordprocessingml.document': ['application/msword'],
  'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet': ['application/vnd.ms-excel'],
  'application/vnd.openxmlformats-officedocument.presentationml.presentation': ['application/vnd.ms-powerpoint'],
};

/** Whether a type may be declared for bytes of the detected type. Both are canonical names. */
export function agrees(declared: string, detected: string): boolean {
  if (declared === detected || COMPATIBLE[detected]?.includes(declared) === true) return true;
  // A document format that is a zip file may be declared as one.
  return declared === 'application/zip' && isZipBased(detected);
}

/** Whether bytes of the detected type are among those that a range such as `image/` covers. */
export function coveredBy(prefix: string, detected: string): boolean {
  return detected.startsWith(prefix) || COMPATIBLE[detected]?.some((type) => type.startsWith(prefix)) === true;
}

/** Whether files of this type are zip files. */
export function isZipBased(type: string): boolean {
  return (
    type === 'application/zip' ||
    type === 'application/epub+zip' ||
    type.startsWith('application/vnd.openxmlformats-officedocument.') ||
    type.startsWith('application/vnd.oasis.opendocument.')
  );
}

/** The Content-Type to serve. Text was checked to be UTF-8 when it was uploaded. */
export function servedType(type: string): string {
  return type.startsWith('text/') ? `${type}; charset=utf-8` : type;
}

/** A type that is known here, the extension of its files, and the configured lists in which it is by default. */
type KnownType = readonly [type: string, extension: string, ...lists: readonly ('accepted' | 'inline')[]];

/** Accepted is what phones and desktops send each other in a chat; nothing that a browser would run. */
const KNOWN_TYPES: readonly KnownType[] = [
  ['image/jpeg', 'jpg', 'accepted', 'inline'],
  ['image/png', 'png', 'accepted', 'inline'],
  ['image/apng', 'png', 'accepted', 'inline'],
  ['image/gif', 'gif', 'accepted', 'inline'],
  ['image/webp', 'webp', 'accepted', 'inline'],
  ['image/avif', 'avif', 'accepted', 'inline'],
  ['image/heic', 'heic', 'accepted', 'inline'],
  ['image/heif', 'heif', 'accepted', 'inline'],
  ['image/heic-sequence', 'heic', 'accepted', 'inline'],
  ['image/heif-sequence', 'heif', 'accepted', 'inline'],
  ['image/bmp', 'bmp'],
  ['image/tiff', 'tif'],
  ['video/mp4', 'mp4', 'accepted', 'inline'],
  ['video/webm', 'webm', 'accepted', 'inline'],
  ['video/quicktime', 'mov', 'accepted', 'inline'],
  ['video/3gpp', '3gp', 'accepted'],
  ['video/matroska', 'mkv'],
  ['video/ogg', 'ogv', 'inline'],
  ['audio/mpeg', 'mp3', 'accepted', 'inline'],
  ['audio/mp4', 'm4a', 'accepted', 'inline'],
  ['audio/aac', 'aac', 'accepted', 'inline'],
  ['audio/ogg', 'ogg', 'accepted', 'inline'],
  ['audio/wav', 'wav', 'accepted', 'inline'],
  ['audio/flac', 'flac', 'accepted', 'inline'],
  ['audio/webm', 'weba', 'accepted', 'inline'],
  ['audio/amr', 'amr', 'accepted'],
  ['audio/3gpp', '3gp', 'accepted'],
  ['audio/x-caf', 'caf', 'accepted'],
  ['audio/matroska', 'mka'],
  ['application/pdf', 'pdf', 'accepted'],
  ['application/zip', 'zip', 'accepted'],
  ['application/vnd.openxmlformats-officedocument.wordprocessingml.document', 'docx', 'accepted'],
  ['application/vnd.openxmlformats-officedocument.spreadsheetml.sheet', 'xlsx', 'accepted'],
  ['application/vnd.openxmlformats-officedocument.presentationml.presentation', 'pptx', 'accepted'],
  ['application/vnd.oasis.opendocument.text', 'odt', 'accepted'],
  ['application/vnd.oasis.opendocument.spreadsheet', 'ods', 'accepted'],
  ['application/vnd.oasis.opendocument.presentation', 'odp', 'accepted'],
  ['application/json', 'json', 'accepted'],
  ['application/rtf', 'rtf'],
  ['text/plain', 'txt', 'accepted'],
  ['text/csv', 'csv', 'accepted'],
  ['text/markdown', 'md', 'accepted'],
  ['text/calendar', 'ics', 'accepted'],
  ['text/vcard', 'vcf', 'accepted'],
];

/** Every type that an upload may be found to be. */
export const KNOWN_TYPE_NAMES: readonly string[] = KNOWN_TYPES.map(([type]) => type);
/** Types that an upload may have unless the configuration names others. */
export const ACCEPTED_TYPES = typesIn('accepted');
/** Types that a browser may show in place unless the configuration names others. */
export const INLINE_TYPES = typesIn('inline');

function typesIn(list: 'accepted' | 'inline'): readonly string[] {
  return KNOWN_TYPES.filter(([, , ...lists]) => lists.includes(list)).map(([type]) => type);
}

const EXTENSIONS: ReadonlyMap<string, string> = new Map(
  KNOWN_TYPES.map(([type, extension]) => [type, extension] as const),
);

/** The extension of files of this type, without the dot. */
export function extensionOf(type: string): string {
  return EXTENSIONS.get(type) ?? 'bin';
}
