/** The gain map behind a JPEG: what is kept of its description, and where the main picture says that it is. */
import t from 'tap';
import { isGainMapData, readGainMap, segmentsOfMain, segmentsOfMap } from '../../../../origin/ingest/strip/gain-map.js';
import { keepJpeg } from '../../../../origin/ingest/strip/jpeg.js';
import { readPicture, segment } from '../../../../origin/ingest/strip/jpeg-pieces.js';
import { hex, join, latin1 } from '../../../kit/bytes.js';

const XMP = 'http://ns.adobe.com/xap/1.0/\0';
const ISO = 'urn:iso:std:iso:ts:21496:-1\0';
const xmp = (text: string): Buffer => segment(0xe1, latin1(`${XMP}${text}`));
const jpeg = (...segments: readonly Buffer[]): Buffer =>
  join(hex('ffd8'), ...segments, segment(0xdb, Buffer.alloc(3)), segment(0xda, Buffer.alloc(2)), hex('1122 ffd9'));
const read = (...segments: readonly Buffer[]) => readGainMap(readPicture(jpeg(...segments), 0)?.pieces ?? []);

void t.test('the numbers that describe a map are read as attributes, elements or lists', async (t) => {
  const properties = read(
    xmp(
      `hdrgm:GainMapMax = "1.5" hdrgm:Gamma=' 0.5 ' hdrgm:BaseRenditionIsHDR="False" hdrgm:OffsetSDR="a place"
      hdrgm:Unknown="7"><hdrgm:OffsetHDR> +1e-3 </hdrgm:OffsetHDR><hdrgm:HDRCapacityMin><b>1</b></hdrgm:HDRCapacityMin>
      <hdrgm:GainMapMin><rdf:Seq><rdf:li>1</rdf:li> <rdf:li>SECRET</rdf:li><rdf:li>-2</rdf:li></rdf:Seq></hdrgm:GainMapMin>`,
    ),
  )?.properties;
  t.same(properties, [
    ['BaseRenditionIsHDR', ['False']],
    ['GainMapMin', ['1', '-2']],
    ['GainMapMax', ['1.5']],
    ['Gamma', ['0.5']],
    ['OffsetSDR', []],
    ['OffsetHDR', ['+1e-3']],
    ['HDRCapacityMin', []],
    ['HDRCapacityMax', []],
  ]);
  const digits = (count: number): unknown => {
    const found = read(xmp(`hdrgm:GainMapMax="${'1'.repeat(count)}"`))?.properties;
    return found?.find(([name]) => name === 'GainMapMax')?.[1].length;
  };
  t.equal(digits(32), 1);
  t.equal(digits(33), 0, 'a number that is too long may be anything');
});

void t.test('a picture is a gain map if XMP or ISO 21496-1 says so', async (t) => {
  t.same(read(segment(0xe2, latin1(`${ISO}data`))), { properties: undefined });
  t.equal(read(), undefined);
  t.equal(read(xmp('hdrgm:Version="1.0"')), undefined, 'XMP of a main picture');
  t.equal(read(segment(0xe1, latin1('hdrgm:GainMapMax="1"'))), undefined, 'another segment');
  t.equal(read(segment(0xe2, latin1(`${XMP}hdrgm:GainMapMax="1"`))), undefined);
  t.equal(read(segment(0xe1, latin1(ISO))), undefined);
  t.ok(isGainMapData(join(latin1(ISO), Buffer.alloc(256 - ISO.length))));
  t.notOk(isGainMapData(join(latin1(ISO), Buffer.alloc(257 - ISO.length))), 'longer than any such metadata');
  t.notOk(isGainMapData(latin1('urn:iso:std:iso:ts:21496:-2\0')));
});

void t.test('what is written for a map is read back as the same numbers', async (t) => {
  const map = {
    properties: [
      ['GainMapMin', ['1', '-2', '3']],
      ['GainMapMax', ['1.5']],
      ['Gamma', []],
    ],
  } as const;
  const [written = Buffer.alloc(0), ...more] = segmentsOfMap(map);
  t.same(more, []);
  const found = new Map(read(written)?.properties);
  t.same([found.get('GainMapMin'), found.get('GainMapMax'), found.get('Gamma')], [['1', '-2', '3'], ['1.5'], []]);
  t.notOk(written.includes('Gamma'), 'no empty property');
  t.same(segmentsOfMap({ properties: undefined }), []);
});

void t.test('MPF of the main picture gives the place and the length of both (CIPA DC-007)', async (t) => {
  const [mpf = Buffer.alloc(0), ...more] = segmentsOfMain({ properties: undefined }, 500, {
    before: 100,
    after: 1_000,
  });
  t.same(more, []);
  const mainBytes = 100 + mpf.length + 1_000;
  const place = (value: number): string => value.toString(16).padStart(8, '0');
  const directory = `0003
    b000 0007 00000004 30313030
    b001 0004 00000001 00000002
    b002 0007 00000020 00000032
    00000000`;
  const entries = `00030000 ${place(mainBytes)} 00000000 00000000
    00000000 ${place(500)} ${place(mainBytes - 108)} 00000000`;
  const tiff = hex(`4d4d002a 00000008 ${directory} ${entries}`.replaceAll('\n', ' '));
  t.same(mpf, segment(0xe2, join(latin1('MPF\0'), tiff)));
  const announced = segmentsOfMain({ properties: [] }, 500, { before: 100, after: 1_000 });
  t.equal(announced.length, 2);
  t.ok(announced[0]?.includes('Item:Semantic="GainMap" Item:Length="500"'));
  const before = 100 + (announced[0]?.length ?? 0);
  t.equal(announced[1]?.readUInt32BE(announced[1].length - 32 + 4), before + mpf.length + 1_000);
});

void t.test('the map is found behind other pictures, and stays with what is added', async (t) => {
  const iso = segment(0xe2, latin1(`${ISO}data`));
  const map = jpeg(iso);
  const other = jpeg(segment(0xfe, latin1('SECRET')));
  const kept = (...parts: readonly Buffer[]): Buffer | undefined => {
    const pieces = keepJpeg(join(...parts));
    return pieces && Buffer.concat(pieces);
  };
  const head = segment(0xe0, latin1('JFIF\0'));
  const expected = kept(jpeg(head, iso), map);
  const [mpf = Buffer.alloc(0)] = segmentsOfMain({ properties: undefined }, map.length, {
    before: 2 + head.length + iso.length,
    after: jpeg().length - 2,
  });
  t.same(expected, join(hex('ffd8'), head, iso, mpf, jpeg().subarray(2), map));
  t.same(kept(jpeg(head, iso), latin1('between'), other, map, latin1('SECRET')), expected);
  t.same(kept(jpeg(head, iso), hex('ffd8ffe1ffff'), map), expected, 'behind what only begins like a picture');
  const seven = Array.from({ length: 7 }, () => other);
  t.same(kept(jpeg(head, iso), ...seven, map), expected, 'as the eighth');
  t.same(kept(jpeg(head, iso), ...seven, other, map), jpeg(head), 'and no further on');
  t.same(kept(jpeg(head, iso), other), jpeg(head), 'without a map nothing of one stays');
  t.same(kept(jpeg(head), map, jpeg(iso, head)), kept(jpeg(head), map), 'the first one');
});
