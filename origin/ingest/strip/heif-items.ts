/**
 * The items of a HEIF or AVIF file (ISO/IEC 14496-12 8.11, ISO/IEC 23008-12): which
 * bytes belong to pictures, and which to EXIF, XMP and other data.
 */
import { boxesIn, boxOf, freed, type IsoBox } from './iso-boxes.js';
import type { Extent, Overwrite } from './overwrites.js';

export interface HeifItems {
  /** The bytes of pictures, wherever they are in the file. */
  readonly pictures: readonly Extent[];
  /** The bytes of each EXIF item, in order. */
  readonly exif: readonly (readonly Extent[])[];
  /** The bytes of all other items. */
  readonly others: readonly Extent[];
  /** Data of items within the `meta` box. */
  readonly data: readonly Extent[];
  /** Boxes that are freed. */
  readonly overwrites: readonly Overwrite[];
}

const STAYS = new Set('hdlr pitm iloc iinf iprp iref idat grpl dinf ipro free skip'.split(' '));
/** Coded pictures, and those made of others (ISO/IEC 23008-12 6.6, 23000-22, 23001-17). */
const PICTURES = new Set('hvc1 hev1 lhv1 av01 avc1 vvc1 evc1 j2k1 unci grid iovl iden tmap mski'.split(' '));
/** Properties that are descriptions for people, or private ones. */
const TEXTS = new Set(['udes', 'altt', 'uuid']);

/**
 * Undefined if a description is malformed, or of a kind that is not known here.
 * `meta` is the content of the box without its version, which is at `base` in the file.
 */
export function readHeifItems(meta: Buffer, base: number): HeifItems | undefined {
  const boxes = boxesIn(meta, base);
  const types = boxes && readTypes(boxOf(boxes, 'iinf'));
  const idat = boxes && boxOf(boxes, 'idat');
  const places = boxes && readPlaces(boxOf(boxes, 'iloc'), idat);
  const properties = boxes && readProperties(boxOf(boxes, 'iprp'));
  if (boxes === undefined || types === undefined || places === undefined || properties === undefined) return undefined;
  // A picture that is not known here might hold anything.
  if (!PICTURES.has(types.get(primaryOf(boxOf(boxes, 'pitm'))) ?? '')) return undefined;
  const found = { pictures: [] as Extent[], exif: [] as (readonly Extent[])[], others: [] as Extent[] };
  for (const [id, place] of places) {
    const type = types.get(id) ?? '';
    // A JPEG can hold metadata of its own.
    if (type === 'jpeg' || !place.plain) return undefined;
    if (PICTURES.has(type)) found.pictures.push(...place.extents);
    else if (type === 'Exif') found.exif.push(place.extents);
    else found.others.push(...place.extents);
  }
  const free = [
    ...boxes.filter(({ type }) => !STAYS.has(type) || type === 'free' || type === 'skip'),
    ...properties.filter(({ type }) => TEXTS.has(type)),
  ];
  return {
    ...found,
    data: idat === undefined ? [] : [{ from: idat.dataAt, to: idat.end }],
    overwrites: free.flatMap(freed),
  };
}

function primaryOf(box: IsoBox | undefined): number {
  const data = box?.data ?? Buffer.alloc(0);
  if (data.length < 6) return -1;
  return data[0] === 0 || data.length < 8 ? data.readUInt16BE(4) : data.readUInt32BE(4);
}

/** The type of each item (8.11.6). */
function readTypes(box: IsoBox | undefined): ReadonlyMap<number, string> | undefined {
  if (box === undefined || box.data.length < 8) return undefined;
  const headBytes = box.data[0] === 0 ? 6 : 8;
  const entries = boxesIn(box.data.subarray(headBytes), box.dataAt + headBytes);
  if (entries === undefined) return undefined;
  const types = new Map<number, string>();
  for (const { data } of entries) {
    const version = data[0] ?? 0;
    const idBytes = version === 3 ? 4 : 2;
    // Before version 2 an item had no type, and was a file.
    if (version < 2 || data.length < 10 + idBytes) continue;
    types.set(data.readUIntBE(4, idBytes), data.toString('latin1', 6 + idBytes, 10 + idBytes));
  }
  return types;
}

function readProperties(box: IsoBox | undefined): readonly IsoBox[] | undefined {
  const boxes = box && boxesIn(box.data, box.dataAt);
  const container = boxes && boxOf(boxes, 'ipco');
  return container && boxesIn(container.data, container.dataAt);
}

interface Place {
  readonly extents: readonly Extent[];
  /** Whether the extents are in this file, and are all of the item. */
  readonly plain: boolean;
}

/** Where each item is (8.11.3). */
function readPlaces(box: IsoBox | undefined, idat: IsoBox | undefined): ReadonlyMap<number, Place> | undefined {
  if (box === undefined || box.data.length < 8) return undefined;
  const { data } = box;
  const version = data[0] ?? 0;
  const sizes = data.readUInt16BE(4);
  const [offsetBytes, lengthBytes, baseBytes] = [sizes >> 12, (sizes >> 8) & 15, (sizes >> 4) & 15];
  const indexBytes = version === 0 ? 0 : sizes & 15;
  if (version > 2 || [offsetBytes, lengthBytes, baseBytes, indexBytes].some((each) => ![0, 4, 8].includes(each))) {
    return undefined;
  }
  const fields = new Fields(data.subarray(6));
  const places = new Map<number, Place>();
  const count = fields.next(version < 2 ? 2 : 4);
  for (let item = 0; item < count && !fields.cut; item += 1) {
    const id = fields.next(version < 2 ? 2 : 4);
    const method = version === 0 ? 0 : fields.next(2) & 15;
    const reference = fields.next(2);
    const base = fields.next(baseBytes) + (method === 1 ? (idat?.dataAt ?? 0) : 0);
    const extents: Extent[] = [];
    let plain = reference === 0 && method < 2;
    let left = fields.next(2);
    // Extents without a size take no bytes, so that there could be any number.
    if (left > 1 && lengthBytes === 0) return undefined;
    for (; left > 0 && !fields.cut; left -= 1) {
      fields.next(indexBytes);
      const from = base + fields.next(offsetBytes);
      const length = fields.next(lengthBytes);
      plain &&= length > 0;
      extents.push({ from, to: from + length });
    }
    places.set(id, { extents, plain });
  }
  return fields.cut ? undefined : places;
}

/** Numbers of different widths, one after the other. */
class Fields {
  readonly #bytes: Buffer;
  #at = 0;
  /** Whether the bytes ended before a number. */
  cut = false;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  next(width: number): number {
    const at = this.#at;
    this.#at += width;
    this.cut ||= this.#at > this.#bytes.length;
    if (this.cut || width === 0) return 0;
    return width === 8 ? Number(this.#bytes.readBigUInt64BE(at)) : this.#bytes.readUIntBE(at, width);
  }
}
