/**
 * HEIF and AVIF (ISO/IEC 23008-12) without decoding: which type the brands
 * name, what size the primary picture has when it is shown, and a copy of the
 * head in which a converter finds that picture alone.
 *
 * Promises: every offset is checked against the given bytes, every loop moves
 * forward, and only `irot`, `imir` and `clap` turn or crop a picture. EXIF
 * orientation says nothing here (annex A). Leaves it to the decoder to find
 * out whether the picture is intact.
 */

export interface HeifPicture {
  /** As it is shown: cropped and turned. */
  readonly width: number;
  readonly height: number;
  /** Whether it has a picture beside it that says how transparent it is. */
  readonly alpha: boolean;
}

type HeifType = 'image/heic' | 'image/heif' | 'image/avif' | 'image/heic-sequence' | 'image/heif-sequence';

/** The brands of still pictures and of their sequences. A brand that names the codec comes before one that does not. */
const BRANDS: ReadonlyMap<string, HeifType> = new Map([
  ...brandsOf('image/avif', 'avif avis MA1A MA1B'),
  ...brandsOf('image/heic', 'heic heix heim heis MiHE'),
  ...brandsOf('image/heic-sequence', 'hevc hevx hevm hevs'),
  ...brandsOf('image/heif', 'mif1 mif2 mif3 miaf MiHB MiPr avci jpeg j2ki vvic evbi evmi 1pic'),
  ...brandsOf('image/heif-sequence', 'msf1 avcs jpgs j2is vvis evbs evms'),
]);

/** The major brand of files without items. */
const MINIMISED = 'mif3';

function brandsOf(type: HeifType, brands: string): readonly (readonly [string, HeifType])[] {
  return brands.split(' ').map((brand) => [brand, type] as const);
}

/**
 * The type that the brands of a file name; undefined if it is not HEIF. A file
 * whose major brand is of another family is a picture if a compatible brand is
 * one of a picture, or if it has the items of a picture, unless a film stands
 * before them.
 */
export function heifTypeOf(head: Buffer): HeifType | undefined {
  const [first] = boxesOf(head);
  // The brands are read and replaced at fixed offsets, so the box must have a size of 32 bits.
  if (first?.type !== 'ftyp' || first.data.length < 4 || head.readUInt32BE(0) === 1) return undefined;
  const [major = '', minor = '', ...others] = fourCharacterCodes(first.data);
  // A minimised file names its codec in the place of a minor version.
  const compatible = major === MINIMISED ? [minor, ...others] : others;
  const named = BRANDS.get(major);
  if (named === 'image/heif' && compatible.some((brand) => BRANDS.get(brand) === 'image/avif')) return 'image/avif';
  if (named !== undefined) return named;
  const opening = [...boxesOf(head)].find(({ type, data }) => type === 'moov' || isPictureBox(type, data));
  if (opening?.type === 'moov') return undefined;
  const types = compatible.map((brand) => BRANDS.get(brand)).filter((type) => type !== undefined);
  const codec = types.find((type) => type !== 'image/heif' && type !== 'image/heif-sequence');
  return codec ?? types[0] ?? (opening === undefined ? undefined : 'image/heif');
}

function fourCharacterCodes(data: Buffer): readonly string[] {
  return Array.from({ length: Math.floor(data.length / 4) }, (_, index) =>
    data.toString('latin1', index * 4, index * 4 + 4),
  );
}

function isPictureBox(type: string, data: Buffer): boolean {
  return type === 'mini' || (type === 'meta' && boxIn(data.subarray(4), 'hdlr')?.toString('latin1', 8, 12) === 'pict');
}

/** Undefined if the bytes do not describe a primary picture, or if more bytes are needed. */
export function readHeif(bytes: Buffer): HeifPicture | undefined {
  const minimised = boxIn(bytes, 'mini');
  if (minimised !== undefined) return readMinimised(minimised);
  const meta = boxIn(bytes, 'meta')?.subarray(4);
  const primary = meta === undefined ? undefined : readPrimaryItem(boxIn(meta, 'pitm'));
  if (meta === undefined || primary === undefined) return undefined;
  const own = propertiesOf(meta, primary);
  const extent = own.find(({ type }) => type === 'ispe')?.data;
  if (extent === undefined || extent.length < 12) return undefined;
  const stored = { width: extent.readUInt32BE(4), height: extent.readUInt32BE(8) };
  const alpha = referencesTo(boxIn(meta, 'iref'), 'auxl', primary).some((item) =>
    propertiesOf(meta, item).some(({ type, data }) => type === 'auxC' && isAlpha(data)),
  );
  return { ...own.reduce(transform, stored), alpha };
}

