/** HEIF and AVIF files, put together from pictures that an encoder has made, with every property as the test wants it. */
import { readOrientation } from '../../src/media/exif.js';
import { hex, latin1, u16 } from './bytes.js';

/** One coded picture of an encoder's file. */
export interface CodedPicture {
  readonly type: string;
  readonly configuration: Buffer;
  readonly width: number;
  readonly height: number;
  readonly data: Buffer;
}

export interface HeifItem {
  readonly coded: CodedPicture;
  /** Boxes such as `irot`, in the order in which they apply. */
  readonly transformations?: readonly Buffer[];
  /** Whether it is the alpha of the picture before it. */
  readonly alpha?: boolean;
}

export interface HeifOptions {
  readonly brands?: readonly string[];
  /** Counted from 1. */
  readonly primary?: number;
  /** EXIF orientation of the primary picture. */
  readonly exif?: number;
  /** Other items that describe the primary picture: the type, and what they hold. */
  readonly described?: readonly { readonly type: 'Exif' | 'mime'; readonly data: Buffer }[];
}

export function box(type: string, ...parts: readonly Buffer[]): Buffer {
  const head = Buffer.alloc(8);
  head.write(type, 4, 'latin1');
  const whole = Buffer.concat([head, ...parts]);
  whole.writeUInt32BE(whole.length, 0);
  return whole;
}

const bytes = (...values: readonly number[]): Buffer => Buffer.from(values);
const u32 = (value: number): Buffer => Buffer.from((value >>> 0).toString(16).padStart(8, '0'), 'hex');

/** `iinf` of items with their types, counted from 1. */
export function iinf(...types: readonly string[]): Buffer {
  const entries = types.map((type, index) => box('infe', hex('02000000'), u16(index + 1, 0), latin1(type), hex('00')));
  return box('iinf', u32(0), u16(types.length), ...entries);
}

export function iprp(...properties: readonly Buffer[]): Buffer {
  return box('iprp', box('ipco', ...properties));
}

export function irot(quarterTurns: number): Buffer {
  return box('irot', bytes(quarterTurns));
}

export function imir(axis: number): Buffer {
  return box('imir', bytes(axis));
}

/** Width, height, horizontal and vertical offset, each as numerator and denominator. */
export function clap(...numbers: readonly number[]): Buffer {
  return box('clap', ...numbers.map(u32));
}

/** The transformations that show a picture as EXIF orientation 1 to 8 would. */
export function transformationsOf(orientation: number): readonly Buffer[] {
  const all = [[], [imir(1)], [irot(2)], [imir(0)], [irot(1), imir(0)], [irot(3)], [irot(3), imir(0)], [irot(1)]];
  return all[orientation - 1] ?? [];
}

/** The one picture in a file of an encoder, whose `mdat` has nothing else. */
export function codedIn(file: Buffer): CodedPicture {
  const find = (type: string): Buffer | undefined => {
    const at = file.indexOf(type, 0, 'latin1');
    return at < 4 ? undefined : file.subarray(at - 4, at - 4 + file.readUInt32BE(at - 4));
  };
  const hevc = find('hvcC');
  const configuration = hevc ?? find('av1C');
  const [extent, data] = [find('ispe'), find('mdat')];
  if (configuration === undefined || extent === undefined || data === undefined || file.includes('auxC')) {
    throw new Error('it has one picture, and no alpha');
  }
  return {
    type: hevc === undefined ? 'av01' : 'hvc1',
    configuration: Buffer.from(configuration),
    width: extent.readUInt32BE(12),
    height: extent.readUInt32BE(16),
    data: Buffer.from(data.subarray(8)),
  };
}

export function heifOf(
  items: readonly HeifItem[],
  { brands, primary = 1, exif, described: descriptions = [] }: HeifOptions = {},
): Buffer {
  const isAvif = items[0]?.coded.type === 'av01';
  const [major = '', ...others] = brands ?? (isAvif ? ['avif', 'mif1', 'avif'] : ['heic', 'mif1', 'heic']);
  const fileType = box('ftyp', latin1(major), u32(0), ...[major, ...others].map(latin1));
  const all: readonly Stored[] = [
    ...items.map(({ coded, alpha }, index) => ({
      type: coded.type,
      data: coded.data,
      refers: alpha === true ? ({ kind: 'auxl', to: index } as const) : undefined,
    })),
    ...(exif === undefined
      ? []
      : [{ type: 'Exif', data: exifOf(exif), refers: { kind: 'cdsc', to: primary } } as const]),
    ...descriptions.map((each) => ({ ...each, refers: { kind: 'cdsc', to: primary } as const })),
  ];
  const meta = (dataAt: number): Buffer => metaOf(items, all, primary, dataAt);
  const dataAt = fileType.length + meta(0).length + 8;
  return Buffer.concat([fileType, meta(dataAt), box('mdat', ...all.map(({ data }) => data))]);
}

interface Stored {
  readonly type: string;
  readonly data: Buffer;
  readonly refers: { readonly kind: 'auxl' | 'cdsc'; readonly to: number } | undefined;
}

function metaOf(items: readonly HeifItem[], all: readonly Stored[], primary: number, dataAt: number): Buffer {
  const properties: Buffer[] = [];
  const associations = items.map(({ coded, transformations = [], alpha = false }, index) => {
    const auxiliary = box('auxC', u32(0), latin1('urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0'));
    const extent = box('ispe', u32(0), u32(coded.width), u32(coded.height));
    const own = [coded.configuration, extent, ...(alpha ? [auxiliary] : []), ...transformations];
    properties.push(...own);
    const first = properties.length - own.length + 1;
    return Buffer.concat([u16(index + 1), bytes(own.length), ...own.map((_, at) => bytes((first + at) | 0x80))]);
  });
  let offset = dataAt;
  const places = all.map(({ data }, index) => {
    offset += data.length;
    return Buffer.concat([u16(index + 1), u16(0), u16(1), u32(offset - data.length), u32(data.length)]);
  });
  const references = all.flatMap(({ refers }, index) =>
    refers === undefined ? [] : [box(refers.kind, u16(index + 1), u16(1), u16(refers.to))],
  );
  const infos = all.map(({ type }, index) =>
    box('infe', u32(0x02000000), u16(index + 1), u16(0), latin1(type), latin1(type === 'mime' ? '\0text/xml\0' : '\0')),
  );
  return box(
    'meta',
    u32(0),
    box('hdlr', u32(0), u32(0), latin1('pict'), Buffer.alloc(13)),
    box('pitm', u32(0), u16(primary)),
    box('iloc', u32(0), bytes(0x44, 0), u16(all.length), ...places),
    box('iinf', u32(0), u16(all.length), ...infos),
    box('iprp', box('ipco', ...properties), box('ipma', u32(0), u32(items.length), ...associations)),
    ...(references.length === 0 ? [] : [box('iref', u32(0), ...references)]),
  );
}

/** An Exif item: the offset of the TIFF structure, and one entry. */
function exifOf(orientation: number): Buffer {
  const tiff = Buffer.concat([
    latin1('MM\0*'),
    u32(8),
    u16(1),
    u16(0x0112),
    u16(3),
    u32(1),
    u16(orientation),
    u16(0),
    u32(0),
  ]);
  if (readOrientation(tiff) !== orientation) throw new Error('it is read back');
  return Buffer.concat([u32(0), tiff]);
}
