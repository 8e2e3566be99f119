/**
 * The gain map of an Ultra HDR JPEG: a second picture behind the main one, which
 * says by how much each pixel is brighter on a screen that can show it. XMP, or
 * ISO 21496-1, describes it, and an MPF segment (CIPA DC-007) says where it is.
 *
 * XMP can hold anything, so both pictures get new XMP with nothing but the numbers
 * that describe the map. The MPF segment is written anew for the new offsets.
 */
import { startsWith } from './exif.js';
import { type Piece, segment } from './jpeg-pieces.js';

const [APP1, APP2] = [0xe1, 0xe2] as const;
const XMP_MARK = Buffer.from('http://ns.adobe.com/xap/1.0/\0', 'latin1');
const ISO_MARK = Buffer.from('urn:iso:std:iso:ts:21496:-1\0', 'latin1');
/** Larger than any gain map metadata of ISO 21496-1. */
const ISO_MAX_BYTES = 256;
const NAMES = 'BaseRenditionIsHDR GainMapMin GainMapMax Gamma OffsetSDR OffsetHDR HDRCapacityMin HDRCapacityMax'.split(
  ' ',
);
const VALUE = /^(?:True|False|[-+.\deE]{1,32})$/;

export interface GainMap {
  /** By property, one value or one for each channel. Undefined if XMP does not describe the map. */
  readonly properties: readonly (readonly [name: string, values: readonly string[]])[] | undefined;
}

/** Whether a segment holds the metadata of ISO 21496-1, which are numbers. */
export function isGainMapData(content: Buffer): boolean {
  return content.length <= ISO_MAX_BYTES && startsWith(content, ISO_MARK);
}

/** Undefined if the picture is no gain map. */
export function readGainMap(pieces: readonly Piece[]): GainMap | undefined {
  const packet = pieces.find(({ code, content }) => code === APP1 && startsWith(content, XMP_MARK));
  const xmp = packet?.content.toString('utf8', XMP_MARK.length) ?? '';
  if (xmp.includes('hdrgm:GainMapMax')) {
    return { properties: NAMES.map((name) => [name, valuesOf(xmp, name)] as const) };
  }
  const described = pieces.some(({ code, content }) => code === APP2 && isGainMapData(content));
  return described ? { properties: undefined } : undefined;
}

/** The values of a property, which is an attribute, an element or a list of elements. */
function valuesOf(xmp: string, name: string): readonly string[] {
  const attribute = new RegExp(`\\bhdrgm:${name}\\s*=\\s*["']([^"'<]*)["']`).exec(xmp)?.[1];
  const element = new RegExp(`<hdrgm:${name}>([^]*?)</hdrgm:${name}>`).exec(xmp)?.[1] ?? '';
  const items = [...element.matchAll(/<rdf:li>([^<]*)<\/rdf:li>/g)].map(([, item = '']) => item);
  return [...(attribute === undefined ? [] : [attribute]), ...(items.length > 0 ? items : [element])]
    .map((value) => value.trim())
    .filter((value) => VALUE.test(value));
}

/** The segments to add to the gain map. */
export function segmentsOfMap({ properties }: GainMap): readonly Buffer[] {
  if (properties === undefined) return [];
  const single = properties.filter(([, values]) => values.length === 1);
  const lists = properties.filter(([, values]) => values.length > 1);
  const attributes = single.map(([name, [value = '']]) => ` hdrgm:${name}="${value}"`).join('');
  const elements = lists.map(([name, values]) => {
    const items = values.map((value) => `<rdf:li>${value}</rdf:li>`).join('');
    return `<hdrgm:${name}><rdf:Seq>${items}</rdf:Seq></hdrgm:${name}>`;
  });
  return [xmpSegment(attributes, elements.join(''))];
}

/**
 * The segments to add to the main picture: XMP that announces the map, if XMP
 * describes it, and MPF. They are put between the given numbers of bytes.
 */
export function segmentsOfMain(
  { properties }: GainMap,
  mapBytes: number,
  main: { readonly before: number; readonly after: number },
): readonly Buffer[] {
  const announced = properties === undefined ? [] : [xmpSegment(CONTAINER_NAMES, containerOf(mapBytes))];
  const mpfAt = main.before + (announced[0]?.length ?? 0);
  const mainBytes = mpfAt + MPF_BYTES + main.after;
  return [...announced, mpfSegment(mpfAt, mainBytes, mapBytes)];
}

function xmpSegment(attributes: string, elements: string): Buffer {
  const xmp =
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">' +
    `<rdf:Description rdf:about="" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"${attributes}>` +
    `${elements}</rdf:Description></rdf:RDF></x:xmpmeta>`;
  return segment(APP1, Buffer.concat([XMP_MARK, Buffer.from(xmp)]));
}

const CONTAINER_NAMES =
  ' xmlns:Container="http://ns.google.com/photos/1.0/container/"' +
  ' xmlns:Item="http://ns.google.com/photos/1.0/container/item/"';

function containerOf(mapBytes: number): string {
  const items = ['Item:Semantic="Primary"', `Item:Semantic="GainMap" Item:Length="${mapBytes}"`].map(
    (item) => `<rdf:li rdf:parseType="Resource"><Container:Item ${item} Item:Mime="image/jpeg"/></rdf:li>`,
  );
  return `<Container:Directory><rdf:Seq>${items.join('')}</rdf:Seq></Container:Directory>`;
}

/** Marker, length, mark, a directory with three entries, and two pictures of 16 bytes each. */
const MPF_BYTES = 4 + 4 + 8 + 2 + 3 * 12 + 4 + 2 * 16;

/** Offsets in MPF are counted from its TIFF header (CIPA DC-007 5.2.3.3.3). */
function mpfSegment(at: number, mainBytes: number, mapBytes: number): Buffer {
  const headerAt = at + 8;
  const tiff = Buffer.alloc(MPF_BYTES - 8);
  tiff.write('4d4d002a000000080003', 'hex');
  // Version, number of pictures, and the list of them, which follows the directory.
  tiff.write('b00000070000000430313030', 10, 'hex');
  tiff.write('b00100040000000100000002', 22, 'hex');
  tiff.write('b00200070000002000000032', 34, 'hex');
  // The main picture is the primary one (5.2.3.3.1); its offset is 0.
  tiff.writeUInt32BE(0x00030000, 50);
  tiff.writeUInt32BE(mainBytes, 54);
  tiff.writeUInt32BE(mapBytes, 70);
  tiff.writeUInt32BE(mainBytes - headerAt, 74);
  return segment(APP2, Buffer.concat([Buffer.from('MPF\0', 'latin1'), tiff]));
}