interface Size {
  readonly width: number;
  readonly height: number;
}

/** Applies a transformative property. They apply in the order in which they are associated (6.5.1). */
function transform(size: Size, { type, data }: Box): Size {
  if (type === 'irot') return ((data[0] ?? 0) & 1) === 0 ? size : { width: size.height, height: size.width };
  return type === 'clap' && data.length >= 32 ? crop(size, data) : size;
}

/** The clean aperture (ISO/IEC 14496-12 12.1.4) in whole pixels. One that makes no sense crops nothing. */
function crop(size: Size, data: Buffer): Size {
  const fraction = (at: number): number => data.readInt32BE(at) / data.readInt32BE(at + 4);
  const width = cropSide(size.width, fraction(0), fraction(16));
  const height = cropSide(size.height, fraction(8), fraction(24));
  return width > 0 && height > 0 ? { width, height } : size;
}

/** The offset is that of the middle of the aperture from the middle of the picture. */
function cropSide(whole: number, kept: number, offset: number): number {
  const first = Math.floor(offset + (whole - kept) / 2);
  const last = Math.round(first + kept - 1);
  return Math.min(last, whole - 1) - Math.max(first, 0) + 1;
}

function isAlpha(auxiliaryType: Buffer): boolean {
  const [urn] = auxiliaryType.toString('latin1', 4).split('\0');
  return (
    urn === 'urn:mpeg:mpegB:cicp:systems:auxiliary:alpha' || /^urn:mpeg:(?:hevc|avc):2015:auxid:1$/.test(urn ?? '')
  );
}

/** Reads the minimised box of a file without items (ISO/IEC 23008-12, third edition), which is packed in bits. */
function readMinimised(data: Buffer): HeifPicture | undefined {
  if (data.length < 7) return undefined;
  const bits = BigInt(`0x${data.toString('hex', 0, 7)}`);
  const read = (at: number, count: number): number =>
    Number((bits >> BigInt(56 - at - count)) & ((1n << BigInt(count)) - 1n));
  const sideBits = read(16, 1) === 1 ? 15 : 7;
  const stored = { width: read(17, sideBits) + 1, height: read(17 + sideBits, sideBits) + 1 };
  const turned = read(13, 3) >= 4;
  const size = turned ? { width: stored.height, height: stored.width } : stored;
  return { ...size, alpha: read(5, 1) === 1 };
}

/**
 * A copy of the head of a file with one picture to convert, the primary one: all
 * other items are marked as hidden, none has the type of EXIF, which a converter
 * would copy and apply a second time, and the major brand is one that every
 * converter knows. No byte changes its place.
 */
export function withPrimaryAlone(head: Buffer): Buffer {
  const copy = Buffer.from(head);
  if (head.length < 12 || boxIn(head, 'mini') !== undefined) return copy;
  if (!['heic', 'heix', 'avif'].includes(majorBrand(head))) copy.write('mif1', 8, 'latin1');
  const meta = boxIn(copy, 'meta')?.subarray(4);
  const items = meta === undefined ? undefined : boxIn(meta, 'iinf');
  const primary = meta === undefined ? undefined : readPrimaryItem(boxIn(meta, 'pitm'));
  if (items === undefined || items.length < 6 || primary === undefined) return copy;
  for (const { type, data } of boxesOf(items.subarray(items[0] === 0 ? 6 : 8))) {
    const version = data[0] ?? 0;
    const idBytes = version === 2 ? 2 : 4;
    if (type !== 'infe' || version < 2 || data.length < 10 + idBytes) continue;
    const isPrimary = data.readUIntBE(4, idBytes) === primary;
    data[3] = isPrimary ? (data[3] ?? 0) & 0xfe : (data[3] ?? 0) | 1;
    const typeAt = 6 + idBytes;
    if (data.toString('latin1', typeAt, typeAt + 4) === 'Exif') data.write('skip', typeAt, 'latin1');
  }
  return copy;
}

/**
 * An AVIF file under the brand of a still alone, so that a decoder of stills
 * reads the primary picture of a sequence too, with its alpha.
 */
export function asAvifStill(file: Buffer): Buffer {
  const [first] = boxesOf(file);
  if (first === undefined || heifTypeOf(file) !== 'image/avif') return file;
  const [major = '', , ...compatible] = fourCharacterCodes(first.data);
  const isStill = major === 'avif' && !compatible.some(isSequence);
  if (isStill || boxIn(file, 'mini') !== undefined) return file;
  const copy = Buffer.from(file);
  const data = copy.subarray(8, 8 + first.data.length);
  data.write('avif', 0, 'latin1');
  for (const [index, brand] of compatible.entries()) {
    if (isSequence(brand)) data.write('avif', 8 + index * 4, 'latin1');
  }
  return copy;
}

function isSequence(brand: string): boolean {
  return brand === 'avis' || brand === 'msf1';
}

function majorBrand(file: Buffer): string {
  return file.toString('latin1', 8, 12);
}

interface Box {
  readonly type: string;
  readonly data: Buffer;
}

/** The boxes in the given bytes (ISO/IEC 14496-12 4.2). The last one may be cut short. */
function* boxesOf(bytes: Buffer): Generator<Box> {
  let at = 0;
  while (at + 8 <= bytes.length) {
    const short = bytes.readUInt32BE(at);
    const long = short === 1 && at + 16 <= bytes.length;
    const size = long ? Number(bytes.readBigUInt64BE(at + 8)) : short === 0 ? bytes.length - at : short;
    const headBytes = long ? 16 : 8;
    if (size < headBytes) return;
    yield { type: bytes.toString('latin1', at + 4, at + 8), data: bytes.subarray(at + headBytes, at + size) };
    at += size;
  }
}

function boxIn(bytes: Buffer, type: string): Buffer | undefined {
  for (const box of boxesOf(bytes)) if (box.type === type) return box.data;
  return undefined;
}

function readPrimaryItem(box: Buffer | undefined): number | undefined {
  if (box === undefined || box.length < 8) return box?.length === 6 ? box.readUInt16BE(4) : undefined;
  return box[0] === 0 ? box.readUInt16BE(4) : box.readUInt32BE(4);
}

/** The properties of an item, in the order of their association. */
function propertiesOf(meta: Buffer, item: number): readonly Box[] {
  const properties = boxIn(meta, 'iprp');
  if (properties === undefined) return [];
  const all = [...boxesOf(boxIn(properties, 'ipco') ?? Buffer.alloc(0))];
  for (const { type, data } of boxesOf(properties)) {
    const indexes = type === 'ipma' ? readAssociations(data, item) : [];
    if (indexes.length > 0) return indexes.map((index) => all[index - 1]).filter((box) => box !== undefined);
  }
  return [];
}

/** The indexes of an item's properties, counted from 1. */
function readAssociations(box: Buffer, item: number): readonly number[] {
  if (box.length < 8) return [];
  const idBytes = box[0] === 0 ? 2 : 4;
  const indexBytes = ((box[3] ?? 0) & 1) === 1 ? 2 : 1;
  let at = 8;
  while (at + idBytes + 1 <= box.length) {
    const id = box.readUIntBE(at, idBytes);
    const count = box[at + idBytes] ?? 0;
    const first = at + idBytes + 1;
    at = first + count * indexBytes;
    if (id !== item) continue;
    if (at > box.length) return [];
    return Array.from({ length: count }, (_, index) => {
      const value = box.readUIntBE(first + index * indexBytes, indexBytes);
      return value & (indexBytes === 2 ? 0x7fff : 0x7f);
    });
  }
  return [];
}

/** The items that refer to the given one (8.11.12). */
function referencesTo(box: Buffer | undefined, kind: string, item: number): readonly number[] {
  if (box === undefined || box.length < 4) return [];
  const idBytes = box[0] === 0 ? 2 : 4;
  const found: number[] = [];
  for (const { type, data } of boxesOf(box.subarray(4))) {
    if (type !== kind || data.length < idBytes + 2) continue;
    const countMax = Math.min(data.readUInt16BE(idBytes), Math.floor((data.length - idBytes - 2) / idBytes));
    const targets = Array.from({ length: countMax }, (_, index) =>
      data.readUIntBE(idBytes + 2 + index * idBytes, idBytes),
    );
    if (targets.includes(item)) found.push(data.readUIntBE(0, idBytes));
  }
  return found;
}
